"""Fixtures for tests that start the real daemon: a fleet, boards, and their end."""

import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import pytest

from tests.fakes.daemon_process import DaemonProcess
from tests.fakes.fleet import STREAM, Fleet
from tests.fakes.watched_board import WatchedBoard

Table = Mapping[str, object]
# As fast as the model answers, for ever, without touching the disk.
FULL_LOAD = {
    "kind": "files",
    "path": STREAM,
    "array": "images",
    "loop": True,
    "memory": True,
}
# What a board answers beside everything else, so that a lost sample is seen.
STEADY = {**FULL_LOAD, "rate": 500.0}
POLL_S = 0.2
# One executor instead of three, short pauses: what is not tested here costs no time.
QUICK = {"kernels": "plain"}
BRISK = {"backoff_s": 0.05, "max_backoff_s": 0.2}


class MakeBoard(Protocol):
    """Makes a board that follows the fleet; see ``DaemonProcess`` for the tables."""

    def __call__(
        self,
        name: str = "board",
        *,
        source: Table = ...,
        sinks: Sequence[Table] = ...,
        tables: Mapping[str, Table] | None = None,
        pipeline: Table | None = None,
        state_dir: Path | None = None,
    ) -> DaemonProcess:
        """Return the board, not started yet."""


@pytest.fixture
def fleet(tmp_path: Path) -> Fleet:
    """Give an owner with an empty repository."""
    return Fleet(tmp_path)


@pytest.fixture
def make_board(tmp_path: Path, fleet: Fleet) -> Iterator[MakeBoard]:
    """Give a maker of boards; all of them end with the test."""
    boards: list[DaemonProcess] = []

    def make(
        name: str = "board",
        *,
        source: Table | None = None,
        sinks: Sequence[Table] = ({"kind": "count"},),
        tables: Mapping[str, Table] | None = None,
        pipeline: Table | None = None,
        state_dir: Path | None = None,
    ) -> DaemonProcess:
        everything: dict[str, Table] = {
            "update": fleet.update_table(),
            "supervise": BRISK,
            **(tables or {}),
        }
        board = DaemonProcess(
            tmp_path / name,
            FULL_LOAD if source is None else source,
            sinks=sinks,
            tables=everything,
            pipeline={**QUICK, **(pipeline or {})},
            state_dir=state_dir,
        )
        boards.append(board)
        return board

    yield make
    for board in boards:
        board.kill()


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """Give a folder that other users may enter, which ``tmp_path`` forbids."""
    folder = Path(tempfile.mkdtemp(prefix="tinyward-e2e-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WatchedBoard]:
    """Give a board that answers 500 samples a second, for the tests of one module."""
    home = tmp_path_factory.mktemp("watched")
    fleet = Fleet(home)
    board = watched_daemon(home / "board", fleet.update_table(poll_s=POLL_S))
    watched = WatchedBoard(fleet, board)
    with board:
        watched.clean()
        yield watched


def watched_daemon(
    home: Path,
    update: Table,
    tables: Mapping[str, Table] | None = None,
    source: Table = STEADY,
    state_dir: Path | None = None,
) -> DaemonProcess:
    """Return a board that answers 500 samples a second, not started yet."""
    everything = {"update": update, "supervise": BRISK, **(tables or {})}
    return DaemonProcess(
        home, source, tables=everything, pipeline=QUICK, state_dir=state_dir
    )
