"""Workers that hang or die: replaced, counted, and their model set aside in the end."""

import os
import signal
from functools import partial

from tests.e2e.conftest import BRISK, FULL_LOAD, MakeBoard
from tests.fakes.daemon_process import DaemonProcess, alive, kill_worker
from tests.fakes.fleet import Fleet

RATE = {**FULL_LOAD, "rate": 200.0}
# Longer than a busy machine stalls a healthy worker, shorter than a test's patience.
DEADLINE = {"deadline_ms": 1500.0}


def replaced(board: DaemonProcess, pid: int) -> bool:
    """Whether another worker has answered since."""
    return board.worker_pid() not in (0, pid) and board.readiness()[0] == 200


def counters(board: DaemonProcess) -> dict[str, float]:
    """Return what may never fall."""
    return {
        name: value
        for name, value in board.metrics().items()
        if name.partition("{")[0].endswith(("_total", "_count", "_bucket"))
    }


def test_a_stopped_worker_is_a_hang(make_board: MakeBoard, fleet: Fleet) -> None:
    """It is killed after its deadline; /readyz is false until another one answers."""
    fleet.publish(1)
    board = make_board(
        source=RATE,
        pipeline=DEADLINE,
        tables={"supervise": {**BRISK, "backoff_s": 0.5, "max_backoff_s": 0.5}},
    )
    with board:
        board.wait_version(1)
        before = counters(board)
        pid = kill_worker(board, signal.SIGSTOP)
        board.wait_for(lambda: board.readiness() == (503, "hang"), "not ready: hang")
        assert not alive(pid)
        assert board.get("/healthz")[0] == 200
        board.wait_for(lambda: replaced(board, pid), "another worker")
        restarts = 'tinyward_worker_restarts_total{pipeline="digits",reason="hang"}'
        after = counters(board)
        assert after[restarts] == 1.0
        assert "worker.hung" in board.words()
        assert [name for name in before if after[name] < before[name]] == []
        sums = board.samples()
        assert sums["in"] - sums["ok"] - sums["failed"] - sums["dropped"] in (0, 1)
        assert set(sums["reasons"]) <= {"hang"}


def test_counters_never_fall_over_deaths(make_board: MakeBoard, fleet: Fleet) -> None:
    """What a dead worker counted is kept; a sample in flight failed, none is lost."""
    fleet.publish(1)
    rules = {**BRISK, "crash_limit": 100, "max_backoff_s": 0.05}
    board = make_board(tables={"supervise": rules})
    with board:
        board.wait_version(1)
        last = counters(board)
        for _ in range(8):
            pid = kill_worker(board)
            board.wait_for(partial(replaced, board, pid), "another worker")
            now = counters(board)
            assert [name for name in last if now[name] < last[name]] == []
            last = now
        sums = board.samples()
    assert sums["in"] - sums["ok"] - sums["failed"] - sums["dropped"] in (0, 1)
    assert set(sums["reasons"]) <= {"crash"}
    assert sums["failed"] <= 8
    crashes = 'tinyward_worker_restarts_total{pipeline="digits",reason="crash"}'
    assert last[crashes] == 8.0


def test_a_model_whose_workers_keep_dying_is_set_aside(
    make_board: MakeBoard, fleet: Fleet
) -> None:
    """After three deaths in a row the previous version runs, and nobody tries again."""
    board = make_board(source=RATE)
    with board:
        for version in (1, 2):
            fleet.publish(version)
            board.wait_version(version)
        for _ in range(3):
            pid = kill_worker(board)
            board.wait_for(partial(replaced, board, pid), "another worker")
        board.wait_version(1)
        assert "model.set_aside" in board.words()
        assert "reason=crash_loop" in board.words()
        board.wait_said("update.refused")
        refused = 'tinyward_updates_total{reason="crash_loop",result="refused"}'
        assert board.metrics()[refused] == 1.0
        assert board.version() == 1
    with board:
        board.wait_version(1)
        board.wait_said("update.refused")
        assert board.version() == 1
        fleet.publish(3)
        board.wait_version(3)


def test_without_a_previous_version_the_model_stays(
    make_board: MakeBoard, fleet: Fleet
) -> None:
    """However often its worker is killed: one model is never worse than none."""
    fleet.publish(1)
    board = make_board(source=RATE)
    with board:
        board.wait_version(1)
        for _ in range(5):
            pid = kill_worker(board)
            board.wait_for(partial(replaced, board, pid), "another worker")
        assert board.words().count("model.kept") == 3
        assert "model.set_aside" not in board.words()
    with board:
        board.wait_version(1)
        fleet.publish(2)
        board.wait_version(2)
        for _ in range(2):
            pid = kill_worker(board)
            board.wait_for(partial(replaced, board, pid), "another worker")
        assert board.version() == 2


def test_a_worker_that_dies_while_a_candidate_answers_falls_back(
    make_board: MakeBoard, fleet: Fleet
) -> None:
    """Deaths during an update end with a committed version, whichever it is."""
    rules = {**BRISK, "crash_limit": 100, "max_backoff_s": 0.05}
    board = make_board(tables={"supervise": rules})
    with board:
        fleet.publish(1)
        board.wait_version(1)
        for version in range(2, 6):
            fleet.publish(version)
            board.wait_said(f"version={version} phase=PROBATION")
            pid = board.worker_pid()
            if pid:
                os.kill(pid, signal.SIGKILL)
            board.wait_for(board.version, "a committed version")
        fleet.publish(6)
        board.wait_version(6)
