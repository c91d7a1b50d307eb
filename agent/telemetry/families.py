"""Metric families that fill up from a snapshot, each by its row of the table.

The rules this module keeps:
 * A family holds plain numbers and label values; ``agent.telemetry.text`` spells them.
 * Every series belongs to a part, which is shown as a whole or left out as a whole.
 * No series is there twice, whatever a worker says twice: the last one holds.
   Prometheus would drop one of them by chance.
"""

from collections.abc import Collection, Iterator, Sequence
from math import isnan
from typing import NamedTuple

from agent.telemetry.metric_table import METRICS, MetricRow

__all__ = ["METRICS", "Entry", "Families", "MetricRow"]

ESSENTIAL = 0  # what alerts and people need first: never left out
Buckets = Sequence[tuple[float, int]]


class Part(NamedTuple):
    """Series that stand or go together.

    Attributes:
        pipeline: Whose they are; empty for the agent's own.
        rank: How early they are left out; ``ESSENTIAL`` is never.
    """

    pipeline: str
    rank: int


OWN = Part("", ESSENTIAL)


class Entry(NamedTuple):
    """One counter, gauge, identity or histogram with its labels' values.

    Attributes:
        part: What it is shown or left out with.
        labels: Values in the order of the table's row.
        value: Of a counter or gauge, 1 of an identity, the sum of a histogram.
        buckets: Of a histogram: (upper bound, cumulative count).
    """

    part: Part
    labels: tuple[str, ...]
    value: float
    buckets: Buckets = ()

    @property
    def series(self) -> int:
        """How many series it is: a histogram has its buckets, their count and sum."""
        return len(self.buckets) + 2 if self.buckets else 1


class Families:
    """Metric families that fill up while one snapshot is read.

    Attributes:
        part: What entries that are added now belong to.
        left_out: Parts that are not shown.
        models: (pipeline, model, version, answers) of all models that have series.
        alarmed: Pipelines in whose answering model an alarm is active.
    """

    def __init__(self) -> None:
        self.part = OWN
        self.left_out: Collection[Part] = frozenset()
        self.models: set[tuple[str, str, int, bool]] = set()
        self.alarmed: set[str] = set()
        self._entries: dict[str, dict[tuple[str, ...], Entry]] = {
            name: {} for name in METRICS
        }

    def add(self, name: str, value: float, *labels: str) -> None:
        """Add one value of a counter or gauge; NaN, a missing sensor, is left out."""
        if not isnan(value):
            self._entries[name][labels] = Entry(self.part, labels, value)

    def add_info(self, name: str, *labels: str) -> None:
        """Add one identity: a value for each label of the table's row."""
        self._entries[name][labels] = Entry(self.part, labels, 1.0)

    def add_histogram(
        self, name: str, buckets: Buckets, total: float, *labels: str
    ) -> None:
        """Add one histogram from (upper bound, cumulative count) rows and its sum."""
        self._entries[name][labels] = Entry(self.part, labels, total, buckets)

    def tally(self) -> dict[Part, int]:
        """Return part -> its series, parts in the order in which they began."""
        tally: dict[Part, int] = {}
        for entries in self._entries.values():
            for entry in entries.values():
                tally[entry.part] = tally.get(entry.part, 0) + entry.series
        return tally

    def shown(self) -> Iterator[tuple[MetricRow, list[Entry]]]:
        """Yield families that have entries to show, in the order of the table."""
        for name, entries in self._entries.items():
            kept = [it for it in entries.values() if it.part not in self.left_out]
            if kept:
                yield METRICS[name], kept
