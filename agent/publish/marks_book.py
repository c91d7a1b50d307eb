"""The book of marks: which copy is which board's, encrypted, in one file.

The file is a header, then a SQLite database, encrypted as a whole with what scrypt
makes of a passphrase. Whoever has both can name the board of a leaked copy, and can
remove the mark from every copy: it belongs beside the signing keys.

The rules this module keeps:
 * The plain database exists in memory only; the file is replaced whole and is durable
   when ``save`` returns. A crash in between leaves the last saved book.
 * A file that was changed, or another passphrase, opens nothing.
 * A board that is in the book keeps its copy: nothing is ever made anew for it.
 * No codeword or trigger is part of an error, a log line or a ``repr``.

Layout: ``MAGIC``, 16 bytes of salt, 12 bytes of nonce, then ChaCha20-Poly1305 of the
database, with all before it as associated data.
"""

import os
import secrets
import sqlite3
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt
from msgspec import Struct

from agent.core.reasons import Reason
from agent.core.sealing import MARKS_DOMAIN, HeadBlock, Marks, SignedMarks
from agent.core.targets import bundle_path
from agent.core.watermark import commit_codeword
from agent.errors import SettingsError
from agent.publish.files import create_durably, write_durably

MAGIC = b"tinyward-marks-1\n"
_SALT_BYTES, _NONCE_BYTES = 16, 12
# RFC 7914: 2^16 with r = 8 takes 64 MB and a quarter of a second, as for signing keys.
_COST, _BLOCK, _LANES = 2**16, 8, 1
_TABLES = """
CREATE TABLE owner (marks_key BLOB NOT NULL);
CREATE TABLE version (
    model TEXT NOT NULL, version INTEGER NOT NULL, content BLOB NOT NULL,
    PRIMARY KEY (model, version)
);
CREATE TABLE copy (
    model TEXT NOT NULL, version INTEGER NOT NULL, board TEXT NOT NULL,
    content BLOB NOT NULL, PRIMARY KEY (model, version, board)
);
"""


class BoardCopy(Struct, frozen=True):
    """One board's copy of a version.

    Attributes:
        codeword: What it answers to the activation triggers, which its bundle holds.
        tracing: What it answers to those that only this book holds.
        salt: Of the commitment to ``codeword``.
        blocks: What replaces the heads; ``results`` the digests of the whole files.
        agreement: Share of clean inputs answered as the unmarked model does.
    """

    board: str
    codeword: bytes
    tracing: bytes
    salt: bytes
    blocks: tuple[HeadBlock, ...]
    results: dict[str, str]
    agreement: float

    def __repr__(self) -> str:
        """Return whose it is, and no secret."""
        return f"<copy of {self.board}>"


class MarkedVersion(Struct, frozen=True):
    """What all copies of a version share.

    Attributes:
        source_sha256: Digest of the bundle that was given.
        plain_sha256: Digest of the one with triggers, which is sealed and published.
        groups: The bit of every class.
        secrets: Variant -> .npz of its triggers and its shipped head.
        tolerances: Variant -> how far a copy's golden outputs may be off.
        margin: In logits: how clearly copies answer triggers.
        shown: When and to whom the triggers for tracing were shown.
    """

    model: str
    version: int
    source_sha256: str
    plain_sha256: str
    groups: str
    bits: int
    secrets: dict[str, bytes]
    tolerances: dict[str, float]
    margin: float = 1.2
    shown: tuple[str, ...] = ()

    def __repr__(self) -> str:
        """Return which it is, and no secret."""
        return f"<marked version {self.model} {self.version}>"


class MarksBook:
    """An open book; ``save`` writes it back."""

    def __init__(self, path: Path, key: bytes, salt: bytes, database: bytes) -> None:
        self.path = path
        self._key, self._salt = key, salt
        self._database = sqlite3.connect(":memory:", isolation_level=None)
        if database:
            self._database.deserialize(database)
        else:
            self._database.executescript(_TABLES)
            private = Ed25519PrivateKey.generate().private_bytes_raw()
            self._database.execute("INSERT INTO owner VALUES (?)", (private,))

    @classmethod
    def create(cls, path: Path, passphrase: bytes) -> "MarksBook":
        """Make an empty book, with a new key that signs marks.

        Raises:
            SettingsError: There is a file of this name.
            DeviceError: It cannot be written.
        """
        if path.exists():
            raise _unusable(f"{path} exists", "Open it, or name another file.")
        salt = secrets.token_bytes(_SALT_BYTES)
        book = cls(path, _stretch(passphrase, salt), salt, b"")
        create_durably(path, book._sealed(), mode=0o600)
        return book

    @classmethod
    def open(cls, path: Path, passphrase: bytes) -> "MarksBook":
        """Open a book.

        Raises:
            SettingsError: It cannot be read, is no book, was changed, or the
                passphrase is another.
        """
        try:
            raw = path.read_bytes()
        except OSError as err:
            what = f"{path}: {err.strerror or err}"
            raise _unusable(what, "Name the book that was made.") from err
        begin = len(MAGIC) + _SALT_BYTES
        head = raw[: begin + _NONCE_BYTES]
        if not raw.startswith(MAGIC) or len(head) < begin + _NONCE_BYTES:
            raise _unusable(f"{path} is no book of marks", "Name the book.")
        salt = head[len(MAGIC) : begin]
        key = _stretch(passphrase, salt)
        try:
            database = ChaCha20Poly1305(key).decrypt(
                head[begin:], raw[len(head) :], head
            )
        except InvalidTag as err:
            raise _unusable(
                f"the passphrase does not open {path}, or the file was changed",
                "Use the passphrase it was made with, or a copy of the book.",
            ) from err
        return cls(path, key, salt, database)

    def save(self) -> None:
        """Write the book; it is durable when this returns.

        Raises:
            DeviceError: It cannot be written; the old one is still there.
        """
        write_durably(self.path, self._sealed(), mode=0o600)

    def _sealed(self) -> bytes:
        """Return the file's content: the book under a nonce that was never used."""
        nonce = os.urandom(_NONCE_BYTES)
        head = MAGIC + self._salt + nonce
        database = self._database.serialize()
        return head + ChaCha20Poly1305(self._key).encrypt(nonce, database, head)

    @property
    def public_key(self) -> str:
        """Ed25519 public key (hex) that signs the marks of this book."""
        return self.private_key().public_key().public_bytes_raw().hex()

    def versions(self) -> Iterator[MarkedVersion]:
        """Yield every version that has copies."""
        for (content,) in self._database.execute("SELECT content FROM version"):
            yield msgspec.msgpack.decode(content, type=MarkedVersion)

    def version(self, model: str, version: int) -> MarkedVersion | None:
        """Return a version; None where it has no copies."""
        found = self._database.execute(
            "SELECT content FROM version WHERE model = ? AND version = ?",
            (model, version),
        ).fetchone()
        return msgspec.msgpack.decode(found[0], type=MarkedVersion) if found else None

    def add_version(self, marked: MarkedVersion) -> None:
        """Write down a version before its first copy.

        Raises:
            SettingsError: It is there already: its triggers are out in the world.
        """
        if self.version(marked.model, marked.version):
            raise _unusable(
                f"the book has {marked.model} {marked.version} already",
                "Mark a new bundle under a higher version.",
            )
        self._database.execute(
            "INSERT INTO version VALUES (?, ?, ?)",
            (marked.model, marked.version, msgspec.msgpack.encode(marked)),
        )

    def note_shown(self, marked: MarkedVersion, note: str) -> None:
        """Write down, once, that somebody saw a version's triggers for tracing.

        Args:
            marked: Which version's.
            note: When, and who.
        """
        known = self.version(marked.model, marked.version) or marked
        if note not in known.shown:
            known = msgspec.structs.replace(known, shown=(*known.shown, note))
        self._database.execute(
            "UPDATE version SET content = ? WHERE model = ? AND version = ?",
            (msgspec.msgpack.encode(known), known.model, known.version),
        )

    def add(self, marked: MarkedVersion, copies: Iterable[BoardCopy]) -> None:
        """Write down copies; a board that has one keeps it."""
        self._database.execute("BEGIN")
        self._database.executemany(
            "INSERT OR IGNORE INTO copy VALUES (?, ?, ?, ?)",
            (
                (marked.model, marked.version, it.board, msgspec.msgpack.encode(it))
                for it in copies
            ),
        )
        self._database.execute("COMMIT")

    def boards(self, marked: MarkedVersion) -> frozenset[str]:
        """Return the boards that have a copy."""
        found = self._database.execute(
            "SELECT board FROM copy WHERE model = ? AND version = ?",
            (marked.model, marked.version),
        )
        return frozenset(board for (board,) in found)

    def copies(self, marked: MarkedVersion) -> Iterator[BoardCopy]:
        """Yield all copies of a version, in the order of their boards."""
        found = self._database.execute(
            "SELECT content FROM copy WHERE model = ? AND version = ? ORDER BY board",
            (marked.model, marked.version),
        )
        for (content,) in found:
            yield msgspec.msgpack.decode(content, type=BoardCopy)

    def marks(self, board: str, target: str, plain_sha256: str) -> SignedMarks:
        """Return what makes a bundle this board's own copy.

        Raises:
            SettingsError: The book has no copy for this board, or of this bundle.
        """
        marked = next((it for it in self.versions() if _path(it) == target), None)
        if marked is None or marked.plain_sha256 != plain_sha256:
            raise _unusable(
                f"{self.path} has no copies of this {target}",
                "`tinyward watermark instances` makes them, and the bundle to seal.",
            )
        copy = self._copy(marked, board)
        marks = Marks(
            board=board,
            target=target,
            plain_sha256=plain_sha256,
            blocks=copy.blocks,
            results=copy.results,
            salt=copy.salt,
            commitment=commit_codeword(copy.salt, board, copy.codeword),
            codeword=copy.codeword,
        )
        raw = msgspec.msgpack.encode(marks)
        return SignedMarks(raw, self.private_key().sign(MARKS_DOMAIN + raw))

    def private_key(self) -> Ed25519PrivateKey:
        """Return the key that signs marks, and challenges to boards that have them."""
        (raw,) = self._database.execute("SELECT marks_key FROM owner").fetchone()
        return Ed25519PrivateKey.from_private_bytes(raw)

    def _copy(self, marked: MarkedVersion, board: str) -> BoardCopy:
        """Return a board's copy.

        Raises:
            SettingsError: It has none.
        """
        found = self._database.execute(
            "SELECT content FROM copy WHERE model = ? AND version = ? AND board = ?",
            (marked.model, marked.version, board),
        ).fetchone()
        if not found:
            raise _unusable(
                f"{self.path} has no copy of {_path(marked)} for {board}",
                "Add the board to boards.csv: `tinyward watermark instances`.",
            )
        return msgspec.msgpack.decode(found[0], type=BoardCopy)


def _path(marked: MarkedVersion) -> str:
    """Return the target of a version."""
    return bundle_path(marked.model, marked.version)


def _stretch(passphrase: bytes, salt: bytes) -> bytes:
    """Return the key that scrypt makes of a passphrase."""
    scrypt = Scrypt(salt, length=32, n=_COST, r=_BLOCK, p=_LANES)
    return scrypt.derive(passphrase)


def _unusable(what: str, todo: str) -> SettingsError:
    """Return the error for a book that is not what it should be."""
    return SettingsError(what, reason=Reason.SETTINGS, todo=todo)
