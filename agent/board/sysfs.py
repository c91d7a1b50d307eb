"""Single values of ``/sys`` and ``/proc``, whatever is in them.

The rules this module keeps:
 * Nothing here raises for what a file says, nor for its absence.
 * A number is finite, or NaN; a text is printable, one line and short, since it becomes
   a label of a metric.
 * A file that is a pipe by mistake does not hold up the reader.
"""

import os
import re
from collections.abc import Container
from math import nan

# A page of sysfs is 4096 bytes, and no value is longer; /proc/meminfo is 1.5 KB.
MOST_BYTES = 4096
# /proc/net/dev has 130 bytes for an interface, /proc/stat begins with what is wanted.
MOST_TABLE_BYTES = 65536
MOST_CHARS = 64  # a model's name is 40 at most in the kernel's device trees
_WHOLE = re.compile(rb"-?[0-9]{1,20}")
_BAD = re.compile(r"[^ -~]+")


def read_bytes(path: str, limit: int = MOST_BYTES) -> bytes:
    """Return the first ``limit`` bytes of a file; empty if it cannot be read."""
    try:
        # Three calls of the kernel, 5 us: a third of what open() and read() take.
        # Without O_NONBLOCK a named pipe would wait for somebody to write.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError):  # a NUL in a path is a ValueError
        return b""
    try:
        return os.read(descriptor, limit)
    except OSError:  # ENODEV, EIO, EAGAIN: a sensor that is asleep or gone
        return b""
    finally:
        os.close(descriptor)


def read_whole(path: str) -> float:
    """Return a file's whole decimal number; NaN for anything else."""
    return parse_whole(read_bytes(path))


def parse_whole(raw: bytes) -> float:
    r"""Return a whole decimal number; NaN for anything else.

    >>> parse_whole(b"48686\n"), parse_whole(b"1_0"), parse_whole(b"n/a")
    (48686.0, nan, nan)
    """
    word = raw.strip()
    return float(int(word)) if _WHOLE.fullmatch(word) else nan


def read_hexadecimal(path: str) -> int | None:
    """Return a file's hexadecimal number, with or without ``0x``; None without one."""
    word = read_bytes(path).strip().removeprefix(b"0x")
    return int(word, 16) if re.fullmatch(rb"[0-9a-fA-F]{1,8}", word) else None


def read_text(path: str) -> str:
    """Return a file's first line as a label may show it."""
    return clean(read_bytes(path))


def clean(raw: bytes) -> str:
    r"""Return the first line, printable and short.

    >>> clean(b"Raspberry Pi 5 Model B Rev 1.0\x00"), clean(b"cpu\n-thermal")
    ('Raspberry Pi 5 Model B Rev 1.0', 'cpu')
    """
    line = raw.lstrip(b"\0\r\n").split(b"\n", 1)[0].replace(b"\0", b" ")
    return _BAD.sub("?", line.decode("utf-8", "replace").strip())[:MOST_CHARS].strip()


def within(value: float, least: float, most: float) -> float:
    """Return a value that is between its bounds; NaN for one that cannot be."""
    return value if least <= value <= most else nan  # NaN is within nothing


def free_name(name: str, taken: Container[str]) -> str:
    """Return ``name``, numbered from the second on: ``cpu``, ``cpu-1``.

    Args:
        name: What the kernel calls it.
        taken: Names that are taken.
    """
    number, free = 0, name
    while free in taken:
        number += 1
        free = f"{name}-{number}"
    return free
