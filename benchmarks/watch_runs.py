"""Streams through the product's monitor: when it alarms, and how often it should not.

The rules this module keeps:
 * A run is one ``Monitor`` from its first sample on, fed as the worker's eye feeds it:
   it is asked for its interval, and shown no other samples.
 * An alarm that was up before the shift began is a false one: such a run says nothing
   of the delay, and is drawn again.
"""

import statistics
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from agent.core.drift.features import FeatureReader
from agent.core.drift.monitor import Monitor, Setup
from agent.core.drift.reference import Shipped
from agent.core.watching import Anchor, Scope
from benchmarks.watch_subjects import Looks

MISSED = 4000  # samples: what a shift that was not found counts as
PRE = 1000  # samples before a shift

Where = tuple[Anchor, Scope]


@dataclass(frozen=True, slots=True)
class Found:
    """What runs of one shift found.

    Attributes:
        delays: Samples until the alarm by run, ``MISSED`` for none.
    """

    name: str
    delays: tuple[int, ...]

    @property
    def delay(self) -> float:
        """Median over the runs."""
        return statistics.median(self.delays)

    @property
    def recall(self) -> float:
        """Share of runs in which it was found."""
        return statistics.mean(delay < MISSED for delay in self.delays)


def new_monitor(shipped: Shipped, site: bytes = b"") -> Monitor:
    """Return a monitor as the worker builds it."""
    reader: FeatureReader = shipped.reader
    return Monitor(
        Setup(
            names=reader.names,
            columns=reader.columns,
            classes=reader.classes,
            shipped=shipped.reference,
            shipped_reason=shipped.reason,
            shipped_detail=shipped.detail,
            site=site,
        )
    )


def feed(monitor: Monitor, looks: Looks, first_seq: int = 1) -> Iterator[int]:
    """Show a monitor the samples it asks for; yield those at which an alarm changed."""
    due = 0
    columns = zip(
        *(looks.values, looks.index.tolist()),
        *(looks.confidence.tolist(), looks.checksum.tolist()),
        strict=True,
    )
    for at, (values, index, confidence, checksum) in enumerate(columns):
        if at < due:
            continue
        if monitor.observe(values, index, confidence, checksum, first_seq + at):
            yield at
        due = at + monitor.interval


def active(monitor: Monitor) -> set[Where]:
    """Return which alarms are up."""
    alarms = monitor.say().alarms
    return {(alarm.anchor, alarm.scope) for alarm in alarms if alarm.active}


def raised(monitor: Monitor) -> dict[Where, int]:
    """Return how often each alarm was raised."""
    alarms = monitor.say().alarms
    return {(alarm.anchor, alarm.scope): alarm.raised for alarm in alarms}


def first_alarms(
    monitor: Monitor, looks: Looks, first_seq: int, wanted: Collection[Where]
) -> dict[Where, int]:
    """Return samples until each wanted alarm; those that stayed down are left out.

    Stops when all are up.
    """
    found: dict[Where, int] = {}
    for at in feed(monitor, looks, first_seq):
        for where in active(monitor) & set(wanted):
            found.setdefault(where, at + 1)
        if len(found) == len(set(wanted)):
            break
    return found


def run_shift(
    build: Callable[[], Monitor],
    before: Callable[[], Looks],
    after: Callable[[], Looks],
    tiers: Sequence[Collection[Where]],
) -> list[int]:
    """Return samples from a shift to the first alarm of each tier, in one run."""
    every = {where for tier in tiers for where in tier}
    while True:
        monitor, quiet = build(), before()
        alarmed = any(active(monitor) & every for _ in feed(monitor, quiet))
        if not alarmed:
            break
    shifted = after()
    # A tier is done with its first alarm; stop once all are.
    delays = [MISSED] * len(tiers)
    for at in feed(monitor, shifted, len(quiet) + 1):
        up = active(monitor)
        for place, tier in enumerate(tiers):
            if delays[place] == MISSED and up & set(tier):
                delays[place] = at + 1
        if MISSED not in delays:
            break
    return delays


def geometric_mean(found: Sequence[Found]) -> float:
    """Return the geometric mean of the medians of delays."""
    return statistics.geometric_mean([one.delay for one in found])


def mean_recall(found: Sequence[Found]) -> float:
    """Return the mean share of runs in which a shift was found."""
    return statistics.mean(one.recall for one in found)


def pick(looks: Looks, count: int, random: np.random.Generator) -> Looks:
    """Return samples drawn from others, with replacement."""
    rows: NDArray[np.intp] = random.integers(0, len(looks), count)
    return looks.take(rows)
