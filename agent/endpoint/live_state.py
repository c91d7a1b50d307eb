"""The agent's state as the page shows it: sentences, a few numbers, the newest points.

Smaller than ``/v1/state``, since it is sent every second to whoever looks: only the
model that answers, a few labels and features, and the newest points of each
trend, from which the page goes on drawing.

The rules this module keeps:
 * JSON only: a number that was never measured is ``null``.
 * Numbers have four digits: more are noise, and a third of the bytes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from agent.core.copy_words import say_copy
from agent.core.degradation import LadderState, Level
from agent.core.histogram import count_above, quantile
from agent.core.integrity_words import say_integrity
from agent.core.labels import OTHER, label_counts
from agent.core.log_view import say_log
from agent.core.meter_status import MeterStatus, say_meter, thinned_to
from agent.core.readings import BoardReadings
from agent.core.snapshot import (
    AgentSnapshot,
    ModelCounts,
    PipelineSnapshot,
    UpdateSnapshot,
)
from agent.core.statistics_block import OUTCOMES, STAGES, Section, StageCounts
from agent.core.superseded import is_past
from agent.core.trend import TrendPoint
from agent.core.updates import Report, SetAside
from agent.endpoint.live_notices import find_notices, judge_health
from agent.endpoint.live_server import describe_shown_server
from agent.endpoint.live_watch import describe_shown_watch, short
from agent.endpoint.live_words import (
    explain,
    held_level,
    progress_share,
    say_decision,
    say_ladder,
    say_phase,
    say_report,
)
from agent.endpoint.state import (
    QUANTILES,
    Json,
    describe_installed,
    is_ready,
    is_sealed,
)

SHOWN_LABELS = 10  # ten digits, and no eleventh row for the last of them
NEWEST = 4  # points of 2 s: a page that missed more asks for all of them
REPORTS = 8
Trends = Mapping[str, Sequence[TrendPoint]]


@dataclass(frozen=True, slots=True)
class Stories:
    """How updates ended, newest first, and what is not tried again."""

    reports: Sequence[Report] = ()
    aside: Sequence[SetAside] = ()


def describe_live(
    agent: AgentSnapshot,
    readings: BoardReadings,
    trends: Trends,
    stories: Stories,
) -> Json:
    """Return what a page shows.

    Args:
        agent: The agent as of now.
        readings: The board's newest readings.
        trends: The last minutes of each pipeline.
        stories: What the store remembers of updates.
    """
    found = find_notices(agent, readings.throttled, trends, stories.reports)
    return {
        "now": agent.now,
        "version": agent.version,
        "board": agent.board,
        "ready": is_ready(agent),
        "notices": [
            {"level": it.level, "text": it.text, "since": it.since} for it in found
        ],
        "pipelines": [
            {
                **_describe_pipeline(it),
                "health": judge_health(
                    it, trends.get(it.name, ()), thinned_to(agent.meter, it.name)
                ),
                "wish": _wish(agent.update, it),
                "points": describe_points(trends.get(it.name, ())[-NEWEST:]),
            }
            for it in agent.pipelines
        ],
        "update": _describe_update(agent.update, stories),
        "readings": _describe_readings(agent, readings),
    }


def describe_points(points: Sequence[TrendPoint]) -> list[list[float | None]]:
    """Return points as rows, in the order of ``TrendPoint``'s fields."""
    return [
        [
            round(it.at, 1),
            *map(short, (it.rate, it.failed, it.dropped)),
            *map(short, (it.p50_ms, it.p95_ms, it.p99_ms, it.lag_ms, it.drift)),
            it.version,
        ]
        for it in points
    ]


def _describe_pipeline(pipeline: PipelineSnapshot) -> Json:
    """One pipeline: what answers, how well, and what was in the way."""
    counts = _answering(pipeline)
    section = counts.section if counts else None
    budget_ms = short(pipeline.budgets_ms.get(counts.version)) if counts else None
    return {
        "name": pipeline.name,
        "model": pipeline.model,
        "state": pipeline.state,
        "ready": pipeline.ready,
        "reason": pipeline.reason,
        "why": explain(pipeline.reason),
        "active": describe_installed(pipeline.active),
        "runs": pipeline.runs,
        "held": _describe_held(pipeline.ladder),
        "samples": _describe_samples(pipeline.counts),
        "stages": _describe_stages(section) if section else [],
        "budget_ms": budget_ms,
        "late": _late(section, budget_ms) if section and budget_ms else None,
        "busy_ms": short(pipeline.busy_s * 1000),
        "lag_ms": short(pipeline.lag_s * 1000),
        "gap_ms": short(pipeline.gap_s * 1000),
        "restarts": sum(pipeline.restarts.values()),
        "sink_dropped": sum(pipeline.sink_dropped.values()),
        "worker": {"pid": pipeline.worker_pid, "rss_bytes": pipeline.worker_rss_bytes},
        "labels": _top_labels(counts),
        "copy": say_copy(pipeline.copy, sealed=is_sealed(pipeline)),
        "integrity": _say_integrity(pipeline),
        "watch": describe_shown_watch(pipeline.active_watch()),
    }


def _say_integrity(pipeline: PipelineSnapshot) -> str:
    """Whether what runs is what was verified; empty where that is not checked."""
    view = pipeline.integrity
    return say_integrity(view) if view.wanted or view.last else ""


def _describe_held(ladder: LadderState) -> Json | None:
    """How much a pipeline is held back, in words; nothing if it is not."""
    if ladder.level is Level.NORMAL:
        return None
    return {
        "level": held_level(ladder),
        "text": f"{ladder.level}: {say_ladder(ladder)}",
        "since": ladder.since,
    }


def _answering(pipeline: PipelineSnapshot) -> ModelCounts | None:
    """Return the counts of the model that answers; before its first sample none."""
    active = pipeline.active
    for counts in reversed(pipeline.counts):
        if active and (counts.model, counts.version) == (active.model, active.version):
            return counts
    return None


def _describe_samples(counts: Sequence[ModelCounts]) -> Json:
    """Samples of all models of a pipeline by outcome, and why they were lost."""
    totals = {"in": 0, "ok": 0, "failed": 0, "dropped": 0}
    reasons: dict[str, int] = {}
    for row in counts:
        totals["in"] += row.section.received
        for (outcome, reason), count in zip(
            OUTCOMES, row.section.outcomes, strict=True
        ):
            totals[outcome] += count
            if reason and count:
                reasons[str(reason)] = reasons.get(str(reason), 0) + count
    return {**totals, "reasons": reasons}


def _describe_stages(section: Section) -> list[Json]:
    """Percentiles of each stage, in milliseconds."""
    stages = zip(STAGES, section.stages, strict=True)
    return [{"stage": name, **_describe_stage(stage)} for name, stage in stages]


def _describe_stage(stage: StageCounts) -> Json:
    """Percentiles of one stage from its fine buckets."""
    count = sum(stage.buckets)
    rows: Json = {
        name: short(quantile(stage.buckets, share) / 1e6)
        for name, share in QUANTILES.items()
    }
    return {**rows, "mean": short(stage.sum_ns / count / 1e6) if count else None}


def _late(section: Section, budget_ms: float) -> int:
    """Count answers slower than the model's budget, off by one fine bucket at most."""
    return count_above(section.stages[-1].buckets, budget_ms * 1e6)


def _top_labels(counts: ModelCounts | None) -> list[Json]:
    """The most frequent answers of a model, and all others as one."""
    if counts is None:
        return []
    found = label_counts(counts.labels, counts.section.labels)
    rest = found.pop(OTHER, 0)
    ranked = sorted(found.items(), key=lambda row: (-row[1], row[0]))
    rest += sum(count for _, count in ranked[SHOWN_LABELS:])
    rows: list[Json] = [
        {"label": label, "count": count} for label, count in ranked[:SHOWN_LABELS]
    ]
    return [*rows, {"label": None, "count": rest}] if rest else rows


def _wish(update: UpdateSnapshot, pipeline: PipelineSnapshot) -> str:
    """Return what is wanted of a pipeline, in words."""
    for decision in update.decisions:
        if decision.pipeline == pipeline.name:
            return say_decision(decision, ready=pipeline.ready)
    return ""


def _describe_update(update: UpdateSnapshot, stories: Stories) -> Json:
    """The update machine's story."""
    refusal = update.last_refusal
    # What was refused before something else was wanted is in the story below it.
    if refusal and is_past(refusal, stories.reports, update.decisions):
        refusal = None
    return {
        "phase": update.phase,
        "text": say_phase(update),
        "share": progress_share(update.progress),
        "refusal": None if refusal is None else f"{refusal[1]} [{refusal[0]}]",
        "orchestrator": update.orchestrator,
        "server": describe_shown_server(update.ddi),
        "last_look": update.last_look,
        "next_look": update.next_look,
        "reports": [_describe_report(it) for it in stories.reports[:REPORTS]],
        "aside": [
            {"sha256": it.sha256, "reason": it.reason, "at": it.at}
            for it in stories.aside
        ],
    }


def _describe_report(report: Report) -> Json:
    """How one update ended, and why."""
    return {
        "at": report.ended_at or report.began_at,
        "pipeline": report.pipeline,
        "result": report.result,
        "text": say_report(report),
        "reason": report.reason,
    }


def _say_paid(meter: MeterStatus | None) -> str | None:
    """What may still be answered, where inferences are paid for."""
    if meter is None:
        return None
    unlimited, trouble = meter.unlimited, meter.trouble
    return say_meter(meter.left, meter.owed, unlimited=unlimited, trouble=trouble)


def _describe_readings(agent: AgentSnapshot, readings: BoardReadings) -> Json:
    """The board's own health."""
    return {
        "cpu_percent": short(readings.cpu_percent),
        "memory_percent": short(readings.memory_percent),
        "disk_percent": short(readings.disk_percent),
        "load_1min": short(readings.load_1min),
        "frequency_mhz": short(readings.cpu_frequency_hertz / 1e6),
        "received_bytes_per_s": short(readings.received_bytes_per_s),
        "sent_bytes_per_s": short(readings.sent_bytes_per_s),
        "temperatures": [[name, short(it)] for name, it in readings.temperatures],
        "throttled": [[kind, holds] for kind, holds in readings.throttled],
        "memory_available_bytes": short(readings.memory_available_bytes),
        "memory_stalled_percent": short(readings.memory_stalled_percent),
        "disk_free_bytes": short(readings.disk_free_bytes),
        "disk_wear": [[device, short(share)] for device, share in readings.disk_wear],
        "clock_synchronised": readings.clock_synchronised,
        "model": readings.identity.model,
        "power_mode": readings.power_mode,
        "daemon_rss_bytes": agent.daemon_rss_bytes,
        "receipts": say_log(agent.log) if agent.log is not None else None,
        "paid": _say_paid(agent.meter),
        "engines": agent.engines,
    }
