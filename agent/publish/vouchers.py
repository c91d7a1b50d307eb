"""Vouchers: the vendor's key, what it signs, and the book of what was issued.

The rules this module keeps:
 * A number is in the book, durably, before its voucher leaves: two runs never give one
   board the same number, and one that was cut off leaves a gap, which is harmless.
 * Numbers of a board follow each other: a board takes them within a window of 64.
 * A board's public key is learned once; another one for the same name is refused, since
   whoever restores a board onto a new key would start again at 1.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from msgspec import Meta, Struct

from agent.core.reasons import Reason
from agent.core.targets import BoardId
from agent.core.voucher import (
    ISSUER_BYTES,
    MAX_SEQ,
    Kind,
    Voucher,
    check_units,
    key_hash,
    pack_fields,
    signed_bytes,
)
from agent.errors import SettingsError
from agent.publish.files import locked, write_durably
from agent.publish.vault import Vault

MAX_BOOK_BYTES = 64_000_000  # 100 bytes a board and its vouchers
BoardHash = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}$(?!\n)")]


class Issued(Struct, frozen=True, array_like=True):
    """One line of the book: which numbers a board got, of what, and when."""

    first: int
    last: int
    kind: str
    units: int
    expiry_s: int
    at_s: int


class BoardPage(Struct, frozen=True):
    """What one board got.

    Attributes:
        key: SHA-256 of its public key, hex.
        next: The number of its next voucher.
    """

    key: BoardHash
    next: Annotated[int, Meta(ge=1, le=MAX_SEQ)] = 1
    issued: tuple[Issued, ...] = ()


class Book(Struct, frozen=True, forbid_unknown_fields=True):
    """Everything one vendor's key has issued."""

    boards: dict[BoardId, BoardPage] = {}
    schema: int = 1


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to be issued.

    Attributes:
        board: Its name; ``key`` is the SHA-256 of its public key, empty where the book
            knows it.
        kind: See ``Kind``; ``units`` and ``expiry_s`` likewise.
        count: How many vouchers, with numbers that follow each other.
    """

    board: str
    key: bytes
    kind: Kind
    units: int
    expiry_s: int = 0
    count: int = 1


def make_vendor_key(path: Path, passphrase: bytes) -> bytes:
    """Make a vendor's key and its public half beside it (PEM); return the latter.

    Raises:
        SettingsError: The file exists.
        DeviceError: It cannot be written.
    """
    if path.exists() or public_path(path).exists():
        raise SettingsError(
            f"{path} exists: keys are never overwritten",
            reason=Reason.SETTINGS,
            todo="Name another file; whoever loses a key cannot sell to boards that "
            "know it.",
        )
    private = Ed25519PrivateKey.generate()
    Vault.beside(path.parent, passphrase).keep(path, private)
    public = private.public_key()
    pem = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    write_durably(public_path(path), pem)
    return pem


def load_vendor_key(path: Path, passphrase: bytes) -> Ed25519PrivateKey:
    """Return the vendor's key.

    Raises:
        SettingsError: The passphrase does not open it, or it is another kind of key.
    """
    private = Vault(path.parent, passphrase).open(path)
    if not isinstance(private, Ed25519PrivateKey):
        raise SettingsError(
            f"{path} is no Ed25519 key",
            reason=Reason.SETTINGS,
            todo="`tinyward meter key` makes one.",
        )
    return private


def public_path(path: Path) -> Path:
    """Return where the public half of a key lies."""
    return path.with_name(f"{path.name}.pub")


def issue(
    private: Ed25519PrivateKey, wanted: Wanted, book: Path, now_s: float
) -> list[bytes]:
    """Enter vouchers into the book, then sign them.

    Raises:
        SettingsError: The board's key is not known or another one, or the book is
            damaged.
        RequestRefusedError: ``units``: no counter holds so many.
        DeviceError: The book cannot be written, or another command holds it.
    """
    issuer = key_hash(private.public_key().public_bytes_raw())[:ISSUER_BYTES]
    book.parent.mkdir(parents=True, exist_ok=True)
    with locked(book.parent):
        pages = read_book(book)
        page = _page(pages, wanted)
        first = page.next
        check_units(Voucher(wanted.kind, issuer, wanted.key, first, wanted.units))
        last = first + wanted.count - 1
        line = Issued(
            first, last, wanted.kind.name, wanted.units, wanted.expiry_s, int(now_s)
        )
        written = BoardPage(page.key, last + 1, (*page.issued, line))
        _write_book(book, Book({**pages.boards, wanted.board: written}))
    numbers = range(first, last + 1)
    return [_sign(private, wanted, issuer, page.key, seq) for seq in numbers]


def read_book(path: Path) -> Book:
    """Return the book; an empty one where there is none.

    Raises:
        SettingsError: It is damaged: without it numbers would be given twice.
    """
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        return Book()
    except OSError as err:
        raise _unusable(path, err.strerror or str(err)) from err
    try:
        return msgspec.json.decode(raw[:MAX_BOOK_BYTES], type=Book)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as err:
        raise _unusable(path, str(err)) from err


def _write_book(path: Path, book: Book) -> None:
    """Replace the book; readable by its owner, since it says who buys what."""
    content = msgspec.json.format(msgspec.json.encode(book), indent=1)
    write_durably(path, content + b"\n", mode=0o600)


def _page(book: Book, wanted: Wanted) -> BoardPage:
    """Return a board's page, a new one where it is not known.

    Raises:
        SettingsError: Its key is not known, or is another one.
    """
    known, key = book.boards.get(wanted.board), wanted.key.hex()
    if known is None and not key:
        raise SettingsError(
            f"the key of {wanted.board} is not in the book",
            reason=Reason.SETTINGS,
            todo="Name it once: --board NAME=KEY, as `tinyward meter status` says.",
        )
    if known is not None and key and known.key != key:
        raise SettingsError(
            f"the book knows another key of {wanted.board}",
            reason=Reason.SETTINGS,
            todo="A board that was set up anew is another board: give it another name.",
        )
    return known or BoardPage(key)


def _sign(
    private: Ed25519PrivateKey, wanted: Wanted, issuer: bytes, key: str, seq: int
) -> bytes:
    """Return one voucher."""
    board = bytes.fromhex(key)
    fields = pack_fields(
        Voucher(wanted.kind, issuer, board, seq, wanted.units, wanted.expiry_s)
    )
    return fields + private.sign(signed_bytes(fields))


def _unusable(path: Path, what: str) -> SettingsError:
    """Return the error for a book that cannot be read."""
    return SettingsError(
        f"{path}: {what}",
        reason=Reason.SETTINGS,
        todo="Restore the book from its copy: numbers must not be given twice.",
    )
