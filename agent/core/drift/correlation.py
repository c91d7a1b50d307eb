"""How long a stream remembers: autocorrelation of a block, and the spacing it wants.

Autocorrelation at lag k is ``1 - g(k) / v``: half the mean squared difference of
samples that far apart, over the variance inside the block. Both are about the block's
own mean, so a drift that happened before it, or creeps through it, does not look like
memory.
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from agent.core.drift.opened import Floats

# Dense where a fit needs points, log-spaced beyond; half of a block at most, since
# further apart too few pairs are left.
LAGS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48)
STRONG = 0.2  # a correlation from which its decay can be fitted above the noise
# Standard errors that a correlation must exceed to count: a stream without memory is
# asked 8,000 times in a million samples.
EVIDENCE = 4.5
MEDIAN_ERROR = 1.25  # standard error of a median, over that of the mean
# Rows, of the spacing that a fit may ask for: a block in which five scenes were seen
# can make them look endless. Spaced samples tell whether it takes more.
LONGEST = 128
LEAST_SHARE = 0.25  # of the variance that a block of 128 can have missed


def autocorrelation(rows: NDArray[np.floating]) -> Floats:
    """(lags, d) autocorrelation of rows (n, d), of as many ``LAGS`` as n has room for.

    A column that does not move has none.
    """
    wide = rows.astype(np.float64)
    variance = wide.var(axis=0, ddof=1)
    size = np.abs(wide).max(axis=0)
    still = variance <= (1e-6 * size) ** 2  # rounding of float32
    lags = [lag for lag in LAGS if lag <= len(wide) // 2]
    found = np.empty((len(lags), wide.shape[1]))
    for at, lag in enumerate(lags):
        found[at] = 0.5 * np.square(wide[lag:] - wide[:-lag]).mean(axis=0)
    return np.where(still, 0.0, 1 - found / np.where(still, 1.0, variance))


def correlated(
    blocks: Sequence[NDArray[np.floating]], samples: int, target: float
) -> NDArray[np.bool_] | None:
    """(d) which columns have more than the target at lag 1 beyond doubt; None if none.

    Args:
        blocks: ``autocorrelation`` of several blocks; the median counts, so that one
            block in which something happened does not.
        samples: Of each block.
        target: Lag-1 autocorrelation that is allowed.
    """
    first = np.median([block[0] for block in blocks], axis=0).astype(np.float64)
    error = 1 / math.sqrt(samples * len(blocks))
    if len(blocks) > 2:
        error *= MEDIAN_ERROR
    columns: NDArray[np.bool_] = first > target + EVIDENCE * error
    if columns.any():
        return columns
    if float(first.mean()) > target + EVIDENCE * error / math.sqrt(len(first)):
        return np.ones(len(first), np.bool_)
    return None


def wanted_spacing(
    blocks: Sequence[NDArray[np.floating]], samples: int, target: float
) -> int:
    """Return the smallest spacing, in rows, at which autocorrelation is the target.

    An exponential decay is fitted to the strong lags and carried on: far lags, which
    matter, are small numbers that only a long recording would measure.
    """
    columns = correlated(blocks, samples, target)
    if columns is None:
        return 1
    middle = np.median([block[:, columns] for block in blocks], axis=0)
    measured = middle.astype(np.float64).mean(axis=1)
    corrected = measured
    level, decay = _fit(corrected)
    for _ in range(4):
        # A block varies less than the stream, by its memory over its length.
        memory = level * (1 + decay) / (1 - decay)
        share = max(1 - memory / samples, LEAST_SHARE)
        corrected = 1 - (1 - measured) * share
        level, decay = _fit(corrected)
    if level <= target:
        return 2
    spacing = math.log(target / level) / math.log(decay)
    return int(min(max(math.ceil(spacing), 2), LONGEST))


def _fit(curve: Floats) -> tuple[float, float]:
    """Level a and decay f of ``a * f ** lag``, by least squares of logarithms."""
    strong = curve > STRONG
    count = len(curve) if strong.all() else int(np.argmin(strong))
    first = min(max(float(curve[0]), 1e-3), 0.9999)
    if count < 2:
        return 1.0, first
    lags = np.array(LAGS[:count], np.float64)
    logs = np.log(np.minimum(curve[:count], 0.9999))
    slope, start = np.polyfit(lags, logs, 1)
    decay = min(max(math.exp(float(slope)), 1e-3), 0.9999)
    return min(math.exp(float(start)), 1.0), decay
