"""``tinyward monitor``: what people read of monitors, and letting one begin anew."""

import json
import os
import pty
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace as replace_struct

from agent.cli import cli
from agent.cli.board_answers import State
from agent.cli.monitor_view import bar, render_monitors
from agent.cli.status_view import clock_of
from agent.core.watching import (
    ANCHORS,
    Alarm,
    AnchorState,
    FeatureDrift,
    ModelWatch,
    Monitored,
    Score,
)
from agent.endpoint.state import describe_agent
from tests.fakes.board_server import (
    NOW,
    FakeBoard,
    Json,
    Told,
    on_socket,
    problem,
    running,
)
from tests.fakes.snapshots import agent, pipeline

SAID = Monitored(
    samples=5000,
    interval=20,
    autocorrelation=0.28,
    share=0.004,
    anchors=(
        AnchorState("shipped", valid=True, calibration="grouped"),
        AnchorState(
            "site",
            valid=False,
            reason="commissioning",
            detail="waits until the shipped anchor is quiet",
            collected=500,
            wanted=2000,
        ),
    ),
    scores=(
        Score("shipped", "input", "mewma", 1.75),
        Score("shipped", "input", "etable", 0.5),
        Score("shipped", "output", "mewma", 123456.0),
    ),
    alarms=(
        Alarm("shipped", "input", active=True, confirmed=True, raised=2),
        Alarm("shipped", "stuck", active=False, raised=1),
        Alarm("shipped", "all", active=False),
    ),
    features=(
        FeatureDrift("shipped", "sharpness", 0.5, psi=0.01, ks=0.0625),
        FeatureDrift("shipped", "brightness", -1.25, psi=0.4, ks=0.125),
    ),
    repeated=3,
    invalid={"nan": 2, "range": 0},
    accuracy=0.93,
)
WATCH = ModelWatch("kws", 2, SAID, {("shipped", "input"): NOW - 60})
SHOWN = """\
door: kws 2
  5000 samples watched, 1 in 20, at 0.40 % of its worker's time
  autocorrelation 0.28, 3 repeated, 2 invalid (nan), accuracy about 0.93
  shipped  compared (grouped)
  site     collecting: 500 of 2000 samples, waits until the shipped anchor is
           quiet [commissioning]

  ANCHOR   SCOPE   DETECTOR  SCORE  OF ITS THRESHOLD
  shipped  input   mewma     1.75   ==========|========
  shipped  input   etable    0.50   =====     |
  shipped  output  mewma     >9999  ==========|=========>

  ALARM  shipped input (warning): confirmed, raised 2 times, last 1 min ago
  quiet  shipped stuck (critical): raised once

  ANCHOR   MOVED MOST  BY        PSI   KS
  shipped  brightness  -1.25 sd  0.40  0.12
  shipped  sharpness   +0.50 sd  0.01  0.06
"""


def state_with(*watches: ModelWatch) -> Json:
    """Return the state of a board whose ``door`` runs ``kws`` 2, as it says it."""
    shown = replace(agent(replace(pipeline(), watch=watches)), now=NOW)
    found: Json = json.loads(msgspec.json.encode(describe_agent(shown)))
    return found


@pytest.fixture
def board() -> FakeBoard:
    """A board whose monitor has seen something."""
    board = FakeBoard()
    board.state = state_with(WATCH)
    return board


@pytest.fixture
def socket(board: FakeBoard, tmp_path: Path) -> Iterator[Path]:
    """Its unix socket."""
    with on_socket(board, tmp_path / "control.sock") as path:
        yield path


def run(socket: Path, *words: str) -> Result:
    """Run ``tinyward monitor`` in 80 columns."""
    arguments = ["monitor", *words, "--socket", str(socket)]
    return CliRunner().invoke(cli, arguments, env={"COLUMNS": "80"})


@pytest.mark.parametrize("words", [(), ("door",), ("show",), ("show", "door")])
def test_what_people_read(socket: Path, words: tuple[str, ...]) -> None:
    """Everything in 80 columns: what was seen, compared, found, and what moved."""
    result = run(socket, *words)
    assert (result.exit_code, result.stdout) == (0, SHOWN)


@pytest.mark.parametrize("words", [(), ("door",)])
def test_json(socket: Path, words: tuple[str, ...]) -> None:
    """All that the board says of its monitors, by pipeline."""
    result = run(socket, *words, "--json")
    assert result.exit_code == 0
    shown = json.loads(result.stdout)
    assert shown == {"door": state_with(WATCH)["pipelines"]["door"]["watch"]}
    assert shown["door"][0]["alarms"][0]["at"] == NOW - 60


@pytest.mark.parametrize("words", [("gate",), ("gate", "--json")])
def test_a_pipeline_that_is_not_there(socket: Path, words: tuple[str, ...]) -> None:
    """The refusal names those that are."""
    result = run(socket, *words)
    assert result.exit_code != 0
    assert "there is no pipeline 'gate' there, but: door" in result.stderr
    assert "[unknown_pipeline]" in result.stderr


def test_boards_that_do_not_watch(board: FakeBoard, socket: Path) -> None:
    """An older board, a model that was replaced, a pipeline without a model, none."""
    board.state["pipelines"] = {
        "old": running(7),
        "null": running(7) | {"watch": None},
        "after": running(7)
        | {"watch": state_with(WATCH)["pipelines"]["door"]["watch"]},
        "empty": running(7) | {"active": None},
    }
    assert run(socket).stdout.split("\n\n") == [
        "old: not watched",
        "null: not watched",
        "after: not watched",
        "empty: no model answers\n",
    ]
    board.state["pipelines"] = {}
    assert run(socket).stdout == "no pipelines: the settings name none\n"
    assert json.loads(run(socket, "--json").stdout) == {}


def test_why_nothing_is_compared(board: FakeBoard, socket: Path) -> None:
    """An anchor that cannot be used says why, for people and with its word."""
    bad = AnchorState("shipped", valid=False, reason="profile", detail="of another")
    board.state = state_with(ModelWatch("kws", 2, Monitored(anchors=(bad,))))
    lines = run(socket).stdout.splitlines()
    assert lines == [
        "door: kws 2",
        "  0 samples watched, 1 in 1, at 0.00 % of its worker's time",
        "  autocorrelation 0.00",
        "  shipped  of another [profile]",
        "  nothing to compare with yet",
    ]


def test_what_is_compared_with_nothing_has_no_score(
    board: FakeBoard, socket: Path
) -> None:
    """The 0 of a model that has no reference is no good news; a stuck input is told
    all the same."""
    none = tuple(AnchorState(it, valid=False, reason="unwatched") for it in ANCHORS)
    for ratio, shown in ((0.0, False), (1.5, True)):
        scores = (Score("shipped", "stuck", "repeat", ratio),)
        said = Monitored(samples=9, anchors=none, scores=scores)
        board.state = state_with(ModelWatch("kws", 2, said))
        text = run(socket).stdout
        assert "nothing to compare with yet" in text
        assert ("SCORE" in text) is shown


@pytest.mark.parametrize("why", ["monitor.cpu_share is 0", "monitor.keep is nothing"])
def test_watching_that_is_off(board: FakeBoard, socket: Path, why: str) -> None:
    """One line says so, and why; nothing looks as if it were about to begin."""
    off = tuple(
        AnchorState(it, valid=False, reason="unwatched", detail=why) for it in ANCHORS
    )
    board.state = state_with(ModelWatch("kws", 2, Monitored(anchors=off)))
    assert run(socket).stdout == f"door: kws 2\n  not watched: {why}\n"


def test_a_long_line_stays_indented(board: FakeBoard, socket: Path) -> None:
    """Numbers of months, folded at a space."""
    invalid = {"nan": 10**9, "range": 10**9, "shape": 10**9}
    said = replace_struct(SAID, invalid=invalid)
    board.state = state_with(ModelWatch("kws", 2, said))
    lines = run(socket).stdout.splitlines()
    assert lines[2].startswith("  autocorrelation 0.28, 3 repeated, ")
    assert lines[3].startswith("  ")
    assert lines[3].endswith("accuracy about 0.93")
    assert max(map(len, lines[:4])) <= 80


def test_what_boards_say_is_shown_as_text(board: FakeBoard, socket: Path) -> None:
    """No control characters of a board reach the terminal."""
    watch = board.state["pipelines"]["door"]["watch"][0]
    watch["anchors"] = [{"anchor": "a\x1b[2J", "detail": "b\x07", "reason": "c\x9b"}]
    watch["scores"] = [{"anchor": "\x1b", "scope": "\x1b", "ratio": None}]
    watch["alarms"] = [{"anchor": "\x1b", "scope": "\x1b", "active": True, "at": None}]
    watch["features"] = [{"anchor": "\x1b", "feature": "\x1b", "shift": None}]
    watch["invalid"] = {"\x1b": 1}
    result = run(socket)
    assert result.exit_code == 0
    assert result.stdout.replace("\n", "").isprintable()


@given(
    ratios=st.lists(st.floats(0, 1e9) | st.just(float("nan")), max_size=32),
    shifts=st.lists(st.floats(-1e9, 1e9), max_size=20),
)
def test_any_monitor_can_be_shown(ratios: list[float], shifts: list[float]) -> None:
    """Law: what the types let through is rendered."""
    said = Monitored(
        samples=1,
        scores=tuple(Score("site", "all", "mewma", it) for it in ratios),
        features=tuple(FeatureDrift(it, "mean", n) for it in ANCHORS for n in shifts),
    )
    state = msgspec.convert(state_with(ModelWatch("kws", 2, said)), State)
    assert len(list(render_monitors(state.pipelines, clock_of(state, NOW)))) == 1


@given(st.floats())
def test_bars(ratio: float) -> None:
    """Law: a bar ends at twice its threshold, which always stands at one place."""
    drawn = bar(ratio)
    assert drawn[10] == "|"
    assert len(drawn) <= 21
    assert ("=" in drawn[11:]) <= (ratio > 1)


class TestCommission:
    """Letting a baseline begin anew."""

    def test_it_is_asked_for(self, board: FakeBoard, socket: Path) -> None:
        """With --yes at once; the board says which pipeline it is."""
        board.told["POST", "/v1/commission"] = [Told(200, {"pipeline": "door"})]
        result = run(socket, "commission", "door", "--yes")
        assert result.exit_code == 0
        assert result.stdout == "door: collecting a new baseline\n"
        assert board.asked == ["GET /v1/state", "POST /v1/commission"]

    def test_nobody_is_there_to_ask(self, board: FakeBoard, socket: Path) -> None:
        """In a pipe --yes has to be said."""
        result = run(socket, "commission", "door")
        assert result.exit_code == 2
        assert "say --yes" in result.stderr
        assert "POST /v1/commission" not in board.asked

    @pytest.mark.parametrize("words", [(), ("--yes",)])
    def test_a_pipeline_that_is_not_there(
        self, board: FakeBoard, socket: Path, words: tuple[str, ...]
    ) -> None:
        """It is refused before anybody is asked to agree to it."""
        result = run(socket, "commission", "gate", *words)
        assert result.exit_code == 1
        assert "there is no pipeline 'gate' there, but: door" in result.stderr
        assert "say --yes" not in result.stderr
        assert "POST /v1/commission" not in board.asked

    @pytest.mark.parametrize(("typed", "asks"), [(b"y\n", True), (b"n\n", False)])
    def test_it_asks_on_a_terminal(
        self, board: FakeBoard, socket: Path, typed: bytes, *, asks: bool
    ) -> None:
        """Yes begins anew, no leaves all as it is."""
        board.told["POST", "/v1/commission"] = [Told(200, {"pipeline": "door"})]
        ours, theirs = pty.openpty()
        os.write(ours, typed)
        words = ["monitor", "commission", "door", "--socket", str(socket)]
        done = subprocess.run(
            [sys.executable, "-m", "agent", *words],
            stdin=theirs,
            capture_output=True,
            check=False,
            timeout=60,
        )
        os.close(ours)
        os.close(theirs)
        assert (done.returncode == 0) is asks
        assert ("POST /v1/commission" in board.asked) is asks

    def test_a_board_that_refuses(self, board: FakeBoard, socket: Path) -> None:
        """In the board's own words."""
        refusal = problem(409, "watching_off", "monitor.cpu_share is 0")
        board.told["POST", "/v1/commission"] = [refusal]
        result = run(socket, "commission", "door", "--yes")
        assert result.exit_code != 0
        assert "monitor.cpu_share is 0 [watching_off]" in result.stderr
        assert "tinyward profile" not in result.stderr


def test_help_comes_without_asking(socket: Path) -> None:
    """--help is the group's; a command of its own is found before a pipeline."""
    for words in (("--help",), ("-h",)):
        result = CliRunner().invoke(cli, ["monitor", *words])
        assert result.exit_code == 0
        assert "commission" in result.stdout
    assert "unreachable" in run(socket.with_name("none"), "door").stderr
