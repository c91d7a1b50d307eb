"""What a service manager is told by the real daemon: ready, alive, how, and the end."""

import json
import os
import re
import signal
import socket
import sqlite3
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from agent.core.status_lines import MAX_CHARS
from agent.store.schema import MIGRATIONS
from agent.store.state import APPLICATION_ID
from tests.e2e.conftest import STEADY, MakeBoard
from tests.fakes.daemon_process import DaemonProcess, child_pids
from tests.fakes.fleet import Fleet
from tests.fakes.service_socket import ServiceSocket

WATCHDOG_S = 0.9  # a beat every 0.3 s
SIGHUP_BIT = 1 << (signal.SIGHUP - 1)


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[ServiceSocket]:
    """Give a listening socket."""
    with ServiceSocket(tmp_path / "notify") as manager:
        yield manager


def adopt(manager: ServiceSocket, board: DaemonProcess) -> None:
    """Have a daemon be told of the socket and of a watchdog when it starts."""
    manager.adopt(board, WATCHDOG_USEC=str(int(WATCHDOG_S * 1e6)))


def wait_status(
    board: DaemonProcess, manager: ServiceSocket, fits: Callable[[str], object]
) -> str:
    """Wait for a status line; return it."""
    board.wait_for(lambda: any(map(fits, manager.statuses())), "a status")
    return next(filter(fits, manager.statuses()))


def test_it_is_ready_before_any_model_answers(
    make_board: MakeBoard, manager: ServiceSocket, tmp_path: Path
) -> None:
    """An unplugged camera keeps no board from being ready; `/readyz` says the rest."""
    board = make_board(source={"kind": "files", "path": tmp_path / "absent.npz"})
    adopt(manager, board)
    with board:
        board.wait_for(lambda: manager.count("READY=1"), "READY")
        assert board.get("/healthz") == (200, "ok\n")
        assert board.readiness()[0] == 503
        wait_status(board, manager, "digits not ready: source_missing".__eq__)
        beats = manager.count("WATCHDOG=1")
        board.wait_for(lambda: manager.count("WATCHDOG=1") > beats + 2, "beats")
        board.signal(signal.SIGTERM)
        assert board.wait() == 0
    told = manager.read()
    assert told.count("READY=1") == told.count("STOPPING=1") == 1
    assert told.index("READY=1") < told.index("STOPPING=1")
    assert manager.statuses()[-1] == "stopping"


def test_the_status_is_a_line_that_a_person_likes(
    make_board: MakeBoard, manager: ServiceSocket, fleet: Fleet
) -> None:
    """What runs on what, how fast, and how slow the slowest are."""
    fleet.publish(1)
    board = make_board(source=STEADY)
    adopt(manager, board)
    with board:
        figures = re.compile(r"digits 1 on \w+/plain, [\d.]+/s, p99 [\d.]+ ms")
        wait_status(board, manager, figures.fullmatch)
    statuses = manager.statuses()
    assert all(len(it) <= MAX_CHARS and it.isprintable() for it in statuses)
    assert all(one != other for one, other in pairwise(statuses))


def test_a_stuck_worker_never_stops_the_beat(
    make_board: MakeBoard, manager: ServiceSocket, fleet: Fleet
) -> None:
    """It is the supervisor's business, and no reason to kill the others."""
    fleet.publish(1)
    board = make_board()
    adopt(manager, board)
    with board:
        board.wait_version(1)
        os.kill(board.worker_pid(), signal.SIGSTOP)
        began, beats = time.monotonic(), manager.count("WATCHDOG=1")
        board.wait_for(lambda: manager.count("WATCHDOG=1") >= beats + 6, "beats")
        assert time.monotonic() - began > WATCHDOG_S


def test_a_stopped_daemon_beats_no_more(
    make_board: MakeBoard, manager: ServiceSocket
) -> None:
    """Then systemd kills it, and starts another."""
    board = make_board()
    adopt(manager, board)
    with board:
        board.wait_for(lambda: manager.count("WATCHDOG=1"), "a beat")
        board.signal(signal.SIGSTOP)
        stat = Path(f"/proc/{board.pid}/stat")
        board.wait_for(lambda: ") T " in stat.read_text(), "it is stopped")
        beats = manager.count("WATCHDOG=1")
        time.sleep(2 * WATCHDOG_S)
        assert manager.count("WATCHDOG=1") == beats
        board.signal(signal.SIGCONT)


def test_children_cannot_speak_for_the_daemon(
    make_board: MakeBoard, manager: ServiceSocket
) -> None:
    """Neither workers nor programs find the socket in their environment."""
    camera = {"kind": "command", "command": ["sleep", "600"], "format": "s16le"}
    board = make_board(source={**camera, "values": 4})
    adopt(manager, board)
    with board:
        board.wait_for(lambda: len(child_pids(board.pid)) >= 2, "worker and program")
        for pid in child_pids(board.pid):
            variables = Path(f"/proc/{pid}/environ").read_bytes()
            assert b"NOTIFY_SOCKET" not in variables
            assert b"WATCHDOG" not in variables


def test_a_start_that_fails_says_why_and_is_never_ready(
    make_board: MakeBoard, manager: ServiceSocket
) -> None:
    """For `systemctl status`: what is wrong, and what to do; the exit code is not 0."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        board = make_board(tables={"local": {"listen": f"127.0.0.1:{port}"}})
        adopt(manager, board)
        assert board.run_out() == 1
    assert manager.count("READY=1") == 0
    assert f"127.0.0.1:{port}" in manager.statuses()[-1]
    assert "[address]" in manager.statuses()[-1]
    board.settings.write_text("pipelin = 1\n")
    assert board.run_out() == 2
    assert manager.count("READY=1") == 0
    assert "pipelin" in manager.statuses()[-1]


def test_two_started_by_hand(make_board: MakeBoard, manager: ServiceSocket) -> None:
    """The second says who is there, and is not ready."""
    first = make_board("first")
    second = make_board("second", state_dir=first.state_dir)
    adopt(manager, second)
    with first:
        assert second.run_out() == 1
        assert f"process {first.pid}" in manager.statuses()[-1]
        assert manager.count("READY=1") == 0


def test_more_time_is_asked_for_while_the_state_migrates(
    make_board: MakeBoard, manager: ServiceSocket
) -> None:
    """The state of an older agent is brought to this schema, and the start may last."""
    board = make_board()
    board.state_dir.mkdir(mode=0o700)
    connection = sqlite3.connect(board.state_dir / "state.db")
    for statement in MIGRATIONS[0]:
        connection.execute(statement)
    connection.execute(f"PRAGMA application_id={APPLICATION_ID}")
    connection.execute("PRAGMA user_version=1")
    connection.commit()
    connection.close()
    adopt(manager, board)
    with board:
        board.wait_for(lambda: manager.count("READY=1"), "READY")
    told = manager.read()
    migrating = next(it for it in told if it.startswith("STATUS=bringing the state"))
    assert told.index("EXTEND_TIMEOUT_USEC=120000000") < told.index(migrating)
    assert told.index(migrating) < told.index("READY=1")


def test_a_hang_up_during_the_start_is_heard_after_it(
    make_board: MakeBoard, manager: ServiceSocket
) -> None:
    """It ends nothing: the daemon gets ready, and then looks at its settings."""
    board = make_board()
    adopt(manager, board)
    board.spawn()

    def catches() -> bool:
        """Whether the process has a handler of its own for SIGHUP (proc(5))."""
        status = Path(f"/proc/{board.pid}/status").read_text(encoding="ascii")
        caught = next(it for it in status.splitlines() if it.startswith("SigCgt:"))
        return bool(int(caught.split()[1], 16) & SIGHUP_BIT)

    board.wait_for(catches, "its handler")
    board.signal(signal.SIGHUP)
    board.wait_for(lambda: manager.count("READY=1") == 2, "READY twice")
    board.wait_said("settings.unchanged")
    assert json.loads(board.get("/readyz")[1])["ready"] is False
