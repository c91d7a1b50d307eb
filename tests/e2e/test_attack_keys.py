"""Stolen online keys, and the rotation that ends it; roots that moved on meanwhile."""

import shutil
import time
from pathlib import Path

from securesystemslib.signer import CryptoSigner

from tests.e2e.conftest import STEADY, MakeBoard
from tests.fakes.bundle_factory import Signed
from tests.fakes.fleet import Fleet
from tests.fakes.watched_board import WatchedBoard

FAR = "2099-01-01T00:00:00Z"
AHEAD = 2**31 - 1
ROTATIONS = 10


def now() -> float:
    """Return what the real daemon's clock shows."""
    return time.time()  # noqa: TID251 - the clock that the real daemon reads


def raise_version(signed: Signed) -> None:
    """Make a role's metadata newer than what boards have seen."""
    signed.version += 1


def claim_2099(signed: Signed) -> None:
    """Sign an issue time that is far away."""
    raise_version(signed)
    signed.unrecognized_fields["x-issued"] = FAR


def test_17b_a_fast_forwarded_timestamp_then_rotation(watched: WatchedBoard) -> None:
    """The thief's number makes honest ones replays, until its key is replaced."""
    spoiled = watched.fleet.spoiled
    honest = spoiled.file("timestamp").read_bytes()
    with watched.refused("replayed"):
        spoiled.resign("timestamp", lambda signed: setattr(signed, "version", AHEAD))
        seen = watched.board.state()["update"]["last_look"]
        watched.board.wait_for(
            lambda: watched.board.state()["update"]["last_look"] > seen + 0.5,
            "a look at it",
        )
        spoiled.file("timestamp").write_bytes(honest)
    spoiled.repository.rotate("timestamp", now())
    watched.clean()


def test_23b_an_issue_time_in_2099_then_rotation(watched: WatchedBoard) -> None:
    """The time that the thief claimed expires everything honest, until rotation."""
    spoiled = watched.fleet.spoiled
    with watched.refused("expired"):
        spoiled.resign("timestamp", claim_2099)
    floor = watched.board.state()["update"]["clock_floor"]
    assert floor > now()
    spoiled.repository.rotate("timestamp", now())
    watched.clean()
    assert watched.board.state()["update"]["clock_floor"] <= now()


def test_31_the_online_keys_add_no_bundle(watched: WatchedBoard) -> None:
    """Snapshot and timestamp stolen: targets of a stranger stay a stranger's."""
    spoiled = watched.fleet.spoiled
    with watched.refused("signature"):
        spoiled.resign("targets", raise_version, [CryptoSigner.generate_ed25519()])
        for role in ("snapshot", "timestamp"):
            spoiled.resign(role, raise_version)
    spoiled.repository.rotate("targets", now())
    watched.clean()


def test_10_the_root_moved_on_ten_times_while_the_board_was_off(
    make_board: MakeBoard, fleet: Fleet
) -> None:
    """Each root is followed in its turn, and the model answered all the while."""
    board = make_board(source=STEADY)
    watched = WatchedBoard(fleet, board)
    with board:
        watched.clean()
    for _ in range(ROTATIONS):
        fleet.spoiled.repository.rotate("root", now())
    with board:
        board.wait_version(watched.good)
        watched.answers()
        watched.clean()
        kept = board.state_dir / "tuf" / "fleet" / "root_history"
        assert len(list(kept.glob("*.root.json"))) >= ROTATIONS


def test_14_an_old_repository_after_the_cache_was_lost(
    make_board: MakeBoard, fleet: Fleet, tmp_path: Path
) -> None:
    """A power cut empties the cache, a mirror serves last week: the floors remember."""
    board = make_board(source=STEADY)
    watched = WatchedBoard(fleet, board)
    with board:
        watched.clean()
        old = fleet.spoiled.copy(tmp_path / "old")
        watched.clean()
        watched.clean()
    new = fleet.spoiled.copy(tmp_path / "new")
    shutil.rmtree(board.state_dir / "tuf")
    fleet.spoiled.restore(old)
    with board:
        board.wait_version(watched.good)
        with watched.refused("replayed"):
            pass
        fleet.spoiled.restore(new)
        watched.clean()


def test_33_a_replay_of_what_a_revoked_key_signed(watched: WatchedBoard) -> None:
    """After a rotation, what the old key signed is nobody's word any more."""
    timestamp = watched.fleet.spoiled.file("timestamp")
    before = timestamp.read_bytes()
    watched.fleet.spoiled.repository.rotate("timestamp", now())
    watched.clean()
    after = timestamp.read_bytes()
    with watched.refused("signature"):
        timestamp.write_bytes(before)
    timestamp.write_bytes(after)
    watched.clean()
