"""A Raspberry Pi: what its firmware says of voltage and throttling, without vcgencmd.

Two places tell it. The kernel's hwmon driver ``rpi_volt`` asks the firmware every 2 s
whether the supply was too low in between (``in0_lcrit_alarm``, Linux 4.19). Raspberry
Pi's own kernels also show all bits of that answer as ``get_throttled``, below the
device tree's node of the firmware: ``soc/soc:firmware`` on a Pi 4,
``soc@107c000000/soc@107c000000:firmware`` on a Pi 5. That file is called deprecated,
and the first reader after boot earns a warning in the kernel's log; nothing else tells
of throttling.

Sources: ``drivers/hwmon/raspberrypi-hwmon.c``, ``drivers/firmware/raspberrypi.c`` and
Raspberry Pi's documentation of ``vcgencmd get_throttled``.
"""

from dataclasses import replace
from pathlib import Path

from agent.board.machine import Machine
from agent.board.sysfs import read_hexadecimal, read_text, read_whole
from agent.core.readings import BoardIdentity, BoardReadings

# Bits 0 to 3 of the firmware's answer: what holds now. Bits 16 to 19 say the same of a
# time before, which is that since boot or since the driver asked last: no state.
THROTTLE_KINDS = (
    "under_voltage",
    "frequency_capped",
    "throttled",
    "soft_temperature_limit",
)
FIRMWARE = "sys/devices/platform/*/*:firmware/get_throttled"


class RaspberryPi:
    """Reads a Raspberry Pi; satisfies ``BoardSensors``.

    Args:
        machine: What all boards have.
        root: Where ``/sys`` lies.
    """

    def __init__(self, machine: Machine, root: Path) -> None:
        self._machine = machine
        self._root = root
        self._firmware = ""
        self._alarm = ""

    def identity(self) -> BoardIdentity:
        """Return what board this is."""
        return self._machine.identity()

    def look_again(self) -> None:
        """Look for sensors that came or went: modules may be loaded late."""
        self._machine.look_again()
        self._find_firmware()

    def read_fast(self, slow: BoardReadings) -> BoardReadings:
        """Return what changes from second to second.

        Both files are copies that the kernel keeps: they are as quick as any.
        """
        readings = self._machine.read_fast(slow)
        held = dict(slow.throttled)
        bits = read_hexadecimal(self._firmware) if self._firmware else None
        if bits is not None:
            for bit, kind in enumerate(THROTTLE_KINDS):
                held[kind] = bool(bits >> bit & 1) or held.get(kind, False)
        alarm = read_whole(self._alarm) if self._alarm else -1
        if alarm in {0, 1}:
            # A dip of a millisecond is over when bit 0 is read: this one keeps it.
            held["under_voltage"] = alarm == 1 or held.get("under_voltage", False)
        return replace(readings, throttled=tuple(held.items()))

    def read_slow(self) -> BoardReadings:
        """Return what changes within minutes."""
        readings = self._machine.read_slow()
        if not self._firmware and not self._alarm:
            self._find_firmware()
        return readings

    def throttled_before(self) -> tuple[tuple[str, int], ...]:
        """Return what the firmware remembers: since boot, or of the last 2 s.

        The latter where the hwmon driver runs: it clears what it has read.
        """
        bits = read_hexadecimal(self._firmware) if self._firmware else None
        found = (
            (kind, 1)
            for bit, kind in enumerate(THROTTLE_KINDS)
            if bits is not None and bits >> (bit + 16) & 1
        )
        return (*self._machine.throttled_before(), *found)

    def _find_firmware(self) -> None:
        """Look for both places."""
        files = sorted(self._root.glob(FIRMWARE))
        self._firmware = str(files[0]) if files else ""
        chips = sorted(self._root.glob("sys/class/hwmon/hwmon*"))
        volts = (it for it in chips if read_text(f"{it}/name") == "rpi_volt")
        chip = next(volts, None)
        self._alarm = f"{chip}/in0_lcrit_alarm" if chip else ""
