"""The metrics of a board that a fleet's server orders about; others have none."""

from agent.telemetry.metric_row import MetricRow

FLEET_ROWS = (
    MetricRow(
        "tinyward_ddi_last_poll_seconds",
        "gauge",
        (),
        "Seconds since the fleet's server last answered a poll.",
    ),
    MetricRow(
        "tinyward_ddi_outbox",
        "gauge",
        (),
        "How much the fleet's server has not been told yet.",
    ),
    MetricRow(
        "tinyward_ddi_requests_total",
        "counter",
        ("result",),
        "Requests to the fleet's server: ok, unchanged, refused (4xx) or failed.",
    ),
)
