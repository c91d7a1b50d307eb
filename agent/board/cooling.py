"""What cools a board, and what slows its processor down to cool it.

Source: ``Documentation/driver-api/thermal/sysfs-api.rst`` of the kernel. A fan is a
cooling device, and so is a processor that may be slowed down.
"""

from collections.abc import Sequence
from math import isnan, nan
from pathlib import Path

from agent.board.sysfs import read_text, read_whole

MOST_KINDS = 8
# Devices whose state above 0 is a slower processor. intel_powerclamp and "TCC Offset"
# are none: they say -1 or a few degrees on a PC at rest.
SLOWING = ("cpufreq-", "thermal-cpufreq-", "cpu-throttle", "Processor")
Cooling = tuple[tuple[str, float], ...]


def find_cooling(root: Path) -> tuple[Path, ...]:
    """Return the directories of all cooling devices."""
    return tuple(sorted(root.glob("sys/class/thermal/cooling_device*")))


def read_cooling(devices: Sequence[Path]) -> Cooling:
    """Return (kind, share of its states in use), the largest of each kind.

    Of one kind there may be one for each core.
    """
    rows: dict[str, float] = {}
    for device in devices:
        kind = read_text(f"{device}/type")
        share = _share(device)
        if kind and not isnan(share):
            rows[kind] = max(share, rows.get(kind, 0.0))
    return tuple(rows.items())[:MOST_KINDS]


def slows_down(cooling: Cooling) -> bool | None:
    """Return whether the processor is slowed down to cool it; None if nothing tells.

    >>> slows_down((("pwm-fan", 1.0), ("cpufreq-cpu0", 0.0)))
    False
    """
    shares = [share for kind, share in cooling if kind.startswith(SLOWING)]
    return any(share > 0 for share in shares) if shares else None


def _share(device: Path) -> float:
    """Return the share of a device's states that is in use; NaN for nonsense."""
    state = read_whole(f"{device}/cur_state")
    most = read_whole(f"{device}/max_state")
    return state / most if most > 0 and 0 <= state <= most else nan  # not for NaN
