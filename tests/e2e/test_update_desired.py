"""What a board was told and why it does not do it yet, as ``tinyward status`` says it.

One board in one group, with an exception of its own in the end.
"""

import time
from collections.abc import Iterator
from datetime import datetime, timedelta

import pytest

from agent.publish.roles import utc
from agent.publish.staging import Assignment
from tests.e2e.conftest import POLL_S, watched_daemon
from tests.fakes.daemon_process import NAME
from tests.fakes.fleet import GROUP, MODEL, Fleet, bundle
from tests.fakes.watched_board import WatchedBoard

BOARD = "pi-7"


@pytest.fixture(scope="module")
def named(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WatchedBoard]:
    """Give a board with a name."""
    home = tmp_path_factory.mktemp("named")
    fleet = Fleet(home)
    tables = {"board": {"id": BOARD}}
    board = watched_daemon(home / "board", fleet.update_table(POLL_S), tables)
    watched = WatchedBoard(fleet, board)
    with board:
        watched.clean()
        yield watched


def later(hours: float) -> datetime:
    """Return a time of today or tomorrow, by the real daemon's clock."""
    now = time.time()  # noqa: TID251 - the clock that the real daemon reads
    return utc(now) + timedelta(hours=hours)


def closed_window() -> str:
    """Return a window that opens in some hours."""
    return f"{later(3):%H:%M}-{later(4):%H:%M}"


@pytest.mark.parametrize(
    ("told", "reason"),
    [
        (Assignment(paused=True), "paused"),
        (Assignment(percent=0.0, salt="a"), "percent"),
        (Assignment(not_before=f"{later(48):%Y-%m-%dT%H:%M:%SZ}"), "not_before"),
        (Assignment(window=closed_window()), "window"),
    ],
    ids=["paused", "percent", "not_before", "window"],
)
def test_it_waits_and_says_for_what(
    named: WatchedBoard, told: Assignment, reason: str
) -> None:
    """Nothing is fetched meanwhile; what was in the way is taken away, and it runs."""
    version, repository = named.next(), named.fleet.spoiled.repository
    repository.add(bundle(version), model=MODEL, version=version)
    with named.undisturbed():
        repository.assign(GROUP, {NAME: (MODEL, version)}, assignment=told)
        named.fleet.sign()
        named.wait_decision("waits", reason)
        assert f"[{reason}]" in named.status()
        looked = named.say("update", "now")  # waiting is no failure
        assert (looked.exit_code, f"[{reason}]" in looked.stdout) == (0, True)
    free = Assignment(paused=False, percent=100.0, not_before="", window="")
    repository.assign(GROUP, {NAME: (MODEL, version)}, assignment=free)
    named.fleet.sign()
    named.board.wait_version(version)
    named.good = version


def test_a_board_of_its_own_comes_before_its_groups(named: WatchedBoard) -> None:
    """``device:ID`` is the exception, until it ends."""
    repository, board = named.fleet.spoiled.repository, named.board
    named.clean()
    own = named.next()
    repository.add(bundle(own), model=MODEL, version=own)
    repository.assign_device(BOARD, {NAME: (MODEL, own)})
    named.fleet.sign()
    board.wait_version(own)
    assert named.decision()["source"] == f"fleet/devices/{BOARD}"
    others = named.next()
    named.fleet.publish(others)
    with named.undisturbed():
        assert board.version() == own
    repository.release_device(BOARD)
    named.fleet.sign()
    board.wait_version(others)


def test_a_rollback_is_held_at_once_and_ends_with_news(named: WatchedBoard) -> None:
    """``tinyward update rollback``: what was left is no longer said to run."""
    named.clean()
    before = named.board.version()
    named.clean()
    rolled = named.say("update", "rollback", options=("--yes",))
    assert (rolled.exit_code, named.board.version()) == (0, before)
    assert "[held]" in rolled.stdout
    assert named.decision()["reason"] == "held"
    named.answers()
    named.clean()
