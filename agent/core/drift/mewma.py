"""Hotelling's T^2 of an exponentially weighted mean of [z, |z|]: has anything moved?

Multivariate EWMA control chart (Lowry, Woodall, Champ, Rigdon 1992), on the features and
on how far they are from their mean, so that a change of spread shows as a change of
level. One order of columns serves two scopes: whitened by a Cholesky factor with the
input's columns first, the first terms of the sum over all features are the input's own
statistic.
"""

import numpy as np
from numpy.typing import NDArray

from agent.core.drift.opened import Columns, Floats, OpenReference
from agent.core.watching import Scope

LAMBDA = 0.02  # remembers about 50 samples: the best of .01 to .1 on abrupt shifts


class Mewma:
    """The statistics of one anchor, sample by sample.

    Attributes:
        scopes: Those it has columns for, in the order of ``update``'s answer.
    """

    def __init__(self, reference: OpenReference, columns: Columns) -> None:
        raise NotImplementedError

    scopes: tuple[Scope, ...]

    def update(self, values: NDArray[np.floating]) -> list[float]:
        """Take in one sample (d) and return the statistic of each scope."""
        raise NotImplementedError

    def shift(self) -> Floats:
        """(d) mean of late, in standard deviations of the reference."""
        raise NotImplementedError


def mewma_path(
    values: Floats, reference: OpenReference, columns: Columns
) -> dict[Scope, Floats]:
    """Return the statistics (n) that ``Mewma`` gives over a whole stream (n, d).

    Law: they are those of ``update``, sample by sample.
    """
    raise NotImplementedError
