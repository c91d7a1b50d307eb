"""The few steps on files that the log is made of, each of them once.

The rules this module keeps:
 * ``Folder`` only performs; the order of its steps is decided by its callers, and tests
   stand in between.
 * Every write has its place, so that it can be done again: after a failed sync nothing
   is believed of what was written since the last good one, and all of it is repeated on
   new descriptors.
 * No name is followed through a symbolic link.
"""

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

_FLAGS = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC
PRIVATE = 0o600


class Folder:
    """Files of one directory; all methods raise ``OSError``.

    Args:
        path: Where; it is there.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._open: dict[str, int] = {}
        self._named: set[str] = set()  # made since the directory was last synced

    def names(self) -> list[str]:
        """Return the names of what is there."""
        return sorted(it.name for it in self.path.iterdir())

    def read(self, name: str, place: int = 0, length: int = -1) -> bytes:
        """Return what a file holds, or as much of it as there is; b"" without one."""
        try:
            descriptor = os.open(
                self.path / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
            )
        except FileNotFoundError:
            return b""
        with os.fdopen(descriptor, "rb") as file:
            file.seek(place)
            return file.read(length)

    def size(self, name: str) -> int:
        """Return a file's length, 0 where there is none."""
        try:
            return (self.path / name).lstat().st_size
        except FileNotFoundError:
            return 0

    def allocate(self, name: str, length: int) -> None:
        """Take room for a file, so that a full disk shows before the first byte."""
        os.posix_fallocate(self._descriptor(name), 0, length)

    def write(self, name: str, place: int, content: bytes) -> None:
        """Write all of ``content`` at its place."""
        descriptor, view = self._descriptor(name), memoryview(content)
        while view:
            written = os.pwrite(descriptor, view, place)
            view, place = view[written:], place + written

    def cut(self, name: str, length: int) -> None:
        """Let a file end after ``length`` bytes, if it is longer."""
        if self.size(name) > length:
            os.ftruncate(self._descriptor(name), length)

    def sync(self, names: Iterable[str]) -> None:
        """Return when what was written to these files is on the medium."""
        for name in names:
            os.fdatasync(self._descriptor(name))
        if self._named:
            self._sync_directory()
            self._named.clear()

    def replace(self, name: str, content: bytes) -> None:
        """Replace a file durably: after a loss of power it is the old or the new."""
        aside = f"{name}.tmp"
        with suppress(FileNotFoundError):
            (self.path / aside).unlink()
        self.write(aside, 0, content)
        os.fsync(self._descriptor(aside))
        self._close(aside)
        self._close(name)
        (self.path / aside).replace(self.path / name)
        self._sync_directory()

    def remove(self, name: str) -> None:
        """Remove a file; one that is not there is fine."""
        self._close(name)
        with suppress(FileNotFoundError):
            (self.path / name).unlink()

    def close(self, name: str = "") -> None:
        """Close a file, or all of them; they open again when they are needed."""
        for it in [name] if name else list(self._open):
            self._close(it)

    def _descriptor(self, name: str) -> int:
        """Return a file's descriptor; it is made where it is missing."""
        if name not in self._open:
            path = self.path / name
            try:
                found = os.open(path, _FLAGS)
            except FileNotFoundError:
                found = os.open(path, _FLAGS | os.O_CREAT, PRIVATE)
                self._named.add(name)
            self._open[name] = found
        return self._open[name]

    def _close(self, name: str) -> None:
        """Close a file, if it is open; what closing says was said by the sync."""
        descriptor = self._open.pop(name, None)
        if descriptor is not None:
            with suppress(OSError):
                os.close(descriptor)

    def _sync_directory(self) -> None:
        """Return when the names are on the medium."""
        descriptor = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
