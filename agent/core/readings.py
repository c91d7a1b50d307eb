"""The board's own readings at one moment, for metrics and as a sensor vector."""

from dataclasses import dataclass
from math import nan


@dataclass(frozen=True, slots=True)
class BoardIdentity:
    """What a board is; empty words for what nothing tells.

    Attributes:
        kind: Whose sensors it has: ``raspberry_pi``, ``jetson`` or ``generic``.
        model: Its own name: ``Raspberry Pi 4 Model B Rev 1.4``.
        kernel: Release of the kernel that runs.
        system: What the distribution calls itself.
    """

    kind: str = ""
    model: str = ""
    kernel: str = ""
    system: str = ""


@dataclass(frozen=True, slots=True)
class BoardReadings:
    """What the board says about itself; NaN where it has no such sensor.

    >>> BoardReadings(cpu_percent=12.0, temperatures=(("soc", 50.0),)).vector()[4]
    50.0

    Attributes:
        cpu_percent: Share of all cores that was busy since the reading before.
        memory_percent: Share of memory that is not available.
        disk_percent: Share of the state directory's file system that is used.
        load_1min: Runnable tasks, averaged over one minute.
        cpu_frequency_hertz: Current frequency, the mean over all cores.
        received_bytes_per_s: Network traffic since the reading before, all
            interfaces but loopback; ``sent_bytes_per_s`` likewise.
        temperatures: (sensor, degrees Celsius), by the names the kernel gives.
        throttled: (kind, whether it holds now) of what slows the board down:
            ``under_voltage``, ``frequency_capped``, ``throttled``,
            ``soft_temperature_limit``, ``over_current``; those that the board tells.
        memory_available_bytes: What can be had without swapping;
            ``memory_size_bytes`` all.
        memory_stalled_percent: Share of the last 10 s in which something waited for
            memory (PSI, ``some avg10``).
        pressure_seconds: (``cpu``, ``memory`` or ``io``; ``waiting`` or ``stalled``;
            seconds since boot), as the kernel's PSI counts them.
        cpu_frequency_max_hertz: What the processor may reach, the mean over all cores.
        governor: Who chooses the frequency.
        disk_free_bytes: Of the state directory's file system; ``disk_size_bytes`` all.
        disk_wear: (device, used share of its life, 0 to 1) of eMMC.
        disk_written_bytes: (device, bytes since boot) of real block devices.
        cooling: (kind of cooling device, share of its states that is in use).
        device_hertz: (device, frequency) of what devfreq scales: GPU, memory.
        power_mode: Name of the power budget, on a Jetson; else empty.
        clock_synchronised: Somebody keeps the clock; None where nobody can tell.
        identity: What board it is.
    """

    cpu_percent: float = nan
    memory_percent: float = nan
    disk_percent: float = nan
    load_1min: float = nan
    cpu_frequency_hertz: float = nan
    received_bytes_per_s: float = nan
    sent_bytes_per_s: float = nan
    temperatures: tuple[tuple[str, float], ...] = ()
    throttled: tuple[tuple[str, bool], ...] = ()
    memory_available_bytes: float = nan
    memory_size_bytes: float = nan
    memory_stalled_percent: float = nan
    pressure_seconds: tuple[tuple[str, str, float], ...] = ()
    cpu_frequency_max_hertz: float = nan
    governor: str = ""
    disk_free_bytes: float = nan
    disk_size_bytes: float = nan
    disk_wear: tuple[tuple[str, float], ...] = ()
    disk_written_bytes: tuple[tuple[str, float], ...] = ()
    cooling: tuple[tuple[str, float], ...] = ()
    device_hertz: tuple[tuple[str, float], ...] = ()
    power_mode: str = ""
    clock_synchronised: bool | None = None
    identity: BoardIdentity = BoardIdentity()

    @property
    def temperature_celsius(self) -> float:
        """The hottest sensor; NaN without any."""
        return max((celsius for _, celsius in self.temperatures), default=nan)

    def vector(self) -> list[float]:
        """Return the eight values that a ``board`` source promises, in its order."""
        return [
            self.cpu_percent,
            self.memory_percent,
            self.disk_percent,
            self.load_1min,
            self.temperature_celsius,
            self.cpu_frequency_hertz / 1e6,
            self.received_bytes_per_s,
            self.sent_bytes_per_s,
        ]
