"""What holds inside the unit: locks of the daemon, of its workers, and full speed."""

import pytest

from tests.service.board import ServiceBoard
from tests.service.fleet import Owner
from tests.service.loops import inside_and_outside


@pytest.mark.parametrize("which", ["daemon", "worker"])
def test_processes_are_locked_in(board: ServiceBoard, which: str) -> None:
    """The kernel says: no privileges to gain, none left, a filter, not root."""
    pid = board.daemon_pid if which == "daemon" else board.worker_pid()
    status = board.process(pid)
    assert status["NoNewPrivs"] == "1"
    assert status["Seccomp"] == "2"
    assert {0} == {int(status[f"Cap{kind}"], 16) for kind in ("Eff", "Prm", "Bnd")}
    assert "0" not in status["Uid"].split()


def test_workers_tell_of_more_locks_than_the_unit_has(board: ServiceBoard) -> None:
    """Landlock, MDWE and its own filter are the worker's, inside the unit too."""
    locks = board.pipeline()["worker"]["locks"]
    assert {"no_new_privs", "seccomp", "landlock"} <= set(locks)
    assert {name: why for name, why in locks.items() if why} == {}
    filters = [int(board.process(pid)["Seccomp_filters"]) for pid in _pids(board)]
    assert filters[0] < filters[1]


def test_a_worker_that_is_hidden_is_seen_by_its_daemon(board: ServiceBoard) -> None:
    """Nobody may trace it, so below this unit's /proc it is not; its memory is told."""
    worker = board.pipeline()["worker"]
    assert worker["locks"]["no_trace"] == ""
    assert worker["rss_bytes"] > 2**20


def _pids(board: ServiceBoard) -> tuple[int, int]:
    """Return daemon and worker."""
    return board.daemon_pid, board.worker_pid()


def test_other_processes_are_hidden_and_the_processor_is_not(
    board: ServiceBoard,
) -> None:
    """/proc is mounted anew with foreign processes left out, and with all the rest."""
    pid = board.daemon_pid
    mounts = board.machine.path(f"/proc/{pid}/mountinfo").read_text(encoding="utf-8")
    (proc,) = [line for line in mounts.splitlines() if " / /proc " in line]
    assert "hidepid=invisible" in proc
    assert "subset=pid" not in proc


def test_the_fast_kernels_are_used_inside_the_unit(
    board: ServiceBoard, owner: Owner
) -> None:
    """XNNPACK is chosen, and the loop is not 50 times slower, as without cpuinfo."""
    assert "xnnpack" in board.pipeline()["active"]["executor"]
    inside, outside = inside_and_outside(
        board, lambda state: owner.settings(rate=0.0, state=state)
    )
    # The exact ratio is the benchmark's; the trap that this guards costs 50 x.
    assert inside.cpu_s < 2 * outside.cpu_s
