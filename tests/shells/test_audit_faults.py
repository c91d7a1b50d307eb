"""The log after kill -9, losses of power and full disks: nothing lost in silence."""

import asyncio
import random
import shutil
from functools import partial
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from agent.audit.archive import Archive
from agent.audit.log import BACKLOG, NO_SEQ, AuditLog
from agent.audit.verify import Asked, Verified, verify_log
from agent.audit.writer import Durable
from agent.core.audit_events import LOST, STARTED, AuditEvent, parse_event
from agent.core.audit_layout import SEGMENT_RECORDS
from agent.core.reasons import Reason
from tests.fakes.audit_logs import (
    SETTINGS,
    LoggingBoard,
    inferences,
    untold,
    wait_durable,
    wait_until,
)
from tests.fakes.card import Card, CardFolder

QUICK = replace(SETTINGS, checkpoint_records=16, quota_mb=1.0)
STOP = replace(QUICK, when_full="stop")
UNDISTURBED = settings(
    max_examples=15,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


def on_card(state_dir: Path, card: Card) -> LoggingBoard:
    """Return a board whose log lies on a card."""
    board = LoggingBoard(state_dir)
    board.make_folder = partial(CardFolder, card=card)
    return board


def live(board: LoggingBoard, batches: int, size: int = 37) -> AuditLog | None:
    """Answer for a while; the card may fail meanwhile, even while the log is opened."""
    try:
        log = board.open(QUICK)
    except OSError:
        return None
    for number in range(batches):
        log.take(inferences(size, 1 + number * size))
        if number % 3 == 2:
            log.mark()
            wait_until(partial(_is_settled, log))
        if log.durable.trouble:
            break
    return log


def die(log: AuditLog | None, card: Card) -> Durable | None:
    """Write nothing more; return what was on the medium by all that was known."""
    card.dies_at = max(1, card.steps)
    if log is None:
        return None
    seen = log.durable
    asyncio.run(log.close())
    return seen


def _is_settled(log: AuditLog) -> bool:
    """Whether all is on the medium, or will not be."""
    return bool(log.durable.trouble) or log.durable.checkpoint.size == log.size


def events(board: LoggingBoard) -> list[AuditEvent]:
    """Return what the log says that happened, of all that it still has."""
    archive = Archive(board.folder)
    segments = range(archive.first() // SEGMENT_RECORDS, 9)
    return [parse_event(text) for it in segments for _, text in archive.events(it)]


def verify(board: LoggingBoard, last_seen: str = "") -> Verified:
    """Verify the log of a board that ended well."""
    asked = Asked(board.key.public, last_seen=last_seen)
    return verify_log(board.folder, asked, untold)


@UNDISTURBED
@given(dies_at=st.integers(1, 160), seed=st.integers(0, 2**32), cuts=st.integers(1, 2))
def test_after_a_loss_of_power_all_that_was_signed_is_there(
    tmp_path_factory: pytest.TempPathFactory, dies_at: int, seed: int, cuts: int
) -> None:
    """At whatever step: it goes on from its last checkpoint, and says what is lost."""
    card = Card(dies_at=dies_at)
    board = on_card(tmp_path_factory.mktemp("power"), card)
    log = live(board, 30)
    seen = die(log, card)
    chance = random.Random(seed)  # noqa: S311 - a model's chance
    for _ in range(cuts):
        left = card.after_power(chance)
        shutil.rmtree(board.state_dir)
        board = LoggingBoard(board.state_dir)
        board.folder.mkdir()
        for path, content in left.items():
            path.write_bytes(content)
        board.boot += "+"
        opened = board.open(QUICK)
        asyncio.run(opened.close())
        card = Card(solid=left)
    assert not [it for it in board.state_dir.iterdir() if ".l" in it.name]
    found = verify(board, seen.note if seen else "")
    assert found.checkpoint is not None
    if seen is not None and seen.note:
        assert found.size > seen.checkpoint.size
        lost = found.checkpoint.lost - seen.checkpoint.lost
        said = sum(int(it.facts.get("lost", 0)) for it in events(board))
        assert lost == said


@UNDISTURBED
@given(dies_at=st.integers(1, 160))
def test_after_kill_9_all_that_was_written_is_there(
    tmp_path_factory: pytest.TempPathFactory, dies_at: int
) -> None:
    """At whatever step: what follows the last checkpoint is kept, signed, and said."""
    card = Card(dies_at=dies_at)
    board = on_card(tmp_path_factory.mktemp("killed"), card)
    log = live(board, 30)
    seen = die(log, card)
    board.make_folder = LoggingBoard(board.state_dir).make_folder
    opened = board.open(QUICK)
    asyncio.run(opened.close())
    assert not [it for it in board.state_dir.iterdir() if ".l" in it.name]
    found = verify(board, seen.note if seen else "")
    assert found.checkpoint is not None
    if seen is not None and seen.note:
        kept = sum(int(it.facts.get("kept", 0)) for it in events(board))
        assert found.checkpoint.lost == 0
        # More than that where the file had a checkpoint that was not synced yet.
        assert found.size >= seen.checkpoint.size + kept + 2


def test_a_full_disk_stops_answers_where_the_settings_say_so(tmp_path: Path) -> None:
    """Nothing more is allowed, nothing is lost, and it goes on once there is room."""
    card = Card()
    board = on_card(tmp_path / "state", card)
    log = wait_durable(board.open(STOP))
    assert log.allowance()[0] > 0
    card.full = True
    log.take(inferences(SEGMENT_RECORDS + 5))
    wait_until(lambda: log.durable.trouble)
    assert log.allowance() == (0, Reason.DISK_FULL)
    assert log.view().trouble == Reason.DISK_FULL
    card.full = False
    # The trouble ends before all that waited is on the disk.
    wait_until(lambda: log.allowance()[0] > 0)
    assert not log.durable.trouble
    asyncio.run(log.close())
    found = verify(board)
    assert (found.size, log.lost) == (SEGMENT_RECORDS + 7, 0)


def test_little_is_answered_ahead_of_a_disk_where_answers_stop_with_it(
    tmp_path: Path,
) -> None:
    """Twice a checkpoint's worth at most, from the first to the last one allowed."""
    board = on_card(tmp_path / "state", Card())
    log = wait_durable(board.open(STOP))
    most = 2 * STOP.checkpoint_records
    assert log.allowance() == (most, Reason.LOG)
    for _ in range(20):
        wait_until(lambda: log.allowance()[0] > 0)
        log.take(inferences(log.allowance()[0]))
        assert log.size - log.durable.checkpoint.size <= most
    asyncio.run(log.close())
    verify(board)


def test_a_full_disk_is_counted_where_the_settings_say_so(tmp_path: Path) -> None:
    """What finds no room is lost by number, and the log says how many it were."""
    card = Card()
    board = on_card(tmp_path / "state", card)
    log = wait_durable(board.open(QUICK))
    card.full = True
    taken = lost = 0
    while lost < 700:
        found_place = log.take(inferences(350)) != NO_SEQ
        taken, lost = taken + 350 * found_place, lost + 350 * (not found_place)
        assert log.allowance()[0] > BACKLOG
    wait_until(lambda: log.durable.trouble)
    assert (700, taken) == (log.lost, log.inferences)
    log.look()  # nothing is said as long as nothing is written
    card.full = False
    wait_until(lambda: not log.durable.trouble)
    log.look()
    asyncio.run(log.close())
    found = verify(board)
    assert found.checkpoint is not None
    assert (700, taken) == (found.checkpoint.lost, found.checkpoint.inferences)
    (said,) = (it.facts for it in events(board) if it.event == LOST)
    assert said["records"] == 700


def test_a_card_that_fails_for_a_moment_costs_nothing(tmp_path: Path) -> None:
    """All since the last checkpoint is written again, at the same places."""
    card = Card()
    board = on_card(tmp_path / "state", card)
    log = wait_durable(board.open(QUICK))
    for failing in range(1, 6):
        card.dies_at = card.steps + failing
        log.take(inferences(40))
        log.note("operator.look", {"operator": "ada"})
        log.mark()
        wait_until(lambda: log.durable.trouble)
        card.dies_at = 0
        wait_durable(log)
        assert not log.durable.trouble
    asyncio.run(log.close())
    assert verify(board).size == 5 * 41 + 2


def test_the_end_does_not_wait_for_a_disk_that_is_full(tmp_path: Path) -> None:
    """What could not be written is missed at the next start, which says so."""
    card = Card()
    board = on_card(tmp_path / "state", card)
    log = wait_durable(board.open(QUICK))
    card.full = True
    log.take(inferences(100))
    asyncio.run(log.close())
    card.full = False
    opened = board.open(QUICK)
    asyncio.run(opened.close())
    started = [it for it in events(board) if it.event == STARTED]
    assert [it.facts["clean"] for it in started] == [True, False]
    verify(board, log.durable.note)
