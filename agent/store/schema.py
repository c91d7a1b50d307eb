"""What state.db holds: its tables by schema version, and the seal on what matters.

The rules this module keeps:
 * One entry of ``MIGRATIONS`` per schema; what was released once is never edited.
 * ``KEPT`` names the tables that must outlive a damaged file: what runs, what may never
   run again, and the notes of others (trust floors, revocations, the board's name). The
   job, the reports and the counted trials are not among them: without them an update
   is interrupted, the fleet is told less, and a crash is counted anew.
 * The seal is the SHA-256 of all their rows and columns, renewed in the same
   transaction. SQLite finds a torn page and an index that lies, but not a flipped bit
   inside a row; the seal does.
"""

import hashlib
from typing import Protocol

import msgspec
from msgspec import Struct

Value = str | int | float | bytes | None

MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        "CREATE TABLE slots (pipeline TEXT PRIMARY KEY, active BLOB, previous BLOB)",
        "CREATE TABLE floors (model TEXT PRIMARY KEY, version INTEGER NOT NULL)",
        "CREATE TABLE set_aside (sha256 TEXT PRIMARY KEY, reason TEXT NOT NULL)",
        "CREATE TABLE notes (key TEXT PRIMARY KEY, value BLOB NOT NULL)",
        "CREATE TABLE job (id INTEGER PRIMARY KEY CHECK (id = 1), job BLOB NOT NULL)",
    ),
    (
        "ALTER TABLE slots ADD COLUMN factory BLOB",
        "ALTER TABLE set_aside ADD COLUMN at REAL NOT NULL DEFAULT 0",
        "ALTER TABLE job ADD COLUMN sha256 TEXT NOT NULL DEFAULT ''",
        """CREATE TABLE holds (pipeline TEXT PRIMARY KEY, source TEXT NOT NULL,
            generation INTEGER NOT NULL)""",
        "CREATE TABLE reports (id INTEGER PRIMARY KEY, report BLOB NOT NULL)",
        "CREATE TABLE attempts (sha256 TEXT PRIMARY KEY, count INTEGER NOT NULL)",
        """CREATE TABLE seal (id INTEGER PRIMARY KEY CHECK (id = 1),
            schema INTEGER NOT NULL, sha256 TEXT NOT NULL)""",
        "INSERT INTO seal VALUES (1, 0, '')",
    ),
)
SCHEMA = len(MIGRATIONS)
SEALED_SINCE = 2  # the first schema that has a seal
IDS_BELOW = "store.ids_below"  # note: no update has a number as high as this yet
IDS_FROM = "store.ids_from"  # note: lower numbers were given before reports were lost
KEPT = ("slots", "floors", "set_aside", "holds", "notes")


class Readable(Protocol):
    """Whatever answers queries: a database, or a transaction."""

    def rows(self, statement: str, *values: Value) -> list[tuple[Value, ...]]:
        """Return all rows of a query."""


class Writable(Readable, Protocol):
    """A transaction."""

    def run(self, statement: str, *values: Value) -> int:
        """Execute a statement that changes something; return how many rows it did."""


class Blob(Struct, frozen=True):
    """Bytes, which JSON would not tell from text."""

    blob: bytes


Cell = str | int | float | Blob | None


class Kept(Struct, frozen=True):
    """All rows of the kept tables, as a file of ``schema`` has them.

    Attributes:
        layout: Digest of the statements that made the tables: a flipped bit in a
            column's name changes no row, and hides them all.
    """

    schema: int
    layout: str
    tables: dict[str, list[tuple[Cell, ...]]]


def read_kept(source: Readable, schema: int) -> bytes:
    """Return the kept tables of a database of that schema, in one spelling."""
    tables = {
        table: [
            tuple(Blob(cell) if isinstance(cell, bytes) else cell for cell in row)
            for row in source.rows(f"SELECT * FROM {table} ORDER BY 1")  # noqa: S608 - names of ours
        ]
        for table in KEPT
    }
    statements = source.rows("SELECT sql FROM sqlite_schema ORDER BY name")
    layout = digest_of(repr(statements).encode())
    return msgspec.json.encode(Kept(schema, layout, tables))


def parse_kept(content: bytes) -> Kept:
    """Parse what ``read_kept`` returned, here or in an older agent.

    Raises:
        msgspec.MsgspecError: This is something else.
    """
    return msgspec.json.decode(content, type=Kept)


def write_kept(change: Writable, kept: Kept) -> None:
    """Insert all rows into the empty tables of the same schema."""
    for table, rows in kept.tables.items():
        if table in KEPT:
            for row in rows:
                places = ", ".join("?" * len(row))
                values = [cell.blob if isinstance(cell, Blob) else cell for cell in row]
                change.run(f"INSERT INTO {table} VALUES ({places})", *values)  # noqa: S608 - names of ours
    # The reports are lost, their numbers are not given twice.
    change.run(
        "INSERT OR REPLACE INTO notes SELECT ?, value FROM notes WHERE key = ?",
        IDS_FROM,
        IDS_BELOW,
    )


def digest_of(content: bytes) -> str:
    """Return the SHA-256 that seals a content."""
    return hashlib.sha256(content).hexdigest()


def put_seal(change: Writable) -> bytes:
    """Seal what this transaction will have written; return the kept content."""
    content = read_kept(change, SCHEMA)
    change.run("UPDATE seal SET sha256 = ?", digest_of(content))
    return content


def sealed(source: Readable) -> str:
    """Return the digest a database was sealed with, empty before the first time."""
    ((digest,),) = source.rows("SELECT sha256 FROM seal")
    return str(digest)


def broken_seal(source: Readable, schema: int) -> str:
    """Return what is wrong with a file that says it has this schema, or nothing."""
    marked = source.rows("SELECT 1 FROM sqlite_schema WHERE name = 'seal'")
    if schema < SEALED_SINCE or not marked:
        fits = schema < SEALED_SINCE and not marked
        return "" if fits else f"says schema {schema} and has other tables"
    ((known, digest),) = source.rows("SELECT schema, sha256 FROM seal")
    if known != schema:
        return f"says schema {schema}, but its seal {known!r}"
    if digest and digest != digest_of(read_kept(source, schema)):
        return "has rows that changed since they were written"
    for raw, sha256 in source.rows("SELECT job, sha256 FROM job WHERE sha256 != ''"):
        if not isinstance(raw, bytes) or digest_of(raw) != sha256:
            return "has a job that changed since it was written"
    return ""
