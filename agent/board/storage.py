"""What a board's disks have had to bear, and the room that is left.

Sources: ``Documentation/block/stat.rst`` and
``Documentation/ABI/testing/sysfs-bus-mmc`` of the kernel, and JEDEC 84-B51 (eMMC 5.1)
for what life time and end of life mean. SD cards say nothing, and NVMe says it only to
whoever may send it commands: both are left out.
"""

import os
import re
from math import nan
from pathlib import Path
from typing import NamedTuple

from agent.board.sysfs import parse_whole, read_bytes

SECTOR_BYTES = 512  # in stat, whatever the device's own sectors are
SECTORS_WRITTEN = 6  # column of stat
MOST_BYTES_WRITTEN = 2.0**63
MOST_DISKS = 8
# Parts of an eMMC with a life of their own: boot loaders, written at the factory.
_PARTS = re.compile(r"mmcblk[0-9]+(boot|rpmb)")
_LIFE_TIME = re.compile(rb"0x([0-9a-fA-F]{2}) 0x([0-9a-fA-F]{2})")
# Tenths of its life, rounded up: 0x01 is up to 10 %; 0x0b is more than all of it.
LIVED = {tenth: min(1.0, tenth / 10) for tenth in range(1, 12)}
# Share of the spare blocks that is used, from which it is told.
SPARES_USED = {b"0x02": 0.8, b"0x03": 0.9}


class Space(NamedTuple):
    """One file system, in bytes; NaN if it is gone.

    Attributes:
        size: All of it.
        free: What this user may still write.
        used_percent: As ``df`` says it: without what is kept for root.
    """

    size: float = nan
    free: float = nan
    used_percent: float = nan


def read_space(path: Path) -> Space:
    """Return the room of the file system that holds ``path``."""
    try:
        found = os.statvfs(path)
    except OSError:
        return Space()
    used = found.f_blocks - found.f_bfree
    mine = used + found.f_bavail
    return Space(
        size=float(found.f_blocks * found.f_frsize),
        free=float(found.f_bavail * found.f_frsize),
        used_percent=100.0 * used / mine if mine > 0 else nan,
    )


def find_disks(root: Path) -> tuple[Path, ...]:
    """Return the directories of disks with a device behind them: no loops, no zram."""
    found = (
        disk
        for disk in sorted(root.glob("sys/block/*"))
        if not _PARTS.match(disk.name) and (disk / "device").exists()
    )
    return tuple(found)[:MOST_DISKS]


def read_written(disks: tuple[Path, ...]) -> tuple[tuple[str, float], ...]:
    """Return (disk, bytes written since boot)."""
    rows = []
    for disk in disks:
        columns = read_bytes(f"{disk}/stat").split()
        if len(columns) > SECTORS_WRITTEN:
            count = parse_whole(columns[SECTORS_WRITTEN]) * SECTOR_BYTES
            if 0 <= count <= MOST_BYTES_WRITTEN:  # not for NaN
                rows.append((disk.name, count))
    return tuple(rows)


def read_wear(disks: tuple[Path, ...]) -> tuple[tuple[str, float], ...]:
    """Return (disk, used share of its life, 0 to 1) of those that say so.

    The worst of three: the life of the two kinds of cells an eMMC may have, and its
    spare blocks.
    """
    rows = []
    for disk in disks:
        lived = _LIFE_TIME.match(read_bytes(f"{disk}/device/life_time"))
        tenths = [int(word, 16) for word in lived.groups()] if lived else []
        shares = [LIVED[tenth] for tenth in tenths if tenth in LIVED]
        spares = SPARES_USED.get(read_bytes(f"{disk}/device/pre_eol_info").strip())
        if spares is not None:
            shares.append(spares)
        if shares:
            rows.append((disk.name, max(shares)))
    return tuple(rows)
