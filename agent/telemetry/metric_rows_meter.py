"""The metrics of a board whose inferences are paid for; others have none."""

from agent.telemetry.metric_row import MetricRow

METER_ROWS = (
    MetricRow(
        "tinyward_meter_left_units",
        "gauge",
        (),
        "Inferences that are paid for and left.",
    ),
    MetricRow(
        "tinyward_meter_owed_units",
        "gauge",
        (),
        "Inferences that were made and are not paid for, by the policy grace.",
    ),
    MetricRow(
        "tinyward_meter_reserved_units",
        "gauge",
        (),
        "What a loss of power would take of those that are left, at most.",
    ),
    MetricRow(
        "tinyward_meter_used_units_total",
        "counter",
        (),
        "Inferences that were charged, in all the meter's life.",
    ),
    MetricRow(
        "tinyward_meter_lost_units_total",
        "counter",
        (),
        "Of these: what crashes took, without a receipt.",
    ),
    MetricRow(
        "tinyward_meter_free_answers_total",
        "counter",
        (),
        "Answers that were not charged: unlimited, or by the policy degrade.",
    ),
    MetricRow(
        "tinyward_meter_unlimited",
        "gauge",
        (),
        "1 while nothing is counted, by a voucher for a time.",
    ),
    MetricRow(
        "tinyward_meter_unpaid",
        "gauge",
        ("pipeline",),
        "1 while a pipeline has no paid unit left.",
    ),
)
