"""Distances of held-out sensor vectors, as vectors that were not learnt from have them.

A centre and a precision are nearer to what they were learnt from: with 32 channels and
400 samples of 20 sources, the distance of any other source is half a standard deviation
larger in the mean. A reference of such distances spends on that shift the room that its
thresholds have for boards. So each is measured by what the other sources teach; what a
profile carries is learnt from all of them.
"""

import numpy as np
from numpy.typing import NDArray

from agent.core.drift.opened import Floats
from agent.core.drift.packing import unpack_floats, unpack_triangle
from agent.core.drift.reference import build_distance

FOLDS = 10  # each learns from nine tenths: nearly what all of them teach


def cross_distances(
    vectors: NDArray[np.floating], sources: NDArray[np.integer] | None
) -> Floats:
    """Return the Mahalanobis distance (n) of each vector from those of other sources.

    Args:
        vectors: (n, channels), n of 20 at least.
        sources: (n) where each comes from; with None or one, stretches stand in.
    """
    values = np.asarray(vectors, np.float64)
    known = np.zeros(len(values), np.intp) if sources is None else sources
    place = np.unique(known, return_inverse=True)[1].reshape(-1)
    if not place.any():
        place = np.arange(len(values))
    folds = place * FOLDS // (int(place.max()) + 1)
    found = np.zeros(len(values))
    for fold in np.unique(folds):
        mine = folds == fold
        centre, precision = build_distance(values[~mine])
        apart = values[mine] - unpack_floats(centre, -1)
        squares = apart @ unpack_triangle(precision, symmetric=True) * apart
        found[mine] = np.sqrt(np.maximum(squares.sum(axis=1), 0.0))
    return found
