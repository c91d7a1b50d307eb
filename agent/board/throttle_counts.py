"""Counters of how often the hardware slowed itself down: whether one of them rises.

An Intel processor counts since boot how often it was too hot (``core_throttle_count``
and ``package_throttle_count`` below ``thermal_throttle``), a Jetson how often a supply
was drawn on too heavily (``oc1_event_cnt`` of the hwmon chip ``soctherm_oc``).
"""

from collections.abc import Iterable
from pathlib import Path

from agent.board.sysfs import read_whole

MOST_COUNTERS = 32  # the package's count is the same for all cores of it


class ThrottleCounts:
    """Some counters, and how far they were when they were read before."""

    def __init__(self) -> None:
        self._paths: tuple[str, ...] = ()
        self._before: dict[str, float] = {}

    def look_for(self, paths: Iterable[Path]) -> None:
        """Read these files from now on."""
        self._paths = tuple(sorted(map(str, paths)))[:MOST_COUNTERS]

    def most(self) -> int:
        """Return the highest count since boot; 0 where nothing counts.

        Not their sum: cores of one package show the same count.
        """
        return int(max(self._read().values(), default=0.0))

    def rose(self) -> bool | None:
        """Return whether it happened since the last call; None if nothing counts."""
        now = self._read()
        before, self._before = self._before, now
        if not now:
            return None
        return any(count > before.get(path, count) for path, count in now.items())

    def _read(self) -> dict[str, float]:
        """Return the counts of those that count."""
        return {it: count for it in self._paths if (count := read_whole(it)) >= 0}
