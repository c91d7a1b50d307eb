"""Predicted classes against those of the reference: Pearson's chi-squared, by window.

The expected counts come from a finite reference, which adds its own spread: each term
is divided by ``1 + window / reference`` beside its expected count.

Labels that are too rare for a window or for the reference are counted together, as
neighbours: sorted by how often the reference saw them, each group would be of those
that it happened to see too seldom (150 times the false alarms with 65 labels). Where
nearly all answers are one label nothing is left to compare.
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
# Of each group. Far out in the tail 5 are not enough: two groups alarm 87 times
# as often as they may with .3 expected, 9 times with 5, once or twice with 20.
EXPECTED_LEAST = 20.0
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
        ratio: Of the last complete window, 0 before it.
        compared: There are two groups of labels at least; else there is no ratio.
    """

    def __init__(self, reference: Sequence[int], factor: float = 1.0) -> None:
        counts = np.asarray(reference, np.float64)
        # A list: an array takes five times as long to count one answer.
        self._window = [0] * len(counts)
        self._expected, self._spread, self._groups = _expected(counts)
        freedom = len(self._expected) - 1
        self.compared = freedom > 0
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

    Rare classes share a group with the next rare ones until there is enough of it; what
    is left over joins the rare group before it, or the smallest group.
    """
    total = float(counts.sum())
    groups = np.zeros(len(counts), np.intp)
    if total <= 0 or len(counts) < 2:
        return np.ones(min(len(counts), 1)), 1.0, groups
    share = (counts + SMOOTHING) / (total + SMOOTHING * len(counts))
    # Half of a small reference: its own counts are as far from chi-squared.
    least = EXPECTED_LEAST / min(WINDOW_SAMPLES, total / 2)
    rare = share < least
    groups[~rare] = np.arange(int((~rare).sum()))
    first = last = int((~rare).sum())
    held = 0.0
    for at in np.flatnonzero(rare):
        groups[at] = last
        held += float(share[at])
        if held >= least:
            last, held = last + 1, 0.0
    if last > first:
        groups = np.minimum(groups, last - 1)
    elif first:
        groups[rare] = int(np.argmin(share[~rare]))
    shares = np.bincount(groups, weights=share).astype(np.float64)
    return shares, 1 + WINDOW_SAMPLES / total, groups
