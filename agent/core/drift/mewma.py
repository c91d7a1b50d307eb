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
# Samples of an update: four cost little more than one, and an alarm is raised one and a
# half samples later in the mean, of twenty and more that it takes.
STEP = 4
# Terms whose zeros are left out together, of a factor that is half zeros: fewer would
# save memory and cost a call each.
CHUNK = 40

_HIGH, _LOW = np.array(CLIP), np.array(-CLIP)


def _weights(count: int) -> Floats:
    """(n, 1 + n) what the mean before and n samples add to the means after each."""
    age = np.arange(count)
    of_samples = np.tril(LAMBDA * (1 - LAMBDA) ** np.maximum(age[:, None] - age, 0))
    of_mean = (1 - LAMBDA) ** (age + 1)[:, None]
    return np.hstack([of_mean, of_samples])


_WEIGHTS = _weights(STEP).astype(np.float32)


class Mewma:
    """The statistics of one anchor.

    Samples come a few at a time: numpy's calls cost more than what they compute. None
    is skipped; every sample has the statistic that it would have alone.

    Attributes:
        scopes: Those it has columns for, in the order of ``update``'s answers.
    """

    def __init__(self, reference: OpenReference, columns: Columns) -> None:
        self.scopes, factor, sums = _factor(reference, columns)
        width = len(reference.features)
        moving = reference.moving
        # As many rows as samples: numpy takes arrays of one shape in half the time.
        self._mean = np.tile(reference.mean, (STEP, 1))
        self._scale = np.zeros((STEP, width))
        self._scale[:, moving] = 1 / reference.sd[moving]
        # [1, z, |z|] is averaged as it is: its mean and scale are inside the factor,
        # and the 1 is what the mean of it all is multiplied by.
        centre, spread = _unfolded(reference)
        whole = factor / spread[:, None]
        self._chunks = _chunked(np.vstack([-centre @ whole, whole]))
        self._terms = factor.shape[1]
        self._sums = np.ascontiguousarray(sums.T, np.float32)
        self._rest = np.concatenate([[1.0], centre]).astype(np.float32)
        self._levels = np.zeros((STEP + 1, 1 + 2 * width), np.float32)
        # Row 0 is the mean so far, the samples follow it.
        self._levels[:] = self._rest

    def update(self, rows: NDArray[np.floating]) -> list[list[float]]:
        """Take in 1 to ``STEP`` samples (n, d); return each scope's statistic of each.

        Law: samples one by one give the same, but for rounding.
        """
        count, width = rows.shape
        wide = np.subtract(rows, self._mean[:count])
        wide *= self._scale[:count]
        np.minimum(wide, _HIGH, out=wide)
        levels = self._levels[: count + 1]
        z = levels[1:, 1 : width + 1]
        np.maximum(wide, _LOW, out=z)
        np.absolute(z, out=levels[1:, width + 1 :])
        path = np.dot(_WEIGHTS[:count, : count + 1], levels)
        levels[0] = path[-1]
        white = np.empty((self._terms, count), np.float32)
        for start, end, chunk in self._chunks:
            np.dot(chunk, path[:, : chunk.shape[1]].T, out=white[start:end])
        white *= white
        statistics: list[list[float]] = np.dot(self._sums, white).T.tolist()
        return statistics

    def shift(self) -> Floats:
        """(d) mean of late, in standard deviations of the reference."""
        return self._levels[0, 1 : self._mean.shape[1] + 1].astype(np.float64)

    def restart(self) -> None:
        """Forget what was averaged."""
        self._levels[0] = self._rest


class Whitener:
    """Turns features into uncorrelated directions of z; as they are, without reference.

    Memory that is in one direction only, a slow light over a fast scene, shows there
    when every single feature hides it; and noise of directions averages out.

    Attributes:
        kept: What samples that wait for it are kept as. In z of +-4 half precision is
            a thousandth, of features without a reference nothing is known.
    """

    def __init__(self, reference: OpenReference | None) -> None:
        self.kept: type[np.float16 | np.float32] = np.float32
        self._factor: NDArray[np.float16] | None = None
        if reference is None:
            return
        self.kept = np.float16
        moving = [int(c) for c in np.flatnonzero(reference.moving)]
        self._mean = reference.mean
        self._scale = np.zeros(len(reference.features))
        self._scale[moving] = 1 / reference.sd[moving]
        both = _paired(moving, len(reference.features))
        covariance = _covariance(reference.whitening, both)
        self._factor = np.zeros((len(reference.features), len(moving)), np.float16)
        self._factor[moving] = _root(covariance[: len(moving), : len(moving)])

    def shrink(self, row: NDArray[np.floating], out: NDArray[np.floating]) -> None:
        """Write a sample (d) as it is kept until there is a block of them."""
        if self._factor is None:
            out[:] = row
            return
        z = row - self._mean
        z *= self._scale
        np.minimum(z, _HIGH, out=z)
        np.maximum(z, _LOW, out=out)

    def directions(self, kept: NDArray[np.floating]) -> Floats:
        """Return the directions (n, m) of samples (n, d) that ``shrink`` wrote."""
        wide = kept.astype(np.float64)
        if self._factor is None:
            return wide
        directions: Floats = wide @ self._factor.astype(np.float64)
        return directions

    def __call__(self, rows: NDArray[np.floating]) -> Floats:
        """Return the directions (n, m) of features (n, d)."""
        kept = np.empty(rows.shape)
        self.shrink(rows, kept)
        return self.directions(kept)


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
    decay, weights = np.split(_weights(BLOCK), [1], axis=1)
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


def _chunked(factor: Floats) -> list[tuple[int, int, NDArray[np.float32]]]:
    """Columns of a factor from, to, and those transposed without the zeros at the end.

    The factor is triangular, or nearly; of what is left out nothing is computed.
    """
    chunks = []
    for start in range(0, factor.shape[1], CHUNK):
        part = factor[:, start : start + CHUNK]
        rows = 1 + max(np.flatnonzero(part.any(axis=1)), default=0)
        kept = np.ascontiguousarray(part[:rows].T, np.float32)
        chunks.append((start, start + part.shape[1], kept))
    return chunks


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
