"""Where plain bytes could be left: files, open files, cores, another process's memory.

The rules this module keeps:
 * What is searched for is 64 random bytes, which nothing else on the machine holds.
 * A file that goes away meanwhile, or that nobody may read, holds nothing for us.
"""

import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from tests.fakes.daemon_process import child_pids

MARKER_BYTES = 64
READ_BYTES = 1024 * 1024
# Places where programs leave what is only for a while.
PASSING = ("/tmp", "/var/tmp", "/dev/shm", "/run")  # noqa: S108 - searched, not used


def holds(path: Path, marker: bytes) -> bool:
    """Whether a file holds the marker; read piece by piece."""
    tail = b""
    with suppress(OSError), path.open("rb") as file:
        while piece := file.read(READ_BYTES):
            if marker in tail + piece:
                return True
            tail = piece[-len(marker) :]
    return False


def files_since(began: float, folders: Iterable[str] = PASSING) -> Iterator[Path]:
    """Yield regular files that were written since then, below folders."""
    for top in folders:
        for folder, _, names in os.walk(top):
            for name in names:
                path = Path(folder, name)
                with suppress(OSError):
                    found = path.lstat()
                    if stat.S_ISREG(found.st_mode) and found.st_mtime >= began - 1:
                        yield path


def processes(pid: int) -> list[int]:
    """Return a process and all its descendants."""
    return [pid, *child_pids(pid)]


def open_on_disk(pid: int) -> Iterator[Path]:
    """Yield what a process has open, or mapped, that is no memfd."""
    for kind in ("fd", "map_files"):
        links: list[Path] = []
        with suppress(OSError):
            links = list(Path(f"/proc/{pid}/{kind}").iterdir())
        for link in links:
            with suppress(OSError):
                target = str(link.readlink())
                if stat.S_ISREG(link.stat().st_mode) and "/memfd:" not in target:
                    yield link


def in_memory(pid: int, marker: bytes) -> bool:
    """Whether a process has the marker in its memory; takes root, or being its user."""
    with suppress(OSError), Path(f"/proc/{pid}/mem").open("rb", 0) as memory:
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            begin, end = (int(word, 16) for word in line.split()[0].split("-"))
            if line.split()[1].startswith("r") and _read(
                memory.fileno(), begin, end, marker
            ):
                return True
    return False


def _read(descriptor: int, begin: int, end: int, marker: bytes) -> bool:
    """Whether a range of a process's memory holds the marker."""
    tail = b""
    while begin < end:
        try:
            piece = os.pread(descriptor, min(READ_BYTES, end - begin), begin)
        except (OSError, OverflowError):  # a page of a device; the vsyscall page
            return False
        if not piece or marker in tail + piece:
            return bool(piece)
        tail, begin = piece[-len(marker) :], begin + len(piece)
    return False
