"""The board's own readings at one moment, for metrics and as a sensor vector."""

from dataclasses import dataclass
from math import nan


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
        throttled: (kind, whether it holds now) of what slows a Raspberry Pi down;
            empty on other boards.
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
