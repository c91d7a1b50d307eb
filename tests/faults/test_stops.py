"""69, 70: stopped politely anywhere, and on a disk that takes its time."""

import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.fakes.daemon_process import wait_until
from tests.faults.conftest import Prove, wrong
from tests.faults.daemon_kills import make_board, tried

SLOW = "inject=fsync,fdatasync:delay_exit=50000"  # us, for each of about 90


@pytest.mark.usefixtures("tracing")
def test_69_sigterm_at_each_code_site(prove: Prove) -> None:
    """SIGTERM at a call: the look ends, what is durable is whole, the next succeeds."""
    verdicts = prove("sigterm")
    assert wrong(verdicts) == []
    assert len(verdicts) > 60


@pytest.mark.usefixtures("tracing")
def test_70_every_sync_takes_its_time(prove: Prove) -> None:
    """A slow card only delays: nothing gives up, nothing is done twice."""
    verdicts = prove("slow")
    assert wrong(verdicts) == []
    assert [verdict.said for verdict in verdicts] == [["committed"]] * 2


@pytest.mark.usefixtures("tracing")
def test_70_samples_flow_while_the_disk_takes_its_time(
    tmp_path: Path, require_tool: Callable[[str], Path]
) -> None:
    """A real update on a slow card: every sample is answered, and it succeeds."""
    strace, log = require_tool("strace"), tmp_path / "strace.log"
    fleet, board = make_board(tmp_path)
    with board:
        board.wait_version(1)
        before = board.samples()
        slow = [str(strace), "-f", "-qq", "-e", "trace=fsync,fdatasync", "-e", SLOW]
        tracer = subprocess.Popen([*slow, "-o", str(log), "-p", str(board.pid)])
        wait_until(log.exists, "strace begins")
        fleet.publish(2, tried(2))
        board.wait_version(2)
        tracer.send_signal(signal.SIGTERM)
        tracer.wait()
        after = board.samples()
    assert log.read_text(encoding="utf-8").count("(DELAYED)") > 10
    assert after["ok"] > before["ok"]
    assert (after["failed"], after["dropped"]) == (0, 0)
