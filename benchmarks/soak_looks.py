"""What a soak saw: one look a second, and what these looks say about leaks and losses.

The rules this module keeps:
 * Pure: looks in, figures out; nothing here asks a board or reads a clock.
 * A process that was replaced begins a series of its own: its memory is compared with
   its own only.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from math import isfinite, nan, sqrt
from statistics import fmean, median

MB = 2**20
HOUR_S = 3600.0
WINDOW_S = 10.0  # of a p99: some thousand answers even at 200 a second
LEAST_LOOKS = 20  # of a series: a line through fewer says nothing
YOUNG_S = 30.0  # a new worker fills its allocator's pools and gives some of it back
COUNTER = re.compile(
    r"^(tinyward_\w+_(?:total|count|bucket)(?:\{[^}]*\})?) (\S+)", re.MULTILINE
)
LABEL = re.compile(r'(\w+)="([^"]*)"')
DURATION = "tinyward_inference_duration_seconds_bucket{"
Counters = Mapping[str, float]  # a name with its labels -> value
Counts = Mapping[float, float]  # upper bound in seconds -> count, not cumulative


@dataclass(frozen=True, slots=True)
class Usage:
    """What a process has at a moment."""

    pid: int
    rss_bytes: int
    descriptors: int


@dataclass(frozen=True, slots=True)
class Look:
    """The board at a moment.

    Attributes:
        at_s: Since the soak began; ``scrape_ms`` is how long ``/metrics`` took then.
        usage: ``daemon`` and each pipeline's name -> what its process has; a worker
            that is being replaced is missing.
        received, ended, failed: Samples of all pipelines in the daemon's life.
        lost: Received, and neither ended nor in flight.
        numbered: What sequence numbers say was received.
        restarts: Reason -> workers replaced.
        versions: Pipeline -> version that is committed and answers.
        answered: Pipeline -> durations of what was answered since the look before, as
            a scraper sees them.
        fallen: How many counters were lower than in the look before.
    """

    at_s: float
    scrape_ms: float
    usage: Mapping[str, Usage]
    received: int
    ended: int
    failed: int
    lost: int
    numbered: int
    restarts: Mapping[str, int]
    versions: Mapping[str, int]
    answered: Mapping[str, Counts] = field(default_factory=dict)
    fallen: int = 0


@dataclass(frozen=True, slots=True)
class Mark:
    """Something that was done to the board.

    Attributes:
        kind: ``update``, or a fault: ``kill``, ``stop``, ``gone``, ``slow``,
            ``reload``.
        pipeline: Whom it hit; empty if nobody in particular.
        version: What an update offers; 0 for a fault.
    """

    at_s: float
    kind: str
    pipeline: str = ""
    version: int = 0


@dataclass(frozen=True, slots=True)
class Slope:
    """A trend in MB an hour, and its standard error."""

    mb_per_h: float
    error: float


@dataclass(frozen=True, slots=True)
class Window:
    """The p99 of the answers within ``WINDOW_S``."""

    at_s: float
    p99_ms: float


def parse_counters(text: str) -> dict[str, float]:
    """Return what may never fall from ``/metrics``: name with labels -> value."""
    return {name: float(value) for name, value in COUNTER.findall(text)}


def fallen(before: Counters, after: Counters) -> list[str]:
    """Return the counters that are lower than they were.

    >>> fallen({"a": 2.0, "gone": 1.0}, {"a": 1.0, "new": 0.0})
    ['a']
    """
    return [name for name, value in before.items() if after.get(name, value) < value]


def answered(before: Counters, after: Counters) -> dict[str, dict[float, float]]:
    """Return how long answers took that are new: pipeline -> bound in s -> count.

    >>> rest = ',pipeline="a",stage="total",version="1"}'
    >>> answered({}, {f'{DURATION}le="{at}"{rest}': 2.0 + at for at in (0.5, 1.5)})
    {'a': {0.5: 2.5, 1.5: 1.0}}
    """
    below: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for name, value in after.items():
        if name.startswith(DURATION) and 'stage="total"' in name:
            labels = dict(LABEL.findall(name))
            who = labels["pipeline"], labels["version"]
            row = (float(labels["le"]), value - before.get(name, 0.0))
            below.setdefault(who, []).append(row)
    found: dict[str, dict[float, float]] = {}
    for (pipeline, _), rows in below.items():
        counts, last = found.setdefault(pipeline, {}), 0.0
        for bound, cumulative in sorted(rows):
            counts[bound] = counts.get(bound, 0.0) + max(0.0, cumulative - last)
            last = cumulative
    return found


def series(looks: Iterable[Look], role: str) -> list[list[tuple[float, Usage]]]:
    """Return a role's (s, usage), a new list for each process that had it."""
    found: dict[int, list[tuple[float, Usage]]] = {}
    for look in looks:
        usage = look.usage.get(role)
        if usage is not None:
            found.setdefault(usage.pid, []).append((look.at_s, usage))
    return list(found.values())


def rss_slope(looks: Iterable[Look], role: str) -> Slope:
    """Return the common trend of a role's processes; NaN without enough looks.

    Least squares with one slope, and for each process a level of its own. The error
    takes into account that a look resembles the one before: the number of independent
    ones is n (1 - r) / (1 + r), r being the residuals' correlation at lag one.
    """
    grown = [_grown_up(part) for part in series(looks, role)]
    rows = [_centred(part) for part in grown if len(part) >= LEAST_LOOKS]
    across = sum(t * t for row in rows for t, _ in row)
    if across == 0:
        return Slope(nan, nan)
    slope = sum(t * y for row in rows for t, y in row) / across
    left = [[y - slope * t for t, y in row] for row in rows]
    count = sum(map(len, left))
    spread = sum(e * e for row in left for e in row)
    beside = sum(a * b for row in left for a, b in pairwise(row))
    alike = min(max(beside / spread, 0.0), 0.999) if spread else 0.0
    freedom = max(1, count - len(rows) - 1)
    error = sqrt(spread / freedom / across * (1 + alike) / (1 - alike))
    return Slope(slope * HOUR_S, error * HOUR_S)


def _grown_up(part: Sequence[tuple[float, Usage]]) -> list[tuple[float, Usage]]:
    """Leave out a process's first half minute."""
    return [(at, usage) for at, usage in part if at - part[0][0] >= YOUNG_S]


def _centred(part: Sequence[tuple[float, Usage]]) -> list[tuple[float, float]]:
    """Return (s, MB) around their means."""
    times = [at for at, _ in part]
    sizes = [usage.rss_bytes / MB for _, usage in part]
    middle, level = fmean(times), fmean(sizes)
    return [(t - middle, y - level) for t, y in zip(times, sizes, strict=True)]


def descriptor_growth(looks: Iterable[Look], role: str) -> float:
    """Return by how much a role's open descriptors grew; the worst of its processes.

    Medians of the first and of the last quarter: a connection is open now and then.
    """
    grown = [nan]
    for part in series(looks, role):
        counts = [usage.descriptors for _, usage in part]
        quarter = len(counts) // 4
        if len(counts) >= LEAST_LOOKS:
            grown.append(median(counts[-quarter:]) - median(counts[:quarter]))
    known = [value for value in grown if isfinite(value)]
    return max(known, default=nan)


def windows(looks: Sequence[Look], pipeline: str) -> list[Window]:
    """Return a pipeline's p99 over time; windows without an answer are left out."""
    found: list[Window] = []
    total: dict[float, float] = {}
    since_s = looks[0].at_s if looks else 0.0
    for look in looks[1:]:
        for bound, count in look.answered.get(pipeline, {}).items():
            total[bound] = total.get(bound, 0.0) + count
        if look.at_s - since_s >= WINDOW_S:
            p99_s = _p99(total)
            if isfinite(p99_s):
                found.append(Window(look.at_s, p99_s * 1e3))
            since_s, total = look.at_s, {}
    return found


def _p99(counts: Counts) -> float:
    """Return the p99 as ``histogram_quantile`` does: linear within its bucket."""
    rank, seen, low = 0.99 * sum(counts.values()), 0.0, 0.0
    for bound in sorted(counts):
        count = counts[bound]
        if count and seen + count >= rank:
            if not isfinite(bound):
                return low
            return low + (bound - low) * (rank - seen) / count
        seen, low = seen + count, bound
    return nan
