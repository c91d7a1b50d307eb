"""Sealed models on real daemons: from the owner's keys to the board's memory."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.core.sealing import Algorithm, Suite
from agent.publish.envelopes import add_envelopes, withdraw_boards
from agent.publish.sealed_folder import load_envelopes
from agent.publish.slices import Choice, export_slice
from tests.e2e.conftest import STEADY, watched_daemon
from tests.fakes.daemon_process import DaemonProcess
from tests.fakes.fleet import MODEL, bundle
from tests.fakes.sealed import SealedFleet
from tests.fakes.watched_board import WatchedBoard

BOARD, OTHER = "pi-7", "pi-8"
MODEL_MARK = b"TFL3"  # at the fourth byte of every .tflite


def start(fleet: SealedFleet, home: Path, board: str = BOARD) -> DaemonProcess:
    """Start a board that opens what is sealed for it."""
    tables = fleet.tables(board)
    daemon = watched_daemon(home / board, tables.pop("update"), tables)
    daemon.start()
    return daemon


@pytest.fixture
def sealed(tmp_path: Path) -> Iterator[WatchedBoard]:
    """Give a board with version 1, sealed for it and for another one."""
    fleet = SealedFleet(tmp_path, BOARD, OTHER)
    watched = WatchedBoard(fleet, start(fleet, tmp_path))
    with_board = watched.board
    try:
        watched.clean()
        yield watched
    finally:
        with_board.kill()


def fleet_of(watched: WatchedBoard) -> SealedFleet:
    """Return the owner, who seals."""
    assert isinstance(watched.fleet, SealedFleet)
    return watched.fleet


@pytest.mark.parametrize(
    ("algorithm", "suite"),
    [("cobblestone-256", "x25519"), ("chacha20-poly1305", "mlkem768-x25519")],
)
def test_what_is_sealed_runs_and_lies_encrypted(
    tmp_path: Path, algorithm: Algorithm, suite: Suite
) -> None:
    """Published, updated, rolled back, and started again without the repository."""
    fleet = SealedFleet(tmp_path, BOARD, OTHER, suite=suite)
    fleet.algorithm = algorithm
    watched = WatchedBoard(fleet, start(fleet, tmp_path))
    board = watched.board
    try:
        watched.clean()
        watched.clean()
        watched.answers()
        rolled = watched.say("update", "rollback", options=("--yes",))
        assert (rolled.exit_code, board.version()) == (0, 1)
        fleet.path.rename(tmp_path / "gone")
        board.kill()
        files = [path for path in board.state_dir.rglob("*") if path.is_file()]
        assert [it for it in files if MODEL_MARK in it.read_bytes()] == []
        assert MODEL_MARK in bundle(1)  # what is looked for is in what was sealed
        board.start()
        board.wait_version(1)
        watched.answers()
    finally:
        board.kill()


def test_two_boards_share_a_ciphertext_and_no_envelope(
    sealed: WatchedBoard, tmp_path: Path
) -> None:
    """A board that is withdrawn keeps what runs; the other one gets the next version.

    Once it is taken back, and sealed for, it gets that version, too: nothing signed
    changes for it.
    """
    fleet, board = fleet_of(sealed), sealed.board
    second = start(fleet, tmp_path, OTHER)
    try:
        second.wait_version(1)
        one, two = (fleet.envelope(1, name).read_bytes() for name in (BOARD, OTHER))
        assert (len(one), len(two), one == two) == (80, 80, False)
        (kept,) = (board.state_dir / "envelope").iterdir()
        (kept_there,) = (second.state_dir / "envelope").iterdir()
        assert (kept.read_bytes(), kept_there.read_bytes()) == (one, two)
        assert kept.name == kept_there.name
        withdraw_boards(fleet.path, [BOARD])
        with sealed.refused("envelope"):
            fleet.publish(sealed.next())
            second.wait_version(2)
        assert "[envelope]" in sealed.status()
        objects = [path.name for path in (board.state_dir / "obj").iterdir()]
        assert objects == [kept.name]  # not one byte of what it cannot open came
        withdraw_boards(fleet.path, [BOARD], undo=True)
        add_envelopes(fleet.path, MODEL, 2, load_envelopes(fleet.folders[2]))
        sealed.ring()
        board.wait_version(2)
    finally:
        second.kill()


def test_envelopes_of_others_open_nothing(sealed: WatchedBoard) -> None:
    """Another board's, another version's, cut, endless, or a page: ``envelope``."""
    fleet = fleet_of(sealed)
    here = fetched(sealed)
    for spoil in ("other", "version", "cut", "long", "page"):
        version = sealed.next()
        fleet.stage(version)
        place = fleet.envelope(version, BOARD)
        place.write_bytes(
            {
                "other": fleet.envelope(version, OTHER).read_bytes(),
                "version": fleet.envelope(1, BOARD).read_bytes(),
                "cut": place.read_bytes()[:-1],
                "long": bytes(9_000_000),
                "page": b"<html>log in first</html>",
            }[spoil]
        )
        with sealed.refused("envelope"):
            fleet.sign()
        assert (spoil, fetched(sealed)) == (spoil, here)  # found out before the bundle
    sealed.clean()
    assert fetched(sealed) > here


def fetched(watched: WatchedBoard) -> float:
    """Return the bytes of bundles that were fetched in this life."""
    return watched.board.metrics()['tinyward_update_bytes_total{kind="full"}']


@pytest.mark.parametrize("spoil", ["flipped", "cut", "longer"])
def test_a_ciphertext_that_was_changed_is_refused(
    sealed: WatchedBoard, spoil: str
) -> None:
    """On a mirror by the signed digest; as signed, where its owner made it so."""
    fleet = fleet_of(sealed)
    stored = fleet.stage(sealed.next())
    right = stored.read_bytes()
    stored.chmod(0o644)
    stored.write_bytes(
        {
            "flipped": right[:-40] + bytes([right[-40] ^ 1]) + right[-39:],
            "cut": right[:-1],
            "longer": right + b"\0",
        }[spoil]
    )
    with sealed.refused("digest" if spoil == "flipped" else "length"):
        fleet.sign()


def test_a_key_that_is_no_secret_opens_nothing_new(sealed: WatchedBoard) -> None:
    """Others may read it: updates are refused with ``seal_key`` until that is mended.

    What is committed goes on, after a restart, too, with a warning.
    """
    fleet, board = fleet_of(sealed), sealed.board
    key = fleet.owner.key(BOARD)
    fleet.stage(sealed.next())
    key.chmod(0o644)
    with sealed.refused("seal_key", "failed"):
        fleet.sign()
    board.kill()
    board.start()
    board.wait_version(1)
    sealed.answers()
    assert "seal.key_open" in board.words()
    key.chmod(0o600)
    sealed.ring()
    board.wait_version(2)
    sealed.answers()
    assert board.state()["update"]["set_aside"] == 0


def test_another_key_gets_another_envelope(sealed: WatchedBoard) -> None:
    """The kept envelope is refused, and renewed as soon as the owner sealed again."""
    fleet, board = fleet_of(sealed), sealed.board
    sealed.clean()
    board.kill()
    fleet.owner.key(BOARD).unlink()
    fleet.owner.key(BOARD)
    board.start()
    board.wait_for(lambda: board.readiness() == (503, "envelope"), "why it waits")
    before = (board.state_dir / "state.json").read_bytes()
    # Of another sealing of the same bundle: it is this board's, and opens nothing.
    folder = fleet.owner.seal(bundle(2), MODEL, 2, [BOARD], fleet.algorithm)
    add_envelopes(fleet.path, MODEL, 2, load_envelopes(folder))
    sealed.say("update", "now")
    assert board.readiness() == (503, "envelope")
    renewed = fleet.owner.envelope(fleet.folders[2], BOARD)
    add_envelopes(fleet.path, MODEL, 2, {BOARD: renewed})
    sealed.ring()
    board.wait_version(2)
    sealed.answers()
    # No update, no model set aside: nothing but the envelope is another one.
    assert (board.state_dir / "state.json").read_bytes() == before
    kept = {path.read_bytes() for path in (board.state_dir / "envelope").iterdir()}
    assert renewed in kept


def test_a_stick_brings_bundle_and_envelope(tmp_path: Path) -> None:
    """Offline, from a slice for this board alone; another board's is not on it."""
    fleet = SealedFleet(tmp_path, BOARD, OTHER)
    fleet.publish(1)
    export_slice(fleet.path, tmp_path / "stick", Choice(boards=[BOARD]))
    assert not (tmp_path / f"stick/envelopes/{MODEL}/1/{OTHER}").exists()
    tables = fleet.tables(BOARD)
    update = {"root": fleet.root, "groups": ["all"], "poll_s": 0.2}
    del tables["update"]
    board = watched_daemon(tmp_path / "board", update, tables)
    watched = WatchedBoard(fleet, board)
    with board:
        brought = watched.say("update", "import", str(tmp_path / "stick"))
        assert brought.exit_code == 0, brought.output
        board.wait_version(1)
        watched.answers()


def test_a_factory_slice_may_be_sealed(tmp_path: Path) -> None:
    """A board that knows nothing else begins with the model of its image."""
    fleet = SealedFleet(tmp_path, BOARD)
    fleet.publish(1)
    export_slice(fleet.path, tmp_path / "factory", Choice())
    shutil.rmtree(fleet.path)
    tables = {**fleet.tables(BOARD), "update": {"root": fleet.root, "groups": ["all"]}}
    board = DaemonProcess(
        tmp_path / "board",
        STEADY,
        tables=tables,
        pipeline={"kernels": "plain", "factory": tmp_path / "factory"},
    )
    with board:
        board.wait_version(1)
