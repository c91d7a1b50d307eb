"""Inputs changed on purpose: what a report can say about the delay of an alarm.

Changes are made to the model's input tensor, behind preprocess, in parts of the spread
that the held-out data themselves have; so they mean the same for every dtype.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agent.core.profile import Kind

Floats = NDArray[np.float32]
Change = Callable[[Floats, "Spread", np.random.Generator], Floats]


@dataclass(frozen=True, slots=True)
class Spread:
    """How widely the values of an input lie: ``low`` to ``high``, deviation ``sd``."""

    low: float
    high: float
    sd: float


@dataclass(frozen=True, slots=True)
class Shift:
    """One way in which input may change.

    Attributes:
        name: A word; ``meaning`` the same for people.
        change: Makes it to a stack of inputs (m, 1, ...), which it leaves as it was.
    """

    name: str
    meaning: str
    change: Change


def shift_inputs(
    stack: NDArray[Any], kind: Kind, seed: int
) -> list[tuple[Shift, NDArray[Any]]]:
    """Return the stack under every shift of its kind, in its own dtype.

    Args:
        stack: Inputs (m, 1, ...), as stored.
        kind: How the input is looked at.
        seed: Of the noise.
    """
    real = stack.astype(np.float32)
    spread = Spread(float(real.min()), float(real.max()), float(real.std()))
    random = np.random.default_rng(seed)
    return [
        (shift, _stored(shift.change(real, spread, random), stack.dtype, spread, kind))
        for shift in SHIFTS[kind]
        if real.ndim >= MIN_AXES.get(shift.name, 0)
    ]


def _stored(
    changed: Floats, dtype: np.dtype[Any], spread: Spread, kind: Kind
) -> NDArray[Any]:
    """Return changed values as a camera or a quantised model could hold them."""
    if kind == "image":  # a sensor saturates: nothing is brighter than white
        changed = changed.clip(spread.low, spread.high)
    if dtype.kind == "f":
        return changed.astype(dtype)
    if dtype.kind == "b":
        return changed >= 0.5
    limits = np.iinfo(dtype)
    return np.rint(changed).clip(limits.min, limits.max).astype(dtype)


def _brighter(real: Floats, spread: Spread, _: np.random.Generator) -> Floats:
    """Add a tenth of the range to everything."""
    return real + np.float32(0.1 * (spread.high - spread.low))


def _darker(real: Floats, spread: Spread, _: np.random.Generator) -> Floats:
    """Take three tenths of the light away."""
    return spread.low + (real - spread.low) * np.float32(0.7)


def _grain(real: Floats, spread: Spread, random: np.random.Generator) -> Floats:
    """Add noise of a tenth of the range."""
    noise = random.standard_normal(real.shape, np.float32)
    return real + noise * np.float32(0.1 * (spread.high - spread.low))


def _blur(real: Floats, _: Spread, __: np.random.Generator) -> Floats:
    """Average each pixel with its eight neighbours: a lens out of focus."""
    blurred = real
    for axis in (2, 3):
        widths = [(0, 0)] * real.ndim
        widths[axis] = (1, 1)
        padded = np.pad(blurred, widths, mode="edge")
        size = real.shape[axis]
        parts = [padded.take(range(at, at + size), axis) for at in range(3)]
        blurred = (parts[0] + parts[1] + parts[2]) / np.float32(3)
    return blurred


def _cover(real: Floats, _: Spread, __: np.random.Generator) -> Floats:
    """Cover the upper left quarter with one gray: dirt, or a hand."""
    covered = real.copy()
    height, width = real.shape[2] // 2, real.shape[3] // 2
    covered[:, :, :height, :width] = real.mean(dtype=np.float64)
    return covered


def _offset(real: Floats, spread: Spread, _: np.random.Generator) -> Floats:
    """Add half a standard deviation to everything."""
    return real + np.float32(0.5 * spread.sd)


def _gain(real: Floats, _: Spread, __: np.random.Generator) -> Floats:
    """Multiply deviations from the mean by 1.5."""
    mean = np.float32(real.mean(dtype=np.float64))
    return mean + (real - mean) * np.float32(1.5)


def _noise(real: Floats, spread: Spread, random: np.random.Generator) -> Floats:
    """Add noise of half a standard deviation."""
    noise = random.standard_normal(real.shape, np.float32)
    return real + noise * np.float32(0.5 * spread.sd)


def _dead_band(real: Floats, _: Spread, __: np.random.Generator) -> Floats:
    """Hold the first eighth of the last axis at its mean: a filter that failed."""
    count = max(1, real.shape[-1] // 8)
    return _held(real, slice(0, count))


def _dead_channel(real: Floats, _: Spread, __: np.random.Generator) -> Floats:
    """Hold the first value at its mean: a wire that broke."""
    return _held(real, slice(0, 1))


def _held(real: Floats, where: slice) -> Floats:
    """Return a copy with a part of the last axis held at its mean."""
    held = real.copy()
    held[..., where] = real[..., where].mean(dtype=np.float64)
    return held


def _swap(real: Floats, _: Spread, __: np.random.Generator) -> Floats:
    """Exchange the first two values: two wires."""
    swapped = real.copy()
    swapped[..., 0], swapped[..., 1] = real[..., 1], real[..., 0]
    return swapped


def _one_offset(real: Floats, _: Spread, __: np.random.Generator) -> Floats:
    """Add one of its standard deviations to the first value."""
    moved = real.copy()
    moved[..., 0] += real[..., 0].std(dtype=np.float64)
    return moved


OFFSET = Shift("offset", "all values + 0.5 sd", _offset)
GAIN = Shift("gain", "deviations x 1.5", _gain)
NOISE = Shift("noise", "noise of 0.5 sd", _noise)
SHIFTS: dict[Kind, tuple[Shift, ...]] = {
    "image": (
        Shift("brighter", "brighter by 10 % of the range", _brighter),
        Shift("darker", "darker: 70 % of the light", _darker),
        Shift("grain", "noise of 10 % of the range", _grain),
        Shift("blur", "blurred: 3 x 3 mean", _blur),
        Shift("cover", "a quarter covered", _cover),
    ),
    "spectrogram": (
        OFFSET,
        GAIN,
        NOISE,
        Shift("dead_band", "one eighth of the bands dead", _dead_band),
    ),
    "vector": (
        OFFSET,
        GAIN,
        NOISE,
        Shift("one_offset", "one channel + 1 sd", _one_offset),
        Shift("dead_channel", "one channel dead", _dead_channel),
        Shift("swap", "two channels swapped", _swap),
    ),
    "other": (OFFSET, GAIN, NOISE),
}
# Axes of a stack (m, 1, ...) below which a shift means nothing.
MIN_AXES = {"blur": 4, "cover": 4, "swap": 3, "one_offset": 3, "dead_channel": 3}


def stack_first(kept: Sequence[Sequence[NDArray[Any]]]) -> NDArray[Any]:
    """Return the first input of each sample as one stack."""
    return np.stack([inputs[0] for inputs in kept])
