"""How soon a shift would be found: what a publisher wants to know of a profile.

Found by trying: held-out samples, each feature moved by so many of its standard
deviations, through the monitor's own statistic.
"""

from dataclasses import dataclass

import numpy as np

from agent.core.drift.mewma import mewma_path
from agent.core.drift.opened import Columns, Floats, OpenReference

SIZES = (0.5, 1.0, 2.0)  # of a shift, in standard deviations of the feature
TRIES = 5  # streams of each shift; their median is told
LONGEST = 1000  # samples; a mean of late has arrived long before
EVERYTHING = "all features"


@dataclass(frozen=True, slots=True)
class Delay:
    """How soon one shift would be found.

    Attributes:
        shift: Feature that moves, or ``EVERYTHING``.
        size: By how many of its standard deviations.
        samples: Watched samples until the alarm, None for more than ``LONGEST``.
    """

    shift: str
    size: float
    samples: int | None


def expected_delays(
    values: Floats,
    reference: OpenReference,
    columns: Columns,
    random: np.random.Generator,
) -> tuple[Delay, ...]:
    """Return the delay of each moving feature's shift, and of all of them at once."""
    moving = np.flatnonzero(reference.moving)
    delays = []
    for size in SIZES:
        for column in moving:
            step = np.zeros(len(reference.sd))
            step[column] = size * reference.sd[column]
            found = _delay(values + step, reference, columns, random)
            delays.append(Delay(reference.features[column], size, found))
        everything = values + size * reference.sd
        found = _delay(everything, reference, columns, random)
        delays.append(Delay(EVERYTHING, size, found))
    return tuple(delays)


def _delay(
    shifted: Floats,
    reference: OpenReference,
    columns: Columns,
    random: np.random.Generator,
) -> int | None:
    """Return the median number of samples until the first scope alarms."""
    firsts = []
    for _ in range(TRIES):
        rows = random.integers(0, len(shifted), LONGEST)
        paths = mewma_path(shifted[rows], reference, columns)
        over = [path > reference.thresholds[scope] for scope, path in paths.items()]
        beyond = np.any(over, axis=0)
        firsts.append(int(beyond.argmax()) + 1 if beyond.any() else LONGEST + 1)
    middle = sorted(firsts)[TRIES // 2]
    return middle if middle <= LONGEST else None
