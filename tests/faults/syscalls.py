"""Which system calls change a disk, and which file each one means.

The rules this module keeps:
 * A call counts where it could leave another disk behind: it writes, names, sizes,
   protects or syncs a file. Opening counts where it may create or truncate.
 * Numbers are those of the two machines this agent is made for.
"""

import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

# How a call names its file: by descriptor, by path, or by folder and path (``at``).
Naming = Literal["fd", "path", "at"]
AT_FDCWD = -100
CREATING = os.O_CREAT | os.O_TRUNC


@dataclass(frozen=True, slots=True)
class Shape:
    """One system call: its name, how it names its file, and with which argument."""

    name: str
    naming: Naming
    argument: int = 0


# Calls that take two names are counted under the one that appears.
SHAPES = (
    *(Shape(name, "fd") for name in ("write", "pwrite64", "writev", "pwritev")),
    *(Shape(name, "fd") for name in ("fsync", "fdatasync", "syncfs")),
    *(Shape(name, "fd") for name in ("ftruncate", "fallocate", "fchmod")),
    Shape("sendfile", "fd"),
    Shape("copy_file_range", "fd", 2),
    *(Shape(name, "path") for name in ("truncate", "mkdir", "rmdir", "unlink")),
    *(Shape(name, "path") for name in ("chmod", "creat", "open")),
    *(Shape(name, "path", 1) for name in ("rename", "link", "symlink")),
    *(Shape(name, "at") for name in ("openat", "mkdirat", "unlinkat", "fchmodat")),
    *(Shape(name, "at", 2) for name in ("renameat", "renameat2", "linkat")),
    Shape("symlinkat", "at", 1),
)
SYNCS = frozenset({"fsync", "fdatasync", "syncfs"})
OPENS = {"open": 1, "openat": 2}  # name -> which argument holds the flags

_X86_64 = """
    write=1 pwrite64=18 writev=20 pwritev=296 sendfile=40 fsync=74 fdatasync=75
    syncfs=306 copy_file_range=326 ftruncate=77 fallocate=285 fchmod=91 truncate=76
    mkdir=83 rmdir=84 unlink=87 chmod=90 creat=85 open=2 rename=82 link=86 symlink=88
    openat=257 mkdirat=258 unlinkat=263 fchmodat=268 renameat=264 renameat2=316
    linkat=265 symlinkat=266
"""
_AARCH64 = """
    write=64 pwrite64=68 writev=66 pwritev=70 sendfile=71 fsync=82 fdatasync=83
    syncfs=267 copy_file_range=285 ftruncate=46 fallocate=47 fchmod=52 truncate=45
    openat=56 mkdirat=34 unlinkat=35 fchmodat=53 renameat=38 renameat2=276 linkat=37
    symlinkat=36
"""
NUMBERS: Mapping[str, Mapping[str, int]] = {
    machine: {
        name: int(number)
        for name, _, number in (word.partition("=") for word in table.split())
    }
    for machine, table in (("x86_64", _X86_64), ("aarch64", _AARCH64))
}


def shapes_by_number(machine: str = platform.machine()) -> dict[int, Shape]:
    """Return the calls that may change a disk, by their number on a machine.

    Raises:
        KeyError: Nobody wrote down this machine's numbers.
    """
    numbers = NUMBERS[machine]
    return {numbers[shape.name]: shape for shape in SHAPES if shape.name in numbers}


@dataclass(frozen=True, slots=True)
class Call:
    """One call that may change the watched folder.

    Attributes:
        number: 1 for the first of its life, in all threads together.
        name: Of the system call.
        path: The file, relative to the watched folder; ``.`` for the folder itself.
        thread: Which thread made it.
    """

    number: int
    name: str
    path: str
    thread: int

    @property
    def role(self) -> str:
        """What kind of file it is: digests and versions left out."""
        parts = ["#" if len(it) == 64 else it for it in Path(self.path).parts]
        return "/".join(parts) or "."


def named_path(thread: int, shape: Shape, arguments: tuple[int, ...]) -> Path:
    """Return the file that a call of a stopped thread means.

    A descriptor that is not open leads to a path that is nowhere.
    """
    first = arguments[shape.argument]
    if shape.naming == "fd":
        return _link(thread, first)
    if shape.naming == "path":
        return _link_of_cwd(thread) / _text(thread, first)
    folder = first & 0xFFFFFFFF
    if folder >= 1 << 31:
        folder -= 1 << 32
    path = _text(thread, arguments[shape.argument + 1])
    beside = _link_of_cwd(thread) if folder == AT_FDCWD else _link(thread, folder)
    return beside / path


def may_change(shape: Shape, arguments: tuple[int, ...]) -> bool:
    """Return whether a call may change something: opening for reading does not."""
    if shape.name not in OPENS:
        return True
    return bool(arguments[OPENS[shape.name]] & CREATING)


def _link(thread: int, descriptor: int) -> Path:
    """Return where a descriptor leads."""
    try:
        return Path(f"/proc/{thread}/fd/{descriptor}").readlink()
    except FileNotFoundError:
        return Path("nowhere")


def _link_of_cwd(thread: int) -> Path:
    """Return the folder that a thread is in."""
    return Path(f"/proc/{thread}/cwd").readlink()


def _text(thread: int, address: int) -> str:
    """Read a C string out of a stopped thread, up to the end of a page at a time."""
    found = b""
    with Path(f"/proc/{thread}/mem").open("rb", buffering=0) as memory:
        while b"\0" not in found:
            at = address + len(found)
            memory.seek(at)
            found += memory.read(4096 - at % 4096)
    return os.fsdecode(found.partition(b"\0")[0])
