"""Metrics as text: one frozen snapshot in, what a Prometheus scrape wants out.

The rules this module keeps:
 * A scrape reads; it computes no statistics, takes no lock and touches no disk.
 * Label values come from settings, manifests and reasons: their number is bounded.
 * A counter that can only be missed by appearing late starts at 0, so that ``rate()``
   and ``increase()`` see its first step.
 * The wall clock comes with the snapshot: ages are differences of two of its values.
"""

import platform
import time
from collections.abc import Callable, Iterable

from prometheus_client.core import Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from agent.core.histogram import exported_buckets
from agent.core.labels import label_counts
from agent.core.readings import BoardReadings
from agent.core.reasons import Reason
from agent.core.snapshot import (
    AgentSnapshot,
    ModelCounts,
    PipelineSnapshot,
    UpdateSnapshot,
)
from agent.core.statistics_block import OK, OUTCOMES, STAGES
from agent.core.update_machine import Phase
from agent.telemetry.families import Families

RESTART_REASONS = (Reason.CRASH, Reason.HANG, Reason.OOM, Reason.REQUESTED)
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


class AgentCollector(Collector):
    """One snapshot as metric families, for prometheus_client's encoders."""

    def __init__(
        self, snapshot: AgentSnapshot, board: BoardReadings, took_s: float
    ) -> None:
        self._snapshot = snapshot
        self._board = board
        self._took_s = took_s

    def collect(self) -> Iterable[Metric]:
        """Return the families; the order is that of the table."""
        families = Families()
        _collect_agent(families, self._snapshot)
        for pipeline in self._snapshot.pipelines:
            _collect_pipeline(families, pipeline)
            for counts in pipeline.counts:
                _collect_model(families, pipeline.name, counts)
        _collect_update(families, self._snapshot.update)
        _collect_plan(families, self._snapshot.update)
        _collect_ages(families, self._snapshot.update, self._snapshot.now)
        _collect_board(families, self._board)
        families.add("tinyward_scrape_duration_seconds", self._took_s)
        return families.collect()


class Exposition:
    """Renders scrapes and times them: each one reports how long the last one took."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._took_s = 0.0

    def render(
        self, snapshot: AgentSnapshot, board: BoardReadings, accept: str
    ) -> tuple[str, bytes]:
        """Return the content type and the body for one scrape."""
        begun = self._clock()
        answer = render_metrics(snapshot, board, accept, self._took_s)
        self._took_s = self._clock() - begun
        return answer


def render_metrics(
    snapshot: AgentSnapshot, board: BoardReadings, accept: str, took_s: float
) -> tuple[str, bytes]:
    """Return the content type and the text of all metrics.

    Args:
        snapshot: What to expose.
        board: The board's last readings.
        accept: The scraper's ``Accept`` header: OpenMetrics 1.0 if it asks for it,
            else the Prometheus text format 0.0.4.
        took_s: Seconds the scrape before took.
    """
    encoder, content_type = choose_encoder(accept)
    return content_type, encoder(AgentCollector(snapshot, board, took_s))


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
    if pipeline.active is not None:
        families.add_info(
            "tinyward_model_info",
            name,
            pipeline.active.model,
            str(pipeline.active.version),
            pipeline.active.variant,
            pipeline.active.executor.describe(),
            pipeline.active.sha256,
            pipeline.state,
        )
    families.add("tinyward_pipeline_ready", float(pipeline.ready), name)
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


def _collect_model(families: Families, pipeline: str, counts: ModelCounts) -> None:
    """What one model version answered in one pipeline."""
    who = (pipeline, counts.model, str(counts.version))
    section = counts.section
    for index, ((outcome, reason), count) in enumerate(
        zip(OUTCOMES, section.outcomes, strict=True)
    ):
        if count or index == OK:
            families.add("tinyward_samples_total", count, *who, outcome, str(reason))
    for stage, durations in zip(STAGES, section.stages, strict=True):
        families.add_histogram(
            "tinyward_inference_duration_seconds",
            exported_buckets(durations.buckets),
            durations.sum_ns / 1e9,
            *who,
            stage,
        )
    for label, count in label_counts(counts.labels, section.labels).items():
        families.add("tinyward_predictions_total", count, *who, label)


def _collect_update(families: Families, update: UpdateSnapshot) -> None:
    """The update machine: its phase, its results, and what was not admitted."""
    for phase in Phase:
        families.add("tinyward_update_phase", float(phase == update.phase), phase)
    for (result, why), count in ({("committed", ""): 0} | update.results).items():
        families.add("tinyward_updates_total", count, result, why)
    for kind, count in ({"full": 0, "resumed": 0} | update.bytes).items():
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


def _collect_board(families: Families, board: BoardReadings) -> None:
    """The sensors this board has."""
    for sensor, celsius in board.temperatures:
        families.add("tinyward_board_temperature_celsius", celsius, sensor)
    for kind, holds in board.throttled:
        families.add("tinyward_board_throttled", float(holds), kind)
    families.add("tinyward_board_cpu_frequency_hertz", board.cpu_frequency_hertz)
