"""Null streams out of held-out data: what a monitor sees while nothing is wrong.

The rules this module keeps:
 * A stream never shares a source with the reference it is compared with, where there
   are enough sources: a threshold found on the same ones false-alarms 17 times as often
   on a board that sees others.
 * Streams are as correlated as the thresholds promise to stand.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from agent.core.drift.opened import Floats

Rows = NDArray[np.intp]
MIN_GROUPS = 8  # fewer sources say too little of how sources differ
BLOCK = 50  # thinned samples in a row: the memory of an average with lambda .02
MIN_BLOCK = 10  # with fewer in a row there is no order left to speak of
CHUNKS = 16  # parts of one long recording, which stand in for sources
MAX_LAG = 1000  # samples; what is correlated over more cannot be thinned


@dataclass(frozen=True, slots=True)
class Halves:
    """Rows of a reference, and rows that a stream may draw from."""

    reference: Rows
    stream: Rows


def split_groups(groups: Rows, random: np.random.Generator) -> Halves:
    """Part rows by group, half of the groups to each side."""
    names = random.permutation(np.unique(groups))
    mine = np.isin(groups, names[: len(names) // 2])
    return Halves(np.flatnonzero(mine), np.flatnonzero(~mine))


def draw_sticky(
    rows: Rows, count: int, repeat: float, random: np.random.Generator
) -> Rows:
    """Draw rows with replacement, each the one before with a chance.

    The lag-1 autocorrelation of whatever is computed from them is ``repeat``, and their
    distribution that of the rows: other than smoothing, this leaves tails as they are.
    """
    fresh = random.choice(rows, count)
    new = random.random(count) >= repeat
    new[0] = True
    return fresh[np.maximum.accumulate(np.where(new, np.arange(count), 0))]


def draw_blocks(
    rows: Rows, runs: Rows, interval: int, count: int, random: np.random.Generator
) -> Rows | None:
    """Draw stretches of a recording, thinned to one in ``interval``; None if too short.

    Args:
        rows: Rows that may be drawn, in the order of time.
        runs: (n) recording that each of all rows belongs to.
        interval: Rows between two samples of a stretch.
        count: Rows to draw.
        random: Where stretches begin.
    """
    # The stretch is as long as half of all rows can begin one.
    ends = _run_ends(rows, runs)
    room = (ends - np.arange(len(rows)) - 1) // interval + 1
    length = int(min(BLOCK, np.median(room)))
    if length < MIN_BLOCK:
        return None
    starts = np.flatnonzero(room >= length)
    chosen = random.choice(starts, -(-count // length))
    positions = chosen[:, None] + interval * np.arange(length)
    return rows[positions.ravel()[:count]]


def autocorrelation(values: Floats, runs: Rows, lag: int) -> float:
    """Return the lag autocorrelation of features (n, d) within runs, their mean.

    Each run's own level is taken off: it is what a group differs by, not how fast the
    input changes.
    """
    levels = np.empty_like(values)
    for run in np.unique(runs):
        mine = runs == run
        levels[mine] = values[mine].mean(0)
    off = values - levels
    pairs = np.flatnonzero(runs[lag:] == runs[:-lag])
    power = (off**2).mean(0)
    moving = power > 0
    if not len(pairs) or not moving.any():
        return 0.0
    products = (off[pairs] * off[pairs + lag]).mean(0)
    return float(np.clip(products[moving] / power[moving], -1, 1).mean())


def find_interval(values: Floats, runs: Rows, target: float) -> int | None:
    """Return how far apart rows are correlated by ``target`` at most; None for never.

    Doubling, then halving the gap: correlation falls with distance, if anything.
    """
    high = 1
    while autocorrelation(values, runs, high) > target:
        high *= 2
        if high > min(MAX_LAG, len(values) // 2):
            return None
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        if autocorrelation(values, runs, middle) > target:
            low = middle
        else:
            high = middle
    return high


def chunk_runs(groups: Rows) -> Rows:
    """Return the groups of an ordered recording, or parts of it if there are too few.

    A group that returns later is another run.
    """
    runs = np.concatenate([[0], np.cumsum(groups[1:] != groups[:-1])]).astype(np.intp)
    if runs[-1] + 1 >= MIN_GROUPS:
        return runs
    return (np.arange(len(groups)) * CHUNKS // len(groups)).astype(np.intp)


def _run_ends(rows: Rows, runs: Rows) -> Rows:
    """Return for each position in rows where its stretch of one run ends."""
    broken = (runs[rows[1:]] != runs[rows[:-1]]) | (np.diff(rows) != 1)
    ends = np.append(np.flatnonzero(broken) + 1, len(rows))
    return ends[np.searchsorted(ends, np.arange(len(rows)), "right")]
