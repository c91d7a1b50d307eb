"""Null streams out of held-out data: what a monitor sees while nothing is wrong.

The rules this module keeps:
 * A stream never shares a source with the reference it is compared with, where there
   are enough sources: a threshold found on the same ones false-alarms 17 times as often
   on a board that sees others.
 * Streams are as correlated as the thresholds promise to stand.
"""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from agent.core.drift.correlation import autocorrelation, wanted_spacing
from agent.core.drift.opened import Floats
from agent.core.drift.thinning import BURST_SAMPLES

Rows = NDArray[np.intp]
MIN_GROUPS = 8  # fewer sources say too little of how sources differ
BLOCK = 50  # thinned samples in a row: the memory of an average with lambda .02
MIN_BLOCK = 10  # with fewer in a row there is no order left to speak of
CHUNKS = 16  # parts of one long recording, which stand in for sources
MIN_STRETCH = 32  # rows: in fewer, a correlation of .3 is not told from none


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


def find_interval(
    directions: Floats, runs: Rows, target: float
) -> tuple[float, int] | None:
    """Return (lag-1 autocorrelation, spacing at which it is the target), in rows.

    Measured as the monitor measures it, so that both speak of the same; None where runs
    are too short.

    Args:
        directions: (n, m) as ``Whitener`` makes them.
        runs: (n) stretch of the recording that each row belongs to.
        target: Lag-1 autocorrelation that is wanted.
    """
    stretches = _stretches(runs)
    lengths = np.array([last - first for first, last in stretches])
    size = int(min(BURST_SAMPLES, np.median(lengths)))
    if size < MIN_STRETCH:
        return None
    starts = [
        start
        for first, last in stretches
        for start in range(first, last - size + 1, size)
    ]
    blocks = [autocorrelation(directions[start : start + size]) for start in starts]
    first_lag = np.median([block[0].mean() for block in blocks])
    return float(np.clip(first_lag, -1, 1)), wanted_spacing(blocks, size, target)


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


def _stretches(runs: Rows) -> list[tuple[int, int]]:
    """Return where each run begins and ends."""
    breaks = np.flatnonzero(runs[1:] != runs[:-1]) + 1
    return list(pairwise([0, *breaks.tolist(), len(runs)]))
