"""``tinyward update``: what is asked of the daemon, what is shown, how it ends."""

import json
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import count
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st

from agent.cli import cli
from agent.cli.board_answers import State
from agent.cli.board_link import BoardLink
from agent.cli.connections import UnixConnection
from agent.cli.follow import LOST_S, UNTOUCHED_S, Follower
from agent.cli.outcome import is_settled, judge
from agent.core.updates import Progress, Report
from agent.errors import AgentError
from tests.fakes.board_server import (
    NOW,
    FakeBoard,
    Told,
    blank_state,
    decision,
    on_socket,
    problem,
    report,
    running,
)


@pytest.fixture
def board() -> FakeBoard:
    """A board that runs ``kws`` 7 as wanted."""
    return FakeBoard()


@pytest.fixture
def socket(board: FakeBoard, tmp_path: Path) -> Iterator[Path]:
    """Its unix socket."""
    with on_socket(board, tmp_path / "control.sock") as path:
        yield path


def run(socket: Path, *arguments: str, typed: str | None = None) -> Result:
    """Run ``tinyward update``."""
    words = ["update", arguments[0], "--socket", str(socket), *arguments[1:]]
    return CliRunner().invoke(cli, words, input=typed, env={"COLUMNS": "80"})


def steps(result: Result) -> list[str]:
    """Return the steps that were shown, without their times."""
    return [line.partition(" s  ")[2] for line in result.stderr.splitlines()]


COMMITTED = """\
PIPELINE  STATE  RUNS   WANTED  WHY
door      runs   kws 8  kws 8   as wanted by fleet/groups/all, generation 12
"""


def test_now_follows_the_phases_to_the_end(board: FakeBoard, socket: Path) -> None:
    """The doorbell rings once; each phase has a line; the outcome is on stdout."""
    board.script = [*board.phases("FETCHING", "PREFLIGHT", "SHADOWING"), board.end()]
    result = run(socket, "now")
    assert (result.exit_code, result.stdout) == (0, COMMITTED)
    assert steps(result) == [
        "asked to look (IDLE)",
        "door: kws 8 FETCHING, 1.2 MB",
        "door: kws 8 PREFLIGHT",
        "door: kws 8 SHADOWING",
        "door: kws 8 committed",
    ]
    assert board.asked.count("POST /v1/updates") == 1


def test_now_with_nothing_new(board: FakeBoard, socket: Path) -> None:
    """A look that leads to nothing is told, and good."""
    result = run(socket, "now")
    assert (result.exit_code, "runs   kws 7  kws 7" in result.stdout) == (0, True)
    assert steps(result) == ["asked to look (IDLE)"]
    assert board.updates["reports"] == []


def test_what_waits_is_good(board: FakeBoard, socket: Path) -> None:
    """Nobody has to act while a window is closed: exit code 0, with the reason."""
    why = "waits for window until 2026-11-18 22:00 UTC"
    board.decide(decision("door", "waits", reason="window", detail=why))
    result = run(socket, "now")
    assert result.exit_code == 0
    assert "waits  kws 7  kws 8   waits for window until 2026" in result.stdout


@pytest.mark.parametrize(
    ("reason", "why"),
    [("disk_full", "no room; it is tried again"), ("latency", "slow (attempt 1 of 3)")],
)
def test_what_waits_to_be_tried_again_is_not_good(
    board: FakeBoard, socket: Path, reason: str, why: str
) -> None:
    """Nothing came of what was asked for: exit code 1, with the reason."""
    board.decide(decision("door", "waits", reason=reason, detail=why))
    result = run(socket, "now")
    assert (result.exit_code, f"{why} [{reason}]" in result.stdout) == (1, True)


FAILED = """\
PIPELINE  STATE   RUNS   WANTED  WHY
door      failed  kws 7  kws 8   sample 3 is off [golden]
                                 -> Compare executors with `tinyward inspect
                                 --run`; widen or repair.
"""


@pytest.mark.parametrize("result", ["failed", "refused", "rolled_back", "interrupted"])
def test_what_was_not_committed_ends_with_1(
    board: FakeBoard, socket: Path, result: str
) -> None:
    """The reason and what to do stand beside it."""
    end = board.end(result, reason="golden", detail="sample 3 is off")
    board.script = [*board.phases("FETCHING", "PREFLIGHT"), end]
    ran = run(socket, "now")
    assert ran.exit_code == 1
    if result == "failed":
        assert ran.stdout == FAILED
    assert "sample 3 is off [golden]" in ran.stdout
    assert steps(ran)[-1] == f"door: kws 8 {result} [golden]"


def test_what_the_plan_refuses_ends_with_1(board: FakeBoard, socket: Path) -> None:
    """Also where no update began: a floor, a quarantine, a revocation."""
    board.decide(decision("door", "refused", 3, reason="version_floor", detail="low"))
    result = run(socket, "now")
    assert (result.exit_code, "low [version_floor]" in result.stdout) == (1, True)


def test_a_look_that_failed_ends_with_1(board: FakeBoard, socket: Path) -> None:
    """A repository out of reach is said as such, though the model runs on."""
    trouble = {"reason": "unreachable", "message": "https://m.example: no route"}
    board.state["update"]["trouble"] = trouble
    result = run(socket, "now")
    assert result.exit_code == 1
    line = (
        "(the look)  failed  -      -       https://m.example: no route [unreachable]"
    )
    assert line in result.stdout


def test_now_as_json(board: FakeBoard, socket: Path) -> None:
    """A script gets one object and nothing else."""
    board.script = [*board.phases("FETCHING"), board.end()]
    result = run(socket, "now", "--json")
    assert result.stderr == ""
    assert json.loads(result.stdout) == {
        "ok": True,
        "pipelines": [
            {
                "pipeline": "door",
                "good": True,
                "state": "runs",
                "runs": "kws 8",
                "wants": "kws 8",
                "why": "as wanted by fleet/groups/all, generation 12",
                "reason": "",
                "todo": "",
            }
        ],
    }


def test_now_without_waiting(board: FakeBoard, socket: Path) -> None:
    """``--no-wait`` rings and leaves."""
    board.script = board.phases("FETCHING")
    result = run(socket, "now", "--no-wait")
    assert (result.exit_code, result.stdout) == (0, "")
    assert board.asked[-1] == "POST /v1/updates"


def test_now_during_an_update_follows_it_and_looks(
    board: FakeBoard, socket: Path
) -> None:
    """Who only asks for a look is not sent away: it comes after the other's update."""
    busy = problem(409, "busy", "another update is under way: SHADOWING")
    board.told["POST", "/v1/updates"] = [busy]
    phases = board.phases("SHADOWING", "SHADOWING", "PROBATION")
    board.script = [*phases, board.end()]
    board.rung = True  # by somebody else
    result = run(socket, "now")
    assert (result.exit_code, result.stdout) == (0, COMMITTED)
    assert steps(result) == [
        "an update is under way already; looking after it",
        "door: kws 8 PROBATION",
        "door: kws 8 committed",
        "asked to look (IDLE)",
    ]
    assert board.asked.count("POST /v1/updates") == 2


def test_now_without_waiting_does_not_wait_for_others(
    board: FakeBoard, socket: Path
) -> None:
    """``--no-wait`` leaves at once, with the reason."""
    board.told["POST", "/v1/updates"] = [problem(409, "busy", "under way: PREFLIGHT")]
    result = run(socket, "now", "--no-wait")
    assert (result.exit_code, "[busy]" in result.stderr) == (1, True)


def test_two_operators_at_once(board: FakeBoard, socket: Path) -> None:
    """409 is told with the phase that the other's update is in."""
    busy = problem(409, "busy", "an update of door is in PROBATION", phase="PROBATION")
    board.told["POST", "/v1/rollback"] = [busy]
    result = run(socket, "rollback", "--yes")
    assert (result.exit_code, result.stdout) == (1, "")
    assert f"error: {socket}: an update of door is in PROBATION [busy]" in result.stderr
    assert "to do: Wait until it has ended, then ask again." in result.stderr


def test_rollback_follows_to_the_end(board: FakeBoard, socket: Path) -> None:
    """The model before answers again, and the hold is told as what it waits for."""

    def end() -> None:
        board.end("committed")()
        board.updates["reports"][0] |= {"version": 6, "source": "operator"}
        board.state["pipelines"]["door"] = running(6)
        held = "held by an operator's rollback until a newer generation than 12"
        board.decide(decision("door", "waits", 7, reason="held", detail=held))

    board.script = [*board.phases("FETCHING"), end]
    result = run(socket, "rollback", "door", "--yes")
    assert result.exit_code == 0
    assert "waits  kws 6  kws 7   held by an operator's rollback" in result.stdout
    assert steps(result)[:1] == ["door: rolling back"]


def test_rollback_tells_what_runs_after_its_report(
    board: FakeBoard, socket: Path
) -> None:
    """On a slow board the report comes before the state that was read with it."""

    def report_only() -> None:
        before = dict(board.state["pipelines"])
        board.end("committed")()
        board.updates["reports"][0] |= {"version": 6, "source": "operator"}
        board.state["pipelines"] = before

    def settle() -> None:
        board.state["pipelines"]["door"] = running(6)
        board.decide(decision("door", "waits", 7, reason="held", detail="held"))

    board.script = [*board.phases("FETCHING"), report_only, settle]
    assert "kws 6" in run(socket, "rollback", "door", "--yes").stdout


def test_a_rollback_that_ends_a_trial_is_good(board: FakeBoard, socket: Path) -> None:
    """What was asked for is no failure, though the trial was rolled back."""
    end = board.end("rolled_back", reason="requested", detail="an operator ended it")
    board.script = [*board.phases("ROLLING_BACK"), end]
    result = run(socket, "rollback", "--yes")
    assert (result.exit_code, "rolled back" in result.stdout) == (0, True)


def test_a_rollback_is_never_asked_for_twice(board: FakeBoard, socket: Path) -> None:
    """A board that hangs up may have heard it: going back once more is not for us."""
    board.told["POST", "/v1/rollback"] = [Told(0, {})]
    result = run(socket, "rollback", "--yes")
    assert (result.exit_code, "[unreachable]" in result.stderr) == (1, True)
    assert board.asked.count("POST /v1/rollback") == 1


def test_a_connection_that_went_stale_is_opened_again(
    board: FakeBoard, socket: Path
) -> None:
    """Boards close idle connections: the next question is asked on a new one."""
    board.told["GET", "/v1/updates"] = [Told(0, {})]
    assert run(socket, "now").exit_code == 0


def test_rollback_without_a_previous_model(board: FakeBoard, socket: Path) -> None:
    """The board's reason comes with what to do."""
    board.told["POST", "/v1/rollback"] = [problem(409, "no_previous", "none before")]
    result = run(socket, "rollback", "--yes")
    assert (result.exit_code, "[no_previous]" in result.stderr) == (1, True)


def test_rollback_asks_only_on_a_terminal(board: FakeBoard, socket: Path) -> None:
    """In a script ``--yes`` has to be said: nothing happens without."""
    result = run(socket, "rollback", "door")
    assert (result.exit_code, "say --yes" in result.stderr) == (2, True)
    assert board.asked == []


@pytest.mark.parametrize(("answer", "rolls"), [(b"y\n", True), (b"n\n", False)])
def test_rollback_asks_on_a_terminal(
    board: FakeBoard, socket: Path, answer: bytes, *, rolls: bool
) -> None:
    """The question names the model; only yes goes on."""
    master, slave = pty.openpty()
    words = ["update", "rollback", "--no-wait", "--socket", str(socket)]
    with subprocess.Popen(
        [sys.executable, "-m", "agent", *words],
        stdin=slave,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as ran:
        os.close(slave)
        os.write(master, answer)
        out, _ = ran.communicate(timeout=30)
    os.close(master)
    assert b"Roll door back from kws 7? [y/N]" in out
    assert ("POST /v1/rollback" in board.asked) is rolls
    assert (ran.returncode == 0) is rolls


def test_ctrl_c_leaves_the_board_to_itself(board: FakeBoard, socket: Path) -> None:
    """The board goes on; the operator is told so; exit code 130."""
    board.script = board.phases(*["SHADOWING"] * 1000)
    words = [sys.executable, "-m", "agent", "update", "now", "--socket", str(socket)]
    with subprocess.Popen(words, stderr=subprocess.PIPE, text=True) as ran:
        assert ran.stderr is not None
        while "SHADOWING" not in ran.stderr.readline():
            assert ran.poll() is None
        ran.send_signal(signal.SIGINT)
        _, said = ran.communicate(timeout=30)
    assert ran.returncode == 130
    assert said.splitlines()[-1].startswith("left; the board goes on by itself")


LISTED = """\
UPDATE       PIPELINE  MODEL  RESULT       WHY
2 h ago      door      kws 7  committed    -
1 d 1 h ago  door      kws 6  rolled back  p95 12.1 ms [latency]

SET ASIDE         SINCE           WHY
3f2a3f2a3f2a3f2\u2026  1 h 56 min ago  crash
"""


@pytest.fixture
def history(board: FakeBoard) -> FakeBoard:
    """The board with a past."""
    slow = {"reason": "latency", "detail": "p95 12.1 ms", "ended_at": NOW - 90_000}
    board.updates["reports"] = [
        report(7, "committed", 7),
        report(6, "rolled_back", 6) | slow,
    ]
    board.updates["quarantine"] = [
        {"sha256": "3f2a" * 16, "reason": "crash", "at": NOW - 7000}
    ]
    return board


@pytest.mark.usefixtures("history")
def test_list_shows_what_was(socket: Path) -> None:
    """Updates that ended, and bundles that are set aside."""
    assert run(socket, "list").stdout == LISTED


def test_list_as_json(history: FakeBoard, socket: Path) -> None:
    """The board's own answer."""
    assert json.loads(run(socket, "list", "--json").stdout) == history.updates


def test_list_of_nothing(socket: Path) -> None:
    """A new board says so in words."""
    assert run(socket, "list").stdout == "no updates yet\n"


@pytest.mark.parametrize("word", ["3f", "3f2a" * 16, "all"])
def test_forgive(history: FakeBoard, socket: Path, word: str) -> None:
    """A digest, its beginning, or all: each is asked for by its whole digest."""
    result = run(socket, "forgive", word)
    assert (result.exit_code, result.stdout) == (
        0,
        "3f2a3f2a3f2a3f2a may be tried again\n",
    )
    assert history.updates["quarantine"] == []


@pytest.mark.parametrize("word", ["", "4", "3f2b"])
def test_forgive_needs_one_bundle(history: FakeBoard, socket: Path, word: str) -> None:
    """Several or none are not guessed."""
    history.updates["quarantine"].append({"sha256": "3e" * 32, "reason": "hang"})
    result = run(socket, "forgive", word)
    assert (result.exit_code, "[request]" in result.stderr) == (1, True)
    assert len(history.updates["quarantine"]) == 2


class Lines:
    """A watcher that keeps what it was told."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def show(self, progress: Progress | None) -> None:
        """Nobody looks."""

    def say(self, text: str) -> None:
        """Keep a line."""
        self.lines.append(text)


@contextmanager
def link_to(path: Path) -> Iterator[BoardLink]:
    """Give a link to a socket."""
    link = BoardLink("board", lambda: UnixConnection(path))
    yield link
    link.close()


def test_the_daemon_restarts_meanwhile(board: FakeBoard, tmp_path: Path) -> None:
    """A board that comes back is followed on; its reports say how it ended."""
    path, said = tmp_path / "control.sock", Lines()
    with on_socket(board, path), link_to(path) as link:
        mark = Follower(link, said, lambda _: None).mark()
    board.end("interrupted")()
    with ExitStack() as restarted, link_to(path) as link:

        def pause(seconds: float) -> None:
            del seconds
            restarted.enter_context(on_socket(board, path))

        outcomes = Follower(link, said, pause).follow_look(mark)
    assert [(row.state, row.good) for row in outcomes] == [("interrupted", False)]
    assert said.lines == [
        "lost the board; waiting for it to come back",
        "door: kws 8 interrupted",
    ]


def test_a_board_that_stays_away_is_given_up(board: FakeBoard, tmp_path: Path) -> None:
    """Nobody waits for ever: after a minute the error says where it was."""
    path, said = tmp_path / "control.sock", Lines()
    with on_socket(board, path), link_to(path) as link:
        mark = Follower(link, said, lambda _: None).mark()
    ticks = count(start=1000.0, step=LOST_S / 4)
    with link_to(path) as link:
        follower = Follower(link, said, lambda _: None, lambda: next(ticks))
        with pytest.raises(AgentError) as raised:
            follower.follow_look(mark)
    assert raised.value.reason == "unreachable"


def test_a_doorbell_that_changes_nothing_is_not_waited_for(
    board: FakeBoard, socket: Path
) -> None:
    """A board that never looks (its next look stays) is left after a while."""
    ticks = count(start=0.0, step=UNTOUCHED_S / 4)
    with link_to(socket) as link:
        follower = Follower(link, Lines(), lambda _: None, lambda: next(ticks))
        outcomes = follower.follow_look(follower.mark())
    assert [(row.state, row.runs) for row in outcomes] == [("runs", "kws 7")]
    assert board.rung is False


def state_of(**update: object) -> State:
    """Return a board's state with some of its update changed."""
    raw = blank_state()
    raw["update"] |= update
    return msgspec.convert(raw, State)


@pytest.mark.parametrize(
    ("update", "settled"),
    [
        ({"next_look": NOW + 500}, True),
        ({}, False),
        ({"next_look": 0.0}, False),
        ({"next_look": NOW + 500, "phase": "SHADOWING"}, False),
        ({"next_look": NOW + 500, "decisions": [decision("door", "ordered")]}, False),
    ],
    ids=["looked", "not looked yet", "looking", "on trial", "it begins now"],
)
def test_when_a_look_is_over(update: dict[str, object], *, settled: bool) -> None:
    """A new time for the next look says that one ended, if nothing came of it."""
    assert is_settled(state_of(), state_of(**update)) is settled


@pytest.mark.parametrize(
    ("result", "reason", "good"),
    [
        ("committed", "", True),
        ("failed", "golden", False),
        ("rolled_back", "requested", True),
        ("rolled_back", "latency", False),
        ("failed", "superseded", True),
        ("interrupted", "", False),
    ],
)
def test_how_a_report_is_judged(result: str, reason: str, *, good: bool) -> None:
    """What somebody asked for, or took back, is no failure."""
    raw = [report(9, result) | {"reason": reason}]
    reports = msgspec.convert(raw, list[Report])
    rows = judge(state_of(), state_of(), reports)
    assert [row.good for row in rows] == [good]


def test_only_the_newest_report_of_a_pipeline_counts() -> None:
    """A failure that was followed by a commit is no failure."""
    raw = [report(9, "committed"), report(8, "failed") | {"reason": "golden"}]
    rows = judge(state_of(), state_of(), msgspec.convert(raw, list[Report]))
    assert [row.state for row in rows] == ["runs"]


def test_what_did_not_verify_is_told_once() -> None:
    """A refused slice shows as the look's; not beside the pipeline it failed for."""
    refusal = {"reason": "signature", "message": "not one of ours"}
    after = state_of(verify_failures={"signature": 2}, last_refusal=refusal)
    before = state_of(verify_failures={"signature": 1}, last_refusal=refusal)
    rows = judge(before, after, [])
    assert [(row.pipeline, row.reason) for row in rows] == [
        ("", "signature"),
        ("door", ""),
    ]
    told = refusal | {"detail": refusal["message"]}
    failed = msgspec.convert([report(9, "refused") | told], list[Report])
    assert [row.pipeline for row in judge(before, after, failed)] == ["door"]
    assert [row.pipeline for row in judge(after, after, [])] == ["door"]


LOCKED_OUT = {"reason": "unauthorized", "message": "poll: answered 401"}


def test_a_server_that_lets_nobody_in_is_the_looks_failure() -> None:
    """Before what the repository says; all that runs as wanted hides nothing of it."""
    gone = {"reason": "unreachable", "message": "https://m.example: no route"}
    after = state_of(ddi={"next_poll": NOW + 60, "trouble": LOCKED_OUT}, trouble=gone)
    rows = judge(state_of(), after, [])
    assert [(row.pipeline, row.good, row.reason) for row in rows] == [
        ("", False, "unauthorized"),
        ("", False, "unreachable"),
        ("door", True, ""),
    ]


def test_a_server_that_does_not_answer_is_no_broken_repository() -> None:
    """What to do about it names the server's settings, not those of the repository."""
    gone = {"reason": "unreachable", "message": "the fleet's server: refused"}
    after = state_of(ddi={"next_poll": NOW + 60, "trouble": gone})
    assert "fleet.ddi.url" in judge(state_of(), after, [])[0].todo


def test_now_asks_the_fleets_server_and_says_that_it_refused(
    board: FakeBoard, socket: Path
) -> None:
    """Exit code 1, though the model runs; its answer is waited for."""
    server = {"url": "https://fleet.example", "next_poll": NOW + 300, "trouble": None}
    board.state["update"]["ddi"] = server

    def asking() -> None:
        board.look_ended()  # the repository was the faster one
        server["next_poll"] = 0.0

    def refused() -> None:
        server.update(next_poll=NOW + 600, trouble=LOCKED_OUT)

    board.script = [asking, asking, refused]
    result = run(socket, "now")
    assert (result.exit_code, "401 [unauthorized]" in result.stdout) == (1, True)
    assert "-> Give the board a token" in result.stdout


def test_a_refusal_of_an_order_that_is_wanted_no_longer_is_no_news() -> None:
    """It stands where its order does, and is hidden where another one followed."""
    told = {"reason": "missing_target", "message": "kws/99.tpk is not among the signed"}
    missing = report(9, "refused", 99)
    missing |= {"reason": told["reason"], "detail": told["message"]}
    known = msgspec.convert([missing], list[Report])
    before = state_of(verify_failures={"missing_target": 1})
    more = {"verify_failures": {"missing_target": 2}, "last_refusal": told}
    wanted = state_of(decisions=[decision("door", "ordered", 99)], **more)
    assert judge(before, wanted, [], known)[0].reason == "missing_target"
    other = state_of(decisions=[decision("door", "runs", 7)], **more)
    assert [row.state for row in judge(before, other, [], known)] == ["runs"]


def test_pipelines_of_other_boards_are_told_as_status_tells_them() -> None:
    """What a group wants of a pipeline that is not here is shown, and is no mistake."""
    foreign = decision("gate", "refused", 3, reason="unknown_pipeline", detail="no")
    after = state_of(decisions=[decision("door", "runs", 7), foreign])
    rows = judge(after, after, [])
    assert [(row.pipeline, row.wants, row.good) for row in rows] == [
        ("door", "kws 7", True),
        ("gate", "kws 3", True),
    ]


def test_an_order_that_nothing_can_be_verified_for_has_a_reason() -> None:
    """A board without a root takes orders, and says of them that they begin now."""
    ordered = [decision("door", "ordered")]
    blind = state_of(decisions=ordered, metadata_issued=0.0, metadata_expires={})
    rows = judge(blind, blind, [])
    assert [(row.pipeline, row.reason) for row in rows] == [
        ("", "signature"),
        ("door", ""),
    ]
    seeing = state_of(decisions=ordered)
    assert [row.pipeline for row in judge(seeing, seeing, [])] == ["door"]


def test_a_look_that_failed_is_told_beside_what_is_refused() -> None:
    """A pipeline that was refused before says nothing about why the look failed."""
    lost = {"reason": "unreachable", "message": "https://m.example: no route"}
    low = decision("door", "refused", 3, reason="version_floor", detail="low")
    after = state_of(trouble=lost, decisions=[low])
    rows = judge(state_of(decisions=[low]), after, [])
    assert [(row.pipeline, row.reason) for row in rows] == [
        ("", "unreachable"),
        ("door", "version_floor"),
    ]


states = st.sampled_from(["runs", "ordered", "waits", "refused", "unassigned"])


@given(st.lists(states, min_size=1, max_size=4))
def test_law_one_bad_pipeline_makes_it_bad(decided: list[str]) -> None:
    """Good is what runs, waits or is unassigned; nothing else."""
    names = [f"p{index}" for index in range(len(decided))]
    raw = blank_state()
    raw["pipelines"] = {name: running(7) for name in names}
    raw["update"]["decisions"] = [
        decision(name, state, reason="window" if state == "waits" else "")
        for name, state in zip(names, decided, strict=True)
    ]
    after = msgspec.convert(raw, State)
    good = all(row.good for row in judge(after, after, []))
    assert good is not bool({"ordered", "refused"} & set(decided))
