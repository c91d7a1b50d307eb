"""Rings of receipts after a kill: what they held is in the log, once."""

import asyncio
import mmap
import os
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from agent.audit import rings as rings_module
from agent.audit.archive import Archive
from agent.audit.leftovers import recover_rings
from agent.audit.log import AuditLog
from agent.audit.rings import Rings, is_memory, memory_folder, word_of
from agent.audit.verify import Asked, verify_log
from agent.core.audit_events import GAP
from agent.core.receipts import (
    ANSWERED,
    EVENT,
    NO_HASH,
    RING_BYTES,
    SLOTS,
    VERSION,
    WRITTEN,
    RingReader,
    RingWriter,
    name_word,
    parse_receipt,
)
from tests.fakes.audit_logs import SETTINGS, LoggingBoard, untold, wait_durable
from tests.fakes.card import Card, CardFolder

COUNT = replace(SETTINGS, checkpoint_records=16)


@dataclass
class Life:
    """One life of a board with one pipeline, up to its kill."""

    board: LoggingBoard
    folder: Path
    log: AuditLog = field(init=False)
    rings: Rings = field(init=False)

    def __post_init__(self) -> None:
        """Open the log, recover what was left, make a ring."""
        self.rings = Rings(self.folder, self.board.boot, self.told)
        self.log = self.board.open(COUNT)
        recover_rings(self.log, self.board.folder, self.rings)
        descriptor = self.rings.make("p")
        assert descriptor is not None
        self.memory = mmap.mmap(descriptor, RING_BYTES)
        os.close(descriptor)
        view = memoryview(self.memory)
        self.reader, self.writer = RingReader(view), RingWriter(view)
        self.reader.note(*self.rings.told())
        self.reader.allow(SLOTS)
        self.put = self.writer.bind(name_word("p"), NO_HASH)

    def told(self) -> tuple[int, int]:
        """Return what rings note."""
        return word_of(self.log.origin), self.log.inferences + self.log.lost

    def answer(self, first: int, count: int) -> None:
        """Let the worker answer."""
        for number in range(first, first + count):
            self.put(number, 1000 + number, 0, NO_HASH, NO_HASH)

    def drain(self, count: int) -> None:
        """Hand some records to the log."""
        self.reader.look_finally()
        records = self.reader.copy(count)
        self.log.take(memoryview(records))
        self.reader.take(count)
        self.reader.note(*self.rings.told())
        self.reader.allow(SLOTS)

    def die(self) -> None:
        """Be killed: the worker, too; what was handed over may be written or not."""
        self.reader.close()
        self.writer.words.release()
        self.writer._bytes.release()
        del self.put
        self.memory.close()
        asyncio.run(self.log.close())


def killed(life: Life, card: Card) -> None:
    """Kill a daemon: its thread writes nothing more."""
    card.dies_at = max(1, card.steps)
    life.die()


def samples(board: LoggingBoard, size: int) -> list[int]:
    """Return the samples of a log, in order."""
    archive, found = Archive(board.folder), []
    for first in range(0, size, 256):
        found += [parse_receipt(it) for it in archive.records(first, 256, size)]
    return [it.sample for it in found if it.sample]


def on_card(state_dir: Path, card: Card) -> LoggingBoard:
    """Return a board whose log lies on a card."""
    board = LoggingBoard(state_dir)
    board.make_folder = lambda path: CardFolder(path, card=card)
    return board


def folder_of(tmp_path: Path) -> Path:
    """Return a folder for rings."""
    folder = tmp_path / "memory"
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder


@settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    batches=st.lists(st.integers(1, 90), max_size=6),
    left=st.integers(0, 200),
    dies_after=st.integers(0, 6),
)
def test_what_rings_held_is_in_the_log_once(
    tmp_path_factory: pytest.TempPathFactory,
    batches: list[int],
    left: int,
    dies_after: int,
) -> None:
    """However much was drained, written and signed before the kill."""
    tmp_path = tmp_path_factory.mktemp("rings")
    card, folder = Card(), folder_of(tmp_path)
    board = on_card(tmp_path / "state", card)
    life = Life(board, folder)
    wait_durable(life.log)
    answered = 0
    for number, size in enumerate(batches):
        life.answer(answered + 1, size)
        life.drain(size)
        answered += size
        if number == dies_after:
            card.dies_at = card.steps + 1  # what follows is only in memory
    life.answer(answered + 1, left)
    answered += left
    killed(life, card)
    board = LoggingBoard(board.state_dir)
    again = Life(board, folder)
    assert (again.log.inferences, again.log.lost) == (answered, 0)
    wait_durable(again.log).look()
    assert len(list(folder.glob("*.ring"))) == 1
    again.die()
    again.rings.forget()
    found = verify_log(board.folder, Asked(board.key.public), untold)
    assert samples(board, found.size) == list(range(1, answered + 1))
    assert not folder.exists()


def test_what_a_ring_holds_no_more_is_counted_as_lost(tmp_path: Path) -> None:
    """A full disk for so long that the ring went round: all is declared."""
    card, folder = Card(), folder_of(tmp_path)
    board = on_card(tmp_path / "state", card)
    life = Life(board, folder)
    wait_durable(life.log)
    card.full = True
    answered = 0
    while answered < SLOTS + 9000:
        life.answer(answered + 1, 1000)
        life.drain(1000)
        answered += 1000
    killed(life, card)
    board = LoggingBoard(board.state_dir)
    again = Life(board, folder)
    log = again.log
    assert log.inferences + log.lost == answered
    assert log.inferences >= SLOTS - 1000
    again.die()
    again.rings.forget()
    verify_log(board.folder, Asked(board.key.public), untold)


def test_a_start_that_is_killed_takes_nothing_twice(tmp_path: Path) -> None:
    """The rings are there until what they held is on the disk."""
    card, folder = Card(), folder_of(tmp_path)
    board = on_card(tmp_path / "state", card)
    life = Life(board, folder)
    wait_durable(life.log)
    life.answer(1, 50)
    killed(life, card)
    for _ in range(2):
        card.dies_at, card.full = 0, True
        killed(Life(board, folder), card)
    card.dies_at, card.full = 0, False
    last = Life(LoggingBoard(board.state_dir), folder)
    assert (last.log.inferences, last.log.lost) == (50, 0)
    last.die()
    last.rings.forget()


def test_without_its_rings_a_start_says_that_something_may_be_missing(
    tmp_path: Path,
) -> None:
    """As after a loss of power; it is signed, and stays."""
    card, folder = Card(), folder_of(tmp_path)
    board = on_card(tmp_path / "state", card)
    life = Life(board, folder)
    wait_durable(life.log)
    killed(life, card)
    for path in folder.iterdir():
        path.unlink()
    board = LoggingBoard(board.state_dir)
    board.boot = "boot-2"
    for _ in range(2):
        life = Life(board, folder)
        life.die()
        life.rings.forget()
        folder_of(tmp_path)
    found = verify_log(board.folder, Asked(board.key.public), untold)
    assert found.checkpoint is not None
    assert (found.checkpoint.gaps, found.checkpoint.starts) == (1, 3)
    told = [text for _, text in Archive(board.folder).events(0) if GAP.encode() in text]
    assert len(told) == 1


@pytest.mark.parametrize(
    "what", ["cut", "words", "answered", "version", "boot", "link", "open"]
)
def test_what_is_no_ring_of_ours_is_passed_over(tmp_path: Path, what: str) -> None:
    """It is neither believed nor followed; the start goes on, and the log says so."""
    card, folder = Card(), folder_of(tmp_path)
    board = on_card(tmp_path / "state", card)
    life = Life(board, folder)
    wait_durable(life.log)
    life.answer(1, 5)
    scribbled = {"words": WRITTEN, "answered": ANSWERED, "version": VERSION}
    if what in scribbled:
        life.writer.words[scribbled[what]] = 2**64 - 1
    killed(life, card)
    (ring,) = folder.glob("*.ring")
    if what == "cut":
        os.truncate(ring, RING_BYTES - 1)
    elif what == "open":
        ring.chmod(0o666)
    elif what == "link":
        ring.rename(tmp_path / "elsewhere")
        ring.symlink_to(tmp_path / "elsewhere")
    board = LoggingBoard(board.state_dir)
    if what == "boot":
        board.boot = "boot-2"
    again = Life(board, folder)
    assert again.log.inferences == 0
    wait_durable(again.log)
    assert again.log.durable.checkpoint.gaps == 1
    again.die()
    again.rings.forget()


def test_rings_lie_in_memory_that_is_ours(tmp_path: Path, require_memory: Path) -> None:
    """A folder per state directory, which nobody else can write."""
    found = memory_folder(tmp_path)
    assert found is not None
    assert found.stat().st_mode & 0o777 == 0o700
    assert is_memory(found)
    assert memory_folder(tmp_path) == found != memory_folder(tmp_path / "other")
    found.chmod(0o777)
    assert found != memory_folder(tmp_path)
    for path in require_memory.glob(f"tinyward-{os.geteuid()}-*"):
        if not any(path.iterdir()):
            path.rmdir()


@pytest.fixture
def require_memory() -> Path:
    """Give the folder of shared memory, or skip."""
    path = Path(rings_module.SHARED_MEMORY)
    if not path.is_dir() or not is_memory(path):
        pytest.skip("no memory file system is here")
    return path


def test_what_no_worker_may_write_is_not_recovered(tmp_path: Path) -> None:
    """A ring that was scribbled over brings no events into the log: lost, aloud."""
    card, folder = Card(), folder_of(tmp_path)
    board = on_card(tmp_path / "state", card)
    life = Life(board, folder)
    wait_durable(life.log)
    life.answer(1, 5)
    life.put(6, 1006, EVENT, NO_HASH, NO_HASH)
    life.answer(7, 3)
    killed(life, card)
    board = LoggingBoard(board.state_dir)
    again = Life(board, folder)
    assert (again.log.inferences, again.log.lost) == (3, 6)
    again.die()
    again.rings.forget()
    found = verify_log(board.folder, Asked(board.key.public), untold)
    assert found.checkpoint is not None
    assert (found.checkpoint.inferences, found.checkpoint.lost) == (3, 6)
