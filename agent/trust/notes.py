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


class NotesAtHand:
    """Notes that are read once, and asked for without waiting for the disk.

    Listeners judge every request by what was revoked and by the certificate floor:
    they must not stand still while something else writes a slow card. Whoever saves
    has to save through the same value; several threads may.
    """

    def __init__(self, notes: Notes) -> None:
        self._notes = notes
        self._known: dict[str, bytes | None] = {}

    def load_note(self, key: str) -> bytes | None:
        """Return what was saved under a key, or None.

        Raises:
            DeviceError: ``state``: it cannot be read; it is tried again next time.
        """
        if key not in self._known:
            # One who saves at this moment knows better than the disk did.
            self._known.setdefault(key, self._notes.load_note(key))
        return self._known[key]

    def save_note(self, key: str, value: bytes) -> None:
        """Save a value; it is durable, and known, when this returns."""
        self._notes.save_note(key, value)
        self._known[key] = value


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


def load_certificate_floor(notes: Notes, root: bytes, build_time: float) -> float:
    """Return before when no certificate can end unseen, Unix seconds.

    Needs no repository and no look at one: a board whose clock is wrong judges its
    operators from the first second by what it verified before it was switched off.

    Args:
        notes: The board's durable notes.
        root: The provisioned root.json of the fleet; empty without one.
        build_time: Unix seconds before which this package cannot run.

    Raises:
        DeviceError: ``state``: the floors cannot be read.
    """
    return max(build_time, float(Remembered.of(notes, root).load().offline_s))
