"""Workers and daemons that die or hang: who notices, and what goes on meanwhile."""

import signal
from pathlib import Path

import pytest

from tests.service.board import FALLBACK, SERVICE, ServiceBoard

# Of the unit as shipped 20 s and 15 s: long for a test, and no different in kind.
IMPATIENT = ("WatchdogSec=3", "TimeoutAbortSec=2")


def test_a_killed_worker_is_replaced_below_the_same_daemon(board: ServiceBoard) -> None:
    """SIGKILL: another worker answers, and systemd has seen nothing."""
    daemon, worker = board.daemon_pid, board.worker_pid()
    board.signal(worker, signal.SIGKILL)
    board.wait_new_worker(worker)
    assert daemon == board.daemon_pid


def test_a_stopped_worker_is_replaced_below_the_same_daemon(
    board: ServiceBoard,
) -> None:
    """SIGSTOP is what a hang looks like from outside: it is killed and replaced."""
    daemon, worker = board.daemon_pid, board.worker_pid()
    board.signal(worker, signal.SIGSTOP)
    board.wait_new_worker(worker)
    assert daemon == board.daemon_pid
    assert not board.machine.path(f"/proc/{worker}").exists()


def test_a_killed_daemon_is_started_again(board: ServiceBoard) -> None:
    """SIGKILL: systemd starts another one, and no worker of the old one is left."""
    daemon, worker = board.daemon_pid, board.worker_pid()
    board.signal(daemon, signal.SIGKILL)
    board.wait_new_daemon(daemon)
    assert not board.machine.path(f"/proc/{worker}").exists()


def test_a_stopped_daemon_is_ended_by_the_watchdog(board: ServiceBoard) -> None:
    """A daemon whose loop does not turn is killed by systemd and started again."""
    board.drop_in(*IMPATIENT)
    board.start_anew()
    board.wait_answers()
    daemon = board.daemon_pid
    board.signal(daemon, signal.SIGSTOP)
    board.wait_new_daemon(daemon)
    assert "watchdog" in board.said().lower()


def test_a_daemon_that_lives_feeds_the_watchdog_by_its_own_loop(
    board: ServiceBoard,
) -> None:
    """A hung worker is no reason for the watchdog, however long it hangs."""
    board.drop_in(*IMPATIENT)
    board.start_anew()
    board.wait_answers()
    daemon, worker = board.daemon_pid, board.worker_pid()
    board.signal(worker, signal.SIGSTOP)
    board.wait_new_worker(worker)
    assert daemon == board.daemon_pid
    assert board.shows("Result") == "success"


@pytest.fixture
def short_pause(board: ServiceBoard) -> None:
    """Make the pause of the fallback unit a second: its words are the shipped ones."""
    brief = board.machine.root / "srv" / "sleep"
    brief.write_text("#!/bin/sh\necho a pause of $1 s\n", encoding="ascii")
    brief.chmod(0o755)
    lines = "[Service]\nBindReadOnlyPaths=/srv/sleep:/usr/bin/sleep\n"
    path = board.machine.path(f"/run/systemd/system/{FALLBACK}.d/test.conf")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(lines, encoding="ascii")
    board.systemctl("daemon-reload")


@pytest.mark.usefixtures("short_pause")
def test_a_crash_loop_pauses_and_never_ends_for_good(board: ServiceBoard) -> None:
    """Five failures in a row start the fallback unit, which tries again and again."""
    program = Path("/opt/tinyward/current/bin/tinyward")
    slot = board.machine.root / "opt/tinyward" / _current(board)
    broken = slot / "bin" / program.name
    whole = broken.read_bytes()
    board.drop_in("RestartSec=100ms")
    broken.write_bytes(b"#!/bin/sh\nexit 3\n")
    try:
        board.systemctl("restart", SERVICE, check=False)
        board.wait_for(lambda: "pause" in board.said(FALLBACK), "the fallback unit")
        board.wait_for(
            lambda: board.said(FALLBACK).count("pause of") >= 2, "a second attempt"
        )
    finally:
        broken.write_bytes(whole)
    board.wait_answers()
    assert board.shows("ActiveState") == "active"


def _current(board: ServiceBoard) -> str:
    """Return the slot that runs."""
    return (board.machine.root / "opt/tinyward/current").readlink().name
