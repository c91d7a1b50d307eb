"""Hotelling's T^2 of an exponentially weighted mean of [z, |z|]: has anything moved?

Multivariate EWMA control chart (Lowry, Woodall, Champ, Rigdon 1992), on the features
and on how far they are from their mean, so that a change of spread shows as a change
of level. One factor serves two scopes: whitened by a Cholesky factor with the input's
columns first, the first terms of the sum over everything are the input's own statistic.

The variance of the mean is the one it has in the long run, also at the start: the first
fifty samples alarm late rather than falsely.
"""

import numpy as np
from numpy.typing import NDArray

from agent.core.drift.fitting import levels, standardise
from agent.core.drift.opened import CLIP, Columns, Floats, OpenReference
from agent.core.watching import Scope

LAMBDA = 0.02  # remembers about 50 samples: the best of .01 to .1 on abrupt shifts
# Of the largest eigenvalue of a precision matrix: a direction below it is not known.
UNKNOWN = 1e-9
BLOCK = 64  # samples of a path at once: a triangular matrix of 64 x 64 stays in cache


class Mewma:
    """The statistics of one anchor, sample by sample.

    Attributes:
        scopes: Those it has columns for, in the order of ``update``'s answer.
        z: (d) the last sample, standardised and clipped; overwritten by the next.
    """

    def __init__(self, reference: OpenReference, columns: Columns) -> None:
        self.scopes, factor, sums = _factor(reference, columns)
        width = len(reference.features)
        moving = reference.moving
        # Nothing below allocates per sample; scalars are arrays of full width, which
        # numpy takes without converting them each time.
        self._mean = reference.mean.astype(np.float64)
        self._scale = np.zeros(width)
        self._scale[moving] = 1 / reference.sd[moving]
        self._high = np.full(width, CLIP)
        self._low = -self._high
        self._keep = np.full(2 * width, 1 - LAMBDA, np.float32)
        self._take = np.full(2 * width, LAMBDA, np.float32)
        # [z, |z|] is averaged as it is; its mean and scale are inside the factor.
        centre, spread = _unfolded(reference)
        self._rest = centre.astype(np.float32)
        self._factor = (factor / spread[:, None]).astype(np.float32)
        self._offset = (centre @ (factor / spread[:, None])).astype(np.float32)
        self._sums = sums.astype(np.float32)
        self._wide = np.zeros(width)
        self._level = np.zeros(2 * width, np.float32)
        self.z = self._level[:width]
        self._distance = self._level[width:]
        self._white = np.zeros(factor.shape[1], np.float32)
        self._statistics = np.zeros(len(self.scopes), np.float32)
        self._average = self._rest.copy()

    def update(self, values: NDArray[np.floating]) -> list[float]:
        """Take in one sample (d) and return the statistic of each scope."""
        wide, level, white = self._wide, self._level, self._white
        np.subtract(values, self._mean, wide)
        np.multiply(wide, self._scale, wide)
        np.minimum(wide, self._high, out=wide)
        np.maximum(wide, self._low, out=self.z)
        np.absolute(self.z, self._distance)
        average = self._average
        np.multiply(average, self._keep, average)
        np.add(average, np.multiply(level, self._take), average)
        np.dot(average, self._factor, white)
        np.subtract(white, self._offset, white)
        np.multiply(white, white, white)
        statistics: list[float] = np.dot(white, self._sums, self._statistics).tolist()
        return statistics

    def shift(self) -> Floats:
        """(d) mean of late, in standard deviations of the reference."""
        return self._average[: len(self.z)].astype(np.float64)

    def restart(self) -> None:
        """Forget what was averaged."""
        self._average[:] = self._rest


class Whitener:
    """Turns features into uncorrelated directions of z; as they are, without reference.

    Memory that is in one direction only, a slow light over a fast scene, shows there
    when every single feature hides it; and noise of directions averages out.
    """

    def __init__(self, reference: OpenReference | None) -> None:
        self._factor: NDArray[np.float32] | None = None
        if reference is None:
            return
        self._mean, self._sd = reference.mean, reference.sd
        moving = [int(c) for c in np.flatnonzero(reference.moving)]
        both = _paired(moving, len(reference.features))
        covariance = _covariance(reference.whitening, both)
        self._factor = np.zeros((len(reference.features), len(moving)), np.float32)
        self._factor[moving] = _root(covariance[: len(moving), : len(moving)])

    def __call__(self, rows: NDArray[np.floating]) -> Floats:
        """Return the directions (n, m) of features (n, d)."""
        wide = rows.astype(np.float64)
        if self._factor is None:
            return wide
        directions: Floats = standardise(wide, self._mean, self._sd) @ self._factor
        return directions


def mewma_path(
    values: Floats, reference: OpenReference, columns: Columns
) -> dict[Scope, Floats]:
    """Return the statistics that ``Mewma`` gives over a whole stream (n, d).

    Law: they are those of ``update``, sample by sample, but for rounding.
    """
    scopes, factor, sums = _factor(reference, columns)
    z = standardise(values, reference.mean, reference.sd)
    white = levels(z, reference.abs_mean, reference.abs_sd) @ factor
    statistics = np.square(ewma_path(white)) @ sums
    return {scope: statistics[:, at] for at, scope in enumerate(scopes)}


def ewma_path(rows: Floats) -> Floats:
    """Return the exponentially weighted mean, from 0, after each of the rows (n, q)."""
    age = np.arange(BLOCK)
    weights = np.tril(LAMBDA * (1 - LAMBDA) ** np.maximum(age[:, None] - age, 0))
    decay = (1 - LAMBDA) ** (age + 1)[:, None]
    path = np.empty_like(rows)
    last = np.zeros(rows.shape[1])
    for start in range(0, len(rows), BLOCK):
        part = rows[start : start + BLOCK]
        size = len(part)
        path[start : start + size] = weights[:size, :size] @ part + decay[:size] * last
        last = path[start + size - 1]
    return path


def dimensions(reference: OpenReference, columns: Columns) -> dict[Scope, int]:
    """Scope -> terms of its statistic: two for each feature that moves."""
    moving = reference.moving
    found: dict[Scope, int] = {}
    for scope in ("input", "output"):
        part = columns.get(scope, np.zeros(0, np.intp))
        if (count := int(moving[part].sum())) > 0:
            found[scope] = 2 * count
    if moving.any():
        found["all"] = 2 * int(moving.sum())
    return found


def _unfolded(reference: OpenReference) -> tuple[Floats, Floats]:
    """(2d) centre and (2d) spread of ``[z, |z|]`` in the reference."""
    ones = np.ones_like(reference.sd)
    still = np.where(reference.abs_sd > 0, reference.abs_sd, 1.0)
    centre = np.concatenate([np.zeros_like(ones), reference.abs_mean])
    return centre, np.concatenate([ones, still])


def _factor(
    reference: OpenReference, columns: Columns
) -> tuple[tuple[Scope, ...], Floats, Floats]:
    """Scopes, what levels are multiplied by, and which squares make which scope."""
    width = len(reference.features)
    wanted = dimensions(reference, columns)
    if not wanted:
        return (), np.zeros((2 * width, 1)), np.zeros((1, 0))
    moving = reference.moving
    first = [c for c in columns.get("input", ()) if moving[c]]
    order = first + [c for c in np.flatnonzero(moving) if c not in set(first)]
    both = _paired(order[: len(first)], width) + _paired(order[len(first) :], width)
    covariance = _covariance(reference.whitening, both)
    blocks = [(both, _root(covariance))]
    if "output" in wanted:
        part = _paired([c for c in columns["output"] if moving[c]], width)
        at = [both.index(row) for row in part]
        blocks.append((part, _root(covariance[np.ix_(at, at)])))
    factor = np.zeros((2 * width, sum(len(rows) for rows, _ in blocks)))
    start = 0
    for rows, root in blocks:
        factor[rows, start : start + len(rows)] = root
        start += len(rows)
    ends = {"input": (0, 2 * len(first)), "all": (0, len(both))}
    ends["output"] = (len(both), factor.shape[1])
    sums = np.zeros((factor.shape[1], len(wanted)))
    for at_scope, scope in enumerate(wanted):
        sums[slice(*ends[scope]), at_scope] = (2 - LAMBDA) / LAMBDA
    return tuple(wanted), factor, sums


def _paired(order: list[int], width: int) -> list[int]:
    """Rows of z and of |z| that belong to these columns."""
    return [int(c) for c in order] + [int(c) + width for c in order]


def _covariance(whitening: Floats, rows: list[int]) -> Floats:
    """Covariance of these rows, from the matrix that whitens them.

    A degenerate matrix gives a large variance where it knows nothing: such a direction
    never alarms, rather than always.
    """
    precision = (whitening @ whitening.T)[np.ix_(rows, rows)]
    values, vectors = np.linalg.eigh(precision)
    floor = max(float(values[-1]), 1.0) * UNKNOWN
    inverse: Floats = (vectors / np.maximum(values, floor)) @ vectors.T
    return inverse


def _root(covariance: Floats) -> Floats:
    """Upper triangular R with ``x @ R`` white for x of this covariance."""
    inverse: Floats = np.linalg.inv(np.linalg.cholesky(covariance)).T
    return inverse
