"""Fits a reference to samples: moments, whitening, quantile edges and counts.

The profile's builder and a board's own baseline fit with the same code that compares
later, so a rounding here is the same rounding there.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from agent.core.drift.opened import CLIP, Floats, OpenReference
from agent.core.profile import BINS

# Added to the diagonal of a correlation matrix: features that say the same (a mean and
# a sum) otherwise give directions of no variance, in which rounding is an alarm.
RIDGE = 0.05  # between .01 and .15 the shortest delays, and the fewest misses
# Of a feature's own size: below it, float32 arithmetic is all that moved.
STILL = 1e-6


def find_bins(
    values: NDArray[np.floating], edges: NDArray[np.floating]
) -> NDArray[np.intp]:
    """(n, d) bin of each value of (n, d) between the edges (d, 15).

    Compared as float32, as edges are kept: a feature with few distinct values sits
    exactly on them, and would change bins by the rounding of 0.1 alone.
    """
    rows = values.astype(np.float32, copy=False)
    low = edges.astype(np.float32, copy=False).T[:, None, :]
    # Summed as bytes along the first axis: half the time of the obvious order.
    above = (rows >= low).view(np.int8)
    found: NDArray[np.int8] = np.add.reduce(above, axis=0, dtype=np.int8)
    return found.astype(np.intp)


def fit_reference(
    features: Sequence[str], values: NDArray[np.floating]
) -> OpenReference:
    """Return the reference that samples (n, d) make, without eps and thresholds.

    Those are the caller's: ``dataclasses.replace`` them. Samples are finite.
    """
    rows = np.asarray(values, np.float64)
    mean = rows.mean(axis=0)
    sd = rows.std(axis=0)
    sd[sd <= STILL * np.maximum(np.abs(mean), np.finfo(np.float32).tiny)] = 0.0
    z = standardise(rows, mean, sd)
    distance = np.abs(z)
    abs_mean = distance.mean(axis=0)
    abs_sd = distance.std(axis=0)
    edges = np.quantile(rows, np.arange(1, BINS) / BINS, axis=0).T
    edges = edges.astype(np.float32).astype(np.float64)
    return OpenReference(
        features=tuple(features),
        count=len(rows),
        mean=mean,
        sd=sd,
        abs_mean=abs_mean,
        abs_sd=abs_sd,
        whitening=fit_whitening(levels(z, abs_mean, abs_sd)),
        edges=edges,
        counts=count_bins(find_bins(rows, edges)),
        eps=np.zeros(rows.shape[1]),
        thresholds={},
    )


def standardise(values: Floats, mean: Floats, sd: Floats) -> Floats:
    """Return z (n, d) of values (n, d), clipped; 0 where ``sd`` is 0."""
    scale = np.divide(1.0, sd, out=np.zeros_like(sd), where=sd > 0)
    clipped: Floats = np.clip((values - mean) * scale, -CLIP, CLIP)
    return clipped


def levels(z: Floats, abs_mean: Floats, abs_sd: Floats) -> Floats:
    """Return ``[z, (|z| - abs_mean) / abs_sd]`` (n, 2d); 0 where ``abs_sd`` is 0."""
    scale = np.divide(1.0, abs_sd, out=np.zeros_like(abs_sd), where=abs_sd > 0)
    return np.concatenate([z, (np.abs(z) - abs_mean) * scale], axis=1)


def fit_whitening(rows: Floats) -> Floats:
    """Return W with ``W @ W.T`` the inverse of the rows' ridged covariance.

    Columns that never move get zeros. Law: ``rows @ W`` has unit covariance, but for
    ``RIDGE``.
    """
    covariance = np.cov(rows, rowvar=False).reshape(rows.shape[1], rows.shape[1])
    moving = np.flatnonzero(np.diagonal(covariance) > 0)
    whitening = np.zeros_like(covariance)
    if not len(moving):
        return whitening
    part = covariance[np.ix_(moving, moving)]
    part[np.diag_indices_from(part)] *= 1 + RIDGE
    root = np.linalg.cholesky(part)
    whitening[np.ix_(moving, moving)] = np.linalg.inv(root).T
    return whitening


def count_bins(bins: NDArray[np.intp]) -> NDArray[np.int64]:
    """Return how many samples of (n, d) fell into each of the ``BINS``: (d, 16)."""
    width = bins.shape[1]
    flat = bins + np.arange(width) * BINS
    counted = np.bincount(flat.ravel(), minlength=width * BINS)
    return counted.reshape(width, BINS).astype(np.int64, copy=False)
