"""SIGTERM and SIGINT: everything drains, ends in time, and nothing stays behind."""

import os
import signal
import sys
import time
from pathlib import Path

import pytest

from tests.e2e.conftest import FULL_LOAD, MakeBoard, Table
from tests.fakes.daemon_process import (
    DaemonProcess,
    alive,
    child_pids,
    read_lines,
    wait_until,
)
from tests.fakes.fleet import Fleet

STOP_S = 5.0  # promised to systemd
BOTH = (signal.SIGTERM, signal.SIGINT)


def stop(board: DaemonProcess, number: int) -> None:
    """End the daemon politely, in time, with all that it started."""
    children = child_pids(board.pid)
    began = time.monotonic()
    board.signal(number)
    assert board.wait(STOP_S) == 0
    assert time.monotonic() - began < STOP_S
    wait_until(lambda: not any(map(alive, children)), f"{children} end", 1.0)
    assert "Traceback" not in board.words()


@pytest.mark.parametrize("number", BOTH)
def test_a_signal_ends_everything_in_time(
    make_board: MakeBoard, fleet: Fleet, number: int
) -> None:
    """Exit code 0 within 5 s, and no orphan."""
    fleet.publish(1)
    board = make_board()
    board.start()
    board.wait_version(1)
    assert len(child_pids(board.pid)) == 1
    stop(board, number)


@pytest.mark.parametrize("delay_s", [0.0, 0.05, 0.15, 0.3, 0.5])
@pytest.mark.parametrize("number", BOTH)
def test_a_signal_at_any_moment_of_the_start_ends_it(
    make_board: MakeBoard, number: int, delay_s: float
) -> None:
    """Also before it listens: by its own exit or by the signal's default, at once."""
    board = make_board()
    board.spawn()
    time.sleep(delay_s)
    children = child_pids(board.pid)
    board.signal(number)
    assert board.wait(STOP_S) in (0, -number, 1)
    wait_until(lambda: not any(map(alive, children)), f"{children} end", 1.0)


@pytest.mark.parametrize("phase", ["FETCHING", "PREFLIGHT", "PROBATION"])
def test_a_signal_during_an_update_leaves_the_old_version(
    make_board: MakeBoard, fleet: Fleet, phase: str
) -> None:
    """An update that was cut short is no fault of the bytes: it happens later."""
    fleet.publish(1)
    board = make_board()
    board.start()
    board.wait_version(1)
    fleet.publish(2)
    board.wait_said(f"version=2 phase={phase}")
    stop(board, signal.SIGTERM)
    with board:
        board.wait_version(2)


def test_a_stop_writes_the_lines_of_all_answers(
    make_board: MakeBoard, fleet: Fleet, tmp_path: Path
) -> None:
    """What was answered is on the disk, to the last line, by file and by program."""
    files = [tmp_path / "a.jsonl", tmp_path / "b.jsonl"]
    copy = (
        "import shutil, sys; "
        "shutil.copyfileobj(sys.stdin.buffer, open(sys.argv[1], 'ab'))"
    )
    sinks: list[Table] = [
        {"kind": "file", "path": files[0], "max_mb": 4000.0},
        {"kind": "command", "command": [sys.executable, "-c", copy, str(files[1])]},
    ]
    fleet.publish(1)
    board = make_board(source={**FULL_LOAD, "rate": 300.0}, sinks=sinks)
    board.start()
    board.wait_version(1)
    wait_until(files[1].exists, "the program runs")
    stop(board, signal.SIGTERM)
    lines = [read_lines(path) for path in files]
    assert [line["seq"] for line in lines[0]] == list(range(1, len(lines[0]) + 1))
    assert lines[0] == lines[1]


def test_a_reader_that_does_not_read_does_not_hold_up_the_end(
    make_board: MakeBoard, fleet: Fleet
) -> None:
    """Standard output may be a pipe that is full for ever."""
    fleet.publish(1)
    reader, writer = os.pipe()
    board = make_board(sinks=[{"kind": "stdout"}])
    board.out.unlink(missing_ok=True)
    board.out.symlink_to(f"/proc/self/fd/{writer}")
    try:
        board.start()
        board.wait_version(1)
        board.wait_for(
            lambda: sum(board.pipeline()["sink_dropped"].values()) > 0, "drops"
        )
        stop(board, signal.SIGTERM)
    finally:
        os.close(reader)
        os.close(writer)


def test_a_stopped_worker_does_not_hold_up_the_end(
    make_board: MakeBoard, fleet: Fleet
) -> None:
    """A worker that answers no more is killed after its drain time."""
    fleet.publish(1)
    board = make_board()
    board.start()
    board.wait_version(1)
    os.kill(board.worker_pid(), signal.SIGSTOP)
    stop(board, signal.SIGTERM)
