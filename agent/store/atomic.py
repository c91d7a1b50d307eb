"""The few steps on files that durability is made of, each of them once.

The rules this module keeps:
 * ``Disk`` only performs; the order of its steps is decided by ``objects``. Tests stand
   in between (and kill the process after any of them) by subclassing it.
 * No name is followed through a symbolic link, and what is opened is a regular file;
   what is written on has no second name through which it is someone else's, too.
 * An ``OSError`` leaves this folder as a ``DeviceError`` that says who can do what.
 * After a failed fsync nothing is retried on the same descriptor: Linux marks such
   pages clean, so the part is thrown away and the next attempt starts over.
"""

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from agent.core.disk_reasons import disk_reason
from agent.core.explanations import EXPLANATIONS
from agent.core.reasons import Reason
from agent.errors import DeviceError

# A link is not followed, and a pipe that nobody writes is not waited for.
_CAREFUL = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
# What the kernel says where no whole regular file is: nothing, a bad block, a link, a
# pipe, a folder.
NO_FILE = {errno.ENOENT, errno.EIO, errno.ELOOP, errno.EINVAL, errno.ENXIO}


def device_error(reason: Reason, message: str) -> DeviceError:
    """Return the error for the operator, with what they can do about it."""
    return DeviceError(message, reason=reason, todo=EXPLANATIONS[reason].todo)


@contextmanager
def device_errors(path: Path) -> Iterator[None]:
    """Translate what the operating system says about ``path``.

    Raises:
        DeviceError: ``disk_full``, ``read_only``, ``permission``, ``descriptors``, else
            ``state``.
    """
    try:
        yield
    except OSError as err:
        what = f"{path}: {err.strerror or err}"
        raise device_error(disk_reason(err.errno), what) from err


class Disk:
    """The steps, as the operating system performs them; all raise ``OSError``."""

    def create(self, path: Path, length: int) -> int:
        """Create a private file of ``length`` bytes and return its descriptor.

        The room is taken at once, so that a full disk shows before the first byte.
        """
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(path, flags, 0o600)
        try:
            if length:
                os.posix_fallocate(descriptor, 0, length)
        except BaseException:
            os.close(descriptor)
            path.unlink()
            raise
        return descriptor

    def open_regular(self, path: Path) -> int:
        """Open an existing regular file for reading and return its descriptor."""
        descriptor = os.open(path, os.O_RDONLY | _CAREFUL)
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise OSError(errno.EINVAL, "not a regular file", str(path))
        return descriptor

    def reopen(self, path: Path) -> int:
        """Open a file of ours to go on writing; the descriptor stands at its beginning.

        It has to be a regular one that nobody else owns or knows by another name.
        """
        descriptor = os.open(path, os.O_RDWR | _CAREFUL)
        found = os.fstat(descriptor)
        whose = (stat.S_ISREG(found.st_mode), found.st_nlink, found.st_uid)
        if whose != (True, 1, os.geteuid()):
            os.close(descriptor)
            raise OSError(errno.EINVAL, "not a file of ours alone", str(path))
        return descriptor

    def write(self, descriptor: int, content: memoryview) -> None:
        """Write all of ``content``."""
        while content:
            content = content[os.write(descriptor, content) :]

    def seal(self, descriptor: int) -> None:
        """Make a file read-only, for its owner alone."""
        os.fchmod(descriptor, 0o400)

    def sync(self, descriptor: int) -> None:
        """Return when content and size are on the medium, and read them back from it.

        Dropping the cached pages makes the next reader see what the medium holds.
        """
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)

    def rename(self, source: Path, target: Path) -> None:
        """Give a file its final name, replacing what had it."""
        source.replace(target)

    def sync_directory(self, path: Path) -> None:
        """Return when the names in a directory are on the medium."""
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def remove(self, path: Path) -> None:
        """Remove a name; one that is not there is fine."""
        with suppress(FileNotFoundError):
            path.unlink()


def read_regular(disk: Disk, path: Path, max_bytes: int) -> bytes | None:
    """Return a small regular file's content; None where there is none to read.

    Raises:
        OSError: This process lacks something: descriptors, rights.
    """
    try:
        descriptor = disk.open_regular(path)
    except OSError as err:
        if err.errno in NO_FILE:
            return None
        raise
    with os.fdopen(descriptor, "rb") as file:
        try:
            content = file.read(max_bytes + 1)
        except OSError:  # a bad block
            return None
    return content if len(content) <= max_bytes else None


def replace_durably(disk: Disk, path: Path, content: bytes) -> None:
    """Replace a file: after any loss of power it is the old or the new one, whole.

    Raises:
        OSError: It could not be written; the old one is still there.
    """
    aside = path.with_name(f"{path.name}.tmp")
    disk.remove(aside)
    descriptor = disk.create(aside, len(content))
    try:
        disk.write(descriptor, memoryview(content))
        disk.sync(descriptor)
        disk.rename(aside, path)
    except OSError:
        with suppress(OSError):
            disk.remove(aside)
        raise
    finally:
        os.close(descriptor)
    disk.sync_directory(path.parent)
