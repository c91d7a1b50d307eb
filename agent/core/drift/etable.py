"""A table e-detector: bets against the reference's ranks, with a proven alarm rate.

Shin, Ramdas and Rinaldo, "E-detectors" (2022).
"""

import numpy as np
from numpy.typing import NDArray

from agent.core.drift.opened import Columns, Floats, OpenReference
from agent.core.watching import Scope

THRESHOLD = 1e5  # samples between false alarms that the theory promises, at least


def rank_scores(counts: NDArray[np.int64]) -> Floats:
    """(d, 16, 2) scores of a sample in each bin: rank and spread, each in [-1/2, 1/2].

    Both have mean 0 over the reference (d, 16). ``OpenReference.eps`` must bound the
    mean of either, up or down, that is tolerated for a feature.
    """
    raise NotImplementedError


def find_bins(values: Floats, edges: Floats) -> NDArray[np.intp]:
    """(n, d) bin of each value of (n, d) between the edges (d, 15)."""
    raise NotImplementedError


class Etable:
    """The e-detectors of one anchor: one for each feature and bet, averaged by scope."""

    scopes: tuple[Scope, ...]

    def __init__(self, reference: OpenReference, columns: Columns) -> None:
        raise NotImplementedError

    def update(self, bins: NDArray[np.intp]) -> list[float]:
        """Take in samples' bins (n, d); return ``log(M)/log(THRESHOLD)`` by scope."""
        raise NotImplementedError
