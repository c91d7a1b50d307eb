"""Receipts end to end: the real daemon, its log, proofs and verification."""

import json
import shutil
import signal
from pathlib import Path

import pytest
from click.testing import CliRunner

from agent.cli import cli
from agent.core.log_proof import RecordProof, parse_proof
from agent.core.receipts import EVENT, NO_HASH, parse_receipt
from tests.e2e.conftest import MakeBoard
from tests.fakes.daemon_process import DaemonProcess
from tests.fakes.fleet import Fleet

AUDIT = {"mode": "inputs", "checkpoint_records": 16, "checkpoint_s": 0.5}


def run(*words: str | Path) -> tuple[int, str, str]:
    """Call the command line; return its exit code and both outputs."""
    result = CliRunner().invoke(cli, [str(word) for word in words])
    return result.exit_code, result.stdout, result.stderr


def head(board: DaemonProcess) -> dict[str, object]:
    """Return the newest checkpoint."""
    code, out, err = run("audit", "head", "--json", "--socket", board.socket)
    assert code == 0, err
    found: dict[str, object] = json.loads(out)
    return found


def key_of(board: DaemonProcess) -> str:
    """Return the verifier key of a board's log."""
    code, out, err = run("audit", "key", "-c", board.settings)
    assert code == 0, err
    return out.strip()


@pytest.fixture
def logged(make_board: MakeBoard, fleet: Fleet, tmp_path: Path) -> DaemonProcess:
    """A board that has answered, and was stopped."""
    fleet.publish(1)
    lines = tmp_path / "lines.jsonl"
    board = make_board(
        tables={"audit": AUDIT}, sinks=[{"kind": "file", "path": str(lines)}]
    )
    with board:
        board.wait_version(1)
        board.wait_for(lambda: int(str(head(board)["inferences"])) > 100, "inferences in the log")
        board.signal(signal.SIGTERM)
        assert board.wait() == 0
    return board


def test_each_line_of_a_sink_has_its_receipt(
    logged: DaemonProcess, tmp_path: Path
) -> None:
    """What was answered is in the log, once, and what the log says of it is proven."""
    key, log = key_of(logged), logged.state_dir / "audit"
    code, out, err = run("audit", "verify", log, "--key", key, "--json")
    assert code == 0, err
    found = json.loads(out)
    lines = (tmp_path / "lines.jsonl").read_text(encoding="utf-8").splitlines()
    assert len(lines) == found["inferences"]
