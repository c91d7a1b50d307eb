"""Bundles on disk: named by their digest, whole or absent, read-only.

The rules this module keeps:
 * ``obj/<sha256>`` appears by one rename, after its bytes were fsynced, read back from
   the medium and found to have that digest; then the directory is fsynced, too.
 * ``part/`` holds what is on its way; at the next start it is rubbish.
 * ``open`` hashes before it hands out bytes: through ``read``, because a bad block is
   then an error and not a SIGBUS, and only then maps the file, which costs no memory.
"""

import errno
import hashlib
import mmap
import os
import re
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from agent.core.disk_reasons import disk_reason
from agent.core.explanations import EXPLANATIONS
from agent.core.reasons import Reason
from agent.errors import BundleRefusedError, DeviceError
from agent.store.atomic import Disk, device_error, device_errors

# What the kernel says where no whole regular file is: nothing, a bad block, a link, a
# pipe, a folder. Another copy of the same bytes mends all of these.
ROTTEN = {errno.ENOENT, errno.EIO, errno.ELOOP, errno.EINVAL, errno.ENXIO}
DIGEST = re.compile(r"[0-9a-f]{64}\Z")


class Staging:
    """A bundle on its way in: ``write`` all of it, look at it, ``commit``.

    Used as a context manager, or ended by ``close``: what was not committed by then
    leaves nothing behind. ``write``, ``view`` and ``commit`` may run in another thread
    than the rest, one at a time; ``abandon`` makes the next ``write`` fail.
    """

    def __init__(self, objects: "Objects", sha256: str, length: int) -> None:
        self._objects = objects
        self._sha256 = sha256
        self._length = length
        self._written = 0
        self._abandoned = False
        self._part = objects.part_path(sha256)
        with device_errors(self._part):
            objects.disk.remove(self._part)
            self._descriptor = objects.disk.create(self._part, length)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

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
            raise _refused(self._sha256, f"is longer than {self._length} bytes")
        with device_errors(self._part):
            self._objects.disk.write(self._descriptor, content)
        self._written += len(content)

    def view(self) -> memoryview:
        """Return the bytes, mapped; they stay valid after ``commit`` and ``close``.

        Raises:
            BundleRefusedError: ``length``: fewer bytes than announced were written.
            DeviceError: The file cannot be mapped.
        """
        self._check_length()
        with device_errors(self._part):
            return _map(self._descriptor, self._length)

    def commit(self) -> None:
        """Make the object durable under its digest, and return when it is.

        Raises:
            BundleRefusedError: ``length`` or ``digest``: not what was announced.
            DeviceError: ``disk_full``, ``read_only``, ``state``.
        """
        self._check_length()
        disk, target = self._objects.disk, self._objects.path(self._sha256)
        with device_errors(self._part):
            disk.seal(self._descriptor)
            disk.sync(self._descriptor)
            if _digest(self._descriptor) != self._sha256:
                raise _refused(self._sha256, "has other bytes", Reason.DIGEST)
            disk.rename(self._part, target)
            disk.sync_directory(target.parent)
            disk.sync_directory(self._part.parent)

    def abandon(self) -> None:
        """Make the next ``write`` raise, in whichever thread it happens."""
        self._abandoned = True

    def close(self) -> None:
        """Let go of the file; without ``commit`` nothing of it stays. Never raises."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
        # What cannot be removed now is removed at the next start.
        with suppress(OSError):
            self._objects.disk.remove(self._part)

    def _check_length(self) -> None:
        """Everything that was announced has been written."""
        if self._written < self._length:
            raise _refused(self._sha256, f"has {self._written} of {self._length} bytes")


class Objects:
    """The folders ``obj`` and ``part`` of a state directory.

    Attributes:
        disk: Performs the steps.
    """

    def __init__(self, state_dir: Path, disk: Disk) -> None:
        self.disk = disk
        self._objects = state_dir / "obj"
        self._parts = state_dir / "part"
        with device_errors(state_dir):
            for folder in (self._objects, self._parts):
                if not folder.is_dir():
                    folder.mkdir(mode=0o700)
                    disk.sync_directory(state_dir)
            for rubbish in _files(self._parts):
                disk.remove(rubbish)

    def path(self, sha256: str) -> Path:
        """Return where an object lies; the name is checked, for it becomes a path.

        Raises:
            BundleRefusedError: ``digest``: this is no SHA-256 in lower case hex.
        """
        if not DIGEST.match(sha256):
            raise _refused(repr(sha256), "is no SHA-256", Reason.DIGEST)
        return self._objects / sha256

    def part_path(self, sha256: str) -> Path:
        """Return where an object lies on its way in."""
        return self._parts / self.path(sha256).name

    def has(self, sha256: str) -> bool:
        """Return whether an object of that name lies there, changed or not."""
        return self.path(sha256).is_file()

    def any(self) -> bool:
        """Return whether there is any object."""
        with device_errors(self._objects):
            return bool(_files(self._objects))

    def stage(self, sha256: str, length: int) -> Staging:
        """Begin to bring in an object of ``length`` bytes.

        Raises:
            BundleRefusedError: ``length``: nothing has no bytes; ``digest``.
            DeviceError: ``disk_full``: there is no room for all of it.
        """
        if length < 1:
            raise _refused(sha256, "is empty")
        return Staging(self, sha256, length)

    def open(self, sha256: str) -> memoryview:
        """Return an object's bytes, mapped, after hashing them.

        Raises:
            BundleRefusedError: ``digest``: the bytes that were verified are not there
                any more: changed, gone, or on a bad block.
            DeviceError: ``permission``, or this process lacks something.
        """
        path = self.path(sha256)
        try:
            descriptor = self.disk.open_regular(path)
            try:
                if _digest(descriptor) == sha256:
                    return _map(descriptor, os.fstat(descriptor).st_size)
            finally:
                os.close(descriptor)
        except OSError as err:
            if err.errno not in ROTTEN:
                raise device_error(disk_reason(err.errno), f"{path}: {err}") from err
            what = f"cannot be read: {err.strerror}"
            raise _refused(sha256, what, Reason.DIGEST) from err
        raise _refused(sha256, "changed on disk", Reason.DIGEST)

    def discard(self, sha256: str) -> None:
        """Remove an object; one that is not there is fine.

        Raises:
            DeviceError: It cannot be removed.
        """
        path = self.path(sha256)
        with device_errors(path):
            self.disk.remove(path)

    def collect(self, keep: Collection[str]) -> list[str]:
        """Remove every object that is not in ``keep`` and return what was removed.

        Raises:
            DeviceError: One cannot be removed.
        """
        with device_errors(self._objects):
            names = [path.name for path in _files(self._objects)]
            rubbish = sorted(set(names) - set(keep))
            for name in rubbish:
                self.disk.remove(self._objects / name)
        return rubbish


def _files(folder: Path) -> list[Path]:
    """List everything in a folder but folders, which are not ours."""
    return [path for path in folder.iterdir() if path.is_symlink() or not path.is_dir()]


def _digest(descriptor: int) -> str:
    """Hash a whole file through ``read``, from its beginning."""
    os.lseek(descriptor, 0, os.SEEK_SET)
    with os.fdopen(descriptor, "rb", closefd=False) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _map(descriptor: int, length: int) -> memoryview:
    """Map a file for reading; the mapping lives as long as the view."""
    if length == 0:
        raise device_error(Reason.STATE, "an object is empty")
    return memoryview(mmap.mmap(descriptor, length, prot=mmap.PROT_READ))


def _refused(
    name: str, what: str, reason: Reason = Reason.LENGTH
) -> BundleRefusedError:
    """Return the error for bytes that are not the announced ones."""
    return BundleRefusedError(
        f"object {name} {what}", reason=reason, todo=EXPLANATIONS[reason].todo
    )
