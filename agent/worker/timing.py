"""Timing several executors fairly: warmed, interleaved, median of the rounds.

One after the other, a keyword model looked slower with XNNPACK than without it;
interleaved it is 3.5 times faster. Frequency, cache and neighbours change within
seconds, so every round gives each executor its turn, each time in another order.
"""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from agent.worker.samples import Arrays

MIN_ROUNDS = 5
# A round of one executor: long enough for 20 runs of a small model, short enough for
# all executors to see the same machine.
ROUND_NS = 4_000_000
MAX_RUNS = 40  # in one round: 40 runs give a 95th percentile
NS_PER_MS = 1_000_000


@dataclass(frozen=True, slots=True)
class Timed:
    """Durations of one executor in ms: medians over the rounds."""

    p50_ms: float
    p95_ms: float


def time_runs(
    infer: Callable[[Arrays], object], inputs: Sequence[Arrays], runs: int
) -> list[int]:
    """Return how long each of ``runs`` calls took, in ns; inputs take turns."""
    clock = time.perf_counter_ns
    durations = []
    for run in range(runs):
        given = inputs[run % len(inputs)]
        started = clock()
        infer(given)
        durations.append(clock() - started)
    return durations


def count_runs(one_ns: int) -> int:
    """Return how many runs make one round.

    >>> count_runs(100_000), count_runs(1), count_runs(10**9)
    (40, 40, 1)
    """
    return max(1, min(MAX_RUNS, ROUND_NS // max(1, one_ns)))


def affordable(estimates_ns: Sequence[int], left_ns: int) -> list[int]:
    """Return the numbers of the executors for which ``MIN_ROUNDS`` rounds fit.

    The slowest give way first: they would not have been chosen.

    >>> affordable([10, 500, 20], left_ns=1000)
    [0, 2]
    """
    kept = sorted(range(len(estimates_ns)), key=lambda at: estimates_ns[at])
    while kept and sum(estimates_ns[at] for at in kept) * MIN_ROUNDS > left_ns:
        kept.pop()
    return sorted(kept)


def fitting_rounds(round_ns: int, left_ns: int, wanted: int) -> int:
    """Return how many rounds fit, at least ``MIN_ROUNDS`` and at most ``wanted``.

    >>> fitting_rounds(100, 1000, 20), fitting_rounds(900, 1000, 20)
    (10, 5)
    """
    return max(MIN_ROUNDS, min(wanted, left_ns // max(1, round_ns)))


def summarise(rounds: Sequence[Sequence[int]]) -> Timed:
    """Return the medians over rounds of each round's median and 95th percentile.

    >>> summarise([[1_000_000] * 20, [1_000_000] * 20, [9_000_000] * 20])
    Timed(p50_ms=1.0, p95_ms=1.0)
    """
    return Timed(
        statistics.median(_percentile(each, 50) for each in rounds) / NS_PER_MS,
        statistics.median(_percentile(each, 95) for each in rounds) / NS_PER_MS,
    )


def _percentile(values: Sequence[int], percent: int) -> int:
    """Return the smallest value that ``percent`` of the values do not exceed."""
    place = -(-len(values) * percent // 100) - 1
    return sorted(values)[place]
