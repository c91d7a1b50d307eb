"""What a board knows of time and revocations before it has looked anywhere."""

from pathlib import Path

import pytest

from agent.core.reasons import Reason
from agent.core.targets import Revocations, render_revocations
from agent.errors import DeviceError
from agent.trust.notes import NotesAtHand, Remembered, load_certificate_floor
from agent.trust.revoked import KnownRevocations, save_revoked
from tests.fakes.board import Board
from tests.fakes.bundle_factory import DAY_S, NOW, SpoiledRepository, make_repository
from tests.fakes.bundles import good_bundle
from tests.fakes.memory_notes import MemoryNotes


@pytest.fixture
def repository(tmp_path: Path) -> SpoiledRepository:
    """Give a published repository."""
    return make_repository(tmp_path / "repo", {("kws", 1): good_bundle(1)}, {})


def test_20_the_certificate_floor_is_known_before_any_look(
    tmp_path: Path, repository: SpoiledRepository
) -> None:
    """A board that was switched off judges its operators by what it verified."""
    board = Board(tmp_path / "b", repository)
    assert load_certificate_floor(board.notes, repository.root, 5.0) == 5.0
    board.refresh()
    assert load_certificate_floor(board.notes, repository.root, 5.0) == NOW
    assert load_certificate_floor(board.notes, repository.root, NOW + 1) == NOW + 1
    assert load_certificate_floor(board.notes, b"another", 5.0) == 5.0


def test_20_a_newer_timestamp_moves_one_floor_a_newer_root_both(
    tmp_path: Path, repository: SpoiledRepository
) -> None:
    """Only what offline keys say counts for certificates."""
    board, later = Board(tmp_path / "b", repository), NOW + 2 * DAY_S
    repository.repository.publish(later)
    board.refresh(later)
    assert board.trusted.clock_floor == later
    assert board.trusted.certificate_floor == NOW
    repository.repository.rotate("timestamp", later)
    board.refresh(later)
    assert board.trusted.certificate_floor == later


def test_a_factory_slice_has_no_floors(
    tmp_path: Path, repository: SpoiledRepository
) -> None:
    """It may be older than anything, and lies on our own disk."""
    board = Board(tmp_path / "b", repository, factory=True)
    assert board.refresh().certificate_floor == 0.0
    assert board.notes.saved == {}


def test_a_damaged_note_is_the_devices(repository: SpoiledRepository) -> None:
    """Nobody guesses a floor."""
    notes = MemoryNotes()
    notes.save_note(Remembered.of(notes, repository.root).key, b"{")
    with pytest.raises(DeviceError) as caught:
        load_certificate_floor(notes, repository.root, 0.0)
    assert caught.value.reason == Reason.STATE


class SlowNotes(MemoryNotes):
    """Notes on a disk that fails or stands still: each asking counts."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = 0
        self.broken = False

    def load_note(self, key: str) -> bytes | None:
        """Return what was saved, where the disk works."""
        self.asked += 1
        self._check()
        return super().load_note(key)

    def save_note(self, key: str, value: bytes) -> None:
        """Save, where the disk works."""
        self._check()
        super().save_note(key, value)

    def _check(self) -> None:
        if self.broken:
            raise DeviceError("I/O error", reason=Reason.STATE)


def test_notes_at_hand_wait_for_no_disk() -> None:
    """What was read or saved once is known; also that there is nothing."""
    disk = SlowNotes()
    notes = NotesAtHand(disk)
    assert notes.load_note("a") is None
    notes.save_note("b", b"1")
    disk.broken = True
    assert (notes.load_note("a"), notes.load_note("b")) == (None, b"1")
    assert disk.asked == 1


def test_notes_at_hand_know_nothing_that_is_not_durable() -> None:
    """A save that failed is not believed, and a reading that failed is tried again."""
    disk = SlowNotes()
    notes = NotesAtHand(disk)
    notes.save_note("a", b"old")
    disk.broken = True
    with pytest.raises(DeviceError):
        notes.save_note("a", b"new")
    with pytest.raises(DeviceError):
        notes.load_note("b")
    assert notes.load_note("a") == b"old"
    disk.broken = False
    assert notes.load_note("b") is None


def test_known_revocations_follow_the_note_and_are_parsed_once() -> None:
    """Each request asks; only other bytes are read again."""
    notes = MemoryNotes()
    known = KnownRevocations(notes, b"root")
    assert (tuple(known.bundles), tuple(known.operators)) == ((), ())
    for bad in ("ab" * 32, "cd" * 32):
        revoked = Revocations(bundles=(bad,), operators=("1f",))
        save_revoked(notes, b"root", render_revocations(revoked))
        assert (tuple(known.bundles), tuple(known.operators)) == ((bad,), ("1f",))
        assert known.bundles is known.bundles


def test_revocations_that_cannot_be_read_are_never_none() -> None:
    """A note that was damaged is an error, each time, until it is whole again."""
    notes = MemoryNotes()
    save_revoked(notes, b"root", render_revocations(Revocations(operators=("1f",))))
    known, whole = KnownRevocations(notes, b"root"), dict(notes.saved)
    assert tuple(known.operators) == ("1f",)
    save_revoked(notes, b"root", b"{")
    for _ in range(2):
        with pytest.raises(DeviceError) as caught:
            _ = known.operators
        assert caught.value.reason == Reason.STATE
    notes.saved.update(whole)
    assert tuple(known.operators) == ("1f",)
