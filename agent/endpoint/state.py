"""The agent's state as JSON: ``/readyz`` and ``/v1/state``.

The rules this module keeps:
 * JSON only: a value that is not there is ``null``, never NaN.
 * Durations are in the unit that their key ends with; moments are Unix seconds, 0 for
   never.
"""

from collections.abc import Mapping, Sequence
from functools import reduce
from math import isfinite

import msgspec

from agent.core.counts import EMPTY
from agent.core.degradation import LadderState, Level
from agent.core.histogram import count_above, merge, quantile
from agent.core.installed import Installed
from agent.core.integrity_words import describe_integrity
from agent.core.labels import label_counts
from agent.core.snapshot import (
    AgentSnapshot,
    ModelCounts,
    PipelineSnapshot,
    ServerSnapshot,
    UpdateSnapshot,
)
from agent.core.statistics_block import OUTCOMES, STAGES, Section, StageCounts
from agent.endpoint.watch_state import describe_watch

QUANTILES = {"p50": 0.5, "p95": 0.95, "p99": 0.99}
Json = dict[str, object]


def is_ready(agent: AgentSnapshot) -> bool:
    """Return whether every pipeline answers with a verified model."""
    return all(pipeline.ready for pipeline in agent.pipelines)


def describe_readiness(agent: AgentSnapshot) -> Json:
    """Return the body of ``/readyz``: what is not ready, and why.

    Who answers less is ready all the same, and says so; who abstains is not.
    """
    pipelines = {it.name: _describe_ready(it) for it in agent.pipelines}
    return {"ready": is_ready(agent), "pipelines": pipelines}


def _describe_ready(pipeline: PipelineSnapshot) -> Json:
    """Whether one pipeline is ready, and how much it is held back, if it is."""
    said: Json = {"ready": pipeline.ready, "reason": pipeline.reason}
    ladder = pipeline.ladder
    if ladder.level is not Level.NORMAL:
        said |= {"level": ladder.level, "detail": ladder.detail}
    return said


def describe_agent(agent: AgentSnapshot) -> Json:
    """Return the body of ``/v1/state``: the whole snapshot, with percentiles."""
    return {
        "version": agent.version,
        "board": agent.board,
        "now": agent.now,
        "engines": agent.engines,
        "ready": is_ready(agent),
        "daemon_rss_bytes": agent.daemon_rss_bytes,
        "update": _describe_update(agent.update),
        "pipelines": {p.name: _describe_pipeline(p) for p in agent.pipelines},
        **({"audit": agent.log} if agent.log is not None else {}),
        **({"meter": agent.meter} if agent.meter is not None else {}),
    }


def render_json(value: object) -> bytes:
    """Return JSON with a newline at its end, for people with ``curl``."""
    return msgspec.json.format(msgspec.json.encode(value), indent=1) + b"\n"


def _describe_pipeline(pipeline: PipelineSnapshot) -> Json:
    """One pipeline: what answers, how well, and what was in the way."""
    return {
        "model": pipeline.model,
        "state": pipeline.state,
        "ready": pipeline.ready,
        "reason": pipeline.reason,
        "active": describe_installed(pipeline.active),
        "choice": describe_choice(pipeline.active),
        "runs": pipeline.runs,
        "copy": pipeline.copy,
        "sealed": is_sealed(pipeline),
        "ladder": _describe_ladder(pipeline.ladder),
        "in_flight": pipeline.in_flight,
        "next_seq": pipeline.seq,
        "source_lag_ms": _milli(pipeline.lag_s),
        "busy_ms": _milli(pipeline.busy_s),
        "swap_gap_ms": _milli(pipeline.gap_s),
        "latency_ms": _describe_stage(_all_models(pipeline.counts)),
        "swaps": _describe_results(pipeline.swaps),
        "restarts": pipeline.restarts,
        "stand_in_deaths": pipeline.stand_in_deaths,
        "integrity": describe_integrity(pipeline.integrity),
        "sink_dropped": pipeline.sink_dropped,
        "worker": {
            "pid": pipeline.worker_pid,
            "rss_bytes": pipeline.worker_rss_bytes,
            "locks": pipeline.worker_locks,
        },
        "models": [
            _describe_model(counts, pipeline.budgets_ms.get(counts.version))
            for counts in pipeline.counts
        ],
        "watch": [describe_watch(watch) for watch in pipeline.watch],
    }


def _describe_ladder(ladder: LadderState) -> Json:
    """How much a pipeline is held back, why, and what is done about it."""
    return {
        "level": ladder.level,
        "since": ladder.since,
        "reasons": ladder.reasons,
        "detail": ladder.detail,
        "measures": ladder.measures,
        "lacking": ladder.lacking,
        "transitions": [
            {"level": level, "reason": reason, "count": count}
            for level, reason, count in ladder.transitions
        ],
    }


def _all_models(counts: Sequence[ModelCounts]) -> StageCounts:
    """Sum the whole durations over all models of a pipeline."""
    return reduce(_join, (row.section.stages[-1] for row in counts), EMPTY.stages[-1])


def _join(left: StageCounts, right: StageCounts) -> StageCounts:
    """Return the durations of both."""
    buckets = tuple(merge(left.buckets, right.buckets))
    return StageCounts(left.sum_ns + right.sum_ns, buckets)


def is_sealed(pipeline: PipelineSnapshot) -> bool:
    """Whether the model that answers lies encrypted on the disk."""
    return pipeline.active is not None and pipeline.active.sealed is not None


def describe_installed(installed: Installed | None) -> Json | None:
    """The model that answers."""
    if installed is None:
        return None
    return {
        "model": installed.model,
        "version": installed.version,
        "variant": installed.variant,
        "executor": installed.executor.describe(),
        "sha256": installed.sha256,
        "size": installed.size,
        "verified_at": installed.verified_at,
    }


def describe_choice(installed: Installed | None) -> Json | None:
    """Why this variant on this executor answers, and what preflight passed over."""
    if installed is None:
        return None
    return {
        "why": installed.why,
        "p50_ms": installed.p50_ms,
        "ram_bytes": installed.ram_bytes,
        "passed_over": [
            {
                "variant": row.variant,
                "executor": row.executor.describe(),
                "reason": row.reason,
                "detail": row.detail,
                "p50_ms": row.p50_ms,
                "ram_bytes": row.ram_bytes,
            }
            for row in installed.passed_over
        ],
    }


def _describe_model(counts: ModelCounts, budget_ms: float | None) -> Json:
    """What one model version answered, how fast, and how often later than it may."""
    section = counts.section
    stages = zip(STAGES, section.stages, strict=True)
    return {
        "model": counts.model,
        "version": counts.version,
        "samples": _describe_samples(section),
        "budget_ms": budget_ms,
        "deadline_missed": _count_late(section, budget_ms),
        "latency_ms": {name: _describe_stage(stage) for name, stage in stages},
        "labels": label_counts(counts.labels, section.labels),
    }


def _count_late(section: Section, budget_ms: float | None) -> int | None:
    """Count the answers that took longer than the budget; None without one."""
    if budget_ms is None:
        return None
    return count_above(section.stages[-1].buckets, budget_ms * 1e6)


def _describe_samples(section: Section) -> Json:
    """Samples by outcome; ``in`` = ok + failed + dropped + in flight."""
    totals = {"in": section.received, "ok": 0, "failed": 0, "dropped": 0}
    reasons: dict[str, int] = {}
    for (outcome, reason), count in zip(OUTCOMES, section.outcomes, strict=True):
        totals[outcome] += count
        if reason and count:
            reasons[str(reason)] = count
    return {**totals, "reasons": reasons}


def _describe_stage(stage: StageCounts) -> Json:
    """Percentiles of one stage from its fine buckets, each off by an eighth at most."""
    count = sum(stage.buckets)
    rows: Json = {"count": count}
    for name, share in QUANTILES.items():
        rows[name] = _milli(quantile(stage.buckets, share) / 1e9)
    rows["mean"] = _milli(stage.sum_ns / count / 1e9) if count else None
    return rows


def _describe_update(update: UpdateSnapshot) -> Json:
    """The update machine and what it last refused."""
    return {
        "phase": update.phase,
        "results": _describe_results(update.results),
        "verify_failures": update.verify_failures,
        "bytes": update.bytes,
        "last_refusal": _describe_trouble(update.last_refusal),
        "trouble": _describe_trouble(update.trouble),
        "clock_floor_lag_s": update.clock_floor_lag_s,
        "clock_floor": update.clock_floor,
        "orchestrator": update.orchestrator,
        "decisions": msgspec.to_builtins(update.decisions),
        "progress": msgspec.to_builtins(update.progress),
        "last_look": update.last_look,
        "next_look": update.next_look,
        "metadata_expires": update.metadata_expires,
        "metadata_issued": update.metadata_issued,
        "set_aside": update.set_aside,
        "revoked": update.revoked,
        "certificate_expires": update.certificate_expires,
        "ddi": _describe_server(update.ddi),
    }


def _describe_server(server: ServerSnapshot | None) -> Json | None:
    """The fleet's server, and the order of its that is open; null without one."""
    if server is None:
        return None
    said: Json = msgspec.to_builtins(server)
    return {**said, "trouble": _describe_trouble(server.trouble)}


def _describe_trouble(trouble: tuple[str, str] | None) -> Json | None:
    """What went wrong, and why."""
    if trouble is None:
        return None
    reason, message = trouble
    return {"reason": reason, "message": message}


def _describe_results(results: Mapping[tuple[str, str], int]) -> list[Json]:
    """Counts by (result, reason) as rows, since JSON has no pairs as keys."""
    return [
        {"result": result, "reason": reason, "count": count}
        for (result, reason), count in results.items()
    ]


def _milli(seconds: float) -> float | None:
    """Return milliseconds; None for what was never measured."""
    return seconds * 1000 if isfinite(seconds) else None
