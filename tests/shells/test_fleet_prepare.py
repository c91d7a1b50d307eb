"""What `fleet rollout` finds out before it tells any board anything."""

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from agent.cli import cli
from agent.cli.fleet_prepare import FirstLook, check_boards, find_strays
from agent.cli.fleet_view import next_words
from agent.core.inventory import GateTable
from agent.core.targets import GroupFile, Wanted
from agent.core.waves import Act, Decision, Plan, Wave, begin
from agent.publish.repository import init_repository
from agent.publish.staging import Assignment
from tests.fakes.board_server import decision
from tests.fakes.daemon_process import wait_until
from tests.fakes.fleet_ca import FleetCA
from tests.fakes.rollout_fleet import RolloutFleet, nobody, rollout_fleet

NOW = 1_795_000_000.0
SECRET = b"correct horse"


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[RolloutFleet]:
    """Two boards; b1 is the canary."""
    with rollout_fleet(tmp_path, 2, waves=("group:canary", "all")) as made:
        yield made


def refused(fleet: RolloutFleet, result: Result, said: str) -> None:
    """Check that it ended as a slip: nobody told, no file in anybody's way."""
    words = " ".join(result.stderr.split())
    assert (result.exit_code, said in words) == (2, True), result.output
    assert (fleet.touched(), fleet.state.exists()) == ([], False)


def repository(home: Path) -> Path:
    """Publish kws 8 and 9, and revoke 9."""
    made = init_repository(home / "repo", None, SECRET, now=NOW)
    for version in (8, 9):
        made.add(b"%d" % version, model="kws", version=version)
    made.publish(NOW)
    made.revoke([made.digest("kws", 9)])
    made.publish(NOW)
    (home / "passphrase").write_bytes(SECRET)
    return home / "repo"


@pytest.mark.parametrize("text", ["door=0", "door=kws@0", "door=-1", "door=9999999999"])
def test_versions_that_cannot_be(fleet: RolloutFleet, text: str) -> None:
    """A usage error, as everywhere."""
    refused(fleet, fleet.rollout(assign=text), "PIPELINE")


def test_a_pipeline_that_is_named_twice(fleet: RolloutFleet) -> None:
    """Which one was meant? ``push`` asks the same."""
    said = "names pipeline 'door' twice"
    refused(fleet, fleet.rollout("--assign", "door=7"), said)
    words = ["push", "b1", "--assign", "door=7", "--assign", "door=8"]
    papers = ["--cert", "ca/operator.pem", "--key", "ca/operator.key"]
    papers = [str(fleet.home / it) if "/" in it else it for it in papers]
    words += [*papers, "--ca", str(fleet.home / "ca/ca.pem")]
    result = CliRunner().invoke(cli, words)
    assert (result.exit_code, said in " ".join(result.stderr.split())) == (2, True)


@pytest.mark.parametrize(
    ("assign", "said"),
    [
        ("door=10", "does not list kws 10"),
        ("door=kws@9", "revoked kws 9"),
        ("window=8", "no board that answers has a pipeline 'window'"),
    ],
)
@pytest.mark.parametrize("more", [(), ("--dry-run",)])
def test_what_no_board_could_run(
    fleet: RolloutFleet, assign: str, said: str, more: tuple[str, ...]
) -> None:
    """By the repository and by the boards; in a dry run as well."""
    place = str(repository(fleet.home))
    result = fleet.rollout("--repository", place, *more, assign=assign)
    refused(fleet, result, said)


def test_an_observers_certificate(fleet: RolloutFleet) -> None:
    """Its role is in the file: no board has to be asked."""
    leaf = _role(fleet.home, "observer")
    result = fleet.rollout("--cert", str(leaf[0]), "--key", str(leaf[1]))
    refused(fleet, result, "its role is observer")


def test_boards_that_do_not_answer_are_named(fleet: RolloutFleet) -> None:
    """A dry run says whom it could not ask; they are no slip."""
    fleet.addresses["b2"] = nobody()
    fleet.write()
    result = fleet.rollout("--dry-run")
    assert result.exit_code == 0, result.output
    assert "note: not asked, since they do not answer: b2" in result.stdout


def test_keys_and_groups_of_a_signed_rollout(fleet: RolloutFleet) -> None:
    """A wrong passphrase, a group of nobody, boards that take pushes."""
    place = str(repository(fleet.home))
    wrong = fleet.home / "wrong"
    wrong.write_bytes(b"incorrect")
    secret = ("--passphrase-file", str(fleet.home / "passphrase"))
    signed = ("--repository", place, "--by-percent", "group:all")
    result = fleet.rollout(*signed, "--passphrase-file", str(wrong))
    refused(fleet, result, "passphrase")
    result = fleet.rollout(*signed[:3], "group:zzz", *secret, assign="door=kws@8")
    refused(fleet, result, "no board is in the group 'zzz'")
    result = fleet.rollout(*signed, *secret, assign="door=kws@8")
    refused(fleet, result, "2 boards (b1, b2): b1 takes its orders from 'push'")
    result = fleet.rollout(*signed, *secret, assign="door=kws@10")
    refused(fleet, result, "kws 10 is not published there")


def test_boards_that_go_by_another_file(fleet: RolloutFleet) -> None:
    """The canary's file speaks of the pipeline, and the canary goes by that of all."""
    place = repository(fleet.home)
    from agent.publish.repository import Repository

    owner = Repository.open(place, None, SECRET)
    asked = Assignment(percent=100.0, paused=False)
    owner.assign("canary", {"door": ("kws", 8)}, assignment=asked)
    owner.publish(NOW)
    for board in fleet.boards.values():
        board.state["update"]["orchestrator"] = "tuf"
        board.decide(decision("door", "runs", 7, source="fleet/groups/all"))
    words = ("--repository", str(place), "--by-percent", "group:all", "--dry-run")
    result = fleet.rollout(*words, assign="door=kws@8")
    assert result.exit_code == 0, result.output
    said = "b1 does not follow group:canary: it goes by group:all"
    assert (said in result.stdout, "b2 does not" in result.stdout) == (True, False)


def test_a_board_says_nothing_of_a_file_that_is_not_there() -> None:
    """Without a look, and without a file, there is nothing to note."""
    files = {"all": GroupFile(1, {"door": Wanted("kws", 7)})}
    waves = [Wave("group:canary", ("b1",)), Wave("all", ("b2",))]
    assert [*find_strays(FirstLook(), waves, "all", files, ["door"])] == []
    check_boards(FirstLook(), {"door": ("kws", 8)}, "push")


def test_a_report_is_written_whatever_happens(fleet: RolloutFleet) -> None:
    """A folder that is not there is found first; a dry run and Ctrl-C write it."""
    gone = fleet.home / "nonexist" / "x.json"
    for more in ((), ("--dry-run",)):
        refused(
            fleet, fleet.rollout("--report", str(gone), *more), "there is no folder"
        )
    path = fleet.home / "report.json"
    assert fleet.rollout("--dry-run", "--report", str(path)).exit_code == 0
    assert [it["name"] for it in json.loads(path.read_text())["waves"]] == [
        "group:canary",
        "all",
    ]
    fleet.boards["b1"].held.clear()
    process = fleet.spawn("--report", str(path))
    wait_until(lambda: fleet.boards["b1"].orders, "the canary is told")
    os.kill(process.pid, signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 130
    assert json.loads(path.read_text())["phase"] == "running"


def test_a_dry_run_beside_another_rollout(fleet: RolloutFleet) -> None:
    """It harms nobody: shown, with a note that it could not begin."""
    fleet.boards["b1"].fails = "golden"
    assert fleet.rollout().exit_code == 1
    result = fleet.rollout("--dry-run", assign="door=9")
    assert result.exit_code == 0, result.output
    assert "note: it could not begin now: another rollout is under way" in result.stdout


def test_one_board_is_one_board(fleet: RolloutFleet) -> None:
    """In the dry run's head, and of those that no wave has at the end."""
    shown = fleet.rollout("--dry-run", "--wave", "group:canary")
    assert "door = 8, 1 board, 3 at once" in shown.stdout.replace("kws ", "")
    result = fleet.rollout("--wave", "group:canary")
    assert result.exit_code == 0, result.output
    assert "; 1 board of the inventory in no wave" in " ".join(result.stdout.split())


def test_nobody_waits_for_0_s() -> None:
    """The rest of a second is a second."""
    plan = Plan([Wave("all", ("b1",))], GateTable())
    words = next_words(plan, begin(plan, 0.0), Decision(Act.WAIT, until=10.2), 10.0)
    assert words == "watches this wave for 1 s more, then it is done"


def _role(home: Path, role: str) -> tuple[Path, Path]:
    """Return certificate and key of a role of another CA: only the name counts."""
    (home / "other").mkdir()
    leaf = FleetCA(home / "other", "ca").role(role)
    return leaf.certificate, leaf.key
