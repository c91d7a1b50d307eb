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
