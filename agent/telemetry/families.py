"""Metric families that fill up from a snapshot, each by its row of the table."""

from collections.abc import Sequence
from math import isnan

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)

from agent.telemetry.metric_table import METRICS, MetricRow

__all__ = ["METRICS", "Families", "MetricRow"]


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
