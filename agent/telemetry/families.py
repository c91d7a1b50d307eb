"""Metric families that fill up from a snapshot, each by its row of the table.

The rules this module keeps:
 * A family holds plain numbers and label values; ``agent.telemetry.text`` spells them.
 * Every series has a rank: how early it is left out where there is no room for all.
 * No series is there twice, whatever a worker says twice: the last one holds.
   Prometheus would drop one of them by chance.
"""

from collections.abc import Iterator, Sequence
from math import isnan
from typing import NamedTuple

from agent.telemetry.metric_table import METRICS, MetricRow

__all__ = ["METRICS", "Entry", "Families", "MetricRow"]

ESSENTIAL = 0  # what alerts and people need first: never left out
Buckets = Sequence[tuple[float, int]]


class Entry(NamedTuple):
    """One counter, gauge, identity or histogram with its labels' values.

    Attributes:
        rank: How early it is left out; ``ESSENTIAL`` is never.
        labels: Values in the order of the table's row.
        value: Of a counter or gauge, 1 of an identity, the sum of a histogram.
        buckets: Of a histogram: (upper bound, cumulative count).
    """

    rank: int
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
        rank: What entries that are added now are worth; see ``Entry``.
        lowest: Entries of this rank and above are left out.
    """

    def __init__(self) -> None:
        self.rank = ESSENTIAL
        self.lowest = 1_000_000  # above all ranks
        self._entries: dict[str, dict[tuple[str, ...], Entry]] = {
            name: {} for name in METRICS
        }

    def add(self, name: str, value: float, *labels: str) -> None:
        """Add one value of a counter or gauge; NaN, a missing sensor, is left out."""
        if not isnan(value):
            self._entries[name][labels] = Entry(self.rank, labels, value)

    def add_info(self, name: str, *labels: str) -> None:
        """Add one identity: a value for each label of the table's row."""
        self._entries[name][labels] = Entry(self.rank, labels, 1.0)

    def add_histogram(
        self, name: str, buckets: Buckets, total: float, *labels: str
    ) -> None:
        """Add one histogram from (upper bound, cumulative count) rows and its sum."""
        self._entries[name][labels] = Entry(self.rank, labels, total, buckets)

    def tally(self) -> dict[int, int]:
        """Return rank -> series that were added with it."""
        tally: dict[int, int] = {}
        for entries in self._entries.values():
            for entry in entries.values():
                tally[entry.rank] = tally.get(entry.rank, 0) + entry.series
        return tally

    def shown(self) -> Iterator[tuple[MetricRow, list[Entry]]]:
        """Yield families that have entries to show, in the order of the table."""
        for name, entries in self._entries.items():
            kept = [it for it in entries.values() if it.rank < self.lowest]
            if kept:
                yield METRICS[name], kept
