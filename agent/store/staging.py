"""A bundle on its way to the disk: written, looked at, committed, or resumed later.

The rules this module keeps:
 * ``commit`` writes in this order: content and mode synced, read back from the medium,
   hashed, renamed, both directories synced. Only then is there an object.
 * Every ``SYNC_BYTES`` what came so far is synced and noted, so that a power cut costs
   no more than that to fetch again.
 * After a failed write or sync, or a refusal, nothing of it is resumed.
"""

import hashlib
import mmap
import os
import threading
from pathlib import Path
from types import TracebackType
from typing import Self

from agent.core.explanations import EXPLANATIONS
from agent.core.reasons import Reason
from agent.errors import BundleRefusedError, DeviceError
from agent.store.atomic import device_error, device_errors
from agent.store.parts import Note, Parts, clean_tag

SYNC_BYTES = 4 * 1024 * 1024  # half a minute at 1 Mbit/s; costs three syncs


class Staging:
    """A bundle on its way in: ``write`` all of it, look at it, ``commit``.

    Used as a context manager, or ended by ``close``: what was not committed by then
    leaves nothing behind, or with ``keep`` what can be resumed. ``write``, ``view`` and
    ``commit`` may run in another thread than the rest, one at a time; ``abandon`` makes
    the next ``write`` fail.
    """

    def __init__(self, parts: Parts, target: Path, length: int) -> None:
        """Open what is here of the object ``target`` is to be, or begin it.

        Raises:
            DeviceError: ``disk_full``: there is no room for all of it.
        """
        self._parts = parts
        self._target = target
        self._sha256 = target.name
        self._length = length
        self._abandoned = False
        self._resumable = True
        self._closing = threading.Lock()
        with device_errors(parts.path(self._sha256)):
            resumed = parts.resume(self._sha256, length)
            if resumed is None:
                resumed = (parts.create(self._sha256, length), Note(length, 0, "", 0))
        self._descriptor, note = resumed
        self._written = self._noted = note.synced
        self._tag = note.tag

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def kept(self) -> memoryview:
        """The bytes from its beginning that are here, mapped."""
        if self._written == 0:
            return memoryview(b"")
        with device_errors(self._target):
            return map_file(self._descriptor, self._written)

    @property
    def tag(self) -> str:
        """The strong ETag under which they were served, else empty."""
        return self._tag

    def remember(self, tag: str) -> None:
        """Take the ETag under which the bytes that follow are served."""
        self._tag = clean_tag(tag)

    def restart(self) -> None:
        """Drop what is kept: the next byte written is the first.

        Raises:
            DeviceError: The note about it cannot be removed.
        """
        with device_errors(self._target):
            if self._noted:
                # First: else, after a power cut, it would vouch for other bytes.
                self._parts.forget(self._sha256)
            os.lseek(self._descriptor, 0, os.SEEK_SET)
        self._written = self._noted = 0
        self._tag = ""

    def write(self, content: memoryview) -> None:
        """Append bytes.

        Raises:
            BundleRefusedError: ``length``: more than was announced.
            DeviceError: ``disk_full``..., or ``stopping`` after ``abandon``.
        """
        content = memoryview(content).cast("B")
        if self._abandoned:
            raise DeviceError("no longer wanted", reason=Reason.STOPPING)
        if self._written + len(content) > self._length:
            self._resumable = False
            raise refused(self._sha256, f"is longer than {self._length} bytes")
        try:
            with device_errors(self._target):
                self._parts.disk.write(self._descriptor, content)
                self._written += len(content)
                if self._written - self._noted >= SYNC_BYTES:
                    self._note()
        except DeviceError:
            self._resumable = False
            raise

    def view(self) -> memoryview:
        """Return the bytes, mapped; they stay valid after ``commit`` and ``close``.

        Raises:
            BundleRefusedError: ``length``: fewer bytes than announced were written.
            DeviceError: The file cannot be mapped.
        """
        self._check_length()
        with device_errors(self._target):
            return map_file(self._descriptor, self._length)

    def commit(self) -> None:
        """Make the object durable under its digest, and return when it is.

        Raises:
            BundleRefusedError: ``length`` or ``digest``: not what was announced.
            DeviceError: ``disk_full``, ``read_only``, ``state``.
        """
        self._check_length()
        disk, part = self._parts.disk, self._parts.path(self._sha256)
        self._resumable = False
        with device_errors(part):
            disk.seal(self._descriptor)
            disk.sync(self._descriptor)
            if digest_of_file(self._descriptor) != self._sha256:
                raise refused(self._sha256, "has other bytes", Reason.DIGEST)
            disk.rename(part, self._target)
            disk.sync_directory(self._target.parent)
            disk.sync_directory(part.parent)

    def abandon(self) -> None:
        """Make the next ``write`` raise, in whichever thread it happens."""
        self._abandoned = True

    def close(self, *, keep: bool = False) -> None:
        """Let go of the file; never raises.

        Args:
            keep: What was written so far may be resumed, also after a restart.
        """
        with self._closing:  # another thread may be at it: syncing takes its time
            if self._descriptor < 0:
                return
            keep = keep and self._resumable and self._written > 0 and self._noted_all()
            os.close(self._descriptor)
            self._descriptor = -1
            self._parts.release(self._sha256, keep=keep)

    def _noted_all(self) -> bool:
        """Sync and note what was written; return whether that worked."""
        try:
            self._note()
        except OSError:
            return False
        return True

    def _note(self) -> None:
        """Sync what was written, then say so."""
        self._parts.disk.sync(self._descriptor)
        note = Note(self._length, self._written, self._tag, self._parts.clock())
        self._parts.keep(self._sha256, note)
        self._noted = self._written

    def _check_length(self) -> None:
        """Everything that was announced has been written."""
        if self._written < self._length:
            raise refused(self._sha256, f"has {self._written} of {self._length} bytes")


def digest_of_file(descriptor: int) -> str:
    """Hash a whole file through ``read``, from its beginning."""
    os.lseek(descriptor, 0, os.SEEK_SET)
    with os.fdopen(descriptor, "rb", closefd=False) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def map_file(descriptor: int, length: int) -> memoryview:
    """Map a file for reading; the mapping lives as long as the view."""
    if length == 0:
        raise device_error(Reason.STATE, "an object is empty")
    return memoryview(mmap.mmap(descriptor, length, prot=mmap.PROT_READ))


def refused(name: str, what: str, reason: Reason = Reason.LENGTH) -> BundleRefusedError:
    """Return the error for bytes that are not the announced ones."""
    return BundleRefusedError(
        f"object {name} {what}", reason=reason, todo=EXPLANATIONS[reason].todo
    )
