"""``tinyward fleet rollout|pause|abort`` against boards behind real TLS."""

import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.board_server import Told, problem
from tests.fakes.daemon_process import wait_until
from tests.fakes.rollout_fleet import (
    FleetBoard,
    RolloutFleet,
    model_row,
    nobody,
    rollout_fleet,
)

Json = dict[str, Any]


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[RolloutFleet]:
    """Six boards, three at once; b1 is the canary."""
    with rollout_fleet(tmp_path) as made:
        yield made


def test_a_good_version_goes_from_the_canary_to_all(fleet: RolloutFleet) -> None:
    """Each board is told once; the report says when, and what was decided."""
    path = fleet.home / "report.json"
    result = fleet.rollout("--report", str(path))
    assert result.exit_code == 0, result.output
    assert set(fleet.versions().values()) == {8}
    assert [len(board.orders) for board in fleet.boards.values()] == [1] * 6
    report = json.loads(path.read_text())
    assert (report["phase"], report["counts"]) == ("done", {"committed": 6})
    acts = [row["act"] for row in report["decisions"]]
    assert (acts[0], acts.count("pass"), acts[-1]) == ("tell", 2, "done")
    assert report["waves"][0]["boards"] == ["b1"]
    told = {name: board["told"] for name, board in report["boards"].items()}
    assert told == dict.fromkeys(fleet.boards, 1)
    assert "done: all waves are through" in result.stdout
    assert [line for line in result.stdout.splitlines() if len(line) > 80] == []


def test_run_again_when_it_is_done(fleet: RolloutFleet) -> None:
    """Everything runs already: nobody is told anything, and that is fine."""
    assert fleet.rollout().exit_code == 0
    result = fleet.rollout("--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["counts"] == {"runs": 6}
    assert [len(board.orders) for board in fleet.boards.values()] == [1] * 6


def test_a_bad_version_stops_at_the_canary(fleet: RolloutFleet) -> None:
    """Its reason is shown; no board of the next wave was told anything."""
    fleet.boards["b1"].fails = "golden"
    result = fleet.rollout()
    assert result.exit_code == 1
    assert "[golden]" in result.stdout
    assert "wave group:canary: failed: 1 of 1 boards" in " ".join(result.stdout.split())
    assert fleet.touched() == ["b1"]
    again = fleet.rollout()
    assert (again.exit_code, fleet.touched()) == (1, ["b1"])
    assert len(fleet.boards["b1"].orders) == 1


def test_failed_boards_are_told_again_when_asked(fleet: RolloutFleet) -> None:
    """``--retry``: with a newer generation; whoever succeeds lets the wave pass."""
    fleet.boards["b1"].fails = "latency"
    assert fleet.rollout().exit_code == 1
    fleet.boards["b1"].fails = ""
    result = fleet.rollout("--retry")
    assert result.exit_code == 0, result.output
    orders = fleet.boards["b1"].orders
    assert [order["generation"] for order in orders] == [1, 2]


@pytest.mark.parametrize(
    ("row", "fault"),
    [
        (model_row(8, 90, failed=10), "failures"),
        (model_row(8, 500, p95_ms=9.0), "latency"),
    ],
)
def test_a_canary_that_does_badly_closes_the_gate(
    fleet: RolloutFleet, row: Json, fault: str
) -> None:
    """It committed; its errors or its delays stop the next wave."""
    fleet.boards["b1"].rows = [model_row(7, 1000), row]
    result = fleet.rollout("--json")
    report = json.loads(result.stdout)
    assert (result.exit_code, report["reason"]) == (1, "gate")
    assert report["boards"]["b1"]["fault"] == fault
    assert fleet.touched() == ["b1"]


def test_drift_of_the_output_closes_the_gate(fleet: RolloutFleet) -> None:
    """A critical alarm that is active makes a bad board."""
    alarm = {"anchor": "profile", "scope": "output", "severity": "critical"}
    watch = {"model": "kws", "version": 8, "alarms": [alarm | {"active": True}]}
    board = fleet.boards["b1"]
    usual = board._run

    def run(version: int) -> None:
        usual(version)
        board.state["pipelines"]["door"]["watch"] = [watch]

    board._run = run  # type: ignore[method-assign]  # this board alone drifts
    report = json.loads(fleet.rollout("--json").stdout)
    assert (report["reason"], report["boards"]["b1"]["fault"]) == ("gate", "drift")


def test_never_more_at_once(fleet: RolloutFleet) -> None:
    """While three are on trial the others are not asked at all."""
    held = [board.held for board in fleet.boards.values()]
    for event in held:
        event.clear()
    fleet.waves = ("all",)
    # A machine with ten others at work takes long to start an interpreter.
    fleet.gate["deadline_s"] = 600
    fleet.write()
    process = fleet.spawn()
    try:
        told = "three boards are told"
        wait_until(lambda: len(fleet.touched()) == 3, told, 60.0, process)
        states = [it["standing"] for it in fleet.kept()["course"]["boards"].values()]
        assert states.count("new") == 3
        for event in held:
            event.set()
        out, _ = process.communicate(timeout=60)
        assert process.returncode == 0, out
    finally:
        process.kill()
        process.wait()
    assert set(fleet.versions().values()) == {8}


def test_a_laptop_that_dies_in_the_middle_of_a_wave(fleet: RolloutFleet) -> None:
    """Killed with boards on trial; the same command goes on, and tells nobody twice."""
    held = [board.held for board in fleet.boards.values()]
    for name in ("b2", "b3", "b4", "b5", "b6"):
        fleet.boards[name].held.clear()
    process = fleet.spawn()
    wait_until(lambda: len(fleet.touched()) == 3, "the second wave is on trial")
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)
    kept = fleet.kept()["course"]
    assert (kept["phase"], kept["wave"]) == ("running", 1)
    for event in held:
        event.set()
    result = fleet.rollout()
    assert result.exit_code == 0, result.output
    assert set(fleet.versions().values()) == {8}
    assert [len(board.orders) for board in fleet.boards.values()] == [1] * 6


def test_an_order_whose_answer_was_lost_is_not_given_twice(
    fleet: RolloutFleet,
) -> None:
    """The connection broke after the board took it: it is seen, not told again."""
    board = fleet.boards["b1"]
    usual = board._take_order

    def take(asked: str, body: bytes) -> Told:
        told = usual(asked, body)
        return Told(0, {}) if asked == "PUT /v1/desired" else told

    board._take_order = take  # type: ignore[method-assign]  # hangs up every time
    result = fleet.rollout()
    assert result.exit_code == 0, result.output
    assert len(board.orders) == 1


def test_an_order_that_never_arrived_is_given_again(fleet: RolloutFleet) -> None:
    """Twice the connection breaks before the board took it; the third arrives."""
    board = fleet.boards["b1"]
    board.told["PUT", "/v1/desired"] = [Told(0, {}) for _ in range(4)]
    result = fleet.rollout()
    assert result.exit_code == 0, result.output
    assert [order["generation"] for order in board.orders] == [1]


def test_boards_out_of_reach(fleet: RolloutFleet) -> None:
    """One of six is too many; allowed for, it is left out and named."""
    fleet.addresses["b4"] = nobody()
    fleet.waves = ("group:canary", "all")
    fleet.write()
    result = fleet.rollout("--json")
    report = json.loads(result.stdout)
    assert (result.exit_code, report["reason"]) == (1, "gate")
    assert "unreachable: 1 of 5 boards" in report["why"]
    fleet.gate["unreachable_share"] = 0.2
    fleet.write()
    result = fleet.rollout("--json")
    report = json.loads(result.stdout)
    assert (result.exit_code, report["phase"]) == (0, "done")
    left = report["boards"]["b4"]
    assert (left["standing"], left["told"], left["reason"]) == ("new", 0, "unreachable")


def test_a_board_behind_anothers_address(fleet: RolloutFleet) -> None:
    """Its certificate names another: it is told nothing, and counts as not there."""
    fleet.addresses["b1"], fleet.addresses["b2"] = (
        fleet.addresses["b2"],
        fleet.addresses["b1"],
    )
    fleet.write()
    result = fleet.rollout("--json")
    report = json.loads(result.stdout)
    assert (result.exit_code, fleet.touched()) == (1, [])
    assert report["boards"]["b1"]["reason"] == "certificate"


def test_boards_named_twice(fleet: RolloutFleet) -> None:
    """The inventory is refused before anybody is told anything."""
    text = fleet.inventory.read_text()
    fleet.inventory.write_text(text + text[text.index("[[board]]") :])
    result = fleet.rollout()
    assert (result.exit_code, fleet.touched()) == (2, [])
    assert "[inventory]" in result.stderr


def test_two_operators_on_one_machine(fleet: RolloutFleet) -> None:
    """The second is told who works on it already."""
    fleet.boards["b1"].held.clear()
    process = fleet.spawn()
    try:
        wait_until(lambda: fleet.touched() == ["b1"], "the canary is told")
        result = fleet.rollout()
        assert (result.exit_code, "[locked]" in result.stderr) == (1, True)
        assert f"process {process.pid} works on this" in result.stderr
        fleet.boards["b1"].held.set()
        process.communicate(timeout=60)
        assert process.returncode == 0
    finally:
        process.kill()
        process.wait()


def test_two_operators_on_two_machines(fleet: RolloutFleet) -> None:
    """Somebody else's order to a board of ours pauses with what they said."""
    board = fleet.boards["b1"]
    board.held.clear()
    process = fleet.spawn()
    wait_until(lambda: board.orders, "the canary is told")
    theirs = {"door": {"model": "kws", "version": 9}}
    board.desired = {"generation": 2, "pipelines": theirs}
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    said = " ".join(out.split())
    assert "somebody else ordered door = kws 9 (generation 2)" in said
    assert fleet.touched() == ["b1"]


def test_a_pause_from_another_terminal(fleet: RolloutFleet) -> None:
    """Honoured while boards are on trial; run again it goes on where it was."""
    fleet.boards["b1"].held.clear()
    process = fleet.spawn("--patience", "0.5")
    wait_until(lambda: fleet.touched() == ["b1"], "the canary is told")
    paused = fleet.run("pause")
    assert (paused.exit_code, paused.stdout.splitlines()[0]) == (
        0,
        "paused: door = kws 8",
    )
    fleet.boards["b1"].held.set()
    out, _ = process.communicate(timeout=60)
    assert (process.returncode, "asked for by" in out) == (1, True)
    assert fleet.touched() == ["b1"]
    assert fleet.rollout().exit_code == 0
    assert set(fleet.versions().values()) == {8}


def test_a_pause_while_nobody_works_on_it(fleet: RolloutFleet) -> None:
    """Written into the file; a rollout that has ended cannot be paused."""
    nothing = fleet.run("pause")
    assert (nothing.exit_code, "there is no rollout" in nothing.stderr) == (2, True)
    fleet.boards["b1"].fails = "golden"
    assert fleet.rollout().exit_code == 1
    assert fleet.run("pause").exit_code == 0
    assert fleet.run("abort").exit_code == 0
    ended = fleet.run("pause")
    assert (ended.exit_code, "was aborted" in ended.stderr) == (2, True)
    assert fleet.kept()["course"]["phase"] == "aborted"


def test_an_abort_takes_back_what_it_brought(fleet: RolloutFleet) -> None:
    """``--back``: boards that were updated roll back; the others are left alone."""
    for name in ("b2", "b3", "b4", "b5", "b6"):
        fleet.boards[name].held.clear()
    process = fleet.spawn("--patience", "0.5")
    wait_until(lambda: len(fleet.touched()) == 3, "the second wave is told")
    told = fleet.touched()
    for board in fleet.boards.values():
        board.held.set()
    wait_until(lambda: fleet.versions()["b1"] == 8, "the canary runs it")
    aborted = fleet.run("abort", "--back")
    out, _ = process.communicate(timeout=60)
    assert (aborted.exit_code, process.returncode) == (0, 1), out
    assert set(fleet.versions().values()) == {7}
    assert fleet.touched()[:1] == ["b1"]
    assert set(told) <= set(fleet.touched())
    refused = fleet.rollout()
    assert (refused.exit_code, "--restart" in refused.stderr) == (2, True)


def test_an_abort_when_it_is_over_takes_back_too(fleet: RolloutFleet) -> None:
    """Done yesterday, regretted today: no process works on it, so abort does."""
    assert fleet.rollout().exit_code == 0
    fleet.boards["b2"].told["POST", "/v1/rollback"] = [
        problem(409, "no_previous", "there is no model before")
    ]
    aborted = fleet.run("abort", "--back")
    assert (aborted.exit_code, "5 boards rolled back" in aborted.stdout) == (1, True)
    assert "b2: not rolled back: there is no model before" in aborted.stdout
    assert fleet.versions() == {**dict.fromkeys(fleet.boards, 7), "b2": 8}
    again = fleet.run("abort", "--back")
    assert (again.exit_code, set(fleet.versions().values())) == (0, {7})
    assert [board.rollbacks for board in fleet.boards.values()] == [1] * 6


def test_ctrl_c_says_how_to_go_on(fleet: RolloutFleet) -> None:
    """Exit code 130; boards stay as they are, and so does the file."""
    fleet.boards["b1"].held.clear()
    process = fleet.spawn()
    wait_until(lambda: fleet.boards["b1"].orders, "the canary is told")
    os.kill(process.pid, signal.SIGINT)
    out, _ = process.communicate(timeout=60)
    assert (
        process.returncode,
        "run the same command again" in " ".join(out.split()),
    ) == (
        130,
        True,
    )
    assert fleet.kept()["course"]["phase"] == "running"


def test_a_dry_run_tells_nobody(fleet: RolloutFleet) -> None:
    """The waves with their boards, the same as the real run draws; no file is left."""
    shown = fleet.rollout("--dry-run", "--json")
    assert shown.exit_code == 0, shown.output
    waves = [wave["boards"] for wave in json.loads(shown.stdout)["waves"]]
    assert (fleet.touched(), fleet.state.exists()) == ([], False)
    assert "2. 50% (2 boards)" in fleet.rollout("--dry-run").stdout
    fleet.rollout()
    assert waves == [boards for _, boards in fleet.kept()["waves"]]


def test_boards_that_do_not_take_pushes(fleet: RolloutFleet) -> None:
    """Each says whose orders it takes: an operator's slip, found before all."""
    fleet.boards["b6"].state["update"]["orchestrator"] = "tuf"
    result = fleet.rollout("--json")
    assert (result.exit_code, fleet.touched()) == (2, [])
    assert "1 board (b6): b6 takes its orders from 'tuf'" in " ".join(
        result.stderr.split()
    )
    assert not fleet.state.exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--wave", "10"), "none of group:NAME, N%"),
        (("--wave", "group:nobody"), "no board is in the group"),
        (("--by-percent", "group:all"), "needs --repository"),
        (("--keys", "x"), "only with --by-percent"),
    ],
)
def test_options_that_make_no_sense(
    fleet: RolloutFleet, words: tuple[str, ...], said: str
) -> None:
    """Exit code 2, and nobody was asked anything."""
    result = fleet.rollout(*words)
    assert (result.exit_code, said in " ".join(result.stderr.split())) == (2, True)
    assert not fleet.state.exists()


def test_a_state_file_that_was_edited_by_hand(fleet: RolloutFleet) -> None:
    """A failed canary made good with an editor: refused, and nobody is told more."""
    fleet.boards["b1"].fails = "golden"
    assert fleet.rollout().exit_code == 1
    failed, made_good = '"standing":"failed"', '"standing":"committed"'
    text = fleet.state.read_text()
    assert failed in text
    fleet.state.write_text(text.replace(failed, made_good))
    result = fleet.rollout()
    assert (result.exit_code, "[rollout]" in result.stderr) == (2, True)
    assert "its checksum is wrong" in " ".join(result.stderr.split())
    assert fleet.touched() == ["b1"]


def test_a_second_attempt_judges_what_the_first_one_brought(
    fleet: RolloutFleet,
) -> None:
    """Told, lost on trial, and committed since: no stranger, but a board of ours."""
    board = fleet.boards["b1"]
    board.held.clear()
    process = fleet.spawn("--patience", "0.5")
    told = "the canary is on trial"
    wait_until(lambda: board.orders, told, 60.0, process)
    usual = board.answer
    board.answer = lambda *_: Told(0, {})  # type: ignore[method-assign]  # gone
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 1, out
    board.answer = usual  # type: ignore[method-assign]  # back on the network
    board.held.set()
    board.rows = [model_row(7, 1000), model_row(8, 10, failed=990)]
    report = json.loads(fleet.rollout("--retry", "--json").stdout)
    canary = report["boards"]["b1"]
    assert (report["reason"], canary["fault"]) == ("gate", "failures")
    assert fleet.touched() == ["b1"]
    assert canary["before"]["door"]["runs"] == "kws 7"


def test_a_board_that_refuses_is_told_once(fleet: RolloutFleet) -> None:
    """Looked at through a whole soak, it stays failed, and is not asked again."""
    fleet.waves = ("all",)
    fleet.gate |= {"failed_share": 0.5, "soak_s": 1.0}
    fleet.write()
    board, usual = fleet.boards["b1"], fleet.boards["b1"]._take_order
    refused = []

    def refuse(asked: str, body: bytes) -> Told:
        if asked != "PUT /v1/desired":
            return usual(asked, body)
        refused.append(asked)
        return problem(507, "disk_full", "no room")

    board._take_order = refuse  # type: ignore[method-assign]  # its disk is full
    report = json.loads(fleet.rollout("--json").stdout)
    assert (report["phase"], len(refused)) == ("done", 1)
    canary = report["boards"]["b1"]
    assert (canary["standing"], canary["reason"]) == ("failed", "disk_full")


def test_a_canary_that_answers_nothing_closes_the_gate(fleet: RolloutFleet) -> None:
    """It committed and is not ready: nobody else is told."""
    board, usual = fleet.boards["b1"], fleet.boards["b1"]._run

    def run(version: int) -> None:
        usual(version)
        board.state["pipelines"]["door"] |= {"ready": False, "reason": "hang"}

    board._run = run  # type: ignore[method-assign]  # this board alone hangs
    report = json.loads(fleet.rollout("--json").stdout)
    assert (report["reason"], report["boards"]["b1"]["fault"]) == ("gate", "hang")
    assert "not ready [hang]" in report["why"]
    assert fleet.touched() == ["b1"]


def test_what_went_wrong_while_nobody_looked_stops_the_next_wave(
    fleet: RolloutFleet,
) -> None:
    """Killed in the soak: whoever goes on after it looks before anybody is told."""
    fleet.gate["soak_s"] = 3.0
    fleet.write()
    process = fleet.spawn()

    def committed() -> bool:
        boards = fleet.kept()["course"]["boards"] if fleet.state.exists() else {}
        return bool(boards) and boards["b1"]["standing"] == "committed"

    wait_until(committed, "the canary has committed", 60.0, process)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)
    settled_at = fleet.kept()["course"]["boards"]["b1"]["settled_at"]
    bad = [model_row(7, 1000), model_row(8, 100, failed=900)]
    fleet.boards["b1"].state["pipelines"]["door"]["models"] = bad
    clock = time.time  # noqa: TID251 - the file counts by it
    wait_until(lambda: clock() > settled_at + 3.0, "the soak is over")
    report = json.loads(fleet.rollout("--json").stdout)
    assert (report["reason"], report["boards"]["b1"]["fault"]) == ("gate", "failures")
    assert fleet.touched() == ["b1"]


def test_a_scripted_board_that_goes_back_on_trial_is_on_trial_no_more() -> None:
    """The fake: a rollback ends what was under way, as on a board."""
    board = FleetBoard("b1")
    board.held.clear()
    order = {"generation": 1, "pipelines": {"door": {"model": "kws", "version": 8}}}
    board.answer("PUT", "/v1/desired", json.dumps(order).encode(), "")
    board.answer("GET", "/v1/state", b"", "")
    assert board.updates["progress"]["phase"] == "PROBATION"
    board.answer("POST", "/v1/rollback", b'{"pipeline":"door"}', "")
    board.held.set()
    board.answer("GET", "/v1/state", b"", "")
    assert (board.version, board.updates["progress"]) == (7, None)
