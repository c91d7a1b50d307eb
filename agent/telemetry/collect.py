"""From snapshot to families: everything but what the monitors say.

The rules this module keeps:
 * A scrape reads; it computes no statistics, takes no lock and touches no disk.
 * Label values come from settings, manifests and reasons: their number is bounded, and
   of one pipeline's models the newest are shown.
 * A counter that can only be missed by appearing late starts at 0, so that ``rate()``
   and ``increase()`` see its first step.
 * The wall clock comes with the snapshot: ages are differences of two of its values.
"""

import platform

from agent.core.histogram import count_above, exported_buckets
from agent.core.labels import label_counts
from agent.core.readings import BoardReadings
from agent.core.reasons import Reason
from agent.core.snapshot import (
    AgentSnapshot,
    ModelCounts,
    PipelineSnapshot,
    ServerSnapshot,
    UpdateSnapshot,
)
from agent.core.statistics_block import OK, OUTCOMES, STAGES
from agent.core.update_machine import Phase
from agent.core.watch_totals import active_alarms
from agent.telemetry.collect_board import collect_board
from agent.telemetry.collect_integrity import collect_integrity
from agent.telemetry.collect_log import collect_log
from agent.telemetry.collect_meter import collect_meter
from agent.telemetry.collect_watch import collect_watch
from agent.telemetry.families import OWN, Families, Part
from agent.telemetry.ranks import Rank, rank_models

RESTART_REASONS = (
    *(Reason.CRASH, Reason.HANG, Reason.OOM, Reason.REQUESTED),
    Reason.INTEGRITY,
)
REQUEST_RESULTS = ("ok", "unchanged", "refused", "failed")
BYTES = ("full", "delta", "resumed")
VERIFY_REASONS = (
    Reason.SIGNATURE,
    Reason.THRESHOLD,
    Reason.EXPIRED,
    Reason.REPLAYED,
    Reason.MIXED,
    Reason.MISSING_TARGET,
    Reason.METADATA,
    Reason.DIGEST,
    Reason.LENGTH,
)


def collect(snapshot: AgentSnapshot, board: BoardReadings) -> Families:
    """Return everything a snapshot and the board's readings say."""
    families = Families()
    _collect_agent(families, snapshot)
    for pipeline in snapshot.pipelines:
        _collect_pipeline(families, pipeline)
        _collect_ladder(families, pipeline)
        collect_integrity(families, pipeline.name, pipeline.integrity)
        _collect_models(families, pipeline)
    _collect_update(families, snapshot.update)
    _collect_plan(families, snapshot.update)
    _collect_ages(families, snapshot.update, snapshot.now)
    if snapshot.update.ddi is not None:
        _collect_server(families, snapshot.update.ddi, snapshot.now)
    if snapshot.log is not None:
        collect_log(families, snapshot.log)
    if snapshot.meter is not None:
        collect_meter(families, snapshot.meter)
    collect_board(families, board)
    return families


def _collect_agent(families: Families, agent: AgentSnapshot) -> None:
    """The agent's identity and memory."""
    runtimes = [f"{name} {version}" for name, version in sorted(agent.engines.items())]
    families.add_info(
        "tinyward_build_info",
        agent.version,
        ", ".join(runtimes),
        platform.python_version(),
        platform.machine(),
    )
    families.add("tinyward_daemon_resident_bytes", agent.daemon_rss_bytes)


def _collect_pipeline(families: Families, pipeline: PipelineSnapshot) -> None:
    """What belongs to a pipeline, whichever model answers."""
    name = pipeline.name
    runs = pipeline.stand_in or pipeline.active
    if runs is not None:
        families.add_info(
            "tinyward_model_info",
            name,
            runs.model,
            str(runs.version),
            runs.variant,
            runs.executor.describe(),
            runs.sha256,
            pipeline.state,
        )
    families.add("tinyward_pipeline_ready", float(pipeline.ready), name)
    families.add("tinyward_queue_age_seconds", pipeline.busy_s, name)
    families.add("tinyward_source_lag_seconds", pipeline.lag_s, name)
    families.add("tinyward_swap_gap_seconds", pipeline.gap_s, name)
    families.add("tinyward_worker_resident_bytes", pipeline.worker_rss_bytes, name)
    for (result, why), count in ({("ok", ""): 0} | pipeline.swaps).items():
        families.add("tinyward_model_swaps_total", count, name, result, why)
    restarts = {str(reason): 0 for reason in RESTART_REASONS} | pipeline.restarts
    for reason, count in restarts.items():
        families.add("tinyward_worker_restarts_total", count, name, reason)
    for sink, count in pipeline.sink_dropped.items():
        families.add("tinyward_sink_dropped_total", count, name, sink)


def _collect_ladder(families: Families, pipeline: PipelineSnapshot) -> None:
    """How much a pipeline is held back, and how often it came to that.

    The level tells an alert what it needs; why it came about may be left out.
    """
    name, ladder = pipeline.name, pipeline.ladder
    families.add("tinyward_degradation_level", float(ladder.level.rank), name)
    families.part = Part(name, Rank.FEATURES)
    for measure in dict.fromkeys((*ladder.measures, *ladder.lacking)):
        holds = float(measure in ladder.measures)
        families.add("tinyward_degradation_measure", holds, name, measure)
    for level, reason, count in ladder.transitions:
        families.add(
            "tinyward_degradation_transitions_total", count, name, level, reason
        )
    families.part = OWN


def _collect_models(families: Families, pipeline: PipelineSnapshot) -> None:
    """What the newest models answered, and what their monitors say."""
    ranks = rank_models(pipeline)
    answers = pipeline.active is not None
    for (model, version), rank in ranks.items():
        now = answers and rank == Rank.ESSENTIAL
        families.models.add((pipeline.name, model, version, now))
    watch_now = pipeline.active_watch()
    if watch_now and active_alarms(watch_now.monitored):
        families.alarmed.add(pipeline.name)
    for counts in pipeline.counts:
        age = ranks.get((counts.model, counts.version))
        if age is not None:
            _collect_answers(families, pipeline.name, counts, age)
            _collect_deadlines(families, pipeline, counts, age)
    for watch in pipeline.watch:
        age = ranks.get((watch.model, watch.version))
        if age is not None:
            collect_watch(families, pipeline.name, watch, age)
    families.part = OWN


def _collect_answers(
    families: Families, pipeline: str, counts: ModelCounts, age: int
) -> None:
    """What one model version answered in one pipeline, and how fast."""
    who = (pipeline, counts.model, str(counts.version))
    section = counts.section
    families.part = Part(pipeline, age)
    for index, ((outcome, reason), count) in enumerate(
        zip(OUTCOMES, section.outcomes, strict=True)
    ):
        if count or index == OK:
            families.add("tinyward_samples_total", count, *who, outcome, str(reason))
    for stage, durations in zip(STAGES, section.stages, strict=True):
        families.part = Part(pipeline, age if stage == "total" else Rank.STAGES)
        families.add_histogram(
            "tinyward_inference_duration_seconds",
            exported_buckets(durations.buckets),
            durations.sum_ns / 1e9,
            *who,
            stage,
        )
    families.part = Part(pipeline, Rank.LABELS)
    for label, count in label_counts(counts.labels, section.labels).items():
        families.add("tinyward_predictions_total", count, *who, label)


def _collect_deadlines(
    families: Families, pipeline: PipelineSnapshot, counts: ModelCounts, age: int
) -> None:
    """What a model's answers may take, and how many took longer.

    The fine bucket that holds the budget counts as in time: nothing is called late
    that may have been within it.
    """
    budget_ms = pipeline.budgets_ms.get(counts.version)
    if budget_ms is None:
        return
    who = (pipeline.name, counts.model, str(counts.version))
    durations = counts.section.stages[-1].buckets
    families.part = Part(pipeline.name, age)
    families.add("tinyward_inference_budget_seconds", budget_ms / 1e3, *who)
    late = count_above(durations, budget_ms * 1e6)
    families.add("tinyward_deadline_missed_total", late, *who)


def _collect_update(families: Families, update: UpdateSnapshot) -> None:
    """The update machine: its phase, its results, and what was not admitted."""
    for phase in Phase:
        families.add("tinyward_update_phase", float(phase == update.phase), phase)
    for (result, why), count in ({("committed", ""): 0} | update.results).items():
        families.add("tinyward_updates_total", count, result, why)
    for kind, count in (dict.fromkeys(BYTES, 0) | update.bytes).items():
        families.add("tinyward_update_bytes_total", count, kind)
    failures = {str(reason): 0 for reason in VERIFY_REASONS} | update.verify_failures
    for reason, count in failures.items():
        families.add("tinyward_verify_failures_total", count, reason)
    families.add("tinyward_clock_floor_lag_seconds", update.clock_floor_lag_s)
    families.add("tinyward_set_aside_bundles", update.set_aside)
    families.add("tinyward_revoked_bundles", update.revoked)


def _collect_plan(families: Families, update: UpdateSnapshot) -> None:
    """What is wanted of each pipeline, and why it does not run yet."""
    for decision in update.decisions:
        if decision.desired is not None:
            families.add_info(
                "tinyward_desired_info",
                decision.pipeline,
                decision.desired.model,
                str(decision.desired.version),
                decision.source,
            )
        families.add(
            "tinyward_update_waiting",
            float(bool(decision.reason)),
            decision.pipeline,
            decision.reason,
        )


def _collect_ages(families: Families, update: UpdateSnapshot, now: float) -> None:
    """How long ago, and how long still; nothing where the moment is not known.

    A gauge that is 0 by mistake would raise every alert on it, so what never happened
    is left out.
    """
    if not now:
        return
    # Signed moments are judged as the board judges them: a clock that woke up in 1970
    # makes nothing last 56 years longer.
    judged = max(now, update.clock_floor)
    for role, expires in update.metadata_expires.items():
        families.add("tinyward_metadata_expires_seconds", expires - judged, role)
    if update.metadata_issued:
        families.add("tinyward_metadata_age_seconds", judged - update.metadata_issued)
    if update.certificate_expires:
        left_s = update.certificate_expires - judged
        families.add("tinyward_certificate_expires_seconds", left_s)
    if update.last_look:
        families.add("tinyward_last_look_seconds", now - update.last_look)


def _collect_server(families: Families, server: ServerSnapshot, now: float) -> None:
    """The fleet's server: whether it answers, and what it still has to be told."""
    families.add("tinyward_ddi_outbox", server.outbox)
    requests = dict.fromkeys(REQUEST_RESULTS, 0) | server.requests
    for result, count in requests.items():
        families.add("tinyward_ddi_requests_total", count, result)
    if now and server.last_poll:
        families.add("tinyward_ddi_last_poll_seconds", now - server.last_poll)
