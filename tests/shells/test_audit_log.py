"""The log on a disk: lives, proofs, quota, and whatever is done to its files."""

import asyncio
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace as restruct
from rich.text import Text

from agent.audit.archive import Archive, GoneError
from agent.audit.key import verify_ed25519
from agent.audit.verify import Asked, LogFaultError, Verified, verify_log
from agent.cli.board_answers import LogAnswer
from agent.cli.log_view import log_text
from agent.core.audit_events import parse_event
from agent.core.audit_layout import SEGMENT_RECORDS, parse_sealed_keys
from agent.core.checkpoint import parse_checkpoint
from agent.core.log_proof import RecordProof, judge_growth, judge_proof
from agent.core.log_view import say_log
from agent.core.merkle import leaf_hash, range_root
from agent.core.note import open_note
from agent.core.ratchet import sealing_context
from agent.core.reasons import Reason
from agent.core.receipts import parse_receipt
from agent.telemetry.collect_log import collect_log
from agent.telemetry.families import Families
from agent.telemetry.text import Renderer
from tests.fakes.audit_logs import (
    SETTINGS,
    LoggingBoard,
    inferences,
    key_from,
    untold,
    wait_durable,
)

SMALL = restruct(SETTINGS, quota_mb=1.0)


def verify(board: LoggingBoard, last_seen: str = "", whose: str = "") -> Verified:
    """Verify a board's log by its public key."""
    how = Asked(board.key.public, whose, last_seen)
    return verify_log(board.folder, how, untold)


def fault(board: LoggingBoard, last_seen: str = "", whose: str = "") -> LogFaultError:
    """Return what is wrong with a board's log."""
    with pytest.raises(LogFaultError) as caught:
        verify(board, last_seen, whose)
    return caught.value


def one_life(board: LoggingBoard, count: int, how: object = SETTINGS) -> str:
    """Let a board live, answer, and end well; return its last checkpoint."""
    log = board.open(how)  # type: ignore[arg-type]  # settings
    for first in range(0, count, 250):
        log.take(inferences(min(250, count - first), first + 1))
    asyncio.run(log.close())
    return log.durable.note


@pytest.fixture
def board(tmp_path: Path) -> LoggingBoard:
    """A board without a log."""
    return LoggingBoard(tmp_path / "state")


def test_three_lives_are_one_log(board: LoggingBoard) -> None:
    """Each goes on where the last one ended; all of it verifies with the key alone."""
    notes = [one_life(board, 300) for _ in range(3)]
    found = verify(board, notes[0])
    assert (found.size, found.first, found.events, found.unsigned) == (906, 0, 6, 0)
    assert found.checkpoint is not None
    assert (
        found.checkpoint.inferences,
        found.checkpoint.lost,
        found.checkpoint.starts,
    ) == (900, 0, 3)
    archive = Archive(board.folder)
    said = [parse_event(text) for _, text in archive.events(0)]
    assert [it.event for it in said] == ["log.started", "log.stopped"] * 3
    assert [it.facts["clean"] for it in said[::2]] == [True] * 3


def test_each_record_is_proven_and_each_checkpoint_grew(board: LoggingBoard) -> None:
    """What the archive makes is believed by who has the checkpoint and the key."""
    old = one_life(board, 2 * SEGMENT_RECORDS + 70)
    new = one_life(board, 30)
    archive = Archive(board.folder)
    origin = new.partition("\n")[0]
    key = board.key.named(origin)
    before, after = (
        parse_checkpoint(open_note(it.encode(), key, verify_ed25519))
        for it in (old, new)
    )
    for index in (0, 1, 2047, 2048, 4095, 4096, before.size, after.size - 1):
        record, path = archive.prove(index, after)
        proof = RecordProof(record, index, tuple(path), new, archive.event(record))
        assert judge_proof(proof, key, verify_ed25519).receipt.seq == index
    judge_growth(before, after, archive.grow(before.size, after))
    leaves = [
        leaf_hash(record)
        for start in range(0, after.size, 256)
        for record in archive.records(start, 256, after.size)
    ]
    assert after.size == len(leaves)
    assert after.root == archive.root(after.size)
    with pytest.raises(GoneError, match="there is no record"):
        archive.prove(after.size, after)


def test_the_oldest_segments_go_and_their_roots_stay(board: LoggingBoard) -> None:
    """A quota costs old records, not the proof that the log only grew."""
    first = one_life(board, SEGMENT_RECORDS - 2, SMALL)
    assert parse_checkpoint(first.split("\n\n")[0] + "\n").size == SEGMENT_RECORDS
    last = one_life(board, 5 * SEGMENT_RECORDS, SMALL)
    found = verify(board, first)
    assert found.first >= 2 * SEGMENT_RECORDS
    used = sum(it.stat().st_size for it in board.folder.iterdir())
    assert used <= SMALL.quota_mb * 1e6
    archive, checkpoint = Archive(board.folder), found.checkpoint
    assert checkpoint is not None
    with pytest.raises(GoneError, match="is gone"):
        archive.prove(5, checkpoint)
    with pytest.raises(GoneError, match="is gone"):
        archive.grow(5, checkpoint)
    path = archive.grow(SEGMENT_RECORDS, checkpoint)
    seen = parse_checkpoint(first.split("\n\n")[0] + "\n")
    judge_growth(seen, checkpoint, path)
    one_life(board, 0, SMALL)
    verify(board, last)


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.data())
def test_one_flipped_byte_anywhere_is_found(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """Records, checkpoints, events, roots, sealed keys, the padding: all of it."""
    board = _prepared(tmp_path_factory)
    files = sorted(it for it in board.folder.iterdir() if it.stat().st_size)
    path = data.draw(st.sampled_from(files))
    raw = path.read_bytes()
    at = data.draw(st.integers(0, len(raw) - 1))
    spoilt = bytes([raw[at] ^ (1 << data.draw(st.integers(0, 7)))])
    path.write_bytes(raw[:at] + spoilt + raw[at + 1 :])
    try:
        reason = fault(board).reason
    finally:
        path.write_bytes(raw)
    assert reason in (Reason.LOG, Reason.SIGNATURE, Reason.MALFORMED)


PREPARED: list[LoggingBoard] = []


def _prepared(factory: pytest.TempPathFactory) -> LoggingBoard:
    """Return a board with a log of two segments, made once."""
    if not PREPARED:
        board = LoggingBoard(factory.mktemp("flipped"))
        board.seal = lambda content, context: context + content[::-1]
        one_life(board, SEGMENT_RECORDS + 100)
        one_life(board, 10)
        PREPARED.append(board)
    return PREPARED[0]


def test_a_segment_taken_out_of_the_middle_is_missed(board: LoggingBoard) -> None:
    """And so is its record file alone, or the file of its checkpoints."""
    one_life(board, 3 * SEGMENT_RECORDS)
    for name in ("records", "notes"):
        path = board.folder / f"0000000001.{name}"
        raw = path.read_bytes()
        path.unlink()
        assert fault(board).reason == Reason.LOG
        path.write_bytes(raw)
    verify(board)


def test_another_boards_key_signed_nothing_here(board: LoggingBoard) -> None:
    """The reason is `signature`, and not that the log is damaged."""
    one_life(board, 5)
    board.key = key_from(2)
    assert fault(board).reason == Reason.SIGNATURE


def test_a_card_that_was_restored_is_evident(board: LoggingBoard) -> None:
    """Shorter than what was seen: replayed; longer, but another: forked. Both notes."""
    one_life(board, 100)
    backup = board.state_dir.with_name("backup")
    shutil.copytree(board.state_dir, backup)
    seen = one_life(board, 100)
    shutil.rmtree(board.state_dir)
    shutil.copytree(backup, board.state_dir)
    replayed = fault(board, seen)
    assert replayed.reason == Reason.REPLAYED
    assert seen == replayed.evidence[0]
    one_life(board, 250)
    forked = fault(board, seen)
    assert forked.reason == Reason.FORKED
    origin = seen.partition("\n")[0]
    for note in forked.evidence:
        open_note(note.encode(), board.key.named(origin), verify_ed25519)
    verify(board)  # nothing is wrong with it but that it is not the only one


def test_two_boards_with_one_key_are_evident(
    board: LoggingBoard, tmp_path: Path
) -> None:
    """By a checkpoint of the other, and by the name of whose key it was said to be."""
    other = LoggingBoard(tmp_path / "other", "pi-0043")
    seen, _ = one_life(board, 10), one_life(other, 10)
    assert fault(other, seen).reason == Reason.FORKED
    assert fault(other, whose="pi-0042").reason == Reason.FORKED
    verify(other, whose="pi-0043")


def test_a_checkpoint_that_was_forged_is_no_last_seen(board: LoggingBoard) -> None:
    """Whoever accuses a board needs its own signature for that."""
    seen = one_life(board, 10)
    assert fault(board, seen.replace("lost 0", "lost 1")).reason == Reason.SIGNATURE
    assert fault(board, "seen\n").reason == Reason.MALFORMED


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda it: it.joinpath("roots").write_bytes(b""), "log"),
        (lambda it: it.joinpath("log.json").unlink(), "log"),
        (lambda it: it.joinpath("log.json").write_text("{"), "log"),
        (lambda it: it.joinpath("0000000001.records").unlink(), "log"),
        (lambda it: [p.unlink() for p in it.glob("*.notes")], "log"),
    ],
)
def test_a_damaged_log_is_set_aside_and_another_begins(
    board: LoggingBoard, spoil: Callable[[Path], object], reason: str
) -> None:
    """The board goes on; the evidence stays; the first event says what happened."""
    before = one_life(board, SEGMENT_RECORDS + 100)
    spoil(board.folder)
    one_life(board, 10)
    found = verify(board)
    assert found.size == 12
    (aside,) = (it for it in board.state_dir.iterdir() if it.name.startswith("audit.l"))
    said = parse_event(Archive(board.folder).events(0)[0][1])
    assert (reason, aside.name) == (said.facts["reason"], said.facts["aside"])
    if said.facts["follows"]:
        # It is no fork: the log says itself that it follows that one.
        assert before.startswith(said.facts["follows"])
        verify(board, before)


def test_a_flipped_byte_of_what_is_loaded_is_found_at_the_start(
    board: LoggingBoard,
) -> None:
    """The records of the last segment and the roots are hashed at every start."""
    one_life(board, SEGMENT_RECORDS + 100)
    for name, at in (("0000000001.records", 700), ("roots", 3), ("roots", 40)):
        path = board.folder / name
        raw = bytearray(path.read_bytes())
        raw[at] ^= 1
        path.write_bytes(raw)
        one_life(board, SEGMENT_RECORDS + 100)
    asides = [it for it in board.state_dir.iterdir() if it.name.startswith("audit.l")]
    assert len(asides) == 3


def test_a_log_of_another_board_is_not_continued(board: LoggingBoard) -> None:
    """A card that was moved begins its own, and says whose it found."""
    one_life(board, 5)
    board.board = "pi-0099"
    one_life(board, 5)
    said = parse_event(Archive(board.folder).events(0)[0][1])
    assert said.facts["reason"] == Reason.OTHER_BOARD
    assert said.facts["board"] == "pi-0042"
    verify(board, whose="pi-0099")


def test_the_owner_finds_what_was_signed_after_its_key_was_gone(
    board: LoggingBoard,
) -> None:
    """MACs verify from the first key on; one that was made later does not."""
    sealed: dict[bytes, bytes] = {}

    def seal(content: bytes, context: bytes) -> bytes:
        sealed[context] = content
        return context

    board.seal = seal
    note = one_life(board, 300)
    one_life(board, 10)
    keys = parse_sealed_keys((board.folder / "ratchet.sealed").read_bytes())
    origin = note.partition("\n")[0]
    assert {1: sealing_context(origin, 1)} == keys
    first = sealed[keys[1]]
    asked = Asked(board.key.public, first_keys={1: first})
    found = verify_log(board.folder, asked, untold)
    assert found.checkpoints == found.macs >= 4
    assert first not in (board.state_dir / "audit.ratchet").read_bytes()
    wrong = replace(asked, first_keys={1: bytes(32)})
    with pytest.raises(LogFaultError, match="after its key was gone"):
        verify_log(board.folder, wrong, untold)


def test_a_clock_of_1970_orders_nothing(board: LoggingBoard) -> None:
    """What orders records is their number; the clock is said, not believed."""
    one_life(board, 10)
    board.clock, board.boot = (lambda: -3.0), "boot-2"
    one_life(board, 10)
    found = verify(board)
    assert found.checkpoint is not None
    assert (found.checkpoint.time_s, found.checkpoint.boot) == (0, "boot-2")
    assert found.checkpoint.monotonic_ns > 0


def test_nothing_is_shown_before_it_is_signed(board: LoggingBoard) -> None:
    """What was taken is in the log at once, and proven with the next checkpoint."""
    log = board.open(restruct(SETTINGS, checkpoint_records=65_536))
    wait_durable(log)
    signed = log.durable.checkpoint
    log.take(inferences(10))
    assert signed.size == log.durable.checkpoint.size < log.size
    archive = Archive(board.folder)
    with pytest.raises(GoneError):
        archive.prove(signed.size, signed)
    wait_durable(log)
    record, _ = archive.prove(signed.size, log.durable.checkpoint)
    assert parse_receipt(record).sample == 1
    asyncio.run(log.close())


def test_its_root_is_that_of_all_its_records(board: LoggingBoard) -> None:
    """Law: however records come in, the root is RFC 6962's over all of them."""
    log = board.open()
    for count in (1, 700, 1, 2048, 3, 4096, 250):
        log.take(inferences(count))
    asyncio.run(log.close())
    checkpoint, archive = log.durable.checkpoint, Archive(board.folder)
    assert range_root(0, checkpoint.size, archive.nodes(checkpoint.size)) == (
        checkpoint.root
    )
    verify(board)


def test_whoever_looks_is_told_of_a_log_that_was_set_aside(
    board: LoggingBoard, caplog: pytest.LogCaptureFixture
) -> None:
    """By a line of the journal, a metric, and a row that stays until it is removed."""
    one_life(board, 300)
    file = board.folder / "0000000000.records"
    content = bytearray(file.read_bytes())
    content[2000] ^= 1
    file.write_bytes(content)
    one_life(board, 10)
    (line,) = (it for it in caplog.records if it.message == "audit.set_aside")
    aside = board.state_dir / vars(line)["path"]
    assert (
        line.levelname,
        vars(line)["reason"],
        aside.is_dir(),
    ) == ("ERROR", Reason.LOG, True)
    log = board.open()
    assert "1 damaged log set aside" in say_log(log.view())
    families = Families()
    collect_log(families, log.view())
    assert b"\ntinyward_audit_set_aside 1" in Renderer().render(families, "text")
    answer = LogAnswer(records=12, aside=1)
    assert log_text(answer) == Text("12 records, 1 damaged log set aside", "red")
    asyncio.run(log.close())
    shutil.rmtree(aside)
    log = board.open()
    assert log.view().aside == 0
    asyncio.run(log.close())
