"""Recorded boards, laid out as the kernel of each would show them; and worse ones."""

import tomllib
from collections.abc import Mapping
from pathlib import Path

BOARDS = Path(__file__).parents[1] / "boards"
NAMES = ("pi4", "pi5", "orin", "x86")
Files = Mapping[str, str | bytes]


def lay(root: Path, files: Files) -> Path:
    """Write files below a root as the kernel would show them."""
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return root


def tree(name: str) -> dict[str, str | bytes]:
    """Return path -> content of a recorded board."""
    return dict(tomllib.loads((BOARDS / f"{name}.toml").read_text())["files"])


def throttled_pi4() -> Files:
    """A Pi 4 on a thin cable, in the sun: under-voltage and throttling, now."""
    return tree("pi4") | {
        "sys/devices/platform/soc/soc:firmware/get_throttled": "50005\n",
        "sys/class/hwmon/hwmon1/in0_lcrit_alarm": "1\n",
        "sys/class/thermal/thermal_zone0/temp": "84000\n",
        "sys/devices/system/cpu/cpufreq/policy0/scaling_cur_freq": "600000\n",
    }


def without(name: str, *beginnings: str) -> Files:
    """A recorded board without the files that begin so."""
    return {p: c for p, c in tree(name).items() if not p.startswith(beginnings)}


def nonsense(name: str, said: bytes) -> Files:
    """A recorded board whose files all say the same, but for what board it is."""
    kept = "proc/device-tree/compatible"
    return {p: c if p == kept else said for p, c in tree(name).items()}


TREES: Mapping[str, Files] = {
    **{name: tree(name) for name in NAMES},
    "pi4, throttled": throttled_pi4(),
    "pi5, no psi": without("pi5", "proc/pressure"),
    "pi4, no sensors": without("pi4", "sys/"),
    "orin, no sensors": without("orin", "sys/", "var/", "etc/"),
    "x86, nothing": {},
    "orin, nonsense": nonsense("orin", b"\xff\x00nan\n"),
    "pi5, empty files": nonsense("pi5", b""),
}
