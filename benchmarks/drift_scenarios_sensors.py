"""Synthetic sensor vectors: 32 correlated channels, four modes, heavy tails.

A factor model, as accelerations and currents of one machine are: six hidden causes,
each channel a mixture of them and noise of its own. In time it is an AR(1) process
that stays in a mode for a while.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Rows: TypeAlias = NDArray[np.float32]
CHANNELS, FACTORS, MODES = 32, 6, 4
MEMORY = 0.95  # lag-1 autocorrelation of causes and noise, at full rate
DWELL = 20  # samples of a mode, on average: its memory is .95, too
SLOW_DWELL = 200  # of a machine whose modes change ten times as slowly
TAIL = 5  # degrees of freedom of the noise
APART = 1.1  # of two modes, in spreads of a cause


@dataclass(frozen=True, slots=True)
class Readings:
    """Sensor vectors (n, 32), and the mode (n) that each is of."""

    rows: Rows
    modes: NDArray[np.intp]


class SensorWorld:
    """A machine and a linear classifier of its modes that answers in int8."""

    def __init__(self) -> None:
        random = np.random.default_rng(8)
        self.mixture = random.normal(0, 0.6, (FACTORS, CHANNELS))
        self.levels = random.normal(0, APART, (MODES, FACTORS))
        seen = self.draw(20_000, random)
        self._weights, self._bias = _discriminant(seen)

    def draw(
        self, count: int, random: np.random.Generator, prior: float = 0.25
    ) -> Readings:
        """Return independent readings; ``prior`` is the share of mode 0."""
        rest = (1 - prior) / (MODES - 1)
        modes = random.choice(MODES, count, p=[prior] + [rest] * (MODES - 1))
        causes = random.normal(size=(count, FACTORS))
        own = random.standard_t(TAIL, (count, CHANNELS)) * 0.6
        return self._mixed(modes, causes, own)

    def record(
        self, count: int, random: np.random.Generator, dwell: int = DWELL
    ) -> Readings:
        """Return consecutive readings."""
        changes = random.random(count) < 1 / dwell
        changes[0] = True
        held = np.maximum.accumulate(np.where(changes, np.arange(count), 0))
        modes = random.integers(0, MODES, count)[held]
        causes = _remembered(random.normal(size=(count, FACTORS)), MEMORY)
        own = _remembered(random.standard_t(TAIL, (count, CHANNELS)), MEMORY) * 0.6
        return self._mixed(modes, causes, own)

    def answer(self, rows: Rows) -> NDArray[np.int8]:
        """Return (n, 4) softmax in int8, scale 1/256 and zero point -128."""
        logits = rows @ self._weights + self._bias
        shares = np.exp(logits - logits.max(axis=1, keepdims=True))
        shares /= shares.sum(axis=1, keepdims=True)
        stored: NDArray[np.int8] = np.clip(np.rint(shares * 256) - 128, -128, 127)
        return stored.astype(np.int8)

    def _mixed(
        self,
        modes: NDArray[np.intp],
        causes: NDArray[np.float64],
        own: NDArray[np.float64],
    ) -> Readings:
        """Add what all channels share to what each has alone."""
        shared = (self.levels[modes] + causes) @ self.mixture
        return Readings((shared + own).astype(np.float32), modes)


@cache
def sensor_world() -> SensorWorld:
    """Return the one machine of this process."""
    return SensorWorld()


def _remembered(fresh: NDArray[np.float64], memory: float) -> NDArray[np.float64]:
    """Turn independent rows into an AR(1) process of the same spread."""
    from scipy.signal import lfilter

    scale = np.sqrt(1 - memory**2)
    start = memory * fresh[:1]
    passed, _ = lfilter([scale], [1, -memory], fresh, axis=0, zi=start)
    kept: NDArray[np.float64] = passed
    return kept


def _discriminant(seen: Readings) -> tuple[Rows, Rows]:
    """Return Fisher's linear discriminant of the modes."""
    rows = seen.rows.astype(np.float64)
    means = np.array([rows[seen.modes == mode].mean(axis=0) for mode in range(MODES)])
    inside = np.cov(rows - means[seen.modes], rowvar=False)
    weights = np.linalg.solve(inside, means.T)
    bias = -0.5 * np.einsum("mc,cm->m", means, weights)
    return weights.astype(np.float32), bias.astype(np.float32)


Change = Callable[[Rows, np.random.Generator], Rows]


def _channel(change: Callable[[Rows], Rows]) -> Change:
    """Change channel 5 alone."""

    def apply(rows: Rows, _random: np.random.Generator) -> Rows:
        changed = rows.copy()
        changed[:, 5] = change(changed[:, 5])
        return changed

    return apply


def _shuffled(rows: Rows, random: np.random.Generator) -> Rows:
    """Give channel 5 values of other moments: alone it looks as ever."""
    changed = rows.copy()
    changed[:, 5] = random.permutation(changed[:, 5])
    return changed


def _swapped(rows: Rows, _random: np.random.Generator) -> Rows:
    """Plug two wires into each other's sockets."""
    changed = rows.copy()
    changed[:, [5, 9]] = changed[:, [9, 5]]
    return changed


def _noisy(rows: Rows, random: np.random.Generator) -> Rows:
    """Double the spread of channel 5 by noise."""
    changed = rows.copy()
    spread = changed[:, 5].std() * np.sqrt(3)
    changed[:, 5] += (random.normal(size=len(rows)) * spread).astype(np.float32)
    return changed


CHANGES: dict[str, Change] = {
    "offset.5": _channel(lambda x: x + np.float32(0.5) * x.std()),
    "offset2": _channel(lambda x: x + np.float32(2) * x.std()),
    "gain1.3": _channel(lambda x: x * np.float32(1.3)),
    "gain2": _channel(lambda x: x * np.float32(2)),
    "noise2": _noisy,
    "stuck": _channel(lambda x: np.full_like(x, x[0])),
    "dropout": _channel(np.zeros_like),
    "correlation": _shuffled,
    "swap": _swapped,
}
