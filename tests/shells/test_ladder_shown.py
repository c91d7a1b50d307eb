"""Everybody who looks sees how much a pipeline is held back, why, and what is done."""

from dataclasses import replace
from io import StringIO

import msgspec
import pytest
from msgspec.structs import replace as renew
from rich.console import Console

from agent.cli.ages import Clock
from agent.cli.board_answers import LadderAnswer, PipelineState, State
from agent.cli.ladder_view import held_lines
from agent.core.degradation import LadderState, Level, Measure
from agent.core.events import Event
from agent.core.executors import Executor
from agent.core.ladder_words import LEVELS, MEASURES, say_held, say_measures
from agent.core.readings import BoardReadings
from agent.core.snapshot import AgentSnapshot
from agent.endpoint.event_words import say_event
from agent.endpoint.live_notices import find_notices, judge_health
from agent.endpoint.live_state import Stories, describe_live
from agent.endpoint.live_words import held_level
from agent.endpoint.state import describe_agent, describe_readiness, render_json
from agent.telemetry.exposition import render_metrics
from tests.fakes.snapshots import NOW, agent, pipeline

HOT = LadderState(
    level=Level.DEGRADED,
    since=NOW - 90.0,
    reasons=("heat", "throttled"),
    detail="soc 86 C, 85 C allowed",
    measures=(Measure.HALF_RATE,),
    lacking=(Measure.SMALL_VARIANT,),
    transitions=((Level.DEGRADED, "heat", 2), (Level.NORMAL, "calm", 1)),
)
PREFIX = "tinyward_degradation_"
WORDS = (
    "soc 86 C, 85 C allowed: every other sample "
    "(not to be had: the smaller variant)"
)  # fmt: skip


def held(ladder: LadderState = HOT) -> AgentSnapshot:
    """Return an agent whose one pipeline is held back."""
    return agent(replace(pipeline("door"), ladder=ladder))


def test_every_word_has_words() -> None:
    """Of levels and measures; one of a newer agent is shown by its name."""
    assert set(MEASURES) == set(Measure)
    assert set(LEVELS) == set(Level)
    assert say_measures(("one_thread", "run_slowly")) == "one thread, run slowly"
    assert say_held("", (), ("half_rate",)) == "(not to be had: every other sample)"
    assert say_held("", ()) == ""


def test_the_state_says_all_of_it() -> None:
    """As the command line reads it again."""
    raw = render_json(describe_agent(held()))
    state = msgspec.json.decode(raw, type=State)
    told = msgspec.json.decode(raw)["pipelines"]["door"]["ladder"]
    assert state.pipelines["door"].ladder == LadderAnswer(
        "degraded",
        NOW - 90.0,
        ("heat", "throttled"),
        "soc 86 C, 85 C allowed",
        ("half_rate",),
        ("small_variant",),
    )
    assert told["transitions"][0] == {"level": "degraded", "reason": "heat", "count": 2}


def test_who_does_less_is_ready_and_says_so() -> None:
    """A pipeline that is not held back has the body that it always had."""
    assert describe_readiness(held()) == {
        "ready": True,
        "pipelines": {
            "door": {
                "ready": True,
                "reason": "",
                "level": "degraded",
                "detail": "soc 86 C, 85 C allowed",
            }
        },
    }
    calm = describe_readiness(held(LadderState()))
    assert calm["pipelines"] == {"door": {"ready": True, "reason": ""}}


def test_the_page_has_a_badge() -> None:
    """In words, with a level and a beginning; nothing where nothing holds it back."""

    def badge(ladder: LadderState) -> object:
        shown = describe_live(held(ladder), BoardReadings(), {}, Stories())
        pipelines = shown["pipelines"]
        assert isinstance(pipelines, list)
        return pipelines[0]["held"]

    assert badge(LadderState()) is None
    assert badge(HOT) == {
        "level": "warning",
        "text": f"degraded: {WORDS}",
        "since": NOW - 90.0,
    }


def test_the_page_names_what_stands_in() -> None:
    """Nobody reads the name of a variant that does not compute."""
    agent = held()
    runs = "small on litert 2.3.0 / plain / 1"
    door = replace(agent.pipelines[0], runs=runs)
    shown = describe_live(
        replace(agent, pipelines=(door,)), BoardReadings(), {}, Stories()
    )
    pipelines = shown["pipelines"]
    assert isinstance(pipelines, list)
    assert pipelines[0]["runs"] == runs


@pytest.mark.parametrize(
    ("level", "shown", "health"),
    [
        (Level.SUSPECT, "info", ("answers", "good")),
        (Level.DEGRADED, "warning", ("degraded", "warning")),
        (Level.SAFE, "error", ("safe", "error")),
    ],
)
def test_the_page_says_how_grave_it_is(
    level: Level, shown: str, health: tuple[str, str]
) -> None:
    """What may come is no trouble yet; what is not done any more is."""
    found = held(renew(HOT, level=level))
    assert held_level(found.pipelines[0].ladder) == shown
    assert judge_health(found.pipelines[0], ()) == health
    notice = next(it for it in find_notices(found) if "soc" in it.text)
    assert (notice.level, notice.since) == (shown, NOW - 90.0)
    assert notice.text == f"door {LEVELS[level]}: {WORDS}."


def test_a_pipeline_that_is_well_has_no_notice() -> None:
    """Nor is one that calmed down called otherwise than before."""
    found = held(LadderState(since=NOW, transitions=HOT.transitions))
    assert [it for it in find_notices(found) if it.text.startswith("door")] == []
    assert judge_health(found.pipelines[0], ()) == ("answers", "good")


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        (
            {
                "to": "degraded",
                "reason": "heat",
                "detail": "soc 86 C, 85 C allowed",
                "measures": "one_thread",
            },
            "door: It does less: soc 86 C, 85 C allowed: one thread.",
        ),
        (
            {"to": "suspect", "reason": "heat", "detail": "", "measures": ""},
            "door: It may have to do less: The board is hotter than [degrade] allows.",
        ),
        (
            {"to": "normal", "reason": "calm", "detail": "", "measures": ""},
            "door: It has become calmer and is not held back any more.",
        ),
        (
            {"to": "suspect", "reason": "calm", "measures": "half_rate"},
            "door: It has become calmer and may have to do less: every other sample.",
        ),
        ({"to": "asleep", "reason": "?"}, "door: It is asleep now."),
    ],
)
def test_events_are_sentences(fields: dict[str, str], text: str) -> None:
    """Up with the reason, down without; a newer agent's levels by their names."""
    told = {"pipeline": "door", "from": "normal", **fields}
    assert say_event(Event(1, NOW, "warning", "degradation.changed", told)) == text


def lines(ladder: LadderAnswer | None) -> str:
    """Return what `tinyward status` says of a pipeline's ladder."""
    state = PipelineState(ladder=ladder)
    out = StringIO()
    console = Console(file=out, width=200)
    for line in held_lines({"door": state}, Clock(NOW)):
        console.print(line)
    return out.getvalue()


def test_status_says_it() -> None:
    """One line; older boards say nothing, and nothing is said of them."""
    told = msgspec.convert(msgspec.to_builtins(HOT), LadderAnswer)
    assert lines(told) == f"DEGRADED  door: {WORDS} (began 1 min 30 s ago)\n"
    assert lines(renew(told, since=None, level="safe")) == f"SAFE  door: {WORDS}\n"
    assert lines(LadderAnswer()) == lines(None) == ""
    assert "\x1b" not in lines(renew(told, detail="\x1b[2J", level="\x1b[1m"))


def test_a_scrape_says_it() -> None:
    """The level of every pipeline, and how often it came to one for which reason."""
    calm = replace(pipeline("hall"), ladder=LadderState())
    shown = agent(replace(pipeline("door"), ladder=HOT), calm)
    _, body = render_metrics(shown, BoardReadings(), "")
    told = {it for it in body.decode().splitlines() if it.startswith(PREFIX)}
    counted = f"{PREFIX}transitions_total"
    assert told == {
        f'{PREFIX}level{{pipeline="door"}} 2.0',
        f'{PREFIX}level{{pipeline="hall"}} 0.0',
        f'{counted}{{level="degraded",pipeline="door",reason="heat"}} 2.0',
        f'{counted}{{level="normal",pipeline="door",reason="calm"}} 1.0',
        f'{PREFIX}measure{{measure="half_rate",pipeline="door"}} 1.0',
        f'{PREFIX}measure{{measure="small_variant",pipeline="door"}} 0.0',
    }


def test_a_scrape_says_what_runs() -> None:
    """The pair that stands in, under the model's name; else the chosen one."""
    door = pipeline("door")
    assert door.active is not None
    small = renew(door.active, variant="small", executor=Executor("litert", "plain", 1))
    for shown, variant, executor in (
        (door, door.active.variant, door.active.executor),
        (replace(door, stand_in=small), "small", small.executor),
    ):
        _, body = render_metrics(agent(shown), BoardReadings(), "")
        (line,) = (
            it for it in body.decode().splitlines() if it.startswith("tinyward_model_i")
        )
        assert f'variant="{variant}"' in line
        assert f'executor="{executor.describe()}"' in line
        assert f'version="{door.active.version}"' in line
