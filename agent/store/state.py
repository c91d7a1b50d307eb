"""state.db: one SQLite file whose transactions are durable when they return.

The rules this module keeps:
 * ``journal_mode=DELETE`` and ``synchronous=EXTRA``: a transaction that returned has
   survived any loss of power. The rollback journal is deleted to commit, and EXTRA is
   the only level that syncs the directory after it: with FULL a power cut may bring
   the deleted journal back, and SQLite would undo what was reported as committed.
   The price, on an ext4 disk: 0.9 ms for a transaction, 0.7 with FULL, 0.2 with a WAL
   and FULL. A WAL is two more files, one of them shared memory, and a damaged one
   loses committed transactions without a word; an update writes a dozen times, and
   samples never.
 * Opening an existing file writes nothing. ``integrity_check`` and the seal read all of
   it, which is a few pages.
 * ``application_id`` and ``user_version`` say what this file is; migrations go forward
   only, each in one transaction, and a newer schema is left alone.
 * One connection for all threads, one short call at a time under a lock: the TUF client
   saves its notes from its own thread, in the middle of no one else's transaction.
"""

import errno
import logging
import os
import sqlite3
import stat
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Self

from agent.core.disk_reasons import disk_reason
from agent.core.explanations import EXPLANATIONS
from agent.core.reasons import Reason
from agent.errors import DeviceError
from agent.store.atomic import device_error, device_errors
from agent.store.schema import (
    MIGRATIONS,
    SCHEMA,
    SEALED_SINCE,
    Kept,
    Value,
    broken_seal,
    write_kept,
)

log = logging.getLogger(__name__)

APPLICATION_ID = int.from_bytes(b"TnyW", "big")  # `file state.db` shows it
FORMAT = 18  # where the header says which SQLite may write the file
KNOWN_FORMAT = b"\2"
BUSY_S = 1.0  # only someone's sqlite3 shell can be in the way
PRAGMAS = (
    "journal_mode=DELETE",
    "synchronous=EXTRA",
    "temp_store=MEMORY",
    "trusted_schema=OFF",
    "cell_size_check=ON",
)


def unnoticed() -> None:
    """Tell nobody that a file is being migrated."""


class DamagedError(DeviceError):
    """The operator has to act: this file is damaged, lost or someone else's.

    Only this folder tells it apart: a copy of what matters may lie beside it.
    """

    def __init__(self, message: str) -> None:
        todo = EXPLANATIONS[Reason.STATE].todo
        super().__init__(message, reason=Reason.STATE, todo=todo)


class Transaction:
    """What may be asked and said between BEGIN and COMMIT."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def rows(self, statement: str, *values: Value) -> list[tuple[Value, ...]]:
        """Return all rows of a query."""
        return self._connection.execute(statement, values).fetchall()

    def run(self, statement: str, *values: Value) -> int:
        """Execute a statement that changes something; return how many rows it did."""
        return self._connection.execute(statement, values).rowcount


class StateDatabase:
    """An open state.db; all of its methods raise ``DeviceError`` only."""

    def __init__(self, path: Path) -> None:
        """Create the file where it is missing, and choose durability over speed.

        Raises:
            DamagedError: It is no database (``state``).
            DeviceError: ``disk_full``, ``read_only``, ``permission``, ``locked``,
                ``descriptors``, ``state`` (no regular file).
        """
        self._path = path
        self._lock = threading.Lock()
        _create(path)
        with self._errors():
            self._connection = sqlite3.connect(
                path, timeout=BUSY_S, isolation_level=None, check_same_thread=False
            )
        try:
            with self._errors():
                for pragma in PRAGMAS:
                    self._connection.execute(f"PRAGMA {pragma}")
        except BaseException:
            self._connection.close()
            raise

    @classmethod
    def open(
        cls,
        path: Path,
        *,
        may_be_new: bool = True,
        migrating: Callable[[], None] = unnoticed,
    ) -> Self:
        """Open or create the file, check it and bring it to this agent's schema.

        Args:
            path: The file.
            may_be_new: Where there are models already, an empty or missing file was
                lost, and with it the version floors.
            migrating: Called before an older file is changed, which may take long.

        Raises:
            DamagedError: It is damaged, lost or someone else's (``state``).
            DeviceError: As ``__init__``; ``state``: it is of a newer agent.
        """
        database = cls(path)
        try:
            database._check_pages()
            version = database._check_version(may_be_new=may_be_new)
            if 0 < version < SCHEMA:
                migrating()
            database._migrate(version, SCHEMA)
        except BaseException:
            database.close()
            raise
        return database

    @classmethod
    def rebuild(cls, path: Path, kept: Kept) -> None:
        """Create a file with these rows, in their schema; opening it migrates them.

        Raises:
            DeviceError: As ``__init__``.
        """
        database = cls(path)
        try:
            database._migrate(0, kept.schema)
            with database.transaction() as change:
                write_kept(change, kept)
        finally:
            database.close()

    def close(self) -> None:
        """Close the file; a second time does nothing."""
        with self._lock:
            self._connection.close()

    @contextmanager
    def transaction(self) -> Iterator[Transaction]:
        """Run the body in one transaction, durable when this returns.

        Raises:
            DeviceError: It could not be committed; then nothing of it happened.
        """
        with self._lock, self._errors():
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield Transaction(self._connection)
                self._commit()
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise

    def _commit(self) -> None:
        """Commit; where only the last sync failed, it did happen, and is logged.

        The journal was deleted by then, so nobody can undo it any more: to call it
        failed would let another model answer than the one that is on record. A power
        cut may still bring the journal back, and with it all of what was before.
        """
        try:
            self._connection.execute("COMMIT")
        except sqlite3.OperationalError as err:
            if err.sqlite_errorcode != sqlite3.SQLITE_IOERR_DIR_FSYNC:
                raise
            log.warning("store.not_synced", extra={"detail": str(err)})

    def rows(self, statement: str, *values: Value) -> list[tuple[Value, ...]]:
        """Return all rows of a query.

        Raises:
            DeviceError: The file cannot be read.
        """
        with self._lock, self._errors():
            return Transaction(self._connection).rows(statement, *values)

    def _check_pages(self) -> None:
        """Look at every page once, indexes included: ``quick_check`` believes them."""
        with self._lock, self._errors():
            found = self._connection.execute("PRAGMA integrity_check(1)").fetchall()
            if found != [("ok",)]:
                raise self._damaged(f"is damaged: {found[0][0]}")

    def _check_version(self, *, may_be_new: bool) -> int:
        """Return the file's schema version, 0 for a new one."""
        ((application,),) = self.rows("PRAGMA application_id")
        ((version,),) = self.rows("PRAGMA user_version")
        ((tables,),) = self.rows("SELECT count(*) FROM sqlite_schema")
        if (application, version, tables) == (0, 0, 0):
            if not may_be_new:
                raise self._damaged("is empty, but there are models beside it")
            return 0
        if application != APPLICATION_ID or not isinstance(version, int):
            raise self._damaged("is a database, but not Tinyward's")
        if version > SCHEMA and not self._is_known():
            raise device_error(
                Reason.STATE,
                f"{self._path} has schema {version};"
                f" this agent knows {SCHEMA} and older",
            )
        if broken := broken_seal(self, version):
            raise self._damaged(broken)
        return version

    def _is_known(self) -> bool:
        """Whether all but the number in the header is of a schema this agent knows.

        Every migration writes the number and the seal in one transaction. So a number
        that a whole seal contradicts is a flipped bit, which must lock no board out;
        where the seal is not whole, is another or is gone, a newer agent was here.
        """
        try:
            schemas = range(SEALED_SINCE, SCHEMA + 1)
            return any(not broken_seal(self, schema) for schema in schemas)
        except (DamagedError, ValueError):  # other tables, columns, or rows
            return False

    def _migrate(self, version: int, target: int) -> None:
        """Bring the file from ``version`` to ``target``, one transaction each."""
        steps = enumerate(MIGRATIONS[version:target], start=version + 1)
        for number, statements in steps:
            with self.transaction() as change:
                for statement in statements:
                    change.run(statement)
                if number >= SEALED_SINCE:
                    # Sealed anew by the store, which also writes the copy beside it.
                    change.run("UPDATE seal SET schema = ?, sha256 = ''", number)
                change.run(f"PRAGMA application_id={APPLICATION_ID}")
                change.run(f"PRAGMA user_version={number}")

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """Translate what SQLite says."""
        try:
            yield
        except sqlite3.Error as err:
            reason = self._reason(err)
            if reason is Reason.STATE:
                raise DamagedError(f"{self._path}: {err}") from err
            raise device_error(reason, f"{self._path}: {err}") from err
        except UnicodeDecodeError as err:  # SQLite quotes what it cannot read
            raise self._damaged("is damaged: its text is none") from err

    def _reason(self, err: sqlite3.Error) -> Reason:
        """Tell a full disk, a read-only one, a busy and a damaged file apart."""
        code = getattr(err, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
        if code in REASON_BY_CODE:
            return REASON_BY_CODE[code]
        # SQLite keeps to itself which errno it met; a file beside it meets it, too.
        return _trouble(self._path) if code in ASK_THE_DISK else Reason.STATE

    def _damaged(self, what: str) -> DamagedError:
        """Return the error for a file that cannot be believed."""
        return DamagedError(f"{self._path} {what}")


REASON_BY_CODE = {
    sqlite3.SQLITE_FULL: Reason.DISK_FULL,
    sqlite3.SQLITE_PERM: Reason.PERMISSION,
    sqlite3.SQLITE_BUSY: Reason.LOCKED,
    sqlite3.SQLITE_LOCKED: Reason.LOCKED,
}
ASK_THE_DISK = {
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_READONLY,
}


def first(rows: Sequence[tuple[Value, ...]]) -> Value:
    """Return the first value of the first row, or None without rows."""
    return rows[0][0] if rows else None


def _create(path: Path) -> None:
    """Create the file private to this user: SQLite would ask the umask."""
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    with device_errors(path):
        # Closed before SQLite opens it: closing any descriptor ends all its locks.
        descriptor = os.open(path, flags, 0o600)
        regular = stat.S_ISREG(os.fstat(descriptor).st_mode)
        header = os.pread(descriptor, 100, 0) if regular else b""
        os.close(descriptor)
        if not regular:
            raise OSError(errno.EINVAL, "not a regular file", str(path))
    # One flipped bit makes SQLite read a file for ever, and never write it.
    if header[FORMAT : FORMAT + 1] > KNOWN_FORMAT:
        raise DamagedError(f"{path} is damaged: it says it is of SQLite's future")


def _trouble(path: Path) -> Reason:
    """Return why no file can be created beside this one; ``state`` where one can."""
    probe = path.with_name(f"{path.name}.probe")
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        os.close(os.open(probe, flags, 0o600))
        probe.unlink()
    except OSError as err:
        return disk_reason(err.errno)
    return Reason.STATE
