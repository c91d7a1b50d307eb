"""An owner who seals: boards with their keys, sealed versions, envelopes one by one."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from agent.core.protect_settings import SealSettings
from agent.core.sealing import Algorithm, Suite, envelope_path
from agent.core.targets import SignedTarget
from agent.publish.envelopes import add_envelopes
from agent.publish.files import stored_target
from agent.publish.keyless import KeylessRepository
from agent.publish.seal import Order, add_boards, seal_bundle
from agent.publish.sealed_folder import (
    load_card,
    load_content,
    load_envelopes,
)
from agent.trust.board_unsealer import BoardUnsealer
from agent.trust.seal_key import load_seal_key, make_seal_key
from tests.fakes.fleet import GROUP, MODEL, Fleet, bundle

ALGORITHMS: tuple[Algorithm, ...] = ("cobblestone-256", "chacha20-poly1305")


OWN = "owner"  # whose key opens the owner's copy of content keys


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
        own = load_seal_key(self.key(OWN)).public(OWN)
        seal_bundle(plain, Order(model, version, named, algorithm, own), out)
        return out

    def envelope(self, folder: Path, board: str) -> bytes:
        """Return an envelope of a sealed folder for the key that a board has now."""
        public = load_seal_key(self.key(board)).public(board)
        add_boards(folder, [public], load_seal_key(self.key(OWN)).unwrap)
        return load_envelopes(folder)[board]


def take_in(repository: KeylessRepository, folder: Path) -> SignedTarget:
    """Stage a sealed folder, and let its envelopes lie where boards look for them."""
    card = load_card(folder)
    target = repository.add_sealed(load_content(folder, card), card.sealed)
    sealed = card.sealed
    add_envelopes(repository.path, sealed.model, sealed.version, load_envelopes(folder))
    return target


def envelope_file(repository: Path, model: str, version: int, board: str) -> Path:
    """Return where a board's envelope lies in a repository."""
    return repository / envelope_path(model, version, board)


class SealedFleet(Fleet):
    """A fleet whose versions of ``digits`` are sealed.

    Attributes:
        owner: Seals them, and holds the keys of all boards.
        boards: For whom, unless told otherwise.
        algorithm: What encrypts them.
    """

    def __init__(self, directory: Path, *boards: str, suite: Suite = "x25519") -> None:
        super().__init__(directory)
        self.owner = SealingOwner(directory / "sealing", suite)
        self.boards = boards
        self.algorithm: Algorithm = "chacha20-poly1305"
        self.folders: dict[int, Path] = {}

    def tables(self, board: str, poll_s: float = 0.1) -> dict[str, dict[str, object]]:
        """Return the tables of a board that opens what is sealed for it."""
        return {
            "update": self.update_table(poll_s),
            "board": {"id": board},
            "seal": {"key": self.owner.key(board)},
        }

    def stage(self, version: int, content: bytes | None = None) -> Path:
        """Seal and assign a version; return where its ciphertext lies for boards."""
        plain = content or bundle(version)
        folder = self.owner.seal(plain, MODEL, version, self.boards, self.algorithm)
        self.folders[version] = folder
        repository = self.spoiled.repository
        target = take_in(repository, folder)
        repository.assign(GROUP, {MODEL: (MODEL, version)})
        return stored_target(self.path / "targets", target.path, target.sha256)

    def envelope(self, version: int, board: str) -> Path:
        """Return where boards look for an envelope."""
        return envelope_file(self.path, MODEL, version, board)
