"""SIGTERM in phases that last, and a disk that fills while a bundle is on its way."""

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import find_tool, missing
from tests.e2e.conftest import POLL_S, watched_daemon
from tests.fakes import toxic_server as toxic
from tests.fakes.daemon_process import alive, child_pids, wait_until
from tests.fakes.fleet import Fleet, bundle
from tests.fakes.packed_candidates import on_trial
from tests.fakes.toxic_server import Exchange, ToxicServer
from tests.fakes.watched_board import WatchedBoard

STOP_S = 10.0  # TimeoutStopSec of the unit
LONG_S = 600.0  # longer than any test waits
MANY = 1_000_000
TMPFS_BYTES = 24 * 1024 * 1024


@pytest.fixture(scope="module")
def stopped(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[WatchedBoard, ToxicServer]]:
    """Give a board that follows a server, and is started by the tests."""
    home = tmp_path_factory.mktemp("stopped")
    fleet = Fleet(home)
    with ToxicServer(fleet.path) as server:
        table = {**fleet.update_table(POLL_S), "repository": server.url}
        board = watched_daemon(home / "board", table)
        yield WatchedBoard(fleet, board), server
        board.kill()


@pytest.mark.parametrize("phase", ["FETCHING", "SHADOWING", "PROBATION"])
def test_69_a_stop_in_a_phase_that_lasts(
    stopped: tuple[WatchedBoard, ToxicServer], phase: str
) -> None:
    """Exit code 0 in time, no orphan; the model before answers in the next life."""
    watched, server = stopped
    board = watched.board
    board.start()
    watched.clean()
    version = watched.next()
    content = {
        "FETCHING": bundle(version),
        "SHADOWING": on_trial(version, shadow_samples=MANY, wait_s=LONG_S),
        "PROBATION": on_trial(version, probation_s=LONG_S),
    }[phase]
    file = watched.fleet.stage(version, content)
    if phase == "FETCHING":
        server.script(str(file.relative_to(watched.fleet.path)), toxic.drip())
    watched.fleet.sign()
    board.wait_for(lambda: board.state()["update"]["phase"] == phase, phase)
    watched.answers()
    stop(watched)
    server.scripts.clear()
    good = watched.next()  # what was on trial is wanted no longer
    with board:
        board.wait_version(watched.good)
        watched.answers()
        watched.fleet.publish(good)
        board.wait_version(good)
    watched.good = good


def stop(watched: WatchedBoard) -> None:
    """End the daemon politely, in time, with all that it started."""
    board = watched.board
    children = child_pids(board.pid)
    began = time.monotonic()
    board.signal(signal.SIGTERM)
    assert board.wait(STOP_S) == 0
    assert time.monotonic() - began < STOP_S
    wait_until(lambda: not any(map(alive, children)), f"{children} end", 1.0)
    assert "Traceback" not in board.words()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Give a file system of a few megabytes."""
    if os.geteuid() != 0:
        missing("root, who may mount")
    folder = tmp_path / "disk"
    folder.mkdir()
    size = f"size={TMPFS_BYTES}"
    mounted = subprocess.run(
        [find_tool("mount"), "-t", "tmpfs", "-o", size, "tmpfs", folder], check=False
    )
    if mounted.returncode:
        missing("the right to mount")
    yield folder
    subprocess.run([find_tool("umount"), "-l", folder], check=True)


def fill(disk: Path) -> Path:
    """Leave nothing of a disk."""
    ballast = disk / "ballast"
    free = os.statvfs(disk)
    with ballast.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, free.f_bavail * free.f_frsize)
    return ballast


def test_61_the_disk_fills_while_a_bundle_comes(
    small_disk: Path, tmp_path: Path
) -> None:
    """The model answers on, the reason is told, and room for it is all it needs."""
    fleet = Fleet(tmp_path)
    with ToxicServer(fleet.path) as server:
        table = {**fleet.update_table(POLL_S), "repository": server.url}
        board = watched_daemon(
            tmp_path / "board", table, state_dir=small_disk / "state"
        )
        watched = WatchedBoard(fleet, board)
        with board:
            watched.clean()
            version = watched.next()
            file = fleet.stage(version)
            filled: list[Path] = []

            def full_then_bytes(exchange: Exchange) -> None:
                if not filled:
                    filled.append(fill(small_disk))
                toxic.honest(exchange)

            server.script(str(file.relative_to(fleet.path)), full_then_bytes)
            with watched.undisturbed():
                fleet.sign()
                board.wait_for(lambda: watched.ended("disk_full", "failed"), "full")
                assert "[disk_full]" in watched.status()
            filled[0].unlink()
            watched.ring()
            board.wait_version(version)
            watched.good = version
            watched.clean()
