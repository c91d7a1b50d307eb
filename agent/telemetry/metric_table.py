"""The metrics Tinyward exposes: one table.

The README's table of metrics is rendered from ``METRICS`` and checked by a test.
"""

from collections.abc import Mapping
from types import MappingProxyType

from agent.telemetry.metric_row import MODEL, MetricRow
from agent.telemetry.metric_rows_board import BOARD_ROWS
from agent.telemetry.metric_rows_fleet import FLEET_ROWS
from agent.telemetry.metric_rows_integrity import INTEGRITY_ROWS
from agent.telemetry.metric_rows_log import LOG_ROWS
from agent.telemetry.metric_rows_meter import METER_ROWS
from agent.telemetry.metric_rows_watch import WATCH_ROWS

__all__ = ["METRICS", "MetricRow"]


_ROWS = (
    MetricRow(
        "tinyward_build_info",
        "info",
        ("version", "runtime", "python", "machine"),
        "The agent, its runtimes, Python and machine.",
    ),
    MetricRow(
        "tinyward_model_info",
        "info",
        (*MODEL, "variant", "executor", "digest", "state"),
        "The model that answers: active, or candidate while it is on trial; with the "
        "variant and executor that run, which may stand in for the chosen ones.",
    ),
    MetricRow(
        "tinyward_pipeline_ready",
        "gauge",
        ("pipeline",),
        "1 if the pipeline has answered with a verified model and its worker lives.",
    ),
    MetricRow(
        "tinyward_samples_total",
        "counter",
        (*MODEL, "outcome", "reason"),
        "Samples by how they ended: ok, failed or dropped, and why.",
    ),
    MetricRow(
        "tinyward_inference_duration_seconds",
        "histogram",
        (*MODEL, "stage"),
        "Time per sample by stage: preprocess, infer, postprocess, total (ok only).",
    ),
    MetricRow(
        "tinyward_deadline_missed_total",
        "counter",
        MODEL,
        "Answers that took longer than the model's p95 budget, read off at the next "
        "bound of a histogram: up to 12 % above it.",
    ),
    MetricRow(
        "tinyward_inference_budget_seconds",
        "gauge",
        MODEL,
        "What 95 of 100 answers may take, by the model's manifest.",
    ),
    MetricRow(
        "tinyward_queue_age_seconds",
        "gauge",
        ("pipeline",),
        "How long the sample in flight has taken so far; 0 without one.",
    ),
    MetricRow(
        "tinyward_source_lag_seconds",
        "gauge",
        ("pipeline",),
        "Age of the newest sample when the loop took it.",
    ),
    MetricRow(
        "tinyward_predictions_total",
        "counter",
        (*MODEL, "label"),
        "Top-1 answers by label; at most 64 labels, then other. In privacy mode those "
        "of watched samples only, all as other.",
    ),
    *WATCH_ROWS,
    *INTEGRITY_ROWS,
    MetricRow(
        "tinyward_model_swaps_total",
        "counter",
        ("pipeline", "result", "reason"),
        "Swaps of the answering model by how they ended, and why.",
    ),
    MetricRow(
        "tinyward_swap_gap_seconds",
        "gauge",
        ("pipeline",),
        "Longest pause of the loop around the last swap.",
    ),
    MetricRow(
        "tinyward_worker_restarts_total",
        "counter",
        ("pipeline", "reason"),
        "Workers that were replaced: crash, hang, oom, requested, integrity, or its "
        "source's.",
    ),
    MetricRow(
        "tinyward_worker_resident_bytes",
        "gauge",
        ("pipeline",),
        "Resident memory of the worker; 0 while there is none.",
    ),
    MetricRow(
        "tinyward_sink_dropped_total",
        "counter",
        ("pipeline", "sink"),
        "Predictions a sink could not take in time.",
    ),
    MetricRow(
        "tinyward_degradation_level",
        "gauge",
        ("pipeline",),
        "How much a pipeline is held back: 0 normal, 1 suspect, 2 degraded, 3 safe.",
    ),
    MetricRow(
        "tinyward_degradation_transitions_total",
        "counter",
        ("pipeline", "level", "reason"),
        "How often a pipeline came to a level, and why: heat, throttled, deadline...; "
        "calm on the way down.",
    ),
    MetricRow(
        "tinyward_degradation_measure",
        "gauge",
        ("pipeline", "measure"),
        "1 for a measure that holds, 0 for one that was asked for and is lacking.",
    ),
    MetricRow(
        "tinyward_update_phase",
        "gauge",
        ("phase",),
        "1 for the phase the update machine is in, 0 for all others.",
    ),
    MetricRow(
        "tinyward_updates_total",
        "counter",
        ("result", "reason"),
        "Updates by result: committed, refused, failed or rolled_back; and why.",
    ),
    MetricRow(
        "tinyward_update_bytes_total",
        "counter",
        ("kind",),
        "Bytes fetched for updates: full; resumed: were here already; delta.",
    ),
    MetricRow(
        "tinyward_desired_info",
        "info",
        (*MODEL, "source"),
        "What is wanted of each pipeline, and whose desired state says so.",
    ),
    MetricRow(
        "tinyward_update_waiting",
        "gauge",
        ("pipeline", "reason"),
        "1 while what is wanted does not run, by why; 0 and no reason otherwise.",
    ),
    MetricRow(
        "tinyward_last_look_seconds",
        "gauge",
        (),
        "Seconds since the repository was last looked at with success.",
    ),
    MetricRow(
        "tinyward_verify_failures_total",
        "counter",
        ("reason",),
        "Repository contents that did not pass verification, by reason.",
    ),
    MetricRow(
        "tinyward_clock_floor_lag_seconds",
        "gauge",
        (),
        "How far the system clock is behind the latest verified time; 0 if it is not.",
    ),
    MetricRow(
        "tinyward_metadata_expires_seconds",
        "gauge",
        ("role",),
        "Seconds until a role's metadata expires and updates stop; negative after.",
    ),
    MetricRow(
        "tinyward_metadata_age_seconds",
        "gauge",
        (),
        "Seconds since the newest verified metadata was issued: it grows in a freeze.",
    ),
    MetricRow(
        "tinyward_certificate_expires_seconds",
        "gauge",
        (),
        "Seconds until this board's own certificate ends; negative after.",
    ),
    MetricRow(
        "tinyward_set_aside_bundles",
        "gauge",
        (),
        "Bundles that failed here and are not tried again.",
    ),
    MetricRow(
        "tinyward_revoked_bundles",
        "gauge",
        (),
        "Bundles that the owner revoked, by the newest verified list.",
    ),
    *FLEET_ROWS,
    *LOG_ROWS,
    *METER_ROWS,
    MetricRow(
        "tinyward_daemon_resident_bytes",
        "gauge",
        (),
        "Resident memory of the daemon.",
    ),
    *BOARD_ROWS,
    MetricRow(
        "tinyward_scrape_duration_seconds",
        "gauge",
        (),
        "Time the scrape before this one took to render.",
    ),
    MetricRow(
        "tinyward_series",
        "gauge",
        (),
        "Series in this scrape.",
    ),
    MetricRow(
        "tinyward_series_left_out",
        "gauge",
        (),
        "Series that are not in this scrape, for want of room in its budget.",
    ),
)
METRICS: Mapping[str, MetricRow] = MappingProxyType({row.name: row for row in _ROWS})
