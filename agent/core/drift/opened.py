"""A reference with its arrays opened: what every detector compares the present with.

The shipped profile and a board's own baseline look the same from here on. Arrays are
float64, ``d`` features wide, and finite; ``agent.core.drift.reference`` and
``agent.core.drift.site`` see to that.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from agent.core.watching import Scope

Floats = NDArray[np.float64]
Columns = Mapping[Scope, NDArray[np.intp]]  # "input" and "output"; "all" is every one

# What a feature weighs in a distance: at least 1 / 1.05, of unit variance and the ridge
# of ``agent.core.drift.fitting``. At most 20 over the variance that clipping leaves: of
# a feature that jumped once in a million samples a millionth. Both with room.
LEAST_WEIGHT, MOST_WEIGHT = 0.1, 1e9
CLIP = 4.0  # of z: one wild pixel must not carry an average of fifty samples with it


@dataclass(frozen=True, slots=True)
class OpenReference:
    """How features looked while all was well.

    Attributes:
        features: Names of the ``d`` columns.
        count: Samples it was computed from.
        mean: (d), and ``sd`` (d): 0 for a feature that never moved, which is left out.
        abs_mean: (d) mean of ``|z|`` and ``abs_sd`` (d), of z clipped to +-``CLIP``.
        whitening: (2d, 2d) W with ``W @ W.T`` the inverse covariance of
            ``[z, (|z| - abs_mean) / abs_sd]``; rows and columns of constant features
            are not read.
        edges: (d, 15) increasing quantiles; ``counts`` (d, 16) samples between them:
            bin b holds ``edges[b-1] <= x < edges[b]``.
        eps: (d) tolerated shift of a feature's mean rank, of ranks in [0, 1].
        thresholds: Scope -> threshold of its MEWMA (``prediction``: of its chi-squared
            over the quantile that theory gives, so 1 by default).
        site_thresholds: The same for a baseline of ``site_count`` samples.
        classes: Answers by label, empty without labels.
        target: Lag-1 autocorrelation of watched samples at which thresholds hold.
        confidence: ATC threshold, and the ``accuracy`` it was found at; -1 for none.
        calibration: ``grouped``, ``iid``, ``ordered`` or ``table``.
        digest: SHA-256 of the bytes it came from, in hex.
    """

    features: tuple[str, ...]
    count: int
    mean: Floats
    sd: Floats
    abs_mean: Floats
    abs_sd: Floats
    whitening: Floats
    edges: Floats
    counts: NDArray[np.int64]
    eps: Floats
    thresholds: Mapping[str, float]
    site_thresholds: Mapping[str, float] = field(default_factory=dict)
    site_count: int = 2000
    classes: tuple[int, ...] = ()
    target: float = 0.05
    autocorrelation: float = -1.0
    confidence: float = -1.0
    accuracy: float = -1.0
    calibration: str = "table"
    digest: str = ""

    @property
    def moving(self) -> NDArray[np.bool_]:
        """(d) which features moved in the reference; the others are not watched."""
        moves: NDArray[np.bool_] = (self.sd > 0) & (self.abs_sd > 0)
        return moves


def whitening_fault(reference: OpenReference) -> str:
    """Return what is wrong with a reference's whitening; empty if it can be used.

    It may be finite and of no use: with zeros nothing ever alarms, and with 1e30 a
    distance is no number any more. That of samples has a triangle without zeros on its
    diagonal, whichever of its halves is filled.
    """
    both = np.concatenate([reference.moving, reference.moving])
    weights = np.square(reference.whitening).sum(axis=1)[both]
    own = np.square(np.diagonal(reference.whitening))[both]
    if not len(weights):
        return ""
    if not LEAST_WEIGHT <= float(own.min()) <= float(weights.max()) <= MOST_WEIGHT:
        return "its whitening is none of any samples"
    return ""
