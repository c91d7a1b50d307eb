"""Sealing a bundle: encrypted once, its content key wrapped for each board.

The rules this module keeps:
 * Content keys are written nowhere but into envelopes: one for each board, and one for
   the owner, who can add boards later.
 * An envelope opens for one board, one target and one version.
 * Where a book of marks is given, every board gets its own copy: nobody is left out.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import msgspec

from agent.core.reasons import Reason
from agent.core.sealing import (
    MAX_ENVELOPE_BYTES,
    Sealed,
    Sealing,
    SignedMarks,
    content_context,
    hpke_context,
)
from agent.core.sealing_keys import PublicKey
from agent.core.targets import bundle_path
from agent.errors import SettingsError
from agent.publish.encrypting import (
    Wish,
    choose_algorithm,
    encrypt,
    new_content_key,
    wrap,
)
from agent.publish.files import write_durably
from agent.publish.sealed_folder import (
    OWNER,
    Card,
    load_card,
    new_folder,
    save_card,
    save_envelopes,
    write_content,
)

# In the place of a board's id; none can be spelled like it.
OWNER_NAME = "*owner*"
Progress = Callable[[int], None]


class Book(Protocol):
    """Where the marks of single boards are kept."""

    @property
    def public_key(self) -> str:
        """Ed25519 public key (hex) that signs the marks."""

    def marks(self, board: str, target: str, plain_sha256: str) -> SignedMarks:
        """Return what makes a bundle this board's own copy.

        Raises:
            SettingsError: The book has no instance for this board.
        """


@dataclass(frozen=True, slots=True)
class Order:
    """What to seal for whom.

    Attributes:
        model: Of the plain bundle; ``version`` likewise.
        boards: Whose envelopes to make.
        algorithm: What encrypts; ``auto`` by what the boards' keys say.
        owner: The owner's own key; None keeps no content key: no board can be added.
        book: Marks single copies; None where all boards run the same bytes.
    """

    model: str
    version: int
    boards: Sequence[PublicKey]
    algorithm: Wish = "auto"
    owner: PublicKey | None = None
    book: Book | None = None


def ignore_progress(done: int) -> None:
    """Tell nobody how many bytes are done."""
    del done


def seal_bundle(
    plain: bytes, order: Order, out: Path, progress: Progress = ignore_progress
) -> Card:
    """Write a sealed folder; return what it holds.

    Args:
        plain: The bundle, which the caller has opened.
        order: For whom.
        out: The new folder.
        progress: Told how many bytes of ``plain`` are done.

    Raises:
        SettingsError: The folder exists, a board's key cannot be used, two have one
            id, or the book has no marks for one.
        DeviceError: It cannot be written.
    """
    check_boards(order.boards)
    target = bundle_path(order.model, order.version)
    algorithm = choose_algorithm(order.algorithm, order.boards)
    sealing = Sealing(algorithm, order.book.public_key if order.book else "")
    digest = hashlib.sha256(plain).hexdigest()
    sealed = Sealed(order.model, order.version, sealing, digest, len(plain))
    key = new_content_key()
    # Before the long part: what is wrong with a board is said at once.
    envelopes = wrap_for(order.boards, key, sealed, order.book)
    with new_folder(out) as folder:
        context = content_context(target, order.version)
        pieces = encrypt(algorithm, memoryview(plain), key, context)
        sha256, size = write_content(folder, _watched(pieces, progress))
        save_envelopes(folder, envelopes)
        if order.owner is not None:
            info = hpke_context(OWNER_NAME, target, order.version)
            write_durably(folder / OWNER, wrap(key, order.owner, info))
        card = Card(sealed, sha256, size)
        save_card(folder, card)
    return card


def add_boards(
    folder: Path,
    boards: Sequence[PublicKey],
    unwrap: Callable[[bytes, bytes], bytes],
    book: Book | None = None,
) -> Card:
    """Make envelopes for more boards, without encrypting again.

    Args:
        folder: A sealed one that has the owner's copy of the content key.
        boards: Whose.
        unwrap: Opens the owner's envelope: ``unwrap(envelope, info)``.
        book: As when it was sealed.

    Raises:
        SettingsError: The folder has no owner's copy; or as ``seal_bundle``.
        DeviceError: It cannot be written.
    """
    check_boards(boards)
    card = load_card(folder)
    sealed = card.sealed
    if bool(sealed.sealing.marks) != (book is not None):
        word = "marked copies" if book is None else "one copy for all"
        raise _unusable(
            f"{folder} was sealed with {word}",
            "Name the book with --marks, or leave it out, as when it was sealed.",
        )
    try:
        envelope = (folder / OWNER).read_bytes()
    except OSError as err:
        raise _unusable(
            f"{folder} keeps no content key: no board can be added to it",
            "Seal the bundle again, under a higher version if this one is published.",
        ) from err
    key = unwrap(envelope, hpke_context(OWNER_NAME, card.target, sealed.version))
    save_envelopes(folder, wrap_for(boards, key, sealed, book))
    return card


def wrap_for(
    boards: Sequence[PublicKey], key: bytes, sealed: Sealed, book: Book | None
) -> dict[str, bytes]:
    """Return the envelope of each board.

    Raises:
        SettingsError: A board's key cannot be used, or the book has no marks for it,
            or too long ones.
    """
    target = bundle_path(sealed.model, sealed.version)
    envelopes = {}
    for public in boards:
        marks = book.marks(public.board, target, sealed.plain_sha256) if book else None
        held = key + (msgspec.msgpack.encode(marks) if marks else b"")
        info = hpke_context(public.board, target, sealed.version)
        envelope = wrap(held, public, info)
        if len(envelope) > MAX_ENVELOPE_BYTES:
            raise _unusable(
                f"the marks of {public.board} take {len(envelope)} bytes",
                "Mark fewer variants: the heads of all have to fit one envelope.",
            )
        envelopes[public.board] = envelope
    return envelopes


def check_boards(boards: Sequence[PublicKey]) -> None:
    """Check that there are boards, each with one key.

    Raises:
        SettingsError: There is none, or two keys are one board's.
    """
    counted = Counter(public.board for public in boards)
    twice = sorted(name for name, count in counted.items() if count > 1)
    if twice:
        raise _unusable(
            f"two keys are of {', '.join(twice)}", "Name one .pub file for each board."
        )
    if not boards:
        raise _unusable("no board is named", "Name .pub files: --to boards/*.pub.")


def _watched(pieces: Iterable[bytes], progress: Progress) -> Iterator[bytes]:
    """Pass pieces on, and tell how many bytes they were."""
    done = 0
    for piece in pieces:
        yield piece
        done += len(piece)
        progress(done)


def _unusable(what: str, todo: str) -> SettingsError:
    """Return the error for an order that cannot be carried out."""
    return SettingsError(what, reason=Reason.SETTINGS, todo=todo)
