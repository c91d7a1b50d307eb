"""Where a board keeps its temperatures: thermal zones, else the chips of hwmon.

Sources: ``Documentation/driver-api/thermal/sysfs-api.rst`` and
``Documentation/hwmon/sysfs-interface.rst`` of the kernel; both in thousandths of a
degree Celsius.
"""

import re
from pathlib import Path

from agent.board.probes import Scale
from agent.board.sysfs import free_name, read_text

# Outside lies a broken sensor, not a board: an unpowered zone of a Jetson says -256.
COLDEST_C, HOTTEST_C = -60.0, 200.0
CELSIUS = Scale(0.001, COLDEST_C, HOTTEST_C)
# Each is a series of its own for ever. A Jetson has 9 zones, a PC with many cores 60.
MOST_SENSORS = 16
# ACPI's own zone: on most PCs a constant that the maker's tables invent.
VAGUE = "acpitz"


def find_temperatures(root: Path) -> dict[str, str]:
    """Return sensor -> file, at most ``MOST_SENSORS``.

    Sensors of one name are numbered from the second on: ``cpu``, ``cpu-1``. Chips serve
    where there are no zones, or none but ACPI's.
    """
    found = _find_zones(root)
    if set(found) <= {VAGUE}:
        for name, path in _find_chips(root).items():
            found[free_name(name, found)] = path
    return dict(list(found.items())[:MOST_SENSORS])


def _find_zones(root: Path) -> dict[str, str]:
    """Return the name of each thermal zone -> its file, in the kernel's order."""
    found: dict[str, str] = {}
    zones = root.glob("sys/class/thermal/thermal_zone*")
    for zone in sorted(zones, key=_number):
        if name := read_text(f"{zone}/type"):
            found[free_name(name, found)] = f"{zone}/temp"
    return found


def _find_chips(root: Path) -> dict[str, str]:
    """Return the name of each sensor of each chip -> its file.

    ``coretemp`` for a chip's only sensor; else with its label: ``coretemp Core 0``.
    """
    found: dict[str, str] = {}
    for chip in sorted(root.glob("sys/class/hwmon/hwmon*"), key=_number):
        chip_name = read_text(f"{chip}/name") or chip.name
        if chip_name == VAGUE:
            continue
        inputs = sorted(chip.glob("temp*_input"), key=_number)
        for path in inputs:
            stem = str(path).removesuffix("_input")
            own = read_text(f"{stem}_label") or stem.rpartition("/")[2]
            name = chip_name if len(inputs) == 1 else f"{chip_name} {own}"
            found[free_name(name, found)] = str(path)
    return found


def _number(path: Path) -> tuple[int, str]:
    """Sort by number: zone 10 comes after zone 2, ``temp10_input`` after ``temp2``."""
    digits = re.search(r"[0-9]{1,9}", path.name)
    return (int(digits[0]) if digits else -1, path.name)
