"""Boot: with nothing, without a repository, from a factory slice, with rotten bytes."""

import json
import shutil
import signal
from pathlib import Path

from click.testing import CliRunner

from agent.cli import cli
from tests.e2e.conftest import MakeBoard
from tests.fakes.daemon_process import DaemonProcess
from tests.fakes.fleet import Fleet, bundle


def test_without_repository_and_model_it_is_healthy_and_not_ready(
    make_board: MakeBoard,
) -> None:
    """Nothing to run is no illness: /healthz says ok, /readyz says no_model."""
    board = make_board(tables={"update": {}})
    with board:
        assert board.get("/healthz")[0] == 200
        assert board.readiness() == (503, "no_model")
        assert board.pipeline()["state"] == "none"


def test_without_a_root_nothing_is_brought_in(
    make_board: MakeBoard, fleet: Fleet
) -> None:
    """What could never be verified is refused with what to do, not taken and kept."""
    fleet.publish(1)
    with make_board(tables={"update": {"orchestrator": "push"}}) as board:
        words = ["update", "import", str(fleet.path), "--socket", str(board.socket)]
        result = CliRunner().invoke(cli, words)
    assert result.exit_code == 1
    assert "this board takes no uploads" in result.stderr
    assert "to do: Set `update.root`." in result.stderr


def test_a_published_model_is_committed_and_survives_its_repository(
    make_board: MakeBoard, fleet: Fleet
) -> None:
    """What is committed boots without a repository, with the bytes that were signed."""
    fleet.publish(1)
    board = make_board()
    with board:
        board.wait_version(1)
        assert board.readiness() == (200, "")
        first = board.pipeline()["active"]
    shutil.rmtree(fleet.path)
    with board:
        board.wait_version(1)
        assert board.pipeline()["active"] == first
        board.wait_said("repository.")
        assert board.version() == 1
        assert board.get("/healthz")[0] == 200
    stored = (board.state_dir / "obj" / first["sha256"]).read_bytes()
    assert stored == bundle(1)
    assert (board.state_dir / "state.db").stat().st_size > 0


def test_a_rotten_model_falls_back_to_the_previous_one(
    make_board: MakeBoard, fleet: Fleet
) -> None:
    """Bytes that changed on the disk are never parsed; the previous version boots."""
    board = make_board()
    with board:
        for version in (1, 2):
            fleet.publish(version)
            board.wait_version(version)
        active = board.pipeline()["active"]
        board.signal(signal.SIGTERM)
        assert board.wait() == 0
    shutil.rmtree(fleet.path)
    path = board.state_dir / "obj" / active["sha256"]
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.chmod(0o600)
    path.write_bytes(content)
    with board:
        board.wait_version(1)
        assert "model.rotten" in board.words()
        assert "reason=digest" in board.words()


def test_the_factory_slice_runs_where_nothing_is_committed(
    make_board: MakeBoard, tmp_path: Path
) -> None:
    """A system image ships a slice of the repository; no network is needed for it."""
    factory = Fleet(tmp_path / "factory")
    factory.publish(1)
    update = {"root": factory.root}
    board = make_board(tables={"update": update}, pipeline={"factory": factory.path})
    with board:
        board.wait_version(1)
    factory.publish(2)
    with board:
        board.wait_version(1)
        results = board.state()["update"]["results"]
    assert results == []


def test_a_slice_signed_by_strangers_never_runs(
    make_board: MakeBoard, tmp_path: Path
) -> None:
    """The slice is verified against the provisioned root like everything else."""
    ours, theirs = Fleet(tmp_path / "ours"), Fleet(tmp_path / "theirs")
    theirs.publish(1)
    board = make_board(
        tables={"update": {"root": ours.root}}, pipeline={"factory": theirs.path}
    )
    with board:
        board.wait_said("repository.refused")
        assert board.readiness() == (503, "no_model")


def test_the_readyz_page_is_json_for_people(
    make_board: MakeBoard,
) -> None:
    """The body says of each pipeline why it is not ready."""
    board: DaemonProcess = make_board(tables={"update": {}})
    with board:
        _, body = board.get("/readyz")
    expected = {
        "ready": False,
        "pipelines": {"digits": {"ready": False, "reason": "no_model"}},
    }
    assert json.loads(body) == expected
