"""A Linux machine of any kind: what the kernel says everywhere.

The sensors of a generic board, and the larger part of those of all others.
"""

from dataclasses import replace
from pathlib import Path

from agent.board.clock import clock_synchronised
from agent.board.cooling import find_cooling, read_cooling, slows_down
from agent.board.frequencies import (
    HERTZ,
    KILOHERTZ,
    find_devices,
    find_fastest,
    find_governor,
    find_policies,
    mean,
)
from agent.board.kernel import (
    busy_percent,
    read_load,
    read_memory,
    read_pressure,
    read_ticks,
)
from agent.board.network import Traffic
from agent.board.probes import Probes
from agent.board.storage import find_disks, read_space, read_wear, read_written
from agent.board.temperatures import CELSIUS, find_temperatures
from agent.board.throttle_counts import ThrottleCounts
from agent.core.readings import BoardIdentity, BoardReadings

SLOW_RESOURCES = ("cpu", "io")  # memory's is read each second: the ladder asks for it
X86_COUNTS = "sys/devices/system/cpu/cpu[0-9]*/thermal_throttle/*_throttle_count"


class Machine:
    """Reads what every Linux tells; satisfies ``BoardSensors``.

    Args:
        identity: What board it is.
        disk: A path on the file system to report.
        root: Where ``/proc`` and ``/sys`` lie.
    """

    def __init__(self, identity: BoardIdentity, disk: Path, root: Path) -> None:
        self._identity = identity
        self._disk = disk
        self._root = root
        # An empty root, not "/": paths then begin with one slash.
        self._at = str(root).rstrip("/")
        self._temperatures = Probes(CELSIUS)
        self._frequencies = Probes(KILOHERTZ)
        self._devices = Probes(HERTZ)
        self._hot = ThrottleCounts()
        self._policies: tuple[str, ...] = ()
        self._disks: tuple[Path, ...] = ()
        self._cooling: tuple[Path, ...] = ()
        self._ticks = read_ticks(self._at)
        self._traffic = Traffic(self._at)
        self._looked = False

    def identity(self) -> BoardIdentity:
        """Return what board this is."""
        return self._identity

    def look_again(self) -> None:
        """Look for sensors that came or went; takes some milliseconds."""
        root = self._root
        self._temperatures.look_for(find_temperatures(root))
        policies = find_policies(root)
        self._policies = tuple(policies.values())
        self._frequencies.look_for(
            {name: f"{path}/scaling_cur_freq" for name, path in policies.items()}
        )
        self._devices.look_for(find_devices(root))
        self._disks = find_disks(root)
        self._cooling = find_cooling(root)
        self._hot.look_for(root.glob(X86_COUNTS))
        self._looked = True

    def read_fast(self, slow: BoardReadings) -> BoardReadings:
        """Return what changes from second to second; takes about 0.2 ms."""
        ticks, before = read_ticks(self._at), self._ticks
        self._ticks = ticks
        memory = read_memory(self._at)
        pressure = read_pressure(self._at, "memory")
        waited = tuple(
            ("memory", state, seconds) for state, seconds in pressure.seconds.items()
        )
        received, sent = self._traffic.rates()
        return replace(
            slow,
            identity=self._identity,
            cpu_percent=busy_percent(before, ticks),
            load_1min=read_load(self._at),
            memory_percent=memory.percent,
            memory_available_bytes=memory.available,
            memory_size_bytes=memory.total,
            memory_stalled_percent=pressure.percent,
            pressure_seconds=slow.pressure_seconds + waited,
            cpu_frequency_hertz=mean([it for _, it in self._frequencies.read_fast()]),
            temperatures=self._temperatures.read_fast(),
            device_hertz=self._devices.read_fast(),
            received_bytes_per_s=received,
            sent_bytes_per_s=sent,
        )

    def read_slow(self) -> BoardReadings:
        """Return what changes within minutes; reads the slow sensors, too."""
        if not self._looked:
            self.look_again()
        for probes in (self._temperatures, self._frequencies, self._devices):
            probes.read_slow()
        space = read_space(self._disk)
        cooling = read_cooling(self._cooling)
        return BoardReadings(
            disk_percent=space.used_percent,
            disk_free_bytes=space.free,
            disk_size_bytes=space.size,
            disk_wear=read_wear(self._disks),
            disk_written_bytes=read_written(self._disks),
            pressure_seconds=tuple(
                (resource, state, seconds)
                for resource in SLOW_RESOURCES
                for state, seconds in read_pressure(self._at, resource).seconds.items()
            ),
            cpu_frequency_max_hertz=find_fastest(self._policies),
            governor=find_governor(self._policies),
            cooling=cooling,
            throttled=self._slowed(cooling),
            clock_synchronised=clock_synchronised(self._root),
        )

    def throttled_before(self) -> tuple[tuple[str, int], ...]:
        """Return how often the processor was too hot since boot, if it counts."""
        count = self._hot.most()
        return (("throttled", count),) if count else ()

    def _slowed(
        self, cooling: tuple[tuple[str, float], ...]
    ) -> tuple[tuple[str, bool], ...]:
        """Return what the kernel says of a processor that is too hot."""
        rows = (
            ("frequency_capped", slows_down(cooling)),
            ("throttled", self._hot.rose()),
        )
        return tuple((kind, holds) for kind, holds in rows if holds is not None)
