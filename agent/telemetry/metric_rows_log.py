"""The metrics of a board that gives receipts; others have none."""

from agent.telemetry.metric_row import MetricRow

LOG_ROWS = (
    MetricRow(
        "tinyward_audit_records_total",
        "counter",
        (),
        "Records in the log of receipts, in all its life, events included.",
    ),
    MetricRow(
        "tinyward_audit_lost_total",
        "counter",
        (),
        "Records that found no room on the disk: answers without a receipt.",
    ),
    MetricRow(
        "tinyward_audit_checkpoints_total",
        "counter",
        (),
        "Checkpoints of the log that were signed since the start.",
    ),
    MetricRow(
        "tinyward_audit_unsigned_records",
        "gauge",
        (),
        "Records that no checkpoint covers yet; it grows while the disk takes none.",
    ),
    MetricRow(
        "tinyward_audit_log_bytes",
        "gauge",
        (),
        "What the log of receipts takes on the disk.",
    ),
    MetricRow(
        "tinyward_audit_checkpoint_age_seconds",
        "gauge",
        (),
        "Seconds since the newest checkpoint was signed.",
    ),
    MetricRow(
        "tinyward_audit_set_aside",
        "gauge",
        (),
        "Logs that were found damaged and set aside in the state directory: evidence "
        "that somebody has to look at, and to remove.",
    ),
    MetricRow(
        "tinyward_audit_gaps_total",
        "counter",
        (),
        "Starts of the log after which the last moments before may be missing.",
    ),
    MetricRow(
        "tinyward_audit_inputs_not_kept_total",
        "counter",
        (),
        "Inputs that were to be kept for audits, and were not: they came too fast, or "
        "the disk or audit.keep_mb has no room.",
    ),
)
