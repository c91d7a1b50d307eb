"""How fast a board's processor, GPU and memory run, and who decides it.

Sources: ``Documentation/admin-guide/pm/cpufreq.rst`` (kHz) and
``Documentation/ABI/testing/sysfs-class-devfreq`` (Hz) of the kernel.
"""

from collections.abc import Sequence
from math import isnan, nan
from pathlib import Path

from agent.board.probes import Scale
from agent.board.sysfs import MOST_CHARS, free_name, read_text

FASTEST_HZ = 2e10  # the fastest processor that was ever sold runs at 6.2 GHz
KILOHERTZ = Scale(1e3, 1.0, FASTEST_HZ)
HERTZ = Scale(1.0, 1.0, FASTEST_HZ)
# Boards have one policy for each kind of core. A PC has one for each core, and the
# mean of eight is as good as that of a hundred.
MOST_POLICIES = 8
MOST_DEVICES = 6
# What drivers call these after their registers' address (17000000.gpu, fdab0000.npu).
DEVICES = {
    "gpu": ("gpu", "ga10b", "gv11b", "gp10b", "gm20b", "mali", "v3d"),
    "memory": ("emc", "dmc", "memory"),
}


def find_policies(root: Path) -> dict[str, str]:
    """Return the directory of each policy by its name."""
    found = sorted(root.glob("sys/devices/system/cpu/cpufreq/policy*"))
    return {path.name: str(path) for path in found[:MOST_POLICIES]}


def find_devices(root: Path) -> dict[str, str]:
    """Return what devfreq scales -> its file; ``gpu`` and ``memory`` by these names."""
    found: dict[str, str] = {}
    for device in sorted(root.glob("sys/class/devfreq/*")):
        named = (
            name
            for name, hints in DEVICES.items()
            if any(hint in device.name.lower() for hint in hints)
        )
        name = next(named, device.name.rpartition(".")[2])
        found[free_name(name, found)] = f"{device}/cur_freq"
    return dict(list(found.items())[:MOST_DEVICES])


def find_governor(policies: Sequence[str]) -> str:
    """Return who chooses the frequency; several are joined: ``ondemand,powersave``."""
    named = [read_text(f"{policy}/scaling_governor") for policy in policies]
    # Clusters may differ; more than a label's length of them is nonsense.
    return ",".join(dict.fromkeys(name for name in named if name))[:MOST_CHARS]


def find_drivers(policies: Sequence[str]) -> set[str]:
    """Return whose governors these are: ``powersave`` means another with each."""
    return {read_text(f"{policy}/scaling_driver") for policy in policies}


def find_fastest(policies: Sequence[str]) -> float:
    """Return the mean over policies of what the hardware may reach, in Hz, or NaN."""
    return mean([KILOHERTZ.read(f"{it}/cpuinfo_max_freq") for it in policies])


def mean(values: Sequence[float]) -> float:
    """Return the mean of those that are numbers; NaN if none is.

    >>> mean([1.0, float("nan"), 2.0]), mean([])
    (1.5, nan)
    """
    known = [value for value in values if not isnan(value)]
    return sum(known) / len(known) if known else nan
