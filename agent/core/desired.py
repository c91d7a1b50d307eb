"""From signed desired states to the orders that this board has to carry out.

The rules this module keeps:
 * Files come most specific first; the first one that is *in force* for this board and
   names a pipeline decides about it, alone.
 * A file is not in force for boards that its ``percent`` did not draw, nor before its
   ``not_before``: there the next file counts, as if this one did not exist.
 * A file that is in force and ``paused``, or outside its ``window``, holds its
   pipelines as they are: nothing new starts, and no other file may step in.
 * So does a file whose dates cannot be read; the other files are none of its business.
 * What already runs needs no order.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from agent.core.installed import Slots
from agent.core.reasons import Reason
from agent.core.targets import GroupFile, Wanted
from agent.errors import BundleRefusedError

HASH_RANGE = 2**64  # the draw uses the first 8 bytes of a SHA-256
MINUTES_PER_DAY = 24 * 60


@dataclass(frozen=True, slots=True)
class Order:
    """One pipeline's wanted model, and the file that says so.

    Attributes:
        source: Path of the desired state; ``generation`` counts its publications.
    """

    pipeline: str
    model: str
    version: int
    source: str
    generation: int


def plan(
    files: Sequence[tuple[str, GroupFile]],
    slots: Mapping[str, Slots],
    board_id: str,
    now: float,
) -> list[Order]:
    """Return what has to change, in the order of ``slots``.

    Args:
        files: (path, desired state), most specific first.
        slots: The durable models of every pipeline of the settings.
        board_id: This board's name in the draw of a staged rollout.
        now: Unix seconds (UTC).
    """
    in_force = [
        (path, file, not is_unclear(file) and may_start(file, now))
        for path, file in files
        if takes_part(file, board_id) and (is_unclear(file) or has_begun(file, now))
    ]
    orders = []
    for pipeline, installed in slots.items():
        for path, file, startable in in_force:
            wanted = file.pipelines.get(pipeline)
            if wanted is None:
                continue
            if startable and not runs(installed, wanted):
                orders.append(
                    Order(pipeline, wanted.model, wanted.version, path, file.generation)
                )
            break
    return orders


def check_dates(file: GroupFile) -> None:
    """Refuse a desired state that does not say when it may start.

    Raises:
        BundleRefusedError: ``metadata``: a date or a window that cannot be read.
    """
    has_begun(file, 0.0)
    may_start(file, 0.0)


def is_unclear(file: GroupFile) -> bool:
    """Return whether ``check_dates`` refuses a desired state."""
    try:
        check_dates(file)
    except BundleRefusedError:
        return True
    return False


def takes_part(file: GroupFile, board_id: str) -> bool:
    """Return whether a staged rollout drew this board.

    A board that takes part at some percentage takes part at every higher one, as long
    as the ``salt`` stays the same.
    """
    seed = file.salt.encode() + b"\0" + board_id.encode()
    draw = int.from_bytes(hashlib.sha256(seed).digest()[:8], "big")
    return draw < file.percent / 100 * HASH_RANGE


def has_begun(file: GroupFile, now: float) -> bool:
    """Return whether ``not_before`` has passed; a date without a zone is UTC.

    Raises:
        BundleRefusedError: ``metadata``.
    """
    if not file.not_before:
        return True
    try:
        start = datetime.fromisoformat(file.not_before)
        if start.tzinfo is None:
            start = start.replace(tzinfo=UTC)
        return start.timestamp() <= now
    except (ValueError, OverflowError) as err:
        raise _unclear(f"not_before {file.not_before!r} is no ISO 8601 date") from err


def may_start(file: GroupFile, now: float) -> bool:
    """Return whether something new may start now: not paused, inside the window (UTC).

    A window may pass midnight: ``22:00-04:00``. Its end does not belong to it.

    Raises:
        BundleRefusedError: ``metadata``.
    """
    minutes = _window(file.window) if file.window else (0, 0)
    if file.paused:
        return False
    start, end = minutes
    minute = int(now // 60) % MINUTES_PER_DAY
    if start < end:
        return start <= minute < end
    return minute >= start or minute < end


def runs(slots: Slots, wanted: Wanted) -> bool:
    """Return whether a pipeline's active model is the wanted one."""
    active = slots.active
    return active is not None and (active.model, active.version) == (
        wanted.model,
        wanted.version,
    )


def _window(text: str) -> tuple[int, int]:
    """Return the minutes of the day at which a window starts and ends."""
    start, dash, end = text.partition("-")
    minutes = tuple(_minutes((start, end)))
    if not dash or len(minutes) != 2:
        raise _unclear(f"window {text!r} is not HH:MM-HH:MM")
    return minutes


def _minutes(times: tuple[str, str]) -> Iterator[int]:
    """Yield the minute of the day of each time that is one."""
    for time in times:
        hour, minute = time[:2], time[3:]
        digits = hour + minute
        shaped = len(time) == 5 and time[2] == ":" and digits.isascii()
        if shaped and digits.isdigit() and int(hour) < 24 and int(minute) < 60:
            yield int(hour) * 60 + int(minute)


def _unclear(what: str) -> BundleRefusedError:
    """Return the error for a signed value that makes no sense."""
    return BundleRefusedError(f"desired state: {what}", reason=Reason.METADATA)
