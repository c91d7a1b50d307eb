"""How much room files take: what a quota counts.

The rules this module keeps:
 * A file with two names counts once; what cannot be looked at counts nothing.
 * Sizes count, not blocks: room that was reserved is taken.
"""

import os
from pathlib import Path

FOLDERS = ("obj", "part", "inbox", "envelope")  # what the quota is about


def bytes_in(folder: Path) -> int:
    """Return what all files below a folder have in bytes, 0 for none."""
    sizes: dict[int, int] = {}
    for directory, _, names in os.walk(folder):
        for name in names:
            try:
                found = os.lstat(os.path.join(directory, name))  # noqa: PTH118 - many
            except OSError:
                continue
            sizes[found.st_ino] = found.st_size
    return sum(sizes.values())


def taken(state_dir: Path) -> int:
    """Return what counts towards the quota of a state directory, in bytes."""
    return sum(bytes_in(state_dir / name) for name in FOLDERS)
