"""How status, state and inspect tell which variant runs, and why the others do not."""

import json
from dataclasses import replace
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner
from rich.console import Console

from agent.cli import cli
from agent.cli.board_answers import State, Updates
from agent.cli.status_view import render_status, show_lines
from agent.core.executors import Executor
from agent.core.installed import Installed, PassedOver
from agent.core.snapshot import PipelineSnapshot
from agent.endpoint.state import describe_agent, render_json
from tests.fakes.snapshots import agent, pipeline

ONE, TWO = (Executor("litert", "xnnpack", threads, "2.3.0") for threads in (1, 2))
LOSERS = (
    PassedOver("small", ONE, "", "0.5 ms, accuracy 0.85 against 0.97", 0.5, 9),
    PassedOver("large", ONE, "", "4 ms, 1 ms slower", 4.0, 9),
    PassedOver("npu", TWO, "delegate", "libnpu.so: no such file"),
)
CHOSEN = Installed(
    *("kws", 2, "ab" * 32, 1_000, "large", TWO),
    why="most accurate of 2 variants that keep the budgets, 0.97",
    passed_over=LOSERS,
    p50_ms=3.0,
    ram_bytes=5_000_000,
)
SHORT = """
door chose large on litert 2.3.0 / xnnpack / 2: most accurate of 2 variants that
keep the budgets, 0.97
  not small on litert 2.3.0 / xnnpack / 1: 0.5 ms, accuracy 0.85 against 0.97
  not npu on litert 2.3.0 / xnnpack / 2: libnpu.so: no such file [delegate]
"""
LONG = """
door chose large on litert 2.3.0 / xnnpack / 2: most accurate of 2 variants that
keep the budgets, 0.97
  not small on litert 2.3.0 / xnnpack / 1: 0.5 ms, accuracy 0.85 against 0.97
  not large on litert 2.3.0 / xnnpack / 1: 4 ms, 1 ms slower
  not npu on litert 2.3.0 / xnnpack / 2: libnpu.so: no such file [delegate]
"""


def state_of(snapshot: PipelineSnapshot) -> dict[str, Any]:
    """Return ``/v1/state`` of a board with one pipeline."""
    parsed: dict[str, Any] = json.loads(render_json(describe_agent(agent(snapshot))))
    return parsed


def status(snapshot: PipelineSnapshot, *, variants: bool = False) -> str:
    """Return what status shows of it, without blanks at the ends of lines."""
    console = Console(width=80, force_terminal=False, highlight=False)
    state = msgspec.convert(state_of(snapshot), State)
    with console.capture() as captured:
        shown = render_status(state, Updates(), 1e9, variants=variants)
        show_lines(console, shown)
    return "\n".join(line.rstrip() for line in captured.get().splitlines())


def door(**changes: Any) -> PipelineSnapshot:  # noqa: ANN401 - any field
    """Return a pipeline whose model was chosen among several."""
    return replace(pipeline(), **{"name": "door", "active": CHOSEN, **changes})


def test_the_state_says_all_of_it() -> None:
    """Why, and each row that was passed over, in plain values."""
    (found,) = state_of(door(runs="small on litert 2.3.0 / xnnpack / 1"))[
        "pipelines"
    ].values()
    assert found["runs"] == "small on litert 2.3.0 / xnnpack / 1"
    choice = found["choice"]
    assert (choice["why"], choice["p50_ms"]) == (CHOSEN.why, 3.0)
    assert choice["passed_over"][2] == {
        "variant": "npu",
        "executor": "litert 2.3.0 / xnnpack / 2",
        "reason": "delegate",
        "detail": "libnpu.so: no such file",
        "p50_ms": 0.0,
        "ram_bytes": 0,
    }
    (empty,) = state_of(door(active=None))["pipelines"].values()
    assert (empty["choice"], empty["runs"]) == (None, "")


def test_status_tells_the_best_of_each_other_variant() -> None:
    """Other executors of the same variant are shown on demand."""
    assert SHORT.strip() in status(door())
    assert LONG.strip() in status(door(), variants=True)


def test_what_runs_instead_is_told() -> None:
    """Also where there is no other variant."""
    alone = replace(door(), active=msgspec.structs.replace(CHOSEN, passed_over=()))
    runs = "large on litert 2.3.0 / xnnpack / 1"
    assert f"  now runs {runs} instead" in status(replace(alone, runs=runs))
    assert "chose" not in status(alone)
    assert "chose" in status(alone, variants=True)


def test_nothing_is_said_of_one_variant() -> None:
    """Nor of a board that has no model, or an agent that says no such thing."""
    only = msgspec.structs.replace(CHOSEN, passed_over=LOSERS[1:2], why="")
    for snapshot in (pipeline(), door(active=None), replace(door(), active=only)):
        assert "chose" not in status(snapshot)


def test_words_of_a_board_are_plain() -> None:
    """A name with control codes in it moves no cursor."""
    odd = PassedOver("small", ONE, "golden", "\x1b[2J\u202e gone")
    shown = status(door(active=msgspec.structs.replace(CHOSEN, passed_over=(odd,))))
    assert "\x1b" not in shown
    assert "\u202e" not in shown


def test_variants_need_room() -> None:
    """What is redrawn in place has none to spare."""
    result = CliRunner().invoke(cli, ["status", "--variants", "--watch"])
    assert result.exit_code == 2
    assert "--variants" in result.stderr


@pytest.mark.parametrize("known", [{}, {"choice": None, "runs": None}])
def test_older_boards_say_nothing_of_it(known: dict[str, None]) -> None:
    """A key that is not there, or null, is no error."""
    raw = state_of(door())
    (found,) = raw["pipelines"].values()
    del found["choice"], found["runs"]
    found |= known
    state = msgspec.convert(raw, State)
    assert [it.choice for it in state.pipelines.values()] == [None]
