"""Bundles on disk: named by their digest, whole or absent, read-only.

The rules this module keeps:
 * ``obj/<sha256>`` appears by one rename, after its bytes were fsynced, read back from
   the medium and found to have that digest; then the directory is fsynced, too.
 * ``open`` hashes before it hands out bytes: through ``read``, because a bad block is
   then an error and not a SIGBUS, and only then maps the file, which costs no memory.
 * Bytes that someone else could still change are not mapped: a file with a second name
   is copied first.
"""

import os
import re
from collections.abc import Callable, Collection
from pathlib import Path

from agent.core.disk_reasons import disk_reason
from agent.core.reasons import Reason
from agent.store.atomic import NO_FILE, Disk, device_error, device_errors
from agent.store.parts import Parts
from agent.store.staging import Staging, digest_of_file, map_file, refused

COPY_BYTES = 1024 * 1024
DIGEST = re.compile(r"[0-9a-f]{64}\Z")


class Objects:
    """The folders ``obj`` and ``part`` of a state directory.

    Attributes:
        disk: Performs the steps.
        parts: What is on its way in.
    """

    def __init__(self, state_dir: Path, disk: Disk, clock: Callable[[], float]) -> None:
        self.disk = disk
        self._objects = state_dir / "obj"
        parts = state_dir / "part"
        with device_errors(state_dir):
            for folder in (self._objects, parts):
                if not folder.is_dir():
                    folder.mkdir(mode=0o700)
                    disk.sync_directory(state_dir)
        self.parts = Parts(parts, disk, clock)
        self.parts.tidy()

    def path(self, sha256: str) -> Path:
        """Return where an object lies; the name is checked, for it becomes a path.

        Raises:
            BundleRefusedError: ``digest``: this is no SHA-256 in lower case hex.
        """
        if not DIGEST.match(sha256):
            raise refused(repr(sha256), "is no SHA-256", Reason.DIGEST)
        return self._objects / sha256

    def has(self, sha256: str) -> bool:
        """Return whether an object of that name lies there, changed or not."""
        path = self.path(sha256)
        with device_errors(path):
            return path.is_file()

    def any(self) -> bool:
        """Return whether there is any object."""
        with device_errors(self._objects):
            return bool(_files(self._objects))

    def stage(self, sha256: str, length: int) -> Staging:
        """Begin to bring in an object of ``length`` bytes, or go on with it.

        Raises:
            BundleRefusedError: ``length``: nothing has no bytes; ``digest``.
            DeviceError: ``disk_full``: there is no room for all of it.
        """
        target = self.path(sha256)
        if length < 1:
            raise refused(sha256, "is empty")
        return Staging(self.parts, target, length)

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
                if digest_of_file(descriptor) == sha256:
                    return self._mapped(descriptor, sha256)
            finally:
                os.close(descriptor)
        except OSError as err:
            if err.errno not in NO_FILE:
                raise device_error(disk_reason(err.errno), f"{path}: {err}") from err
            what = f"cannot be read: {err.strerror}"
            raise refused(sha256, what, Reason.DIGEST) from err
        raise refused(sha256, "changed on disk", Reason.DIGEST)

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

    def _mapped(self, descriptor: int, sha256: str) -> memoryview:
        """Map a whole object, or a copy of it where it has a second name.

        Through that name somebody else could change what was just verified.
        """
        found = os.fstat(descriptor)
        if found.st_nlink == 1:
            return map_file(descriptor, found.st_size)
        with self.stage(sha256, found.st_size) as staging:
            staging.restart()
            os.lseek(descriptor, 0, os.SEEK_SET)
            while content := os.read(descriptor, COPY_BYTES):
                staging.write(memoryview(content))
            staging.commit()
            return staging.view()


def _files(folder: Path) -> list[Path]:
    """List everything in a folder but folders, which are not ours."""
    return [path for path in folder.iterdir() if path.is_symlink() or not path.is_dir()]
