"""The whole daemon and nginx: updates by delta, and by the bundle after a bad one.

One board for all tests; versions of one parity hold the same model, so that a delta
between them is short.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from agent.core.deltas import SignedDelta
from agent.publish.deltas import make_delta, stage_delta
from agent.publish.files import place_target
from agent.publish.slices import Choice, export_slice
from agent.publish.staging import load_staged, save_staged
from tests.conftest import missing
from tests.e2e.conftest import POLL_S, MakeBoard, watched_daemon
from tests.fakes.certificates import Authority
from tests.fakes.fleet import GROUP, MODEL, Fleet, bundle
from tests.fakes.static_server import StaticServer, find_nginx
from tests.fakes.watched_board import WatchedBoard


@pytest.fixture(scope="module")
def served(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[WatchedBoard, StaticServer]]:
    """Give a board that runs version 1 and follows nginx."""
    if find_nginx() is None:
        missing("the program nginx")
    home = tmp_path_factory.mktemp("deltas")
    fleet, authority = Fleet(home), Authority(home)
    with StaticServer(home / "nginx", fleet.path, authority.issue()) as server:
        followed = {"repository": server.url, "ca": authority.file}
        table = {**fleet.update_table(POLL_S), **followed}
        board = watched_daemon(home / "board", table)
        watched = WatchedBoard(fleet, board)
        with board:
            watched.clean()
            yield watched, server


def offer(watched: WatchedBoard) -> tuple[int, SignedDelta]:
    """Stage the version after the next, and a delta to it from the one that runs."""
    before = watched.good
    watched.next()
    version = watched.next()
    repository = watched.fleet.spoiled.repository
    target = repository.add(bundle(version), model=MODEL, version=version)
    weighed = stage_delta(repository.path, target, before)
    assert weighed.staged is not None
    repository.assign(GROUP, {MODEL: (MODEL, version)})
    return version, weighed.staged


def update(watched: WatchedBoard, version: int) -> dict[str, int]:
    """Publish, wait until it runs, and return the bytes that came by kind."""
    before = watched.board.state()["update"]["bytes"]
    watched.fleet.sign()
    watched.board.wait_version(version)
    watched.good = version
    watched.answers()
    after = watched.board.state()["update"]["bytes"]
    return {kind: after[kind] - before[kind] for kind in after}


def test_an_update_by_delta(served: tuple[WatchedBoard, StaticServer]) -> None:
    """From 1 to 3: a hundredth of the bytes, none of the bundle; the metric says so."""
    watched, server = served
    version, delta = offer(watched)
    asked = len(server.log)
    came = update(watched, version)
    assert came == {"full": 0, "delta": delta.length, "resumed": 0}
    assert delta.length * 50 < len(bundle(version))
    lines = "\n".join(server.log[asked:])
    assert "/targets/deltas/" in lines
    assert "/targets/models/" not in lines
    name = 'tinyward_update_bytes_total{kind="delta"}'
    assert watched.board.metrics()[name] == delta.length


def test_72_a_validly_signed_wrong_delta_costs_nothing_but_itself(
    served: tuple[WatchedBoard, StaticServer],
) -> None:
    """It leads to other bytes: told, the bundle is fetched, no sample is lost."""
    watched, server = served
    version, delta = offer(watched)
    repository = watched.fleet.spoiled.repository
    wrong = make_delta(bundle(watched.good), bundle(version)[:-1] + b"!")
    sha256 = place_target(repository.path / "targets", delta.path, wrong)
    staged = load_staged(repository.path)
    changed = replace(delta, length=len(wrong), sha256=sha256)
    save_staged(repository.path, replace(staged, deltas={delta.path: changed}))
    asked = len(server.log)
    came = update(watched, version)
    whole = len(bundle(version))
    assert came == {"full": whole, "delta": len(wrong), "resumed": 0}
    assert sum("/targets/deltas/" in line for line in server.log[asked:]) == 1
    assert watched.ended("delta") == 0
    watched.board.wait_said("update.delta")


def test_a_stick_that_carries_a_delta_alone(
    fleet: Fleet, make_board: MakeBoard, tmp_path: Path
) -> None:
    """A board without a repository: 3 comes as what changed since the stick before."""
    board = make_board(tables={"update": {"root": fleet.root, "groups": [GROUP]}})
    watched = WatchedBoard(fleet, board)
    watched.good = watched.next()
    fleet.publish(watched.good)
    with board:
        export_slice(fleet.path, tmp_path / "first", Choice())
        result = watched.say("update", "import", str(tmp_path / "first"))
        assert (result.exit_code, board.version()) == (0, watched.good)
        based = Choice(deltas_from=[(MODEL, watched.good)])
        version, delta = offer(watched)
        fleet.sign()
        export_slice(fleet.path, tmp_path / "second", based)
        result = watched.say("update", "import", str(tmp_path / "second"))
        assert (result.exit_code, board.version()) == (0, version)
        came = board.state()["update"]["bytes"]
        assert came == {"full": len(bundle(1)), "delta": delta.length, "resumed": 0}
    held = list((tmp_path / "second").rglob("*.bundle"))
    assert held == []
