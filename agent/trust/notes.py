"""What a board remembers about a repository outside the metadata cache."""

import hashlib
from dataclasses import dataclass
from typing import Protocol

import msgspec

from agent.core.floors import Floors, parse_floors, render_floors
from agent.core.reasons import Reason
from agent.errors import DeviceError


class Notes(Protocol):
    """A durable key-value store, outside the metadata cache."""

    def load_note(self, key: str) -> bytes | None:
        """Return what was saved under a key, or None."""

    def save_note(self, key: str, value: bytes) -> None:
        """Save a value; it is durable when this returns."""


@dataclass(frozen=True, slots=True)
class Remembered:
    """Floors in the notes, one entry for each provisioned root.

    The entry is named after the root: a board that is given another repository on
    purpose starts afresh, and one repository cannot lock out another.
    """

    notes: Notes
    key: str

    @classmethod
    def of(cls, notes: Notes, root: bytes) -> "Remembered":
        """Return the floors that belong to a provisioned root."""
        return cls(notes, f"trust.floors.{hashlib.sha256(root).hexdigest()[:16]}")

    def load(self) -> Floors:
        """Return the floors; none where none were saved.

        Raises:
            DeviceError: ``state``: the note is damaged, or of a newer agent.
        """
        raw = self.notes.load_note(self.key)
        if raw is None:
            return Floors()
        try:
            return parse_floors(raw)
        except msgspec.MsgspecError as err:
            raise DeviceError(f"note {self.key}: {err}", reason=Reason.STATE) from err

    def save(self, floors: Floors) -> None:
        """Save the floors durably."""
        self.notes.save_note(self.key, render_floors(floors))
