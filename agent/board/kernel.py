"""What ``/proc`` says of processor, memory, pressure and network.

Own parsers instead of psutil's: they read below a root, as tests lay it out, and take
a third of the time (0.1 ms instead of 0.3). Sources: proc(5), and
``Documentation/accounting/psi.rst`` of the kernel.

The rules this module keeps:
 * What a file does not say is NaN.
"""

import re
from collections.abc import Mapping
from math import nan
from typing import NamedTuple

from agent.board.sysfs import MOST_TABLE_BYTES, parse_whole, read_bytes, within

IDLE, IOWAIT, GUEST = 3, 4, 8  # columns of /proc/stat; guests are in user and nice
MOST_MEMORY_BYTES = 2.0**50  # a petabyte
LONGEST_S = 3.2e9  # a hundred years
_MEMINFO = re.compile(rb"^(MemTotal|MemAvailable): +([0-9]{1,18}) kB$", re.MULTILINE)
_PRESSURE = re.compile(
    rb"^(some|full) avg10=([0-9]{1,3}\.[0-9]{2}) .{0,60}total=([0-9]{1,18})$",
    re.MULTILINE,
)
# What node_exporter calls the two lines: something waits, or everything stands still.
_STATES = {b"some": "waiting", b"full": "stalled"}


class Ticks(NamedTuple):
    """Time of all cores since boot, in ticks of the kernel."""

    busy: float
    total: float


class Memory(NamedTuple):
    """Bytes of memory; NaN if unknown."""

    total: float = nan
    available: float = nan

    @property
    def percent(self) -> float:
        """The share that is not available."""
        if not self.available <= self.total or self.total <= 0:  # also for NaN
            return nan
        return 100.0 * (1.0 - self.available / self.total)


class Pressure(NamedTuple):
    """What one resource was waited for (PSI).

    Attributes:
        percent: Share of the last 10 s in which something waited; NaN without PSI.
        seconds: ``waiting`` and ``stalled`` -> seconds since boot.
    """

    percent: float
    seconds: Mapping[str, float]


def read_ticks(root: str) -> Ticks:
    """Return how busy all cores were since boot."""
    first = read_bytes(f"{root}/proc/stat", 256).partition(b"\n")[0].split()
    ticks = [parse_whole(word) for word in first[1 : 1 + GUEST]]
    if len(ticks) < GUEST or not min(ticks) >= 0:  # also for NaN
        return Ticks(nan, nan)
    total = sum(ticks)
    return Ticks(total - ticks[IDLE] - ticks[IOWAIT], total)


def busy_percent(before: Ticks, now: Ticks) -> float:
    """Return the busy share between two moments; NaN if no time has passed.

    >>> busy_percent(Ticks(10, 100), Ticks(35, 200))
    25.0
    """
    passed = now.total - before.total
    if not passed > 0:  # also for NaN
        return nan
    # Idle time is counted apart and may go back by a tick.
    return min(100.0, max(0.0, 100.0 * (now.busy - before.busy) / passed))


def read_memory(root: str) -> Memory:
    """Return the machine's memory, and what can be had without swapping."""
    found = dict(_MEMINFO.findall(read_bytes(f"{root}/proc/meminfo")))
    total, available = (
        within(float(found[key]) * 1024, 0, MOST_MEMORY_BYTES) if key in found else nan
        for key in (b"MemTotal", b"MemAvailable")
    )
    return Memory(total, available)


def read_pressure(root: str, resource: str) -> Pressure:
    """Return the pressure on ``cpu``, ``memory`` or ``io``; nothing without PSI."""
    lines = _PRESSURE.findall(read_bytes(f"{root}/proc/pressure/{resource}"))
    percents = {state: float(avg10) for state, avg10, _ in lines}
    seconds = {
        _STATES[state]: micros / 1e6
        for state, _, total in lines
        if (micros := int(total)) <= LONGEST_S * 1e6
    }
    return Pressure(within(percents.get(b"some", nan), 0.0, 100.0), seconds)


def read_load(root: str) -> float:
    """Return how many tasks could run, averaged over a minute; NaN if unknown."""
    word = read_bytes(f"{root}/proc/loadavg").partition(b" ")[0]
    return float(word) if re.fullmatch(rb"[0-9]{1,7}\.[0-9]{2}", word) else nan


def read_traffic(root: str) -> tuple[float, float]:
    """Return bytes received and sent by all interfaces but loopback."""
    received, sent = 0.0, 0.0
    table = read_bytes(f"{root}/proc/net/dev", MOST_TABLE_BYTES)
    for line in table.split(b"\n")[2:]:  # below two lines of headings
        name, _, columns = line.partition(b":")
        words = columns.split()
        if name.strip() != b"lo" and len(words) == 16:
            counted = parse_whole(words[0]), parse_whole(words[8])
            if counted[0] >= 0 and counted[1] >= 0:
                received, sent = received + counted[0], sent + counted[1]
    return received, sent
