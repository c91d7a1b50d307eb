"""Readings of the board: CPU, memory, disk, load, heat, frequency and network.

The rules this module keeps:
 * ``BoardWatch`` reads in its own time; a scrape only takes the last reading, so that
   it touches neither disk nor kernel.
 * A sensor that is absent or answers nonsense is left out.
"""

import asyncio
import os
import time
from collections.abc import Callable
from math import nan
from pathlib import Path

import psutil

from agent.core.readings import BoardReadings

PERIOD_S = 5.0  # boards are scraped every 15 to 60 s; heat changes within seconds
# Bits 0 to 3 of the firmware's answer: what holds now (Raspberry Pi, vcgencmd
# get_throttled); bits 16 to 19 say the same since boot, which a counter would be for.
THROTTLE_KINDS = (
    "under_voltage",
    "frequency_capped",
    "throttled",
    "soft_temperature_limit",
)
COLDEST_C, HOTTEST_C = -60.0, 200.0  # outside lies a broken sensor, not a board


class BoardReader:
    """Reads the board; remembers the reading before, for rates.

    Attributes:
        disk: A path on the file system to report, usually the state directory.
        root: Where ``/sys`` lies.
        clock: Seconds, monotonic.
    """

    def __init__(
        self,
        disk: Path = Path("/"),
        *,
        root: Path = Path("/"),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._disk = disk
        self._root = root
        self._clock = clock
        self._traffic = _traffic()
        self._read_at = clock()
        psutil.cpu_percent()  # the first call only starts psutil's interval

    def read(self) -> BoardReadings:
        """Read everything now; takes about a millisecond and no disk."""
        received, sent = self._rates()
        return BoardReadings(
            cpu_percent=psutil.cpu_percent(),
            memory_percent=psutil.virtual_memory().percent,
            disk_percent=read_disk_percent(self._disk),
            load_1min=os.getloadavg()[0],
            cpu_frequency_hertz=read_frequency(self._root),
            received_bytes_per_s=received,
            sent_bytes_per_s=sent,
            temperatures=read_temperatures(self._root),
            throttled=read_throttled(self._root),
        )

    def _rates(self) -> tuple[float, float]:
        """Bytes per second received and sent since the last call."""
        traffic, now = _traffic(), self._clock()
        before, seconds = self._traffic, now - self._read_at
        self._traffic, self._read_at = traffic, now
        if seconds <= 0:
            return nan, nan
        # An interface that went away takes its counters with it: never below zero.
        received = max(0, traffic[0] - before[0]) / seconds
        return received, max(0, traffic[1] - before[1]) / seconds


class BoardWatch:
    """Keeps the newest reading at hand."""

    def __init__(self, reader: BoardReader, period_s: float = PERIOD_S) -> None:
        self._reader = reader
        self._period_s = period_s
        self._readings = reader.read()

    @property
    def readings(self) -> BoardReadings:
        """The newest reading, at most ``period_s`` old while ``run`` runs."""
        return self._readings

    async def run(self) -> None:
        """Read for ever; ends only by cancellation."""
        while True:
            await asyncio.sleep(self._period_s)
            self._readings = self._reader.read()


def read_board(disk: Path = Path("/")) -> BoardReadings:
    """Read the board once; CPU and network then have no reading before to compare."""
    return BoardReader(disk).read()


def read_disk_percent(path: Path) -> float:
    """Return the used share of the file system that holds ``path``, in percent."""
    try:
        percent: float = psutil.disk_usage(str(path)).percent
    except OSError:
        return nan
    return percent


def read_temperatures(root: Path = Path("/")) -> tuple[tuple[str, float], ...]:
    """Return (sensor, degrees Celsius) of all thermal zones, else of all hwmon chips.

    Zones of one name are numbered from the second on: ``cpu``, ``cpu-1``.
    """
    zones = sorted(root.glob("sys/class/thermal/thermal_zone*"))
    found = [(_text(zone / "type"), _number(zone / "temp")) for zone in zones]
    if not found:
        chips = sorted(root.glob("sys/class/hwmon/hwmon*"))
        found = [(_text(c / "name"), _number(c / "temp1_input")) for c in chips]
    rows: dict[str, float] = {}
    for name, thousandths in found:
        celsius = thousandths / 1000
        if name and COLDEST_C < celsius < HOTTEST_C:  # also false for NaN
            rows[_free_name(name, rows)] = celsius
    return tuple(rows.items())


def read_frequency(root: Path = Path("/")) -> float:
    """Return the mean current frequency of all cores in Hz; NaN if unknown."""
    policies = root.glob("sys/devices/system/cpu/cpufreq/policy*")
    kilohertz = [_number(policy / "scaling_cur_freq") for policy in policies]
    known = [value for value in kilohertz if value > 0]
    return sum(known) / len(known) * 1000 if known else nan


def read_throttled(root: Path = Path("/")) -> tuple[tuple[str, bool], ...]:
    """Return (kind, whether it holds now); empty where no firmware tells."""
    firmware = root / "sys/devices/platform/soc/soc:firmware"
    try:
        bits = int(_text(firmware / "get_throttled"), 16)
    except ValueError:
        return ()
    return tuple(
        (kind, bool(bits >> bit & 1)) for bit, kind in enumerate(THROTTLE_KINDS)
    )


def _traffic() -> tuple[int, int]:
    """Bytes received and sent by all interfaces but loopback."""
    counters = psutil.net_io_counters(pernic=True)
    outer = [counted for name, counted in counters.items() if name != "lo"]
    return sum(c.bytes_recv for c in outer), sum(c.bytes_sent for c in outer)


def _free_name(name: str, taken: dict[str, float]) -> str:
    """Return ``name``, numbered where it is already taken."""
    number, free = 0, name
    while free in taken:
        number += 1
        free = f"{name}-{number}"
    return free


def _text(path: Path) -> str:
    """Read one word of sysfs; empty if there is none."""
    try:
        return path.read_text().strip()
    except (OSError, UnicodeDecodeError):
        return ""


def _number(path: Path) -> float:
    """Read one number of sysfs; NaN if there is none."""
    try:
        return float(_text(path))
    except ValueError:
        return nan
