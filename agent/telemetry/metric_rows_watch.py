"""Rows of the table of metrics that say what the monitors see.

Gauges stand only for the model that answers: one that was replaced would keep its last
score, and its alarm, for ever. Counters stay, as those of all models do.
"""

from agent.telemetry.metric_row import MODEL, MetricRow

_ANCHOR = (*MODEL, "anchor")
_SCOPE = (*MODEL, "anchor", "scope")
_FEATURE = (*MODEL, "anchor", "feature")

WATCH_ROWS = (
    MetricRow(
        "tinyward_drift_reference_info",
        "info",
        (*_ANCHOR, "calibration", "digest"),
        "What the present is compared with: the profile shipped, or this site's own.",
    ),
    MetricRow(
        "tinyward_drift_reference_valid",
        "gauge",
        (*_ANCHOR, "reason"),
        "1 if there is something to compare with; 0 and why otherwise.",
    ),
    MetricRow(
        "tinyward_drift_collected_ratio",
        "gauge",
        _ANCHOR,
        "How much of this site's own baseline is collected; 1 once it is complete.",
    ),
    MetricRow(
        "tinyward_drift_samples_total",
        "counter",
        MODEL,
        "Samples that were watched.",
    ),
    MetricRow(
        "tinyward_drift_sampling_interval",
        "gauge",
        MODEL,
        "One sample in so many is watched.",
    ),
    MetricRow(
        "tinyward_drift_autocorrelation_ratio",
        "gauge",
        MODEL,
        "Correlation of a watched sample with the one before.",
    ),
    MetricRow(
        "tinyward_drift_score_ratio",
        "gauge",
        (*_SCOPE, "detector"),
        "Statistic over its threshold: above 1 it alarms.",
    ),
    MetricRow(
        "tinyward_drift_active",
        "gauge",
        _SCOPE,
        "1 while an alarm is raised and not cleared.",
    ),
    MetricRow(
        "tinyward_drift_confirmed",
        "gauge",
        _SCOPE,
        "1 while the detector with the theoretical threshold agrees with the alarm.",
    ),
    MetricRow(
        "tinyward_drift_alarms_total",
        "counter",
        _SCOPE,
        "Alarms that were raised.",
    ),
    MetricRow(
        "tinyward_drift_last_alarm_timestamp_seconds",
        "gauge",
        _SCOPE,
        "When an alarm was raised last, Unix time.",
    ),
    MetricRow(
        "tinyward_drift_feature_psi",
        "gauge",
        _FEATURE,
        "Population stability index of the last window; diagnostics, no alarm.",
    ),
    MetricRow(
        "tinyward_drift_feature_ks",
        "gauge",
        _FEATURE,
        "Kolmogorov-Smirnov distance of the last window; diagnostics, no alarm.",
    ),
    MetricRow(
        "tinyward_drift_feature_shift_stddevs",
        "gauge",
        _FEATURE,
        "Mean of now less the reference's, in the reference's standard deviations.",
    ),
    MetricRow(
        "tinyward_drift_window_timestamp_seconds",
        "gauge",
        MODEL,
        "When the last window closed, Unix time.",
    ),
    MetricRow(
        "tinyward_input_repeated_total",
        "counter",
        MODEL,
        "Watched inputs that were bit for bit the one before.",
    ),
    MetricRow(
        "tinyward_input_invalid_total",
        "counter",
        (*MODEL, "reason"),
        "Watched inputs that could not be compared: nan, range, shape.",
    ),
    MetricRow(
        "tinyward_output_confidence_ratio",
        "histogram",
        MODEL,
        "Watched answers by their confidence.",
    ),
    MetricRow(
        "tinyward_estimated_accuracy_ratio",
        "gauge",
        (*MODEL, "method"),
        "Share of right answers as estimated without labels; an indicator, no alarm.",
    ),
    MetricRow(
        "tinyward_monitor_seconds_total",
        "counter",
        MODEL,
        "Time that watching took.",
    ),
    MetricRow(
        "tinyward_monitor_cpu_share_ratio",
        "gauge",
        MODEL,
        "Share of the worker's time that watching took lately.",
    ),
    MetricRow(
        "tinyward_monitor_cpu_budget_ratio",
        "gauge",
        (),
        "Share of a worker's time that watching may take.",
    ),
)
