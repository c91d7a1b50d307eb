"""A card as the log's folders see it: full, or cut off from its power at any step.

What a loss of power leaves is modelled: of what was written since a file was last
synced each sector may be there or not, so may the file itself, and its new length. What
kill -9 leaves is all that was written.
"""

import errno
import random
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from agent.audit.files import Folder

SECTOR = 512


@dataclass(slots=True)
class Card:
    """What is on the medium of all folders, and what is on its way.

    Attributes:
        dies_at: After so many steps nothing is written any more; 0 for never.
        full: Nothing takes more room.
        steps: How many there were.
        solid: What a loss of power cannot take: file -> content.
        loose: Writes that were not synced: file, place and content.
    """

    dies_at: int = 0
    full: bool = False
    steps: int = 0
    solid: dict[Path, bytes] = field(default_factory=dict)
    loose: list[tuple[Path, int, bytes]] = field(default_factory=list)

    def step(self) -> None:
        """Do one step, or none any more."""
        if self.dies_at and self.steps >= self.dies_at:
            raise OSError(errno.EIO, "the power is gone")
        self.steps += 1

    def take_room(self) -> None:
        """Refuse it where the card is full."""
        if self.full:
            raise OSError(errno.ENOSPC, "no space left on device")

    def after_power(self, chance: random.Random) -> dict[Path, bytes]:
        """Return what a loss of power leaves."""
        left = {path: bytearray(content) for path, content in self.solid.items()}
        for path, place, content in self.loose:
            if path not in left and chance.random() < 0.5:
                continue
            file = left.setdefault(path, bytearray())
            for start in range(0, len(content), SECTOR):
                if chance.random() < 0.5:
                    continue
                end = place + min(start + SECTOR, len(content))
                file.extend(bytes(max(0, end - len(file))))
                file[place + start : end] = content[start : start + SECTOR]
        return {path: bytes(content) for path, content in left.items()}


class CardFolder(Folder):
    """A folder of a card.

    Args:
        path: Where it lies.
        card: See there.
    """

    def __init__(self, path: Path, card: Card) -> None:
        super().__init__(path)
        self._card = card

    def allocate(self, name: str, length: int) -> None:
        """Take room for a file."""
        self._card.take_room()
        self._card.step()
        before = self.size(name)
        super().allocate(name, length)
        more = bytes(max(0, length - before))
        self._card.loose.append((self.path / name, before, more))

    def write(self, name: str, place: int, content: bytes) -> None:
        """Write at a place."""
        if place + len(content) > self.size(name):
            self._card.take_room()
        self._card.step()
        super().write(name, place, content)
        self._card.loose.append((self.path / name, place, content))

    def cut(self, name: str, length: int) -> None:
        """Shorten a file; it is synced by whoever does so."""
        super().cut(name, length)
        self._settle(name)

    def sync(self, names: Iterable[str]) -> None:
        """Sync files."""
        for name in names:
            self._card.step()
            super().sync([name])
            self._settle(name)

    def replace(self, name: str, content: bytes) -> None:
        """Replace a file durably."""
        self._card.take_room()
        self._card.step()
        super().replace(name, content)
        self._settle(f"{name}.tmp")
        self._settle(name)

    def remove(self, name: str) -> None:
        """Remove a file: with what else is in the journal."""
        self._card.step()
        super().remove(name)
        self._settle(name)

    def _settle(self, name: str) -> None:
        """A file is on the medium as it is now."""
        path, card = self.path / name, self._card
        card.loose = [it for it in card.loose if it[0] != path]
        if path.exists():
            card.solid[path] = path.read_bytes()
        else:
            card.solid.pop(path, None)
