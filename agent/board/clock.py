"""Whether somebody sets this board's clock: the kernel knows, without any daemon."""

import ctypes
import os
from pathlib import Path

TIME_ERROR = (
    5  # adjtimex(2): "The system clock is not synchronized to a reliable server"
)
# struct timex is 208 bytes on 64-bit Linux and 128 on 32-bit; zero modes only reads.
TIMEX_BYTES = 256


def clock_synchronised(root: Path = Path("/")) -> bool | None:
    """Return whether the system clock is synchronised; None if nobody can tell.

    A unit with ``ProtectClock=`` may not ask the kernel, not even to read: there the
    mark of timesyncd alone tells, and with another NTP client nobody can.
    """
    if (root / "run/systemd/timesync/synchronized").exists():
        return True
    libc = ctypes.CDLL(None, use_errno=True)
    state: int = libc.adjtimex(ctypes.create_string_buffer(TIMEX_BYTES))
    if state < 0:
        return None
    return state != TIME_ERROR


def clock_battery(root: Path = Path("/")) -> bool:
    """Return whether the board has a real-time clock that survives a power cut."""
    return os.path.lexists(root / "dev/rtc0")
