"""A sealed version as its owner keeps it: ciphertext, card and envelopes in one folder.

    kws-8.sealed/
      bundle              the ciphertext, the same for all boards
      card.json           what was sealed: model, version, plain digest, algorithm
      owner               the content key, sealed to the owner's own key
      envelopes/BOARD     the content key, sealed to that board's

The rules this module keeps:
 * Nothing in it is secret: each file opens with a private key that is elsewhere.
 * It appears whole or not at all; envelopes may be added later.
"""

import hashlib
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from agent.core.manifest import Digest
from agent.core.reasons import Reason
from agent.core.sealing import MAX_ENVELOPE_BYTES, Sealed
from agent.core.targets import BoardId, bundle_path
from agent.errors import BundleRefusedError, SettingsError
from agent.publish.files import (
    owners_disk,
    sync_directory,
    write_durably,
    write_many,
)

CONTENT, CARD, OWNER, ENVELOPES = "bundle", "card.json", "owner", "envelopes"
_MAX_CARD_BYTES = 4096


class Card(Struct, frozen=True, forbid_unknown_fields=True):
    """What a sealed folder holds.

    Attributes:
        sealed: What boards have to know to open it; it is signed on publishing.
        sha256: Digest of the ciphertext; ``size`` its bytes.
    """

    sealed: Sealed
    sha256: Digest
    size: Annotated[int, Meta(ge=1, le=2**40)]

    @property
    def target(self) -> str:
        """The path that it is published under, to which everything in it is bound."""
        return bundle_path(self.sealed.model, self.sealed.version)


def default_folder(model: str, version: int) -> Path:
    """Return what a sealed version is called unless told otherwise."""
    return Path(f"{model}-{version}.sealed")


def load_card(folder: Path) -> Card:
    """Return what a folder says it holds.

    Raises:
        SettingsError: It is no sealed folder.
    """
    try:
        with (folder / CARD).open("rb") as file:
            return msgspec.json.decode(file.read(_MAX_CARD_BYTES + 1), type=Card)
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError) as err:
        said = err.strerror if isinstance(err, OSError) else err
        raise SettingsError(
            f"{folder} is no sealed bundle: {CARD}: {said}",
            reason=Reason.SETTINGS,
            todo="Name a folder that `tinyward seal` has made.",
        ) from err


def load_content(folder: Path, card: Card) -> bytes:
    """Return the ciphertext of a folder.

    Raises:
        BundleRefusedError: ``digest``: it is not what the card says.
        DeviceError: It cannot be read.
    """
    with owners_disk():
        content = (folder / CONTENT).read_bytes()
    if hashlib.sha256(content).hexdigest() != card.sha256:
        raise BundleRefusedError(
            f"{folder / CONTENT} is not what was sealed",
            reason=Reason.DIGEST,
            todo="Restore it from a copy, or seal the bundle again.",
        )
    return content


def load_envelopes(folder: Path) -> dict[str, bytes]:
    """Return the envelopes of a folder by board, in the order of their names.

    Raises:
        SettingsError: A file there is none.
        DeviceError: One cannot be read.
    """
    with owners_disk():
        # What a crash left of a file in the making begins with a dot.
        found = sorted((folder / ENVELOPES).glob("[!.]*"))
        return {_board_of(path): _envelope(path) for path in found}


def save_envelopes(folder: Path, envelopes: Mapping[str, bytes]) -> None:
    """Add envelopes, or replace those of the same boards.

    Raises:
        DeviceError: One cannot be written.
    """
    write_many(folder / ENVELOPES, envelopes)


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """Make a sealed folder: fill what is yielded, and it appears as ``out``.

    Raises:
        SettingsError: ``out`` exists.
        DeviceError: It cannot be written.
    """
    if out.exists():
        raise SettingsError(
            f"{out} exists already",
            reason=Reason.SETTINGS,
            todo=f"To add boards: `tinyward seal {out} --to BOARD.pub`; else name "
            "another folder with -o.",
        )
    aside = out.with_name(f".{out.name}.tmp")
    with owners_disk():
        shutil.rmtree(aside, ignore_errors=True)
        (aside / ENVELOPES).mkdir(parents=True)
        try:
            yield aside
            sync_directory(aside)
            aside.rename(out)
        except BaseException:
            shutil.rmtree(aside, ignore_errors=True)
            raise
        sync_directory(out.absolute().parent)


def write_content(folder: Path, pieces: Iterable[bytes]) -> tuple[str, int]:
    """Write the ciphertext; return its digest and length.

    Raises:
        DeviceError: It cannot be written.
    """
    digest, size = hashlib.sha256(), 0
    with owners_disk(), (folder / CONTENT).open("xb") as file:
        for piece in pieces:
            file.write(piece)
            digest.update(piece)
            size += len(piece)
        file.flush()
        os.fsync(file.fileno())
    return digest.hexdigest(), size


def save_card(folder: Path, card: Card) -> None:
    """Write what the folder holds.

    Raises:
        DeviceError: It cannot be written.
    """
    raw = msgspec.json.format(msgspec.json.encode(card), indent=2)
    write_durably(folder / CARD, raw + b"\n")


def _board_of(path: Path) -> str:
    """Return whose envelope a file is, by its name."""
    try:
        return msgspec.convert(path.name, BoardId)
    except msgspec.ValidationError as err:
        raise _no_envelope(path, "that is no board's id") from err


def _envelope(path: Path) -> bytes:
    """Return an envelope, of a length that boards read."""
    with path.open("rb") as file:
        content = file.read(MAX_ENVELOPE_BYTES + 1)
    if not 0 < len(content) <= MAX_ENVELOPE_BYTES:
        raise _no_envelope(path, f"it has {len(content)} bytes")
    return content


def _no_envelope(path: Path, what: str) -> SettingsError:
    """Return the error for a file that boards would not take."""
    return SettingsError(
        f"{path} is no envelope: {what}",
        reason=Reason.SETTINGS,
        todo="Remove it; `tinyward seal` writes the files in there.",
    )
