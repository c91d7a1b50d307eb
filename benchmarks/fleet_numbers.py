"""What was measured of a thousand boards, computed for fleets that fit no machine.

Two kinds of figures: ``paced`` runs the real ``Pace`` of many boards without a network,
so that chance evens out; ``behind_cdn`` multiplies.
"""

import heapq
import random
from dataclasses import dataclass

from agent.update.pace import Pace

BOARDS = 1_000_000
POLL_S = 300.0
# A large CDN's points of presence; each asks the origin once for what it has not got.
EDGES = 100
TIMESTAMP_S = 60.0  # Cache-Control of timestamp.json: what it costs in freshness
BUNDLE_BYTES = 20_000_000  # the model
DELTA_SHARE = 0.04  # of a bundle, for a change of 1 % of its weights (ota.md 3.3)
DAY_S = 86_400.0


@dataclass(frozen=True, slots=True)
class Herd:
    """Looks of a fleet around an outage, in multiples of the steady rate.

    Attributes:
        busiest: Looks in the busiest second after the server is back.
        busiest_away: The same while it was away.
        last_s: When the last board had looked successfully, after it was back.
    """

    busiest: float
    busiest_away: float
    last_s: float


def paced(
    boards: int, away_s: float, *, together: bool = False, poll_s: float = POLL_S
) -> Herd:
    """Return how so many boards come back, by ``Pace`` alone.

    Args:
        boards: Enough that a second of steady polling has many looks.
        away_s: How long the server is away.
        together: They are all switched on in the second in which the outage begins;
            else they have polled for two periods before.
        poll_s: Seconds between two looks.
    """
    draw = random.Random(boards).random  # noqa: S311 - a simulation that can be repeated
    gone_s = 0.0 if together else 2 * poll_s
    back_s, ends_s = gone_s + away_s, gone_s + away_s + 2 * poll_s
    paces = [Pace(poll_s, draw) for _ in range(boards)]
    # Boots differ by some seconds even where the mains come back for all.
    first_s = 10.0 if together else poll_s
    due = [(first_s * draw(), number) for number in range(boards)]
    heapq.heapify(due)
    counts = [0] * (int(ends_s) + 1)
    waiting, last_s = set(range(boards)), 0.0
    while due[0][0] < ends_s:
        at_s, number = due[0]
        counts[int(at_s)] += 1
        failed = gone_s <= at_s < back_s
        if at_s >= back_s and number in waiting:
            waiting.remove(number)
            last_s = at_s - back_s
        pause_s = paces[number].after(failed=failed)
        heapq.heapreplace(due, (at_s + pause_s, number))
    steady = boards / poll_s
    away = counts[int(gone_s) : int(back_s)]
    return Herd(
        busiest=max(counts[int(back_s) :]) / steady,
        busiest_away=max(away) / steady,
        last_s=last_s if not waiting else float("inf"),
    )


@dataclass(frozen=True, slots=True)
class Measured:
    """What one look and one update of one board cost, as measured.

    Attributes:
        look_bytes: Of a look with nothing new, TLS included.
        day_bytes: Of a whole day with nothing new but four signatures.
        day_requests: Likewise.
        update_requests: Of the looks of one board in which it takes in a version.
        update_bytes: Their bytes without the bundle.
    """

    look_bytes: float
    day_bytes: float
    day_requests: float
    update_requests: float
    update_bytes: float


def behind_cdn(measured: Measured) -> list[tuple[str, float, str]]:
    """Return (what, value, unit) of a million boards behind a CDN: computed."""
    looks, gbit = BOARDS / POLL_S, 8 / 1e9
    # Of metadata that is new every six hours, and of a version's files: once an edge.
    asked = EDGES / TIMESTAMP_S
    update_s = measured.update_requests * looks
    whole = BUNDLE_BYTES + measured.update_bytes
    part = BUNDLE_BYTES * DELTA_SHARE + measured.update_bytes
    return [
        ("polling: requests at the edge", BOARDS * measured.day_requests / DAY_S, "/s"),
        ("polling: traffic", looks * measured.look_bytes * gbit, "Gbit/s"),
        ("polling: bytes a day", BOARDS * measured.day_bytes / 1e9, "GB"),
        ("polling: requests at the origin", asked, "/s"),
        ("20 MB to all at once, one period: requests", update_s, "/s"),
        (
            "20 MB to all at once, one period: traffic",
            looks * whole * gbit,
            "Gbit/s",
        ),
        (
            "20 MB over a day of waves: traffic",
            BOARDS * whole / DAY_S * gbit,
            "Gbit/s",
        ),
        ("20 MB to all: bytes", BOARDS * whole / 1e12, "TB"),
        ("20 MB to all: bytes from the origin", EDGES * whole / 1e9, "GB"),
        ("a delta of 4 % instead: bytes", BOARDS * part / 1e12, "TB"),
        ("a delta over one period: traffic", looks * part * gbit, "Gbit/s"),
    ]
