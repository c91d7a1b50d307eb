"""Sensors of a board: which readings can be believed, and which are missing of late.

The rules this module keeps:
 * A sensor that says nothing at a look is neither hot nor cool: what it said last is
   remembered, with its age, for ``FORGOTTEN_S``.
"""

from agent.core.readings import BoardReadings
from agent.core.signals import COLDEST_C, HOTTEST_C, LastRead

# Beginnings of the names of sensors that our work does not heat, which is all that the
# ladder can help against: a Jetson's PMIC zone (100 C for ever, a constant of its
# firmware), disks and radios.
FOREIGN = ("pmic", "nvme", "drivetemp", "iwlwifi")
# A sensor whose driver went away is not waited for without end: by then a board has
# the temperature of what it does now, whatever it was before, and if it is too hot
# for its clock, throttling and late answers say so.
FORGOTTEN_S = 3600.0


def believable(board: BoardReadings) -> dict[str, float]:
    """Return the readings that can be, by sensor.

    >>> believable(BoardReadings(temperatures=(("soc", 50.0), ("odd", 2000.0))))
    {'soc': 50.0}
    """
    found: dict[str, float] = {}
    for sensor, celsius in board.temperatures:
        if not COLDEST_C < celsius < HOTTEST_C:  # also for NaN
            continue
        if not sensor.lower().startswith(FOREIGN):
            found[sensor] = max(celsius, found.get(sensor, COLDEST_C))
    return found


class LostSensors:
    """Remembers what sensors said that say nothing now."""

    def __init__(self) -> None:
        self._last: dict[str, tuple[float, float]] = {}  # sensor -> celsius, when

    def see(self, now_s: float, readings: dict[str, float]) -> LastRead | None:
        """Return the hottest of the sensors that are missing, if any are.

        Args:
            now_s: When, by a monotonic clock.
            readings: What can be believed now, by sensor.
        """
        self._last |= {sensor: (it, now_s) for sensor, it in readings.items()}
        self._last = {
            sensor: (celsius, at_s)
            for sensor, (celsius, at_s) in self._last.items()
            if now_s - at_s <= FORGOTTEN_S
        }
        missing = (
            LastRead(celsius, sensor, now_s - at_s)
            for sensor, (celsius, at_s) in self._last.items()
            if sensor not in readings
        )
        return max(missing, default=None)
