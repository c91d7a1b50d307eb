"""When a desired state counts for this board: the draw, the begin, the window.

The rules this module keeps:
 * A date without a zone is UTC; so is a window, unless ``local`` stands behind it.
 * A window may pass midnight: ``22:00-04:00``. Its end does not belong to it.
 * What cannot be read is refused as a whole: ``check_dates`` says so at once.

>>> opens_at(parse_window("22:00-04:00 local"), now=0.0, utc_offset_s=3600) / 3600
21.0
"""

import hashlib
import math
from dataclasses import dataclass
from datetime import UTC, datetime

from agent.core.reasons import Reason
from agent.core.targets import GroupFile
from agent.errors import BundleRefusedError

HASH_RANGE = 2**64  # the draw uses the first 8 bytes of a SHA-256
MINUTE_S = 60
DAY_S = 24 * 60 * MINUTE_S
LOCAL = " local"


@dataclass(frozen=True, slots=True)
class Window:
    """A daily span of time; it never closes where both ends are the same.

    Attributes:
        start_s: Seconds after midnight at which it opens, ``end_s`` closes.
        local: Midnight is the board's own, not UTC's.
    """

    start_s: int
    end_s: int
    local: bool = False


ALWAYS = Window(0, 0)


def check_dates(file: GroupFile) -> None:
    """Refuse a desired state that does not say when it may start.

    Raises:
        BundleRefusedError: ``metadata``: a date or a window that cannot be read.
    """
    begins_at(file)
    parse_window(file.window)


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


def begins_at(file: GroupFile) -> float:
    """Return the Unix seconds of ``not_before``, 0 where there is none.

    Raises:
        BundleRefusedError: ``metadata``.
    """
    if not file.not_before:
        return 0.0
    try:
        start = datetime.fromisoformat(file.not_before)
        if start.tzinfo is None:
            start = start.replace(tzinfo=UTC)
        return start.timestamp()
    except (ValueError, OverflowError) as err:
        raise _unclear(f"not_before {file.not_before!r} is no ISO 8601 date") from err


def has_begun(file: GroupFile, now: float) -> bool:
    """Return whether ``not_before`` has passed.

    Raises:
        BundleRefusedError: ``metadata``.
    """
    return not file.not_before or begins_at(file) <= now


def may_start(file: GroupFile, now: float, utc_offset_s: int = 0) -> bool:
    """Return whether something new may start now: not paused, inside the window.

    Raises:
        BundleRefusedError: ``metadata``.
    """
    window = parse_window(file.window)
    return not file.paused and is_open(window, now, utc_offset_s)


def is_open(window: Window, now: float, utc_offset_s: int = 0) -> bool:
    """Return whether a window is open."""
    second = _midnight_clock(window, now, utc_offset_s) % DAY_S
    if window.start_s < window.end_s:
        return window.start_s <= second < window.end_s
    return second >= window.start_s or second < window.end_s


def opens_at(window: Window, now: float, utc_offset_s: int = 0) -> float:
    """Return the first Unix second after ``now`` at which a window opens.

    Args:
        window: It may be open already.
        now: Unix seconds (UTC).
        utc_offset_s: How far local time is ahead of UTC now. Where clocks change before
            the window opens, the answer is an hour off until they have changed.
    """
    clock = _midnight_clock(window, now, utc_offset_s)
    ahead = (window.start_s - clock) % DAY_S or DAY_S
    return float(math.floor(now) + ahead)


def parse_window(text: str) -> Window:
    """Parse ``HH:MM-HH:MM``, with `` local`` behind it or not; empty is any time.

    Raises:
        BundleRefusedError: ``metadata``.
    """
    if not text:
        return ALWAYS
    start, dash, end = text.removesuffix(LOCAL).partition("-")
    seconds = [_second(start), _second(end)]
    if not dash or None in seconds:
        raise _unclear(f"window {text!r} is not HH:MM-HH:MM")
    opens, closes = (second or 0 for second in seconds)
    return Window(opens, closes, text.endswith(LOCAL))


def render_time(at: float) -> str:
    """Return a moment for people; seconds only where there are any.

    >>> render_time(1795384800.0), render_time(1795384801.0)
    ('2026-11-22 22:00 UTC', '2026-11-22 22:00:01 UTC')
    """
    try:
        moment = datetime.fromtimestamp(at, UTC)
    except (ValueError, OverflowError, OSError):
        return "a date that no calendar has"
    form = "%Y-%m-%d %H:%M:%S UTC" if moment.second else "%Y-%m-%d %H:%M UTC"
    return moment.strftime(form)


def _midnight_clock(window: Window, now: float, utc_offset_s: int) -> int:
    """Return a clock in seconds whose multiples of a day are the window's midnights."""
    return math.floor(now) + (utc_offset_s if window.local else 0)


def _second(time: str) -> int | None:
    """Return the second of the day of ``HH:MM``, None where it is no time."""
    hour, minute = time[:2], time[3:]
    digits = hour + minute
    shaped = len(time) == 5 and time[2] == ":" and digits.isascii()
    if shaped and digits.isdigit() and int(hour) < 24 and int(minute) < 60:
        return (int(hour) * 60 + int(minute)) * MINUTE_S
    return None


def _unclear(what: str) -> BundleRefusedError:
    """Return the error for a signed value that makes no sense."""
    return BundleRefusedError(f"desired state: {what}", reason=Reason.METADATA)
