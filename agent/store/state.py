"""state.db: one SQLite file whose transactions are durable when they return.

The rules this module keeps:
 * ``journal_mode=DELETE`` and ``synchronous=EXTRA``: a transaction that returned has
   survived any loss of power, its directory entry included. A WAL would be faster and
   is not needed: the daemon writes when an update moves on, not per sample.
 * Opening an existing file writes nothing. ``quick_check`` reads all of it, which is
   a few pages.
 * ``application_id`` and ``user_version`` say what this file is; migrations go forward
   only, each in one transaction, and a newer schema is left alone.
 * One connection for all threads, one short call at a time under a lock: the TUF client
   saves its notes from its own thread, in the middle of no one else's transaction.
"""

import os
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from agent.core.reasons import Reason
from agent.errors import DeviceError
from agent.store.atomic import device_error, device_errors

APPLICATION_ID = int.from_bytes(b"TnyW", "big")  # `file state.db` shows it
BUSY_S = 1.0  # only someone's sqlite3 shell can be in the way
Value = str | int | bytes | None

# One entry per schema version; what was released once is never edited again.
MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        "CREATE TABLE slots (pipeline TEXT PRIMARY KEY, active BLOB, previous BLOB)",
        "CREATE TABLE floors (model TEXT PRIMARY KEY, version INTEGER NOT NULL)",
        "CREATE TABLE set_aside (sha256 TEXT PRIMARY KEY, reason TEXT NOT NULL)",
        "CREATE TABLE notes (key TEXT PRIMARY KEY, value BLOB NOT NULL)",
        "CREATE TABLE job (id INTEGER PRIMARY KEY CHECK (id = 1), job BLOB NOT NULL)",
    ),
)
SCHEMA = len(MIGRATIONS)


class Transaction:
    """What may be asked and said between BEGIN and COMMIT."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def rows(self, statement: str, *values: Value) -> list[tuple[Value, ...]]:
        """Return all rows of a query."""
        return self._connection.execute(statement, values).fetchall()

    def run(self, statement: str, *values: Value) -> None:
        """Execute a statement that changes something."""
        self._connection.execute(statement, values)


class StateDatabase:
    """An open state.db; all of its methods raise ``DeviceError`` only."""

    def __init__(self, path: Path, *, may_be_new: bool = True) -> None:
        """Open or create the file, check it and bring it to this agent's schema.

        Args:
            path: The file.
            may_be_new: Where there are models already, an empty or missing file was
                lost, and with it the version floors.

        Raises:
            DeviceError: ``state`` (damaged, foreign or of a newer agent),
                ``disk_full``, ``read_only``, ``permission``, ``locked``.
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
                self._prepare()
            self._migrate(self._check_version(may_be_new=may_be_new))
        except BaseException:
            self._connection.close()
            raise

    def close(self) -> None:
        """Close the file; a second time does nothing."""
        with self._lock:
            self._connection.close()

    @contextmanager
    def transaction(self) -> Iterator[Transaction]:
        """Run the body in one transaction, durable when this returns.

        Raises:
            DeviceError: It could not be made durable; then nothing of it happened.
        """
        with self._lock, self._errors():
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield Transaction(self._connection)
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise

    def rows(self, statement: str, *values: Value) -> list[tuple[Value, ...]]:
        """Return all rows of a query.

        Raises:
            DeviceError: The file cannot be read.
        """
        with self._lock, self._errors():
            return Transaction(self._connection).rows(statement, *values)

    def _prepare(self) -> None:
        """Choose durability over speed, and look at every page once."""
        for pragma in (
            "journal_mode=DELETE",
            "synchronous=EXTRA",
            "temp_store=MEMORY",
            "trusted_schema=OFF",
            "cell_size_check=ON",
        ):
            self._connection.execute(f"PRAGMA {pragma}")
        found = self._connection.execute("PRAGMA quick_check(1)").fetchall()
        if found != [("ok",)]:
            raise self._unusable(f"is damaged: {found[0][0]}")

    def _check_version(self, *, may_be_new: bool) -> int:
        """Return the file's schema version, 0 for a new one."""
        ((application,),) = self.rows("PRAGMA application_id")
        ((version,),) = self.rows("PRAGMA user_version")
        ((tables,),) = self.rows("SELECT count(*) FROM sqlite_schema")
        if (application, version, tables) == (0, 0, 0):
            if not may_be_new:
                raise self._unusable("is empty, but there are models beside it")
            return 0
        if application != APPLICATION_ID or not isinstance(version, int):
            raise self._unusable("is a database, but not Tinyward's")
        if version > SCHEMA:
            raise self._unusable(
                f"has schema {version}; this agent knows {SCHEMA} and older"
            )
        return version

    def _migrate(self, version: int) -> None:
        """Bring the file from ``version`` to ``SCHEMA``, one transaction each."""
        for number, statements in enumerate(MIGRATIONS[version:], start=version + 1):
            with self.transaction() as change:
                for statement in statements:
                    change.run(statement)
                change.run(f"PRAGMA application_id={APPLICATION_ID}")
                change.run(f"PRAGMA user_version={number}")

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """Translate what SQLite says."""
        try:
            yield
        except sqlite3.Error as err:
            raise device_error(self._reason(err), f"{self._path}: {err}") from err

    def _reason(self, err: sqlite3.Error) -> Reason:
        """Tell a full disk, a read-only one, a busy and a damaged file apart."""
        code = getattr(err, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
        if (
            code in {sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_IOERR}
            and self._read_only()
        ):
            return Reason.READ_ONLY
        return REASON_BY_CODE.get(code, Reason.STATE)

    def _read_only(self) -> bool:
        """Whether the file system was mounted or remounted read-only."""
        try:
            return bool(os.statvfs(self._path.parent).f_flag & os.ST_RDONLY)
        except OSError:
            return False

    def _unusable(self, what: str) -> DeviceError:
        """Return the error for a file that this agent cannot use."""
        return device_error(Reason.STATE, f"{self._path} {what}")


REASON_BY_CODE = {
    sqlite3.SQLITE_FULL: Reason.DISK_FULL,
    sqlite3.SQLITE_READONLY: Reason.READ_ONLY,
    sqlite3.SQLITE_PERM: Reason.PERMISSION,
    sqlite3.SQLITE_BUSY: Reason.LOCKED,
    sqlite3.SQLITE_LOCKED: Reason.LOCKED,
}


def first(rows: Sequence[tuple[Value, ...]]) -> Value:
    """Return the first value of the first row, or None without rows."""
    return rows[0][0] if rows else None


def _create(path: Path) -> None:
    """Create the file private to this user: SQLite would ask the umask."""
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    with device_errors(path):
        os.close(os.open(path, flags, 0o600))
