"""What one window of samples says about each feature: PSI and KS, as diagnostics.

They tell which feature moved, and how; they never alarm (PSI above 0.2 is reached by a
quarter of the windows of 100 samples in which nothing changed).

Population stability index, as it is meant here, since libraries differ fifty-fold: over
the 16 bins between the reference's 15 quantiles, with 0.5 added to each bin's count in
both, ``sum((q - p) * ln(q / p))`` of the shares p of the reference and q of the window.
"""

import numpy as np
from numpy.typing import NDArray

from agent.core.drift.fitting import count_bins
from agent.core.drift.opened import Floats
from agent.core.profile import BINS

# Enough for 16 bins of 16 samples each; a PSI of 0.2 by chance is then one in 800.
WINDOW_SAMPLES = 256
SMOOTHING = 0.5  # added to every count: an empty bin is rare, not impossible


def psi(reference: NDArray[np.integer], window: NDArray[np.integer]) -> Floats:
    """(d) population stability index of counts (d, 16) against counts (d, 16).

    Law: not negative, and 0 for equal shares of equally many samples.
    """
    p, q = _shares(reference), _shares(window)
    index: Floats = np.sum((q - p) * np.log(q / p), axis=1)
    return index


def ks(reference: NDArray[np.integer], window: NDArray[np.integer]) -> Floats:
    """(d) Kolmogorov-Smirnov distance, seen at the bins' edges only.

    Law: never more than the exact distance of the samples.
    """
    p = reference / np.maximum(reference.sum(axis=1, keepdims=True), 1)
    q = window / np.maximum(window.sum(axis=1, keepdims=True), 1)
    distance: Floats = np.abs(np.cumsum(p - q, axis=1)).max(axis=1)
    return distance


class Window:
    """Counts by bin until enough samples are there; then PSI and KS of each feature.

    Attributes:
        psi: (d) of the last complete window, zeros before it; ``ks`` likewise.
    """

    def __init__(self, counts: NDArray[np.int64]) -> None:
        # The narrowest that holds them: 16 bits for all but the largest references.
        highest = int(counts.max(initial=0))
        self._reference = counts.astype(np.min_scalar_type(highest))
        # A window and a batch more fit 16 bits.
        self._counts = np.zeros(counts.shape, np.uint16)
        self._samples = 0
        self.psi = self.ks = np.zeros(len(counts))

    def update(self, bins: NDArray[np.intp]) -> bool:
        """Take in samples' bins (n, d); return whether that closed a window."""
        self._counts += count_bins(bins).astype(np.uint16)
        self._samples += len(bins)
        if self._samples < WINDOW_SAMPLES:
            return False
        self.psi = psi(self._reference, self._counts)
        self.ks = ks(self._reference, self._counts)
        self.restart()
        return True

    def restart(self) -> None:
        """Begin the window again."""
        self._counts[:] = 0
        self._samples = 0


def _shares(counts: NDArray[np.integer]) -> Floats:
    """(d, 16) share of each bin, smoothed."""
    smooth = counts + SMOOTHING
    total = counts.sum(axis=1, keepdims=True) + BINS * SMOOTHING
    shares: Floats = smooth / total
    return shares
