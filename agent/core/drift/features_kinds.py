"""Kinds of input: what a tensor is, and which part of it is looked at.

A profile states the kind; without one it is inferred:

=============  ==============================================================
kind           inferred where
=============  ==============================================================
spectrogram    a ``log_mel`` or ``mfcc`` step makes it; or a table of more than
               32 values: rows are times, as in a window of sensor readings
image          a ``resize``, ``crop`` or ``colour`` step makes it; three or four
               channels, last or first; a square, or bytes, of one channel;
               of a classification also a small table about as high as wide, unless a
               ``window`` step makes it
vector         at most 32 values
other          the rest: audio as samples, tokens, more than three axes
=============  ==============================================================

The rules this module keeps: axes of length 1 do not count (the batch, the one channel);
a large input is looked at in evenly spread pieces, so that the cost is bounded.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from agent.core.manifest import Manifest, Task, TensorSpec, Variant
from agent.core.profile import MAX_CHANNELS, Kind
from agent.core.steps import Colour, Crop, LogMel, Mfcc, Resize, Step, Window

COLOURS = (3, 4)  # channels that only pictures have
MIN_SIDE = 16  # of a picture: smaller squares are tables
# ...unless they are classified: a handwritten digit of 8 x 8, no readings of 8 sensors.
MIN_CLASSIFIED, MAX_STRETCH = 8, 2
# Of a large input about so many values are looked at, as 24 of the 96 rows of a small
# picture: a mean moves by a hundredth of a spread, and it costs a quarter.
LOOKED_AT = 8192
MAX_RUN = 1024  # values side by side: longer ones leave too few places of LOOKED_AT
MIN_RUN = 96


@dataclass(frozen=True, slots=True)
class Runs:
    """A tensor as runs of neighbouring values, of which every ``step``-th is seen.

    Attributes:
        used: Values that runs are cut from; a few at the end may be left over.
        length: Values of a run; ``count`` how many runs are seen.
        apart: Distance of a value's neighbour: the channels of a picture.
    """

    used: int
    length: int
    step: int
    count: int
    apart: int


@dataclass(frozen=True, slots=True)
class Table:
    """A tensor as rows of times; every ``step``-th is seen, ``count`` in all."""

    columns: int
    step: int
    count: int


def watched_input(manifest: Manifest, variant: Variant) -> TensorSpec:
    """Return the input that is watched: the first that is not state.

    A model all of whose inputs are state does not load; its first is as good as any.
    """
    fed_back = {link.input for link in manifest.state}
    free = [spec for spec in variant.inputs if spec.name not in fed_back]
    return (free or list(variant.inputs))[0]


def watched_steps(manifest: Manifest, spec: TensorSpec) -> tuple[Step, ...]:
    """Return the preprocess steps that make the watched input."""
    return tuple(s for s in manifest.preprocess if s.input in {"", spec.name})


def squeeze(shape: Sequence[int]) -> tuple[int, ...]:
    """Return a shape without its axes of length 1.

    >>> squeeze((1, 49, 10, 1))
    (49, 10)
    """
    return tuple(length for length in shape if length != 1)


def infer_kind(spec: TensorSpec, steps: Sequence[Step], task: Task = "raw") -> Kind:
    """Return how an input is looked at where no profile states it."""
    axes = squeeze(spec.shape)
    if find_table(spec, steps) and any(isinstance(s, LogMel | Mfcc) for s in steps):
        return "spectrogram"
    if len(axes) in {2, 3} and any(
        isinstance(s, Resize | Crop | Colour) for s in steps
    ):
        return "image"
    if len(axes) == 3 and (axes[-1] in COLOURS or axes[0] in COLOURS):
        return "image"
    if math.prod(axes) <= MAX_CHANNELS:
        return "vector"
    if len(axes) == 2:
        pictured = _is_picture(axes, spec.dtype) or (
            task == "classification" and _is_small_picture(axes, steps)
        )
        return "image" if pictured else "spectrogram"
    return "other"


def _is_picture(axes: tuple[int, ...], dtype: str) -> bool:
    """Whether a table is a square, or bytes, and not small."""
    return min(axes) >= MIN_SIDE and (axes[0] == axes[1] or dtype == "uint8")


def _is_small_picture(axes: tuple[int, ...], steps: Sequence[Step]) -> bool:
    """Whether a table is about as high as wide, and no window of readings."""
    return (
        min(axes) >= MIN_CLASSIFIED
        and max(axes) <= MAX_STRETCH * min(axes)
        and not any(isinstance(step, LogMel | Mfcc | Window) for step in steps)
    )


def find_table(spec: TensorSpec, steps: Sequence[Step]) -> Table | None:
    """Return the rows of a spectrogram, or None where there are not two of them.

    One that was flattened has the columns that its last audio step says.
    """
    axes = squeeze(spec.shape)
    size = math.prod(axes)
    columns = axes[-1] if len(axes) == 2 else 0
    if len(axes) == 1:
        for step in steps:
            if isinstance(step, LogMel | Mfcc):
                columns = step.mels if isinstance(step, LogMel) else step.count
    if not columns or size % columns or size // columns < 2:
        return None
    rows = size // columns
    # At least two rows, however wide: their difference is the roughness.
    step_rows = max(1, min(rows // 2, -(-size // LOOKED_AT)))
    return Table(columns, step_rows, -(-rows // step_rows))


def find_runs(spec: TensorSpec, kind: Kind) -> Runs | None:
    """Return the runs of a picture or of anything else; None if it is no picture."""
    axes = squeeze(spec.shape)
    size = math.prod(axes)
    if kind != "image":
        row = min(size, MAX_RUN)
        return _spread(size // row * row, row, 1) if size > 1 else None
    if len(axes) == 2:
        return _spread(size, axes[1], 1)
    if len(axes) != 3:
        return None
    if axes[0] in COLOURS and axes[-1] not in COLOURS:
        return _spread(size, axes[2], 1)  # channels first, as PyTorch has them
    return _spread(size, axes[1] * axes[2], axes[2])


def _spread(size: int, row: int, apart: int) -> Runs | None:
    """Cut rows into runs and spread those that are seen over the whole."""
    length = _run_length(row, apart)
    if length <= apart:
        return None
    runs = size // length
    step = min(_find_step(size, row // length), runs)
    return Runs(size, length, step, -(-runs // step), apart)


def _find_step(size: int, columns: int) -> int:
    """Return one in how many runs is seen: half of ``LOOKED_AT`` values to twice them.

    A step that shares a factor with the runs of a row would see some columns only. The
    nearest that does not was tried for all pictures up to 700 x 700: none sees less.
    """
    wanted = max(1, -(-size // LOOKED_AT))
    steps = [
        step
        for step in range(-(-size // (2 * LOOKED_AT)), 2 * wanted + columns + 1)
        if math.gcd(step, columns) == 1
    ]
    return min(steps, key=lambda step: abs(step - wanted))


def _run_length(row: int, apart: int) -> int:
    """Return the longest part of a row, of whole pixels, within ``MAX_RUN``."""
    if row <= MAX_RUN:
        return row
    pixels = row // apart
    parts = range(-(-row // MAX_RUN), row // MIN_RUN + 1)
    return next((row // part for part in parts if pixels % part == 0), row)
