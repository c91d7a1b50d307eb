"""Receipts of a real daemon: what a sink has heard is in the log, whatever dies."""

import json
import os
import signal
from pathlib import Path

from agent.audit.archive import Archive
from agent.audit.key import load_audit_key
from agent.audit.verify import Asked, Verified, verify_log
from agent.core.reasons import Reason
from agent.core.receipts import EVENT, FAILED, Receipt, parse_receipt
from tests.e2e.conftest import BRISK, QUICK, STEADY, MakeBoard
from tests.fakes.daemon_process import DaemonProcess, kill_worker
from tests.fakes.fleet import Fleet

KILLS = 3


def verified(board: DaemonProcess) -> Verified:
    """Verify the log of a board that has stopped."""
    key = load_audit_key(board.state_dir / "audit.key", may_make=False)
    return verify_log(board.state_dir / "audit", Asked(key.public), lambda *_: None)


def receipts(board: DaemonProcess) -> list[Receipt]:
    """Return all receipts of inferences, in the log's order."""
    archive, size = Archive(board.state_dir / "audit"), verified(board).size
    found: list[Receipt] = []
    at = 0
    while at < size:
        records = archive.records(at, size - at, size)
        found += map(parse_receipt, records)
        at += len(records)
    return [it for it in found if not it.flags & EVENT]


def heard(lines: Path) -> list[int]:
    """Return the numbers of the samples whose answer was written down."""
    return [json.loads(line)["seq"] for line in lines.read_text().splitlines()]


def test_workers_that_are_killed_leave_no_answer_without_a_receipt(
    make_board: MakeBoard, fleet: Fleet, tmp_path: Path
) -> None:
    """Each line has its receipt, and each receipt another sample."""
    fleet.publish(1)
    lines = tmp_path / "lines.jsonl"
    board = make_board(
        source=STEADY,
        sinks=[{"kind": "file", "path": lines}],
        tables={
            "audit": {"mode": "chain"},
            "supervise": {**BRISK, "crash_limit": 100},
        },
        pipeline=QUICK,
    )
    with board:
        board.wait_version(1)
        for _ in range(KILLS):
            before = board.samples()["ok"]
            board.wait_for(lambda n=before: board.samples()["ok"] > n + 50, "answers")  # type: ignore[misc] # the number of this round
            pid = kill_worker(board, signal.SIGKILL)
            board.wait_for(lambda p=pid: board.worker_pid() not in (0, p), "another")  # type: ignore[misc] # likewise
        board.wait_version(1)
        os.kill(board.pid, signal.SIGTERM)
        assert board.wait() == 0
    given = receipts(board)
    numbers = [it.sample for it in given]
    assert sorted(set(numbers)) == numbers
    assert set(heard(lines)) <= set(numbers)
    assert not any(it.flags & FAILED for it in given)
    assert verified(board).checkpoint is not None


def test_a_daemon_that_is_killed_says_so_in_its_log(
    make_board: MakeBoard, fleet: Fleet
) -> None:
    """The next life's log goes on, verifies as a whole, and counts two starts."""
    fleet.publish(1)
    board = make_board(
        source=STEADY,
        tables={"audit": {"mode": "chain", "checkpoint_records": 64}},
        pipeline=QUICK,
    )
    with board:
        board.wait_version(1)
        board.wait_for(lambda: board.samples()["ok"] > 300, "answers")
        board.kill()
        first = verified(board)
        assert first.checkpoint is not None
        board.start()
        board.wait_version(1)
        board.wait_for(lambda: board.samples()["ok"] > 100, "answers")
        board.signal(signal.SIGTERM)
        board.wait()
    second = verified(board).checkpoint
    assert second is not None
    assert second.starts == 2
    assert second.inferences >= first.checkpoint.inferences + 100


def test_without_a_usable_key_nothing_is_answered(
    make_board: MakeBoard, fleet: Fleet
) -> None:
    """A log that cannot be signed closes the gate, with its reason."""
    fleet.publish(1)
    table = {"mode": "chain", "key": "/nowhere/audit.pem"}
    board = make_board(source=STEADY, tables={"audit": table}, pipeline=QUICK)
    with board:
        board.wait_for(lambda: board.pipeline()["state"] == "active", "a model")
        board.wait_for(
            lambda: board.readiness() not in {(200, ""), (503, Reason.STARTING)},
            "the gate's reason",
        )
        assert board.samples()["ok"] == 0
        assert board.get("/healthz")[0] == 200
