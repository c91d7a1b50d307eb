"""The metrics Tinyward exposes: one table, and a way to fill it.

The README's table of metrics is rendered from ``METRICS`` and checked by a test.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isnan
from types import MappingProxyType
from typing import Literal

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)

Kind = Literal["counter", "gauge", "histogram", "info"]
MODEL = ("pipeline", "model", "version")


@dataclass(frozen=True, slots=True)
class MetricRow:
    """One metric: its name as scraped, its type, its labels, and what it means."""

    name: str
    kind: Kind
    labels: tuple[str, ...]
    text: str


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
        "The model that answers: active, or candidate while it is on trial.",
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
        "tinyward_source_lag_seconds",
        "gauge",
        ("pipeline",),
        "Age of the newest sample when the loop took it.",
    ),
    MetricRow(
        "tinyward_predictions_total",
        "counter",
        (*MODEL, "label"),
        "Top-1 answers by label; at most 64 labels, then other.",
    ),
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
        "Workers that were replaced: crash, hang, oom, requested, or its source's.",
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
        "Bytes fetched for updates: full, delta or resumed.",
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
        "tinyward_daemon_resident_bytes",
        "gauge",
        (),
        "Resident memory of the daemon.",
    ),
    MetricRow(
        "tinyward_board_temperature_celsius",
        "gauge",
        ("sensor",),
        "Temperature by sensor.",
    ),
    MetricRow(
        "tinyward_board_throttled",
        "gauge",
        ("kind",),
        "1 for what slows a Raspberry Pi down now: under_voltage, frequency_capped, "
        "throttled, soft_temperature_limit.",
    ),
    MetricRow(
        "tinyward_board_cpu_frequency_hertz",
        "gauge",
        (),
        "Current frequency of the processor, the mean over its cores.",
    ),
    MetricRow(
        "tinyward_scrape_duration_seconds",
        "gauge",
        (),
        "Time the scrape before this one took to render.",
    ),
)
METRICS: Mapping[str, MetricRow] = MappingProxyType({row.name: row for row in _ROWS})


class Families:
    """Metric families that fill up while one snapshot is read."""

    def __init__(self) -> None:
        self._families: dict[str, Metric] = {}

    def add(self, name: str, value: float, *labels: str) -> None:
        """Add one value of a counter or gauge; NaN, a missing sensor, is left out."""
        family = self._family(name)
        if isnan(value):
            return
        if isinstance(family, CounterMetricFamily | GaugeMetricFamily):
            family.add_metric(labels, value)

    def add_info(self, name: str, *values: str) -> None:
        """Add one identity: a value for each label of the table's row."""
        family = self._family(name)
        if isinstance(family, InfoMetricFamily):
            named = dict(zip(METRICS[name].labels, values, strict=True))
            family.add_metric((), named)

    def add_histogram(
        self,
        name: str,
        buckets: Sequence[tuple[float, int]],
        sum_s: float,
        *labels: str,
    ) -> None:
        """Add one histogram from (upper bound in seconds, cumulative count) rows."""
        family = self._family(name)
        if isinstance(family, HistogramMetricFamily):
            rows = [(_bound(bound), float(count)) for bound, count in buckets]
            family.add_metric(labels, rows, sum_s)

    def collect(self) -> list[Metric]:
        """Return the families that have samples, in the order of the table."""
        found = [self._families[name] for name in METRICS if name in self._families]
        return [family for family in found if family.samples]

    def _family(self, name: str) -> Metric:
        """Return the family of a metric, made from its row when first needed."""
        if name not in self._families:
            self._families[name] = _new_family(METRICS[name])
        return self._families[name]


def _new_family(row: MetricRow) -> Metric:
    """Build an empty family for one row of the table."""
    if row.kind == "counter":
        return CounterMetricFamily(row.name, row.text, labels=row.labels)
    if row.kind == "gauge":
        return GaugeMetricFamily(row.name, row.text, labels=row.labels)
    if row.kind == "histogram":
        return HistogramMetricFamily(row.name, row.text, labels=row.labels)
    return InfoMetricFamily(row.name.removesuffix("_info"), row.text)


def _bound(seconds: float) -> str:
    """Spell a bucket's bound the same way for ever: it is part of the series' name."""
    return "+Inf" if seconds == float("inf") else repr(round(seconds, 9))
