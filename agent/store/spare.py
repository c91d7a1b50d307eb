"""state.json: a checksummed copy of what matters, for the day state.db is damaged.

The rules this module keeps:
 * The copy is durable *before* the transaction it copies commits. So it is never older
   than state.db; at most it is one decided change ahead, whose transaction the power
   did not let happen. Written after, it could be one behind, and a floor would fall
   with the file that held it.
 * While state.db is whole it alone counts, and the copy is made equal to it again.
 * A damaged state.db is moved aside, never deleted; the new one is built under another
   name and is complete before it gets this one.
 * What a copy that is ahead names is whole: objects are durable before COMMIT.
"""

import logging
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import msgspec
from msgspec import Struct

from agent.core.reasons import Reason
from agent.errors import DeviceError
from agent.store.atomic import (
    Disk,
    device_error,
    device_errors,
    read_regular,
    replace_durably,
)
from agent.store.schema import SCHEMA, Kept, digest_of, parse_kept, put_seal, sealed
from agent.store.state import DamagedError, StateDatabase, Transaction, unnoticed

log = logging.getLogger(__name__)

MAX_BYTES = 64 * 1024 * 1024  # both revocation lists full take 1 MB of it
DAMAGED_KEPT = 2  # files moved aside; for whoever wants to know what happened


class Envelope(Struct, frozen=True):
    """The copy and the digest of its spelling."""

    sha256: str
    content: msgspec.Raw


class Spare:
    """The copy beside a state.db.

    Attributes:
        sha256: What the copy on disk has been sealed with; empty where there is none,
            or none that can be believed.
    """

    def __init__(self, path: Path, disk: Disk) -> None:
        """Read the copy.

        Raises:
            DeviceError: This process lacks something: descriptors, rights.
        """
        self._path = path
        self._disk = disk
        self.sha256 = ""
        self.kept: Kept | None = None
        with device_errors(path):
            raw = read_regular(disk, path, MAX_BYTES)
        if raw is not None:
            self._believe(raw)

    def write(self, content: bytes) -> None:
        """Replace the copy durably; the same again writes nothing.

        Raises:
            DeviceError: It could not be written.
        """
        sha256 = digest_of(content)
        if sha256 == self.sha256:
            return
        # Until it is done nobody knows which of the two lies there.
        self.sha256 = ""
        envelope = msgspec.json.encode(Envelope(sha256, msgspec.Raw(content)))
        with device_errors(self._path):
            replace_durably(self._disk, self._path, envelope + b"\n")
        self.sha256 = sha256

    def _believe(self, raw: bytes) -> None:
        """Take the copy if it is whole."""
        try:
            envelope = msgspec.json.decode(raw, type=Envelope)
            content = bytes(envelope.content)
            if digest_of(content) == envelope.sha256:
                self.kept = parse_kept(content)
                self.sha256 = envelope.sha256
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            pass
        if self.kept is None:
            log.warning("state.copy_damaged", extra={"detail": str(self._path)})


def open_database(
    state_dir: Path,
    disk: Disk,
    *,
    may_be_new: bool,
    migrating: Callable[[], None] = unnoticed,
) -> tuple[StateDatabase, Spare]:
    """Open state.db, rebuilt from its copy where it is damaged, and the copy.

    ``migrating`` is called before an older state.db is changed.

    Raises:
        DeviceError: ``state``: it is damaged and so is the copy, or it is of a newer
            agent; ``disk_full``, ``read_only``, ``permission``, ``locked``.
    """
    path, copy = state_dir / "state.db", state_dir / "state.json"
    spare = Spare(copy, disk)
    may_be_new = may_be_new and spare.kept is None and not copy.is_file()
    try:
        database = StateDatabase.open(path, may_be_new=may_be_new, migrating=migrating)
    except DamagedError as err:
        if spare.kept is None:
            raise
        log.warning("state.rebuilt", extra={"reason": err.reason, "detail": str(err)})
        _rebuild(path, spare.kept, disk)
        database = StateDatabase.open(path, may_be_new=False, migrating=migrating)
    spare.kept = None
    try:
        settle(database, spare)
    except DeviceError as err:
        # What is committed starts on a full disk, too; the next change tries again.
        log.warning("state.not_copied", extra={"reason": err.reason})
    return database, spare


def settle(database: StateDatabase, spare: Spare) -> None:
    """Make the copy say what state.db says; writes nothing where it does.

    Raises:
        DeviceError: It could not be written.
    """
    seal = sealed(database)
    if not seal or seal != spare.sha256:
        with database.transaction() as change:
            write_ahead(change, spare)


def write_ahead(change: Transaction, spare: Spare) -> None:
    """Seal a transaction and copy it: the last thing before it commits.

    Raises:
        DeviceError: It could not be copied; the transaction must not commit.
    """
    spare.write(put_seal(change))


def _rebuild(path: Path, kept: Kept, disk: Disk) -> None:
    """Put a new state.db in the place of a damaged one, which is moved aside.

    The journal goes after its file: were it first, and the power then cut, a file in
    the middle of a transaction could look whole. Alone, without its file, it is
    harmless; beside the new file SQLite would play it back into that.
    """
    if kept.schema > SCHEMA:
        raise device_error(
            Reason.STATE, f"{path} is damaged, and its copy is of a newer agent"
        )
    fresh = path.with_name(f"{path.name}.new")
    with device_errors(path):
        for rest in (fresh, _journal(fresh)):
            disk.remove(rest)
    StateDatabase.rebuild(fresh, kept)
    with device_errors(path):
        if path.is_file() and path.stat().st_size == 0:
            disk.remove(path)  # it was lost: opening it made an empty one
        aside = _aside(path, disk)
        for old, new in ((path, aside), (_journal(path), _journal(aside))):
            with suppress(FileNotFoundError):
                disk.rename(old, new)
            disk.sync_directory(path.parent)
        disk.rename(fresh, path)
        disk.sync_directory(path.parent)


def _aside(path: Path, disk: Disk) -> Path:
    """Return ``state.db.damaged-N``, the next one, and remove the oldest."""
    prefix = f"{path.name}.damaged-"
    names = (
        found.name.removeprefix(prefix) for found in path.parent.glob(f"{prefix}*")
    )
    numbers = sorted(int(name) for name in names if name.isdecimal())
    for number in numbers[: 1 - DAMAGED_KEPT]:
        old = path.with_name(f"{prefix}{number}")
        disk.remove(old)
        disk.remove(_journal(old))
    return path.with_name(f"{prefix}{numbers[-1] + 1 if numbers else 1}")


def _journal(path: Path) -> Path:
    """Return where SQLite keeps the rollback journal of a file."""
    return path.with_name(f"{path.name}-journal")
