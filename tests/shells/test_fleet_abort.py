"""``tinyward fleet abort --back`` and ``pause``: what they take back, and how fast."""

import json
import os
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.cli.fleet_return import is_ours
from agent.cli.fleet_state import Asked
from agent.cli.fleet_stop import may_stop
from agent.core.waves import BoardCourse, Phase, Standing
from tests.fakes.board_server import Told
from tests.fakes.daemon_process import wait_until
from tests.fakes.rollout_fleet import FleetBoard, RolloutFleet, rollout_fleet

Json = dict[str, Any]
boards = st.builds(
    BoardCourse,
    standing=st.sampled_from(Standing),
    told=st.integers(0, 3),
    ready=st.booleans(),
)


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[RolloutFleet]:
    """Six boards, three at once; b1 is the canary."""
    with rollout_fleet(tmp_path) as made:
        yield made


@given(board=boards, by_push=st.booleans())
def test_nobody_is_taken_back_whom_nobody_told(
    *, board: BoardCourse, by_push: bool
) -> None:
    """Told at least once; by push, whoever was told and stands nowhere else is."""
    told = board.told - (not board.ready and board.standing in {"told", "failed"})
    final = board.standing in {Standing.BACK, Standing.OVERRULED}
    ours = is_ours(board, by_push=by_push)
    assert not (ours and (told <= 0 or final))
    assert not by_push or ours == (told > 0 and not final)


@given(phase=st.sampled_from(Phase), back=st.booleans())
def test_an_abort_is_final(*, phase: Phase, back: bool) -> None:
    """No order changes an aborted rollout's phase; one to abort ends any open one."""
    assert not may_stop(Phase.ABORTED, Asked("abort", back=back))
    abort = may_stop(phase, Asked("abort", back=back))
    assert abort == (phase in {"running", "paused"} or (phase == "done" and back))
    assert may_stop(phase, Asked("pause")) == (phase == "running")


def test_a_board_that_failed_is_called_off(fleet: RolloutFleet) -> None:
    """Its order would be tried again: it is told to run what it runs."""
    fleet.boards["b1"].fails = "golden"
    assert fleet.rollout().exit_code == 1
    assert wants(fleet, "b1") == 8
    aborted = fleet.run("abort", "--back")
    assert aborted.exit_code == 0, aborted.output
    assert (wants(fleet, "b1"), fleet.versions()["b1"]) == (7, 7)
    assert fleet.touched() == ["b1"]


def test_what_ran_before_us_stays(fleet: RolloutFleet) -> None:
    """Killed between saying and doing: nobody told the board that runs it anyway."""
    board = fleet.boards["b1"]
    board._run(8)
    with held(board):
        process = fleet.spawn()
        try:
            wait_until(lambda: standing(fleet, "b1") == "told", "it is written down")
        finally:
            process.kill()
            process.communicate()
    aborted = fleet.run("abort", "--back")
    assert (aborted.exit_code, board.version, board.rollbacks) == (0, 8, 0)
    assert standing(fleet, "b1") == "new"


def test_the_same_command_once_more_forgets_nothing(fleet: RolloutFleet) -> None:
    """The second run finds everything done; what the first did is taken back."""
    assert [fleet.rollout().exit_code, fleet.rollout().exit_code] == [0, 0]
    aborted = fleet.run("abort", "--back")
    assert (aborted.exit_code, set(fleet.versions().values())) == (0, {7})
    assert "6 boards rolled back" in aborted.stdout


def test_an_order_that_a_pause_cut_is_not_sent_again(fleet: RolloutFleet) -> None:
    """The board hears it once; nothing is told after the pause is durable."""
    board, usual = fleet.boards["b1"], fleet.boards["b1"].answer
    heard: list[str] = []
    go = threading.Event()

    def answer(method: str, target: str, body: bytes, span: str) -> Told:
        if (method, target) != ("PUT", "/v1/desired"):
            return usual(method, target, body, span)
        heard.append(method)
        board.lock.release()
        go.wait(30)
        board.lock.acquire()
        return Told(0, {})

    board.answer = answer  # type: ignore[method-assign]  # this board alone hangs
    process = fleet.spawn("--patience", "0.5")
    try:
        wait_until(lambda: heard, "the order is there")
        assert fleet.run("pause").exit_code == 0
        out, _ = process.communicate(timeout=60)
    finally:
        go.set()
        process.kill()
        process.wait()
    assert (process.returncode, heard, board.orders) == (1, ["PUT"], []), out


def test_ctrl_c_reaches_a_handshake(fleet: RolloutFleet) -> None:
    """A board that takes the connection and says nothing holds nobody up."""
    with socket.create_server(("127.0.0.1", 0)) as mute:
        fleet.addresses["b1"] = f"127.0.0.1:{mute.getsockname()[1]}"
        fleet.write()
        process = fleet.spawn()
        try:
            peer, _ = mute.accept()
            # The client's hello: from now on it waits.
            assert peer.recv(1)
            os.kill(process.pid, signal.SIGINT)
            # Left alone it ends after ten seconds, when the handshake does.
            process.communicate(timeout=8)
        finally:
            process.kill()
            process.wait()
        peer.close()
    assert process.returncode == 130


@pytest.mark.parametrize("first", ["gate", "abort"])
def test_an_abort_is_heard_while_the_process_rests(
    fleet: RolloutFleet, first: str
) -> None:
    """A gate closed, or it was aborted: boards go back, which is waited for."""
    fleet.waves, fleet.at_once = ("all",), 2
    fleet.write()
    for board in fleet.boards.values():
        board.held.clear()
    process = fleet.spawn("--patience", "60")
    try:
        wait_until(lambda: len(fleet.touched()) == 2, "two are told")
        told = fleet.touched()
        if first == "gate":
            fleet.boards[told[0]].fails = "golden"
            fleet.boards[told[0]].held.set()
            wait_until(lambda: phase(fleet) == "paused", "the gate closed")
        else:
            assert fleet.run("abort").exit_code == 0
        # A rollback ends the trial that is held; nothing else does.
        for name in told:
            release_when_asked(fleet.boards[name])
        aborted = fleet.run("abort", "--back")
        out, _ = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()
    assert (aborted.exit_code, process.returncode) == (0, 1), aborted.output + out
    assert fleet.touched() == told
    assert set(fleet.versions().values()) == {7}
    assert not fleet.state.with_name(f"{fleet.state.name}.order").exists()


@pytest.mark.parametrize(
    ("ended", "todo"), [("done", "abort --back"), ("aborted", "--restart")]
)
def test_a_pause_that_comes_too_late(
    fleet: RolloutFleet, ended: str, todo: str
) -> None:
    """What can be done with a rollout that has ended is said."""
    assert fleet.rollout().exit_code == 0
    if ended == "aborted":
        assert fleet.run("abort", "--back").exit_code == 0
    late = fleet.run("pause")
    assert (late.exit_code, todo in late.stderr) == (2, True), late.stderr
    assert "--inventory" not in late.stderr


def test_a_folder_that_is_not_there_is_named(fleet: RolloutFleet) -> None:
    """Of the file of a rollout, with what to do."""
    result = fleet.rollout("--state", str(fleet.home / "no" / "state.json"))
    assert (result.exit_code, "--state" in result.stderr) == (1, True), result.stderr
    assert fleet.touched() == []


def wants(fleet: RolloutFleet, name: str) -> int:
    """Return the version that a board was ordered last."""
    return int(fleet.boards[name].orders[-1]["pipelines"]["door"]["version"])


def phase(fleet: RolloutFleet) -> str:
    """Return the phase that is written down."""
    return str(fleet.kept()["course"]["phase"])


def standing(fleet: RolloutFleet, name: str) -> str:
    """Return where a board stands by the file; empty before there is one."""
    if not fleet.state.exists():
        return ""
    saved: Json = json.loads(fleet.state.read_text())["rollout"]
    return str(saved["course"]["boards"][name]["standing"])


@contextmanager
def held(board: FleetBoard) -> Iterator[None]:
    """Let a board answer nothing for a while."""
    with board.lock:
        yield


def release_when_asked(board: FleetBoard) -> None:
    """Let a rollback end a trial that is held."""
    usual = board._take_order

    def take(asked: str, body: bytes) -> Told:
        told = usual(asked, body)
        if asked == "POST /v1/rollback":
            board.held.set()
        return told

    board._take_order = take  # type: ignore[method-assign]  # until it is asked
