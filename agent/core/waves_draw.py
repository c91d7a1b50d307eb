"""Which boards belong to which wave: groups, and shares that are drawn.

The rules this module keeps:
 * The draw orders boards by ``sha256(salt NUL id)``, as boards themselves draw
   (``agent.core.schedule.takes_part``): a share is the first boards of that order, so
   that the same command draws the same boards, and 1 % lies within 10 %.
 * A share of any fleet is at least one board: a canary of nobody would warn nobody.
 * A board belongs to the first wave that names it.
 * Shares grow from wave to wave: one that does not would be a wave of nobody. In a
   small fleet 1 % and 10 % may draw the same board; the second is passed at once.
"""

import hashlib
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from agent.core.inventory import BoardTable
from agent.core.reasons import Reason
from agent.core.schedule import HASH_RANGE
from agent.errors import SettingsError

ALL = "all"
GROUP = "group:"
SHARE = re.compile(r"(\d{1,3}(?:\.\d{1,6})?)\s?%", re.ASCII)


@dataclass(frozen=True, slots=True)
class Wave:
    """One wave.

    Attributes:
        name: As it was written: ``group:canary``, ``10%``, ``all``.
        boards: Ids of those that no wave before has, in the order of the draw.
    """

    name: str
    boards: tuple[str, ...]


def draw_waves(
    boards: Sequence[BoardTable], names: Sequence[str], salt: str
) -> tuple[Wave, ...]:
    """Return the waves of a rollout.

    Laws: no board is in two waves; a share draws within every larger one.

    Raises:
        SettingsError: ``inventory``: a wave is written otherwise, names nobody, or is a
            share that is not larger than the one before.
    """
    order = draw_order([board.id for board in boards], salt)
    groups = {board.id: frozenset(board.groups) for board in boards}
    waves: list[Wave] = []
    taken: set[str] = set()
    largest = 0.0
    for name in names:
        percent = share_of(name)
        if percent is not None and percent <= largest:
            raise _unclear(f"{name!r} draws nobody: {largest:g} % were drawn before it")
        largest = max(largest, percent or 0.0)
        chosen = _chosen(name, order, groups)
        if percent is None and taken.issuperset(chosen):
            raise _unclear(f"{name!r} has nobody whom no wave before it has")
        waves.append(Wave(name, tuple(it for it in chosen if it not in taken)))
        taken.update(chosen)
    return tuple(waves)


def draw_order(boards: Sequence[str], salt: str) -> tuple[str, ...]:
    """Return boards in the order in which shares draw them."""
    return tuple(sorted(boards, key=lambda board: (draw(board, salt), board)))


def draw(board: str, salt: str) -> int:
    """Return a board's place in the draw: a number below 2^64."""
    digest = hashlib.sha256(salt.encode() + b"\0" + board.encode()).digest()
    return int.from_bytes(digest[:8], "big")


def share_of(name: str) -> float | None:
    """Return the percent of ``N%``, 100 of ``all``, None of a group.

    Raises:
        SettingsError: ``inventory``: it is none of them.
    """
    if name == ALL:
        return 100.0
    if name.startswith(GROUP) and name != GROUP:
        return None
    found = SHARE.fullmatch(name)
    percent = float(found[1]) if found else 0.0
    if not 0 < percent <= 100:
        raise _unclear(f"{name!r} is none of group:NAME, N% (up to 100) and all")
    return percent


def share_count(name: str, size: int) -> int:
    """Return how many of ``size`` boards a share or ``all`` draws.

    >>> share_count("1%", 30), share_count("10%", 30), share_count("all", 30)
    (1, 3, 30)

    Raises:
        SettingsError: ``inventory``: it is neither.
    """
    percent = share_of(name)
    if percent is None:
        raise _unclear(f"{name!r} is no share")
    # Rounded first: 7 % of 100 boards are 7.000000000000001 in floats.
    return min(size, math.ceil(round(size * percent / 100, 6)))


def percent_for(boards: Sequence[str], count: int, salt: str) -> float:
    """Return a group file's ``percent`` that draws the first ``count`` boards.

    Law: ``takes_part`` then says yes to these, and no to the others of ``boards``. It
    has as few digits as that needs; boards that are not named may be drawn as well.
    """
    places = sorted(draw(board, salt) for board in boards)
    if count >= len(places):
        return 100.0
    if count <= 0:
        return 0.0
    low, high = places[count - 1], places[count]
    middle = (low + high) / 2 / HASH_RANGE * 100
    for digits in range(12):
        percent = round(middle, digits)
        if low < percent / 100 * HASH_RANGE <= high:
            return percent
    return middle


def _chosen(
    name: str, order: Sequence[str], groups: dict[str, frozenset[str]]
) -> Sequence[str]:
    """Return the boards that a wave names, those of waves before included."""
    if share_of(name) is not None:
        return order[: share_count(name, len(order))]
    group = name.removeprefix(GROUP)
    chosen = [board for board in order if group in groups[board]]
    if not chosen:
        raise _unclear(f"no board is in the group {group!r}")
    return chosen


def _unclear(what: str) -> SettingsError:
    """Return the error for a wave that makes no sense."""
    return SettingsError(
        f"wave: {what}",
        reason=Reason.INVENTORY,
        todo="Write waves as --wave group:canary --wave 10% --wave all.",
    )
