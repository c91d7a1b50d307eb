"""A Jetson: its power budget, and how often a supply was drawn on too heavily.

Sources: NVIDIA's Jetson Linux Developer Guide (power models, over-current throttling)
and ``drivers/hwmon/tegra-oc-event.c`` of its kernels. Its temperatures are thermal
zones and its GPU's clock is devfreq's, as on every machine.
"""

import re
from dataclasses import replace
from pathlib import Path

from agent.board.machine import Machine
from agent.board.sysfs import MOST_TABLE_BYTES, clean, read_bytes, read_text
from agent.board.throttle_counts import ThrottleCounts
from agent.core.readings import BoardIdentity, BoardReadings

# oc1_event_cnt on Orin, oc1_irq_cnt on Xavier and TX2.
COUNTERS = ("oc[0-9]_event_cnt", "oc[0-9]_irq_cnt")
_MODE = re.compile(rb"pmode:0*([0-9]{1,4})")


class Jetson:
    """Reads a Jetson; satisfies ``BoardSensors``.

    Args:
        machine: What all boards have.
        root: Where ``/sys``, ``/etc`` and ``/var`` lie.
    """

    def __init__(self, machine: Machine, root: Path) -> None:
        self._machine = machine
        self._root = root
        self._over_current = ThrottleCounts()
        self._looked = False

    def identity(self) -> BoardIdentity:
        """Return what board this is."""
        return self._machine.identity()

    def look_again(self) -> None:
        """Look for sensors that came or went."""
        self._machine.look_again()
        self._find_counters()

    def read_fast(self, slow: BoardReadings) -> BoardReadings:
        """Return what changes from second to second."""
        return self._machine.read_fast(slow)

    def read_slow(self) -> BoardReadings:
        """Return what changes within minutes, the power budget among it."""
        if not self._looked:
            self._find_counters()
        readings = self._machine.read_slow()
        rose = self._over_current.rose()
        over = () if rose is None else (("over_current", rose),)
        return replace(
            readings,
            throttled=readings.throttled + over,
            power_mode=find_power_mode(self._root),
        )

    def throttled_before(self) -> tuple[tuple[str, int], ...]:
        """Return how often a supply was drawn on too heavily since boot."""
        count = self._over_current.most()
        over = (("over_current", count),) if count else ()
        return self._machine.throttled_before() + over

    def _find_counters(self) -> None:
        """Look for the chip that counts."""
        chips = self._root.glob("sys/class/hwmon/hwmon*")
        self._over_current.look_for(
            path
            for chip in chips
            if read_text(f"{chip}/name") == "soctherm_oc"
            for pattern in COUNTERS
            for path in chip.glob(pattern)
        )
        self._looked = True


def find_power_mode(root: Path) -> str:
    """Return the name of the power budget (``15W``), else its number, or nothing.

    nvpmodel keeps the number in its state, ``pmode:0002``, and the names in its
    settings, ``< POWER_MODEL ID=2 NAME=15W >``.
    """
    status = _MODE.search(read_bytes(f"{root}/var/lib/nvpmodel/status"))
    if status is None:
        return ""
    named = re.search(
        rb"^< *POWER_MODEL +ID=0*%s +NAME=([^ >\n]+)" % status[1],
        read_bytes(f"{root}/etc/nvpmodel.conf", MOST_TABLE_BYTES),
        re.MULTILINE,
    )
    return clean(named[1]) if named else status[1].decode()
