"""The folder ``part``: bundles on their way in, and what interrupted ones left.

The rules this module keeps:
 * What may be resumed is a file of ours alone with a note beside it, which says how
   many bytes had reached the medium, under which ETag, and when. The note is written
   after those bytes were synced, so it never promises what is not there.
 * A note proves nothing: whether the bytes are right, the digest says at COMMIT, and
   what was refused there is not resumed.
 * At most ``MAX_KEPT`` are kept, for ``KEEP_S``; everything else here is rubbish, and
   is removed at the next start.
"""

import os
import stat
from collections.abc import Callable, Collection
from contextlib import suppress
from pathlib import Path

import msgspec
from msgspec import Struct

from agent.store.atomic import (
    Disk,
    device_errors,
    read_regular,
    replace_durably,
)

MAX_KEPT = 2  # what was interrupted, and what replaced it meanwhile
KEEP_S = 7 * 86400.0  # after a week offline, fleets have usually moved on
MAX_NOTE_BYTES = 4096
MAX_TAG = 256  # characters of an ETag; servers use about 40
NOTE = ".resume"
READ_BYTES = 1024 * 1024  # per read, to look at kept bytes before they are mapped


class Note(Struct, frozen=True):
    """What is here of an interrupted bundle.

    Attributes:
        length: Bytes of the whole bundle, which the file has room for.
        synced: Bytes from its beginning that reached the medium.
        tag: Strong ETag under which they were served, else empty.
        at: Unix seconds of the last byte.
    """

    length: int
    synced: int
    tag: str
    at: float


class Parts:
    """What is on its way in.

    Attributes:
        disk: Performs the steps; ``clock`` returns Unix seconds.
    """

    def __init__(self, folder: Path, disk: Disk, clock: Callable[[], float]) -> None:
        self.disk = disk
        self.clock = clock
        self._folder = folder
        self._open: set[str] = set()

    def path(self, name: str) -> Path:
        """Return where a part lies; ``name`` is a digest that was checked."""
        return self._folder / name

    def size(self, name: str) -> int:
        """Return how many bytes a part takes, 0 where there is none."""
        try:
            return self.path(name).lstat().st_size
        except OSError:
            return 0

    def create(self, name: str, length: int) -> int:
        """Begin a part of ``length`` bytes in the place of whatever lies there.

        Raises:
            OSError: There is no room, or the disk does not play along.
        """
        self.drop(name)
        descriptor = self.disk.create(self.path(name), length)
        self._open.add(name)
        return descriptor

    def resume(self, name: str, length: int) -> tuple[int, Note] | None:
        """Open what is here of a bundle, to be written on; None where nothing fits."""
        note = self._note(name)
        if note is None or note.length != length:
            return None
        try:
            descriptor = self.disk.reopen(self.path(name))
        except OSError:
            return None
        if not _readable(descriptor, note):
            os.close(descriptor)
            return None
        self._open.add(name)
        return descriptor, note

    def keep(self, name: str, note: Note) -> None:
        """Say durably what of a part has been synced.

        Raises:
            OSError: It could not be written.
        """
        content = msgspec.json.encode(note)
        replace_durably(self.disk, self.path(name + NOTE), content)

    def forget(self, name: str) -> None:
        """Let what is here of a part not be resumed, durably.

        Raises:
            OSError: It could not be removed.
        """
        self.disk.remove(self.path(name + NOTE))
        self.disk.sync_directory(self._folder)

    def drop(self, name: str) -> None:
        """Remove a part and its note.

        Raises:
            OSError: They could not be removed.
        """
        self.disk.remove(self.path(name))
        if os.path.lexists(self.path(name + NOTE)):
            self.disk.remove(self.path(name + NOTE))

    def release(self, name: str, *, keep: bool) -> None:
        """A part is not written any more; never raises.

        What cannot be removed now is removed at the next start.
        """
        self._open.discard(name)
        with suppress(OSError):
            if keep:
                self.tidy()
            else:
                self.drop(name)

    def tidy(self) -> None:
        """Remove everything but the newest parts that may be resumed.

        Raises:
            DeviceError: The folder cannot be read, or rubbish not be removed.
        """
        with device_errors(self._folder):
            stay = {name for kept in self._resumable()[:MAX_KEPT] for name in kept}
            for found in self._folder.iterdir():
                mine = found.name.split(".")[0] in self._open
                folder = found.is_dir() and not found.is_symlink()
                if found.name not in stay and not mine and not folder:
                    self.disk.remove(found)

    def drop_oldest(self, spare: Collection[str]) -> bool:
        """Remove the oldest part nobody writes, but ``spare``; whether there was one.

        Raises:
            DeviceError: It cannot be removed.
        """
        with device_errors(self._folder):
            for name, _ in reversed(self._resumable()):
                if name not in {*spare, *self._open}:
                    self.drop(name)
                    return True
        return False

    def _resumable(self) -> list[tuple[str, str]]:
        """List (part, note) of what may be resumed, newest first."""
        now, found = self.clock(), []
        for path in self._folder.glob(f"*{NOTE}"):
            name = path.name.removesuffix(NOTE)
            note = self._note(name)
            if (
                note is not None
                and now - note.at <= KEEP_S
                and is_own_file(self.path(name))
            ):
                found.append((note.at, name, path.name))
        return [(name, note) for _, name, note in sorted(found, reverse=True)]

    def _note(self, name: str) -> Note | None:
        """Read a note; None where there is none that makes sense."""
        try:
            raw = read_regular(self.disk, self.path(name + NOTE), MAX_NOTE_BYTES)
            note = msgspec.json.decode(raw or b"", type=Note)
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
            return None
        return note if 0 < note.synced <= note.length else None


def clean_tag(tag: str) -> str:
    """Return an ETag that may go into a file and a header, else an empty string."""
    return tag if tag.isascii() and tag.isprintable() and len(tag) <= MAX_TAG else ""


def is_own_file(path: Path) -> bool:
    """Whether a regular file lies there that has no other name."""
    try:
        found = path.lstat()
    except OSError:
        return False
    return stat.S_ISREG(found.st_mode) and found.st_nlink == 1


def _readable(descriptor: int, note: Note) -> bool:
    """Read what is kept, so that a bad block is no SIGBUS once it is mapped."""
    try:
        if os.fstat(descriptor).st_size != note.length:
            return False
        left = note.synced
        while left > 0:
            got = len(os.read(descriptor, min(left, READ_BYTES)))
            if got == 0:
                return False
            left -= got
        os.lseek(descriptor, note.synced, os.SEEK_SET)
    except OSError:
        return False
    return True
