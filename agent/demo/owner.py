"""The owner's side of the demo, and the attackers': bundles, keys, a repository.

The rules this module keeps:
 * The owner publishes by the same functions as ``tinyward repo``.
 * An attacker can write to the repository's files, and has none of its keys.
"""

import secrets
import shutil
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

ASSETS = Path(__file__).with_name("assets")
MODEL = "digits"
GROUP = "all"
BETTER = 2  # the version that is measurably better; later ones repeat its model


class FleetRepository(Protocol):
    """What the story needs of ``agent.publish.repository.Repository``."""

    def first_root(self) -> bytes:
        """Return the root.json for boards."""
        ...

    def add(self, content: bytes, *, model: str, version: int) -> object:
        """Stage a bundle."""
        ...

    def assign(self, group: str, pipelines: Mapping[str, tuple[str, int]]) -> object:
        """Stage a group's desired state."""
        ...

    def publish(self, now: float) -> None:
        """Sign what is staged."""
        ...


Found = Callable[[Path, bytes, float], FleetRepository]
Pack = Callable[[bytes, Path], bytes]


class Owner:
    """The owner of the fleet, with keys of its own.

    Args:
        directory: Where the repository lies; its keys lie beside it.
        found: Makes a repository: (directory, passphrase, now) -> repository.
        pack: Makes a bundle: (pack.toml, its directory) -> bundle.
        clock: Unix seconds.
    """

    def __init__(
        self, directory: Path, found: Found, pack: Pack, clock: Callable[[], float]
    ) -> None:
        self.directory = directory
        self._found = found
        self._pack = pack
        self._clock = clock
        passphrase = secrets.token_urlsafe(24).encode()
        self._repository = found(directory, passphrase, clock())

    @property
    def root(self) -> bytes:
        """The root.json that the board is provisioned with."""
        return self._repository.first_root()

    def bundle(self, version: int) -> bytes:
        """Pack a version; those after the second repeat its model."""
        source = ASSETS / f"{MODEL}-{min(version, BETTER)}"
        text = (source / "pack.toml").read_text(encoding="utf-8")
        stated = tomllib.loads(text)["version"]
        renumbered = text.replace(f"version = {stated}\n", f"version = {version}\n", 1)
        return self._pack(renumbered.encode(), source)

    def publish(self, version: int, content: bytes, *, spoil: bool = False) -> None:
        """Add, assign and publish a bundle; with ``spoil`` one bit flips on the way."""
        self._repository.add(content, model=MODEL, version=version)
        if spoil:
            self._flip_one_bit(version)
        self._repository.assign(GROUP, {MODEL: (MODEL, version)})
        self._repository.publish(self._clock())

    def _flip_one_bit(self, version: int) -> None:
        """Change one bit in the middle of a stored bundle, as a bad card would."""
        folder = self.directory / "targets" / "models" / MODEL
        (path,) = folder.glob(f"*{version}.bundle")
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.chmod(0o644)
        path.write_bytes(content)

    def impersonate(self, version: int, content: bytes) -> Callable[[], None]:
        """Put a stranger's repository in this one's place; return what undoes it."""
        place = self.directory.with_name("stranger")
        stranger = Owner(place, self._found, self._pack, self._clock)
        stranger.publish(version, content)
        kept = self.directory.with_name("kept")
        _exchange(self.directory, place, kept)

        def undo() -> None:
            _exchange(self.directory, kept, place)
            for left in self.directory.parent.glob(f"{place.name}*"):  # and its keys
                shutil.rmtree(left)

        return undo


def _exchange(place: Path, other: Path, aside: Path) -> None:
    """Put another folder in a place, and what was there aside.

    Two renames in a row: a board that looks in between finds nothing at all, which it
    would rightly report as a repository out of reach, so nothing else happens between.
    """
    place.rename(aside)
    other.rename(place)
