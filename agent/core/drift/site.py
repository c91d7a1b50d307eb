"""A board's own baseline: how features looked here, after commissioning.

Compared with what this very camera, microphone or room gives, thresholds need not allow
for the difference between sources: shifts half as large are found. The price is trust
in the first hours, so it is collected only while the shipped reference is quiet.

The rules this module keeps:
 * Samples are in memory only, and overwritten once the baseline is computed.
 * The baseline holds moments, quantiles and counts: no sample, minimum or maximum.
 * Law: ``parse_baseline(render_baseline(r), r.features)`` is r, rounded to float32.
 * ``parse_baseline`` raises ``BundleRefusedError`` only (``profile``), for any bytes.
"""

import hashlib
import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated

import msgspec
import numpy as np
from msgspec import Meta, Struct
from numpy.typing import NDArray

from agent.core.drift.etable import rank_scores
from agent.core.drift.fitting import find_bins, fit_reference
from agent.core.drift.mewma import dimensions, mewma_path
from agent.core.drift.opened import Columns, Floats, OpenReference, whitening_fault
from agent.core.drift.packing import (
    lower_factor,
    pack_counts,
    pack_floats,
    pack_triangle,
    unpack_counts,
    unpack_floats,
    unpack_triangle,
)
from agent.core.profile import (
    BINS,
    FEATURES_VERSION,
    MAX_PROFILE_BYTES,
    Threshold,
)
from agent.core.reasons import Reason
from agent.core.watching import MAX_FEATURES, FeatureName
from agent.errors import BundleRefusedError

# 2.4 standard errors of a mean rank over two thousand samples, doubled since samples of
# one place are never quite independent; a real shift is a tenth and more. Of fewer
# samples as many standard errors.
SITE_EPS = 0.03
# Samples before an alarm that may already be what alarmed: twice the memory of the
# exponentially weighted mean.
SUSPECT_SAMPLES = 100
# Rows that a baseline is fitted to, while no sample is answered: 2,000 of 40 features
# take 0.1 s on a PC, and more lower no threshold (see ``table_threshold``).
MOST_ROWS = 2000
# Threshold of a statistic with p terms, against 2,000 samples. Simulated with normal
# and with heavy-tailed (t5) features, p of 2 to 80: from 26 on each scope alarms a
# tenth of a time in 10,000 samples at most; two more, and all three together do.
THRESHOLD_START = 28.0
THRESHOLD_STEP = 1.8
TABLE_SAMPLES = 2000
# What the error of a baseline's own mean adds: one over its samples, to the variance
# of the exponentially weighted mean, which is that of 99; a third more, since tails are
# heavier than normal.
MEAN_SAMPLES = 130
# Halves of a baseline are compared for a tenth of those 10,000 samples only, with half
# of a reference: the highest they reach is a fifth below what whole ones reach.
CROSS_MARGIN = 1.2


def table_threshold(terms: int, count: int) -> float:
    """Return the threshold of a statistic of so many terms against so many samples.

    Few samples know neither their mean nor their covariance well, and every stream
    looks far from what they do not know: five false alarms in 10,000 samples against
    200 with a threshold for 2,000. Simulated for 200 to 2,000, 4 to 70 terms.
    """
    found = THRESHOLD_START + THRESHOLD_STEP * terms
    if count >= TABLE_SAMPLES:
        return found
    return found * _uncertainty(terms, count) / _uncertainty(terms, TABLE_SAMPLES)


def _uncertainty(terms: int, count: int) -> float:
    """How much larger a statistic is against so many samples than against all."""
    # The mean of an inverse Wishart matrix; with fewer samples than terms the ridge
    # bounds it.
    free = max(count - terms - 2, count / 4)
    return (1 + MEAN_SAMPLES / count) * count / free


class Baseline(Struct, frozen=True, forbid_unknown_fields=True):
    """A board's baseline as it is kept; arrays as in ``agent.core.profile``."""

    schema: Annotated[int, Meta(ge=1, le=1)]
    features_version: int
    features: Annotated[
        tuple[FeatureName, ...], Meta(min_length=1, max_length=MAX_FEATURES)
    ]
    count: Annotated[int, Meta(ge=50, le=100_000)]
    mean: bytes
    sd: bytes
    abs_mean: bytes
    abs_sd: bytes
    whitening: bytes
    edges: bytes
    counts: bytes
    eps: bytes
    thresholds: Annotated[dict[str, Threshold], Meta(max_length=8)]
    classes: Annotated[
        tuple[Annotated[int, Meta(ge=0, le=2**31)], ...], Meta(max_length=65)
    ]


class Collection:
    """Samples of a baseline to be.

    Of more than ``MOST_ROWS`` so many are kept, evenly spread: a longer collection sees
    more of a place, and is not slower to fit.

    Attributes:
        collected: So many of ``wanted``.
        rows: Samples that are kept of those wanted.
    """

    def __init__(self, wanted: int, width: int, classes: int) -> None:
        self.wanted = wanted
        self.rows = min(wanted, MOST_ROWS)
        self.collected = 0
        self._rows = np.zeros((self.rows, width), np.float32)
        self._answers = np.full(wanted, -1, np.int16)
        self._classes = classes
        self._distrusted = False

    def add(self, values: NDArray[np.floating], index: int) -> bool:
        """Take in a sample's features and answer; return whether that was the last."""
        at = self.collected
        self._rows[at * self.rows // self.wanted] = values  # the last of a few stays
        self._answers[at] = index
        self.collected = at + 1
        self._distrusted = False
        return self.collected == self.wanted

    def distrust(self) -> None:
        """Leave out the last samples: something was wrong with them.

        Said of each sample until the next good one, they are left out once.
        """
        if not self._distrusted:
            self.collected = max(0, self.collected - SUSPECT_SAMPLES)
        self._distrusted = True

    def freeze(
        self,
        features: tuple[str, ...],
        columns: Columns,
        thresholds: Mapping[str, float],
    ) -> OpenReference:
        """Return the baseline, and forget the samples.

        Args:
            features: Names of the columns.
            columns: Of the scopes.
            thresholds: Scope -> threshold where the profile states it; a table's
                otherwise. None is below what one half shows against the other.
        """
        answers = self._answers[self._answers >= 0]
        reference = replace(
            fit_reference(features, self._rows),
            classes=tuple(np.bincount(answers, minlength=self._classes).tolist()),
            calibration="grouped" if thresholds else "table",
        )
        reached, moved = _cross(features, columns, self._rows)
        found: dict[str, float] = {
            scope: max(
                thresholds.get(scope, table_threshold(terms, len(self._rows))),
                CROSS_MARGIN * reached.get(scope, 0.0),
            )
            for scope, terms in dimensions(reference, columns).items()
        }
        self.wipe()
        least = SITE_EPS * math.sqrt(max(TABLE_SAMPLES / self.rows, 1.0))
        eps = np.maximum(moved, min(least, 0.5))
        return replace(reference, thresholds=found, eps=eps)

    def wipe(self) -> None:
        """Overwrite all samples."""
        self._rows[:] = 0
        self._answers[:] = -1
        self.collected = 0
        self._distrusted = False


def render_baseline(reference: OpenReference) -> bytes:
    """Return a baseline as it is kept."""
    return msgspec.json.encode(
        Baseline(
            schema=1,
            features_version=FEATURES_VERSION,
            features=reference.features,
            count=reference.count,
            mean=pack_floats(reference.mean),
            sd=pack_floats(reference.sd),
            abs_mean=pack_floats(reference.abs_mean),
            abs_sd=pack_floats(reference.abs_sd),
            whitening=pack_triangle(lower_factor(reference.whitening)),
            edges=pack_floats(reference.edges),
            counts=pack_counts(reference.counts),
            eps=pack_floats(reference.eps),
            thresholds=dict(reference.thresholds),
            classes=reference.classes,
        )
    )


def parse_baseline(raw: bytes, features: tuple[str, ...]) -> OpenReference:
    """Open a baseline that was kept.

    Raises:
        BundleRefusedError: ``profile``: it is damaged, or of other features.
    """
    if len(raw) > MAX_PROFILE_BYTES:
        raise _refused("it is too long")
    try:
        kept = msgspec.json.decode(raw, type=Baseline)
        if kept.features_version != FEATURES_VERSION or kept.features != features:
            raise _refused("it is of other features")
        opened = _open(kept, hashlib.sha256(raw).hexdigest())
    except (msgspec.MsgspecError, ValueError, RecursionError) as err:
        raise _refused(str(err)) from err
    _check(opened)
    return opened


def _refused(why: str) -> BundleRefusedError:
    """Say what is wrong with a baseline."""
    return BundleRefusedError(
        f"the board's baseline is of no use: {why}", reason=Reason.PROFILE
    )


def _open(kept: Baseline, digest: str) -> OpenReference:
    """Return its arrays; ValueError where a size is wrong."""
    width = len(kept.features)
    whitening = unpack_triangle(kept.whitening)
    if whitening.shape != (2 * width, 2 * width):
        raise ValueError("its whitening has another size")
    return OpenReference(
        features=kept.features,
        count=kept.count,
        mean=unpack_floats(kept.mean, width),
        sd=unpack_floats(kept.sd, width),
        abs_mean=unpack_floats(kept.abs_mean, width),
        abs_sd=unpack_floats(kept.abs_sd, width),
        whitening=whitening,
        edges=unpack_floats(kept.edges, width, BINS - 1),
        counts=unpack_counts(kept.counts, width, BINS),
        eps=unpack_floats(kept.eps, width),
        thresholds=kept.thresholds,
        classes=kept.classes,
        digest=digest,
        calibration="site",
    )


def _check(opened: OpenReference) -> None:
    """Refuse numbers that no samples give."""
    arrays = (
        opened.mean,
        opened.sd,
        opened.abs_mean,
        opened.abs_sd,
        opened.whitening,
        opened.edges,
        opened.eps,
    )
    if not all(bool(np.isfinite(array).all()) for array in arrays):
        raise _refused("it holds numbers that are not finite")
    lowest = min(float(a.min()) for a in (opened.sd, opened.abs_sd, opened.eps))
    if lowest < 0 or float(opened.eps.max()) > 0.5:
        raise _refused("its spreads are impossible")
    if bool((np.diff(opened.edges, axis=1) < 0).any()):
        raise _refused("its quantiles do not rise")
    if fault := whitening_fault(opened):
        raise _refused(fault)


def _cross(
    features: tuple[str, ...], columns: Columns, rows: NDArray[np.float32]
) -> tuple[dict[str, float], Floats]:
    """What a half reaches against the other: statistics, and (d) mean ranks moved."""
    wide = rows.astype(np.float64)
    middle = len(wide) // 2
    reached: dict[str, float] = {}
    moved = np.zeros(wide.shape[1])
    for first, second in (
        (wide[:middle], wide[middle:]),
        (wide[middle:], wide[:middle]),
    ):
        half = fit_reference(features, first)
        for scope, path in mewma_path(second, half, columns).items():
            reached[scope] = max(reached.get(scope, 0.0), float(path.max()))
        bins = find_bins(second, half.edges)
        scores = rank_scores(half.counts)[np.arange(wide.shape[1]), bins]
        moved = np.maximum(moved, np.abs(scores.mean(axis=0)).max(axis=1))
    return reached, np.minimum(moved, 0.5)
