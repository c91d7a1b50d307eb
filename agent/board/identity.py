"""Which board this is: its kind, its model, its kernel.

The device tree of a board says it, the firmware's tables (DMI) of a PC.
"""

import os
from pathlib import Path

from agent.board.sysfs import clean, read_bytes, read_text
from agent.core.readings import BoardIdentity

# The first words of what ``compatible`` lists, by which the sensors are chosen.
KINDS = {"raspberrypi,": "raspberry_pi", "nvidia,tegra": "jetson", "nvidia,p": "jetson"}
# What makers leave in their tables when they forget to fill them in.
PLACEHOLDERS = {"to be filled by o.e.m.", "system product name", "default string"}


def find_identity(root: Path) -> BoardIdentity:
    """Return what this board is; empty words for what nothing tells."""
    return BoardIdentity(
        kind=_find_kind(root),
        model=_find_model(root),
        kernel=read_text(f"{root}/proc/sys/kernel/osrelease") or os.uname().release,
        system=_find_system(root),
    )


def _find_kind(root: Path) -> str:
    """Return whose sensors to look for."""
    compatible = read_bytes(f"{root}/proc/device-tree/compatible")
    for name in compatible.decode("ascii", "replace").split("\0"):
        for begins, kind in KINDS.items():
            if name.startswith(begins):
                return kind
    return "generic"


def _find_model(root: Path) -> str:
    """Return the board's own name, the maker's before it where it is not in it."""
    if model := read_text(f"{root}/proc/device-tree/model"):
        return model
    words = []
    for name in ("sys_vendor", "product_name"):
        word = read_text(f"{root}/sys/class/dmi/id/{name}")
        if word.lower() not in PLACEHOLDERS and word not in words:
            words.append(word)
    return " ".join(word for word in words if word)


def _find_system(root: Path) -> str:
    """Return what the distribution calls itself (os-release(5))."""
    for line in read_bytes(f"{root}/etc/os-release").split(b"\n"):
        key, _, value = line.partition(b"=")
        if key == b"PRETTY_NAME":
            return clean(value.strip(b"\"'"))
    return ""
