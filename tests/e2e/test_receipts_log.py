"""Receipts end to end: the real daemon, its log, proofs and verification."""

import json
import signal
from base64 import b64decode
from collections import Counter
from functools import partial
from pathlib import Path

import pytest
from click.testing import CliRunner

from agent.audit.key import parse_public, verify_ed25519
from agent.cli import cli
from agent.core.checkpoint import parse_checkpoint
from agent.core.log_proof import judge_growth, parse_path
from agent.core.note import NoteKey, open_note
from agent.core.receipts import EVENT, NO_HASH, RECORD_BYTES, parse_receipt
from tests.e2e.conftest import STEADY, MakeBoard
from tests.fakes.daemon_process import DaemonProcess, Json
from tests.fakes.fleet import Fleet

AUDIT = {"mode": "inputs", "checkpoint_records": 16, "checkpoint_s": 0.5}
SLOW = {**STEADY, "rate": 100.0}  # a file sink takes all of it


def run(*words: object) -> tuple[int, str, str]:
    """Call the command line; return its exit code and both outputs."""
    result = CliRunner().invoke(cli, [str(word) for word in words])
    return result.exit_code, result.stdout, result.stderr


def head(board: DaemonProcess) -> Json:
    """Return the newest checkpoint; size 0 as long as there is none."""
    code, out, _ = run("audit", "head", "--json", "--socket", board.socket)
    found: Json = json.loads(out) if code == 0 else {"inferences": 0, "size": 0}
    return found


def _has_more(board: DaemonProcess, least: int) -> bool:
    """Whether there are more inferences in the log."""
    return bool(head(board)["inferences"] > least)


def verified(board: DaemonProcess, *more: object) -> Json:
    """Verify a board's log with its public key; return what was verified."""
    code, key, err = run("audit", "key", "-c", board.settings)
    assert code == 0, err
    log = board.state_dir / "audit"
    words = ("audit", "verify", log, "--key", key.strip(), "--json", *more)
    code, out, err = run(*words)
    assert code == 0, err
    found: Json = json.loads(out)
    return found


@pytest.fixture
def board(make_board: MakeBoard, fleet: Fleet, tmp_path: Path) -> DaemonProcess:
    """A board that gives receipts and writes its answers to a file; not started."""
    fleet.publish(1)
    sink = {"kind": "file", "path": str(tmp_path / "lines.jsonl")}
    return make_board(tables={"audit": AUDIT}, sinks=[sink], source=SLOW)


def records_of(board: DaemonProcess, size: int) -> list[bytes]:
    """Return the first records of a board's log, page by page."""
    records: list[bytes] = []
    while len(records) < size:
        rows = board.ask(f"/v1/audit/records?from={len(records)}")["records"]
        records += [b64decode(row["record"]) for row in rows]
    return records[:size]


def test_each_line_of_a_sink_has_its_receipt(
    board: DaemonProcess, tmp_path: Path
) -> None:
    """What was answered is in the log, once, in its order, with what it was."""
    with board:
        board.wait_version(1)
        board.wait_for(lambda: head(board)["inferences"] > 40, "inferences in the log")
        records = records_of(board, head(board)["size"])
        board.signal(signal.SIGTERM)
        assert board.wait() == 0
    lines = (tmp_path / "lines.jsonl").read_text(encoding="utf-8").splitlines()
    assert len(lines) == verified(board)["inferences"]
    receipts = [parse_receipt(it) for it in records]
    answered = [it for it in receipts if not it.flags & EVENT]
    numbers = [json.loads(line)["seq"] for line in lines]
    assert numbers[: len(answered)] == [it.sample for it in answered]
    assert all(it.input != NO_HASH != it.output for it in answered)
    assert len({it.model for it in answered}) == 1


def test_records_and_growth_are_proven_by_a_board_that_runs(
    board: DaemonProcess, tmp_path: Path
) -> None:
    """By files that need the board's key alone; what is not there is absent."""
    with board:
        board.wait_version(1)
        board.wait_for(lambda: head(board)["inferences"] > 5, "inferences in the log")
        _, text, _ = run("audit", "key", "-c", board.settings)
        seen = head(board)
        for index in (0, 1, seen["size"] - 1):
            file = tmp_path / f"{index}.tlog-proof"
            told = run("audit", "proof", index, "-o", file, "--socket", board.socket)
            assert told[0] == 0, told[2]
            code, out, err = run("audit", "verify", file, "--key", text, "--json")
            assert (code, json.loads(out or "{}").get("seq")) == (0, index), err
        absent = run("audit", "proof", 999_999_999, "--socket", board.socket)
        assert (absent[0], "there is no record" in absent[2]) == (1, True)
        board.wait_for(lambda: head(board)["size"] > seen["size"], "more of the log")
        grown = board.ask(f"/v1/audit/consistency?from={seen['size']}")
        assert "tinyward_audit_records_total" in board.get("/metrics")[1]
    key = NoteKey(seen["origin"], parse_public(text))
    old, new = (
        parse_checkpoint(open_note(it.encode(), key, verify_ed25519))
        for it in (seen["note"], grown["checkpoint"])
    )
    judge_growth(old, new, parse_path(grown["path"]))


def test_kill_9_of_the_daemon_loses_no_line_in_silence(
    board: DaemonProcess, tmp_path: Path
) -> None:
    """What was drained is kept; how the life ended is an event; the log goes on."""
    seen = tmp_path / "seen.note"
    for _ in range(2):
        with board:
            board.wait_version(1)
            board.wait_for(lambda: head(board)["size"] > 0, "a checkpoint")
            least = 20 + head(board)["inferences"]
            board.wait_for(partial(_has_more, board, least), "inferences in the log")
            note = head(board)["note"]
            seen.write_text(note, encoding="utf-8")
            board.signal(signal.SIGKILL)
            board.wait()
    with board:
        board.wait_for(lambda: head(board)["size"] > 0, "the last start")
        board.signal(signal.SIGTERM)
        assert board.wait() == 0
    found = verified(board, "--last-seen", seen)
    assert (found["lost"], found["unsigned"]) == (0, 0)
    said = (board.state_dir / "audit" / "0000000000.events").read_text(encoding="utf-8")
    assert said.count('"log.started"') == 3
    assert said.count('"clean":false') == 2
    assert "update.committed" in said


def test_kill_9_of_the_daemon_loses_no_receipt_of_what_was_printed(
    make_board: MakeBoard, fleet: Fleet
) -> None:
    """Workers write standard output themselves: what rings hold then is in the log."""
    fleet.publish(1)
    board = make_board(
        tables={"audit": AUDIT},
        sinks=[{"kind": "stdout"}],
        source={**STEADY, "rate": 300.0},
    )
    for kills in (True, True, True, False):
        with board:
            board.wait_version(1)
            least = 60 + len(_printed(board))
            board.wait_for(partial(_has_printed, board, least), "lines")
            board.signal(signal.SIGKILL if kills else signal.SIGTERM)
            board.wait()
    printed = _printed(board)
    found = verified(board)
    folder = board.state_dir / "audit"
    content = b"".join(it.read_bytes() for it in sorted(folder.glob("*.records")))
    receipts = [
        parse_receipt(content[at : at + RECORD_BYTES])
        for at in range(0, found["size"] * RECORD_BYTES, RECORD_BYTES)
    ]
    answered = [it for it in receipts if not it.flags & EVENT]
    # What was in flight when a life ended may have a receipt and no line.
    lines = Counter(json.loads(line)["seq"] for line in printed)
    assert lines - Counter(it.sample for it in answered) == Counter()
    assert len({it.monotonic_ns for it in answered}) == len(answered)
    assert (found["inferences"], found["lost"]) == (len(answered), 0)
    said = (folder / "0000000000.events").read_text(encoding="utf-8")
    assert said.count('"log.started"') == 4
    assert '"log.gap"' not in said


def _printed(board: DaemonProcess) -> list[str]:
    """Return the whole lines that a board's workers have printed, in all lives."""
    lines = board.out.read_text(encoding="utf-8").split("\n")[:-1]
    return [line for line in lines if line.startswith("{")]


def _has_printed(board: DaemonProcess, least: int) -> bool:
    """Whether there are so many lines."""
    return len(_printed(board)) > least


def test_without_receipts_nothing_of_it_is_there(
    make_board: MakeBoard, fleet: Fleet
) -> None:
    """Off is the default: no key, no folder, no metrics, and 404 with what to do."""
    fleet.publish(1)
    board = make_board()
    with board:
        board.wait_version(1)
        answer = board.ask("/v1/audit/checkpoint")
        assert (answer["status"], answer["todo"]) == (404, "Set `audit.mode`.")
        assert "tinyward_audit" not in board.get("/metrics")[1]
    assert not [it for it in board.state_dir.iterdir() if "audit" in it.name]
