"""How soon an alarm comes when the input is changed on purpose: measured, not computed.

Streams alternate between unchanged samples, until the average has forgotten what was
before, and changed ones; what is counted is the watched samples from the change to the
first statistic above its threshold.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from agent.cli.profile_reader import Rows
from agent.core.drift.calibrate import Calibrated
from agent.core.drift.mewma import mewma_path
from agent.core.drift.opened import Columns

RUNS = 21  # an odd number: the median is one of them
CALM = 300  # samples after which an average with lambda .02 remembers 0.2 % of before
PATIENCE = 1000  # watched samples after which a shift counts as not found


@dataclass(frozen=True, slots=True)
class ShiftDelay:
    """How soon one shift of the input is found.

    Attributes:
        meaning: What was changed, for people.
        warning: Median watched samples until any scope's alarm, None if it is not
            found in most runs; ``critical`` until the output's.
        found: Share of runs in which any alarm came.
    """

    meaning: str
    warning: int | None
    critical: int | None
    found: float


def shift_delays(
    rows: Rows, calibrated: Calibrated, columns: Columns, seed: int
) -> tuple[ShiftDelay, ...]:
    """Return the delay of every shift that was read."""
    random = np.random.default_rng(seed)
    found = []
    for shift in rows.said.shifts:
        changed = rows.shifts[shift.name]
        if not len(changed):
            continue
        stream = _alternate(rows.values, changed, random)
        paths = mewma_path(stream, calibrated.reference, columns)
        thresholds = calibrated.reference.thresholds
        above = {scope: path > thresholds[scope] for scope, path in paths.items()}
        anything = np.logical_or.reduce(list(above.values()))
        first = _first_alarms(anything)
        output = above.get("output", np.zeros(len(stream), np.bool_))
        found.append(
            ShiftDelay(
                shift.meaning,
                _median(first),
                _median(_first_alarms(output)),
                float((first < PATIENCE).mean()),
            )
        )
    return tuple(found)


def _alternate(
    calm: NDArray[np.float64],
    changed: NDArray[np.float64],
    random: np.random.Generator,
) -> NDArray[np.float64]:
    """Return ``RUNS`` times calm rows, then changed ones, all drawn at random."""
    parts = []
    for _ in range(RUNS):
        parts.append(calm[random.integers(len(calm), size=CALM)])
        parts.append(changed[random.integers(len(changed), size=PATIENCE)])
    return np.concatenate(parts)


def _first_alarms(above: NDArray[np.bool_]) -> NDArray[np.intp]:
    """Return (RUNS) samples from each change to the first alarm, ``PATIENCE`` if none.

    The sample that raises it counts: no alarm comes after 0 samples.
    """
    changed = above.reshape(RUNS, CALM + PATIENCE)[:, CALM:]
    first = np.where(changed.any(axis=1), changed.argmax(axis=1) + 1, PATIENCE)
    return first.astype(np.intp)


def _median(first: NDArray[np.intp]) -> int | None:
    """Return the median delay, None if most runs found nothing."""
    median = int(np.median(first))
    return median if median < PATIENCE else None
