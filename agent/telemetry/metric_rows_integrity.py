"""Rows of the table of metrics that say whether what runs is what was verified."""

from agent.telemetry.metric_row import MetricRow

_CHECK = ("pipeline", "check")

INTEGRITY_ROWS = (
    MetricRow(
        "tinyward_integrity_checks_total",
        "counter",
        _CHECK,
        "Integrity checks that ended: passes over the model's file in memory (source) "
        "and over the copies that kernels read (packed), known answers, audits.",
    ),
    MetricRow(
        "tinyward_integrity_mismatches_total",
        "counter",
        _CHECK,
        "Checks that found something else than was verified.",
    ),
    MetricRow(
        "tinyward_integrity_pass_age_seconds",
        "gauge",
        ("pipeline",),
        "Time since the model's memory was last hashed as a whole.",
    ),
    MetricRow(
        "tinyward_integrity_covered_bytes",
        "gauge",
        _CHECK,
        "Bytes of memory that one pass hashes.",
    ),
)
