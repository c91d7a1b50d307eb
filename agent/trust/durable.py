"""Files that survive a power cut: written aside, synced, renamed, directory synced.

python-tuf replaces files without syncing them; after a power cut they come back empty,
and an empty cache accepts a rollback.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from agent.core.disk_reasons import disk_reason
from agent.errors import DeviceError

# O_NOFOLLOW: whoever can place a link must not choose what we overwrite.
_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC


def write_durably(path: Path, content: bytes) -> None:
    """Replace a file so that any power cut leaves the old or the new one, whole.

    Raises:
        OSError: The file could not be written; the old one is still there.
    """
    aside = path.with_name(f".{path.name}.tmp")
    try:
        descriptor = os.open(aside, _FLAGS, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    except OSError:
        aside.unlink(missing_ok=True)
        raise
    sync_directory(path.parent)


def sync_directory(path: Path) -> None:
    """Make the names in a directory durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def own_disk() -> Iterator[None]:
    """Report trouble with our own files as the operator's to mend.

    Raises:
        DeviceError: ``disk_full``, ``read_only``, ``permission`` or ``state``.
    """
    try:
        yield
    except OSError as err:
        raise DeviceError(
            f"metadata cache: {err}", reason=disk_reason(err.errno)
        ) from err
