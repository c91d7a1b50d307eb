"""Trends: the last minutes of a pipeline, as differences of snapshots.

A scrape says what was counted since the daemon began; a page wants to see how it went.
A ring of points costs some 100 bytes each and is filled whether anybody looks or not.
"""

from collections import deque
from collections.abc import Sequence

from msgspec import Struct

from agent.core.counts import EMPTY, add_sections
from agent.core.histogram import merge, quantile
from agent.core.snapshot import PipelineSnapshot
from agent.core.statistics_block import OK, OUTCOMES, Section
from agent.core.watching import ModelWatch

PERIOD_S = 2.0
KEPT = 450  # 15 minutes
_FAILED = tuple(at for at, (outcome, _) in enumerate(OUTCOMES) if outcome == "failed")
_DROPPED = tuple(at for at, (outcome, _) in enumerate(OUTCOMES) if outcome == "dropped")


class TrendPoint(Struct, frozen=True, array_like=True):
    """What a pipeline did since the point before.

    Attributes:
        at: Unix seconds at its end.
        rate: Answers per second; ``failed`` and ``dropped`` likewise.
        p50_ms: Percentiles of whole durations, ``None`` without an answer.
        lag_ms: Age of the newest sample when it was taken.
        drift: The largest score over its threshold, ``None`` where nothing is compared.
        version: The model that answered.
    """

    at: float
    rate: float
    failed: float
    dropped: float
    p50_ms: float | None
    p95_ms: float | None
    p99_ms: float | None
    lag_ms: float
    drift: float | None
    version: int


class Trend:
    """The last points of one pipeline."""

    def __init__(self) -> None:
        self._points: deque[TrendPoint] = deque(maxlen=KEPT)
        self._before: Section | None = None
        self._at = 0.0  # monotonic: a clock that jumps makes no rate

    def points(self) -> Sequence[TrendPoint]:
        """Return the points, oldest first."""
        return tuple(self._points)

    def add(self, pipeline: PipelineSnapshot, now: float, monotonic: float) -> None:
        """Take one look.

        Args:
            pipeline: What it has counted so far.
            now: Unix seconds, only shown.
            monotonic: Seconds of a clock that never jumps.
        """
        total = _total(pipeline)
        before, seconds = self._before, monotonic - self._at
        self._before, self._at = total, monotonic
        if before is None or seconds <= 0:
            return
        self._points.append(_point(pipeline, total, before, now, seconds))


def _total(pipeline: PipelineSnapshot) -> Section:
    """Return what all models of a pipeline have counted."""
    total = EMPTY
    for counts in pipeline.counts:
        total = add_sections(total, counts.section)
    return total


def _point(
    pipeline: PipelineSnapshot,
    total: Section,
    before: Section,
    now: float,
    seconds: float,
) -> TrendPoint:
    """Return one point."""
    durations = merge(
        total.stages[-1].buckets, [-count for count in before.stages[-1].buckets]
    )
    p50_ms, p95_ms, p99_ms = (
        quantile(durations, share) / 1e6 if any(durations) else None
        for share in (0.5, 0.95, 0.99)
    )
    return TrendPoint(
        now,
        (total.outcomes[OK] - before.outcomes[OK]) / seconds,
        _rise(total, before, _FAILED) / seconds,
        _rise(total, before, _DROPPED) / seconds,
        p50_ms,
        p95_ms,
        p99_ms,
        pipeline.lag_s * 1000,
        highest_score(pipeline.active_watch()),
        pipeline.active.version if pipeline.active else 0,
    )


def highest_score(watch: ModelWatch | None) -> float | None:
    """Return the largest score over its threshold; None where nothing is compared.

    Repeated inputs are counted with no anchor at all: that none repeats is no score.
    """
    if watch is None:
        return None
    said = watch.monitored
    highest = max((score.ratio for score in said.scores), default=None)
    return highest if highest or any(it.valid for it in said.anchors) else None


def _rise(total: Section, before: Section, outcomes: tuple[int, ...]) -> int:
    """Return how much some outcomes rose."""
    return sum(total.outcomes[at] - before.outcomes[at] for at in outcomes)
