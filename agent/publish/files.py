"""Files of a repository: replaced whole, synced, in an order that a crash respects."""

import fcntl
import hashlib
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from agent.core.disk_reasons import disk_error
from agent.core.reasons import Reason
from agent.errors import DeviceError, SettingsError

_PUBLIC = 0o644  # a repository is for web servers and mirrors to read
# 10,000 small files take 40 s to sync one by one; syncing everything at once takes a
# second, and is not asked of a machine for the sake of a few.
_FEW_FILES = 64
# What helps on the owner's disk; the general advice is for a board's.
_TODOS = {
    Reason.DISK_FULL: "Free space there and run the same command again.",
    Reason.READ_ONLY: "Choose a directory on a disk that can be written.",
    Reason.STATE: "Check that the directory it names exists and is one.",
}


def write_durably(path: Path, content: bytes, *, mode: int = _PUBLIC) -> None:
    """Replace a file so that any power cut leaves the old or the new one, whole.

    Directories above it are made as needed.

    Raises:
        DeviceError: It could not be written; the old one is still there.
    """
    aside = path.with_name(f".{path.name}.tmp")
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    with owners_disk():
        path.parent.mkdir(parents=True, exist_ok=True)
        with os.fdopen(os.open(aside, flags, mode), "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
        sync_directory(path.parent)


def create_durably(path: Path, content: bytes, *, mode: int = _PUBLIC) -> None:
    """Make a file that is not there, as ``write_durably`` does; replace none.

    Raises:
        SettingsError: There is one of this name; it is as it was.
        DeviceError: It could not be written, and is not there.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with owners_disk():
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.close(os.open(path, flags, mode))  # the name is ours, whoever else asks
        except FileExistsError as err:
            # A power cut right here leaves an empty file, in which nothing is lost.
            if path.is_symlink() or not path.is_file() or path.stat().st_size:
                what = f"{path} exists: keys are never overwritten"
                todo = "Name another file, or take this one away yourself."
                raise SettingsError(what, reason=Reason.SETTINGS, todo=todo) from err
        try:
            write_durably(path, content, mode=mode)
        except BaseException:
            path.unlink(missing_ok=True)
            raise


def write_many(folder: Path, contents: Mapping[str, bytes]) -> None:
    """Replace files in one folder; all are durable when this returns.

    Each is whole after a power cut, the old one or the new one.

    Raises:
        DeviceError: One could not be written.
    """
    one_by_one = len(contents) <= _FEW_FILES
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    with owners_disk():
        folder.mkdir(parents=True, exist_ok=True)
        asides = {folder / f".{name}.tmp": folder / name for name in contents}
        for aside, content in zip(asides, contents.values(), strict=True):
            with os.fdopen(os.open(aside, flags, _PUBLIC), "wb") as file:
                file.write(content)
                file.flush()
                if one_by_one:
                    os.fsync(file.fileno())
        if not one_by_one:
            os.sync()
        for aside, path in asides.items():
            aside.replace(path)
        sync_directory(folder)


@contextmanager
def owners_disk() -> Iterator[None]:
    """Report trouble with the repository's disk as the owner's to mend.

    Raises:
        DeviceError: ``disk_full``, ``read_only``, ``permission`` or ``state``.
    """
    try:
        yield
    except OSError as err:
        raise disk_error(err, _TODOS) from err


def sync_directory(path: Path) -> None:
    """Make the names in a directory durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def place_target(targets: Path, path: str, content: bytes) -> str:
    """Store a target's content under its digest; return its SHA-256.

    Nothing refers to it until metadata does, so a crash leaves at most rubbish.

    Raises:
        DeviceError: It cannot be written.
    """
    sha256 = hashlib.sha256(content).hexdigest()
    place = stored_target(targets, path, sha256)
    if not place.is_file() or place.read_bytes() != content:
        write_durably(place, content)
    return sha256


def stored_target(targets: Path, path: str, sha256: str) -> Path:
    """Return where a target lies in a repository with consistent snapshots."""
    folder, _, name = path.rpartition("/")
    return targets / folder / f"{sha256}.{name}"


@contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Hold a directory for one command at a time.

    Raises:
        DeviceError: ``locked``.
    """
    with owners_disk():
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as err:
            raise DeviceError(
                f"another command is changing {directory}",
                reason=Reason.LOCKED,
                todo="Wait until it has ended, then run this one again.",
            ) from err
        yield
    finally:
        os.close(descriptor)
