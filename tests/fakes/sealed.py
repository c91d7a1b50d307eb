"""An owner who seals: boards with their keys, sealed versions, envelopes one by one."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from agent.core.protect_settings import SealSettings
from agent.core.sealing import Algorithm, Sealed, Suite, envelope_path
from agent.core.targets import SignedTarget
from agent.publish.envelopes import add_envelopes
from agent.publish.keyless import KeylessRepository
from agent.publish.seal import Order, seal_bundle
from agent.publish.sealed_folder import (
    Card,
    load_card,
    load_content,
    load_envelopes,
)
from agent.trust.board_unsealer import BoardUnsealer
from agent.trust.seal_key import load_seal_key, make_seal_key

ALGORITHMS: tuple[Algorithm, ...] = ("cobblestone-256", "chacha20-poly1305")


class SealingOwner:
    """Makes keys of boards below ``folder/keys`` and seals versions below it.

    Attributes:
        suite: Of the keys that are made.
    """

    def __init__(self, folder: Path, suite: Suite = "x25519") -> None:
        self._folder = folder
        self.suite: Suite = suite

    def key(self, board: str) -> Path:
        """Return the file of a board's private key, made when it is first asked for."""
        path = self._folder / "keys" / f"{board}.key"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            make_seal_key(path, self.suite)
        return path

    def unsealer(self, board: str) -> BoardUnsealer:
        """Return what opens bundles on a board."""
        return BoardUnsealer(SealSettings(key=str(self.key(board))), board)

    def seal(
        self,
        plain: bytes,
        model: str,
        version: int,
        boards: Sequence[str],
        algorithm: Algorithm | Literal["auto"] = "auto",
    ) -> Path:
        """Seal a bundle for boards; return the sealed folder."""
        named = [load_seal_key(self.key(board)).public(board) for board in boards]
        number = len(list(self._folder.glob("*.sealed")))
        out = self._folder / f"{number}.sealed"
        seal_bundle(plain, Order(model, version, named, algorithm), out)
        return out


def take_in(repository: KeylessRepository, folder: Path) -> SignedTarget:
    """Stage a sealed folder, and let its envelopes lie where boards look for them."""
    card = load_card(folder)
    target = repository.add_sealed(load_content(folder, card), card.sealed)
    sealed = card.sealed
    add_envelopes(repository.path, sealed.model, sealed.version, load_envelopes(folder))
    return target


def envelope_of(folder: Path, board: str) -> bytes:
    """Return a board's envelope of a sealed folder."""
    return load_envelopes(folder)[board]


def envelope_file(repository: Path, model: str, version: int, board: str) -> Path:
    """Return where a board's envelope lies in a repository."""
    return repository / envelope_path(model, version, board)


def card_of(folder: Path) -> tuple[Card, Sealed]:
    """Return what a sealed folder says of itself."""
    card = load_card(folder)
    return card, card.sealed
