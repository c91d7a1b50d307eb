"""Predicted classes against those of the reference: Pearson's chi-squared, by window.

The expected counts come from a finite reference, which adds its own spread: each term
is divided by ``1 + window / reference`` beside its expected count.
"""

import math
from collections.abc import Sequence
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from agent.core.drift.opened import Floats

WINDOW_SAMPLES = 250
# P(false alarm) of one window: once in ten million samples, a hundredth of what all
# detectors together may, for answers in a row are seldom as independent as features.
LEVEL = 2.5e-5
EXPECTED_LEAST = 5.0  # below it the distribution is not chi-squared: such are pooled
SMOOTHING = 0.5


def chi2_quantile(freedom: int, level: float) -> float:
    """Return what a chi-squared variable exceeds with this probability.

    Exact for 1 and 2 degrees of freedom; for more by Wilson and Hilferty (1931), which
    is up to 5 % too high at 1e-5, never too low.
    """
    if freedom == 1:
        return NormalDist().inv_cdf(1 - level / 2) ** 2
    if freedom == 2:
        return -2 * math.log(level)
    part = 2 / (9 * freedom)
    root = 1 - part + NormalDist().inv_cdf(1 - level) * math.sqrt(part)
    return float(freedom * root**3)


class Classes:
    """Counts answers; each full window gives a statistic over its threshold.

    Attributes:
        ratio: Of the last complete window, 0 before it and with one class only.
    """

    def __init__(self, reference: Sequence[int], factor: float = 1.0) -> None:
        counts = np.asarray(reference, np.float64)
        # A list: an array takes five times as long to count one answer.
        self._window = [0] * len(counts)
        self._expected, self._spread, self._groups = _expected(counts)
        freedom = len(self._expected) - 1
        self._threshold = factor * chi2_quantile(freedom, LEVEL) if freedom > 0 else 0.0
        self._samples = 0
        self.ratio = 0.0

    def update(self, index: int) -> bool:
        """Take in an answer; return whether that closed a window."""
        if not 0 <= index < len(self._window):
            return False
        self._window[index] += 1
        self._samples += 1
        if self._samples < WINDOW_SAMPLES:
            return False
        self.ratio = self.statistic() / self._threshold if self._threshold else 0.0
        self._begin()
        return True

    def statistic(self) -> float:
        """Chi-squared of the window as it is now."""
        seen = np.bincount(
            self._groups, weights=self._window, minlength=len(self._expected)
        )
        wanted = self._expected * self._samples
        return float(
            np.sum((seen - wanted) ** 2 / np.maximum(wanted * self._spread, 1e-9))
        )

    def restart(self) -> None:
        """Begin again: what the last window said is of another stream."""
        self.ratio = 0.0
        self._begin()

    def _begin(self) -> None:
        """Begin the window again."""
        self._window = [0] * len(self._window)
        self._samples = 0


def _expected(counts: Floats) -> tuple[Floats, float, NDArray[np.intp]]:
    """Share of each group of classes, what widens it, and which class is in which.

    Classes too rare for a window of their own share one group, the last.
    """
    total = float(counts.sum())
    if total <= 0 or len(counts) < 2:
        return np.ones(min(len(counts), 1)), 1.0, np.zeros(len(counts), np.intp)
    share = (counts + SMOOTHING) / (total + SMOOTHING * len(counts))
    rare = share * WINDOW_SAMPLES < EXPECTED_LEAST
    groups = np.where(rare, (~rare).sum(), np.cumsum(~rare) - 1)
    shares = np.bincount(groups, weights=share).astype(np.float64)
    return shares, 1 + WINDOW_SAMPLES / total, groups.astype(np.intp)
