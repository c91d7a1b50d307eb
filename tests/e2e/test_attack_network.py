"""The whole daemon and nginx over TLS 1.3: a server that is gone, wrong clocks.

One board for all tests, with a client certificate of its own; ``faketime`` is its
clock.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from agent.publish.roles import utc
from tests.conftest import find_tool, missing
from tests.e2e.conftest import FULL_LOAD, POLL_S, watched_daemon
from tests.e2e.test_clock import in_1970
from tests.fakes.bundle_factory import Signed
from tests.fakes.certificates import Authority
from tests.fakes.fleet import Fleet
from tests.fakes.static_server import StaticServer, find_nginx
from tests.fakes.watched_board import WatchedBoard

HOUR_S = 3600.0
DAY_S = 24 * HOUR_S
MUTUAL = "ssl_client_certificate {ca}; ssl_verify_client on;"


@dataclass
class Online:
    """A board, its fleet, and the server between them.

    Attributes:
        trusted: What the board's settings say about the server.
    """

    watched: WatchedBoard
    server: StaticServer
    authority: Authority
    trusted: dict[str, object]

    def live(self, *wrapper: str, **changes: object) -> WatchedBoard:
        """Return the board for a life of its own, with other settings or wrapped."""
        table = {**self.trusted, **changes}
        board = self.watched.board
        board.kill()
        board.write_settings(update={k: v for k, v in table.items() if v})
        board.wrapper = wrapper
        board.start()
        board.wait_version(self.watched.good)
        return self.watched


@pytest.fixture(scope="module")
def online(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Online]:
    """Give a board that follows nginx."""
    if find_nginx() is None:
        missing("the program nginx")
    home = tmp_path_factory.mktemp("online")
    fleet, authority = Fleet(home), Authority(home)
    own = authority.issue("board", "board-1")
    pair, more = authority.issue(), MUTUAL.format(ca=authority.file)
    with StaticServer(home / "nginx", fleet.path, pair, more) as server:
        trusted: dict[str, object] = {
            **fleet.update_table(poll_s=POLL_S),
            "repository": server.url,
            "ca": authority.file,
            "certificate": own.certificate,
            "key": own.key,
        }
        # libfaketime breaks the pauses between samples, so there are none.
        board = watched_daemon(home / "board", trusted, source=FULL_LOAD)
        watched = WatchedBoard(fleet, board)
        with board:
            watched.clean()
            yield Online(watched, server, authority, trusted)


def now() -> float:
    """Return what the real daemon's clock shows."""
    return time.time()  # noqa: TID251 - the clock that the real daemon reads


def expire(signed: Signed) -> None:
    """Sign a newer timestamp that expired an hour ago."""
    signed.version += 1
    signed.expires = utc(now() - HOUR_S)


def test_published_is_active_over_tls_1_3(online: Online) -> None:
    """Metadata and bundle by one kind of connection only, without a lost sample."""
    online.live()
    asked = len(online.server.log)
    with_bundle = online.watched.board.state()["update"]["bytes"]["full"]
    online.watched.clean()
    online.watched.answers()
    lines = online.server.log[asked:]
    assert lines
    assert all(" TLSv1.3 " in line for line in lines)
    assert any("/targets/models/digits/" in line for line in lines)
    assert online.watched.board.state()["update"]["bytes"]["full"] > with_bundle


@pytest.mark.parametrize("which", ["no certificate", "a stranger's", "another CA"])
def test_42_papers_that_are_not_in_order(
    online: Online, tmp_path: Path, which: str
) -> None:
    """Neither side talks to a stranger; the model answers all the same."""
    stranger = Authority(tmp_path, "stranger")
    own = stranger.issue("board", "board-1")
    changes = {
        "no certificate": {"certificate": "", "key": ""},
        "a stranger's": {"certificate": own.certificate, "key": own.key},
        "another CA": {"ca": stranger.file},
    }
    watched = online.live(**changes[which])
    watched.fleet.publish(version := watched.next())
    reason = "tls" if which == "another CA" else "unreachable"
    with watched.undisturbed():
        watched.board.wait_for(lambda: watched.ended(reason, "failed"), reason)
        assert f"[{reason}]" in watched.status()
    online.live()
    watched.board.wait_version(version)
    watched.good = version


def test_the_server_is_gone_and_comes_back(online: Online) -> None:
    """Answers go on without it, ``tinyward status`` says so, and updates go on."""
    watched = online.live()
    online.server.__exit__()
    try:
        with watched.undisturbed():
            watched.board.wait_for(
                lambda: watched.ended("unreachable", "failed"), "unreachable"
            )
            assert "[unreachable]" in watched.status()
    finally:
        online.server.__enter__()
    watched.ring()
    watched.clean()


def test_20_in_1970_an_expired_repository_is_refused(online: Online) -> None:
    """Certificates and metadata are judged by the floor; fresh ones are believed."""
    watched = online.live(*in_1970())
    assert watched.board.words().splitlines()[1].startswith("1970-")
    with watched.refused("expired"):
        watched.fleet.spoiled.resign("timestamp", expire)
    watched.clean()


def test_21_in_2099_nothing_is_believed_and_all_goes_on(online: Online) -> None:
    """A clock far ahead stops updates, not answers; and leaves no floor behind."""
    wrapper = (str(find_tool("env")), *(_shown("@2099-01-01 00:00:00")))
    watched = online.live(*wrapper)
    with watched.undisturbed():
        watched.board.wait_for(
            lambda: watched.ended("expired") + watched.ended("tls", "failed"),
            "refusal",
        )
    assert watched.board.state()["update"]["clock_floor"] <= now()
    online.live()
    watched.clean()


def test_22_the_clock_steps_back_between_two_looks(
    online: Online, tmp_path: Path
) -> None:
    """The floor does not step back with it: what had expired is still expired."""
    shown = tmp_path / "clock"
    shown.write_text("+0")
    lines = [line for line in _shown("+0") if not line.startswith("FAKETIME=")]
    # Without the last one libfaketime stretches the waits of threads by the step.
    file = (
        f"FAKETIME_TIMESTAMP_FILE={shown}",
        "FAKETIME_CACHE_DURATION=1",
        "FAKETIME_FORCE_MONOTONIC_FIX=0",
    )
    watched = online.live(str(find_tool("env")), *lines, *file)
    watched.clean()
    shown.write_text("-9999d")
    watched.board.wait_for(
        lambda: watched.board.state()["update"]["clock_floor_lag_s"] > DAY_S, "the step"
    )
    with watched.refused("expired"):
        watched.fleet.spoiled.resign("timestamp", expire)
    watched.clean()


def _shown(clock: str) -> list[str]:
    """Return the variables that show a process another clock, but no other pauses."""
    first, *others = in_1970()
    del first
    return [
        f"FAKETIME={clock}" if line.startswith("FAKETIME=") else line for line in others
    ]
