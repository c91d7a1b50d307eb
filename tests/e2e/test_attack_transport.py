"""Servers that are slow, short, wrong or somebody else's, and the whole daemon.

Each case: the bundle (or the timestamp) of the next version is answered wrongly until
the daemon has said why it refuses that; then honestly, and that version becomes active.
"""

from collections.abc import Iterator

import pytest

from tests.e2e.conftest import POLL_S, watched_daemon
from tests.fakes import toxic_server as toxic
from tests.fakes.fleet import Fleet
from tests.fakes.toxic_server import Answer, Exchange, ToxicServer
from tests.fakes.watched_board import WatchedBoard

TIMESTAMP = "metadata/timestamp.json"
DEADLINE_S = 1.0  # so that slow answers are given up soon
PORTAL = b"<!doctype html><title>Hotel</title>"


@pytest.fixture(scope="module")
def toxic_fleet(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[WatchedBoard, ToxicServer]]:
    """Give a board that follows a server which can be told to be toxic."""
    home = tmp_path_factory.mktemp("toxic")
    fleet = Fleet(home)
    with ToxicServer(fleet.path) as server:
        table = fleet.update_table(POLL_S, deadline_s=DEADLINE_S)
        board = watched_daemon(home / "board", {**table, "repository": server.url})
        watched = WatchedBoard(fleet, board)
        with board:
            watched.clean()
            yield watched, server


def long_by(more: int) -> Answer:
    """Announce another length than that of the file, which is sent whole."""

    def answer(exchange: Exchange) -> None:
        length = len(exchange.content) + more
        exchange.head("200 OK", Content_Length=length, ETag=exchange.tag)
        exchange.send(exchange.content)
        exchange.close()

    return answer


def whole(exchange: Exchange) -> None:
    """Answer a request for a range with the whole file, and 200."""
    length = len(exchange.content)
    exchange.head("200 OK", Content_Length=length, ETag=exchange.tag)
    exchange.send(exchange.content)


@pytest.mark.parametrize(
    ("answers", "reason", "resumes"),
    [
        pytest.param([toxic.drip()], "too_slow", 0, id="45_byte_by_byte"),
        pytest.param([toxic.cut(0.99, toxic.stall)], "too_slow", 1, id="46_at_99"),
        pytest.param([toxic.cut(0.5), toxic.honest], "", 0, id="46_half_then_close"),
        pytest.param([long_by(999)], "length", 0, id="46_wrong_length"),
        pytest.param([toxic.cut(0.5), whole], "", 0, id="47_200_for_a_range"),
        pytest.param([toxic.status("200 OK", PORTAL)], "length", 0, id="49_portal"),
        pytest.param([toxic.status("404 Gone")], "missing_target", 0, id="48_404"),
    ],
)
def test_a_bundle_on_a_bad_way(
    toxic_fleet: tuple[WatchedBoard, ToxicServer],
    answers: list[Answer],
    reason: str,
    resumes: int,
) -> None:
    """Bounded, with a reason, resumed or begun anew; nobody notices at the model."""
    watched, server = toxic_fleet
    version = watched.next()
    before, kept = _tries(watched, reason), _resumed(watched)
    path = str(watched.fleet.stage(version).relative_to(watched.fleet.path))
    server.script(path, *answers)
    with watched.undisturbed():
        watched.fleet.sign()
        if reason:
            watched.board.wait_for(lambda: _tries(watched, reason) > before, reason)
            assert f"[{reason}]" in watched.status()
    if reason:
        del server.scripts[f"/{path}"]
        watched.ring()
    watched.board.wait_version(version)
    watched.good = version
    assert (_resumed(watched) > kept) == bool(resumes)
    ranges = [head for asked, head in server.asked if asked == f"/{path}"]
    assert any("range" in head for head in ranges) == bool(resumes or not reason)
    watched.answers()


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        pytest.param(toxic.drip(skip=30), "too_slow", id="45_byte_by_byte"),
        pytest.param(toxic.stall, "too_slow", id="45_silent"),
        pytest.param(toxic.status("200 OK", PORTAL), "metadata", id="49_portal"),
        pytest.param(
            toxic.status("302 Found", Location="http://portal.example/"),
            "redirect",
            id="43_redirected_elsewhere",
        ),
        pytest.param(toxic.status("503 Busy"), "unreachable", id="48_503"),
    ],
)
def test_metadata_on_a_bad_way(
    toxic_fleet: tuple[WatchedBoard, ToxicServer], answer: Answer, reason: str
) -> None:
    """The same for the file that every poll begins with."""
    watched, server = toxic_fleet
    before = _tries(watched, reason)
    server.script(TIMESTAMP, answer)
    with watched.undisturbed():
        watched.board.wait_for(lambda: _tries(watched, reason) > before, reason)
        assert f"[{reason}]" in watched.status()
    del server.scripts[f"/{TIMESTAMP}"]
    watched.ring()
    watched.clean()


def _tries(watched: WatchedBoard, reason: str) -> int:
    """Return how often something was given up for a reason."""
    return watched.ended(reason, "failed") + watched.ended(reason)


def _resumed(watched: WatchedBoard) -> int:
    """Return how many bytes did not have to be fetched again."""
    return int(watched.board.state()["update"]["bytes"]["resumed"])
