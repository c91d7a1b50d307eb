"""The line of ``systemctl status``: what is wrong first, in one line that is short."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core.degradation import LadderState, Level
from agent.core.executors import DelegateFile, Executor
from agent.core.installed import Installed
from agent.core.reasons import Reason
from agent.core.snapshot import AgentSnapshot, PipelineSnapshot, UpdateSnapshot
from agent.core.status_lines import MAX_CHARS, describe_agent
from agent.core.trend import TrendPoint
from agent.core.updates import Progress

EXECUTOR = Executor("litert", "xnnpack", 1, "2.3.0")
INSTALLED = Installed("kws", 8, "0" * 64, 1000, "int8", EXECUTOR)


def pipeline(name: str = "kws", **more: object) -> PipelineSnapshot:
    """Return a pipeline that answers."""
    snapshot = PipelineSnapshot(
        name=name,
        model="kws",
        active=INSTALLED,
        state="active",
        ready=True,
        reason=Reason.NONE,
        counts=(),
        restarts={},
        swaps={},
        gap_s=0.0,
        lag_s=0.0,
        sink_dropped={},
    )
    return replace(snapshot, **more)  # type: ignore[arg-type]  # any of its fields


def agent(
    *pipelines: PipelineSnapshot, progress: Progress | None = None
) -> AgentSnapshot:
    """Return an agent with these pipelines."""
    return AgentSnapshot("1", {}, pipelines, UpdateSnapshot(progress=progress))


def point(rate: float, p99_ms: float | None = None) -> TrendPoint:
    """Return what a pipeline did in two seconds."""
    return TrendPoint(0.0, rate, 0.0, 0.0, None, None, p99_ms, 0.0, None, 8)


def test_what_runs_on_what_and_how_fast() -> None:
    """The mean rate and the slowest p99 of the last three points."""
    points = [point(9000, 90.0), point(312, 2.0), point(311, 3.14), point(313, 1.0)]
    line = describe_agent(agent(pipeline()), {"kws": points})
    assert line == "kws 8 on litert/xnnpack, 312/s, p99 3.1 ms"


@pytest.mark.parametrize(
    ("rate", "p99_ms", "told"),
    [
        (0.95, 0.0671, "0.95/s, p99 0.067 ms"),
        (1.0, 121.4, "1/s, p99 121 ms"),
        (10_000.4, None, "10000/s"),
        (0.0, None, "none in 6 s"),
    ],
)
def test_figures_are_as_short_as_they_can_be(
    rate: float, p99_ms: float | None, told: str
) -> None:
    """Two digits, or all that stand before the point."""
    line = describe_agent(agent(pipeline()), {"kws": [point(rate, p99_ms)]})
    assert line == f"kws 8 on litert/xnnpack, {told}"


def test_executors_say_what_they_are() -> None:
    """Threads where there are several, a delegate by its name, a stand-in as it is."""
    many = replace_executor(Executor("tflite", "plain", 4))
    npu = DelegateFile("npu", "/lib/npu.so", "0" * 64)
    chip = replace_executor(Executor("litert", "delegate", 1, "2.3.0", npu))
    small = pipeline("c", runs="small on litert 2.3.0 / xnnpack / 1")
    line = describe_agent(
        agent(pipeline("a", active=many), pipeline("b", active=chip), small), {}
    )
    assert line == (
        "a 8 on tflite/plain/4; b 8 on litert/npu;"
        " c 8 on small on litert 2.3.0/xnnpack/1"
    )


def replace_executor(executor: Executor) -> Installed:
    """Return the model on another executor."""
    return Installed("kws", 8, "0" * 64, 1000, "int8", executor)


def test_what_is_not_ready_comes_first() -> None:
    """With its reason, before what runs."""
    waiting = pipeline("door", ready=False, reason=Reason.SOURCE_MISSING)
    line = describe_agent(agent(pipeline(), waiting), {})
    assert line == "door not ready: source_missing; kws 8 on litert/xnnpack"


def test_what_is_held_back_is_told() -> None:
    """The level and its reasons."""
    hot = LadderState(Level.DEGRADED, reasons=("heat", "throttled"))
    line = describe_agent(agent(pipeline(ladder=hot)), {"kws": [point(156.0)]})
    assert line == "kws 8 on litert/xnnpack, 156/s, degraded (heat, throttled)"


def test_an_update_under_way_is_told() -> None:
    """Its phase, and how much of it is here while it is fetched."""
    progress = Progress(1, "kws", "kws", 9, "0" * 64, "FETCHING", 300, 1000)
    line = describe_agent(agent(pipeline(), progress=progress), {})
    assert line == "kws to 9: fetching 30 %; kws 8 on litert/xnnpack"


def test_without_pipelines() -> None:
    """It says so."""
    assert describe_agent(agent(), {}) == "no pipeline in the settings"


def test_a_note_comes_before_everything() -> None:
    """Settings that were refused are the first thing to know."""
    assert describe_agent(agent(pipeline()), {}, "note").startswith("note; kws 8")


TEXTS = st.text(max_size=300)
SNAPSHOTS = st.builds(
    pipeline,
    name=st.text(min_size=1, max_size=300),
    ready=st.booleans(),
    reason=TEXTS,
    active=st.sampled_from([None, INSTALLED]),
    runs=TEXTS,
    ladder=st.builds(
        LadderState, level=st.sampled_from(Level), reasons=st.tuples(TEXTS)
    ),
)
POINTS = st.builds(
    point,
    st.floats(min_value=0, max_value=1e9),
    st.none() | st.floats(min_value=0, max_value=1e9),
)


@given(
    st.lists(SNAPSHOTS, max_size=70),
    st.lists(POINTS, max_size=5),
    TEXTS,
    st.none()
    | st.builds(Progress, *[st.just(1)], TEXTS, TEXTS, st.just(2), TEXTS, TEXTS),
)
def test_it_is_one_short_line(
    pipelines: list[PipelineSnapshot],
    points: list[TrendPoint],
    note: str,
    progress: Progress | None,
) -> None:
    """Whatever names, reasons and notes hold."""
    trends = {it.name: points for it in pipelines}
    line = describe_agent(agent(*pipelines, progress=progress), trends, note)
    assert 0 < len(line) <= MAX_CHARS
    assert line.isprintable()


NAMES = st.lists(
    st.from_regex(r"[a-z]{1,20}", fullmatch=True), min_size=1, max_size=64, unique=True
)


@given(NAMES, st.data())
def test_no_pipeline_is_left_out_without_a_word(
    names: list[str], data: st.DataObject
) -> None:
    """Each is named or counted, those that are not ready first."""
    ready = {name: data.draw(st.booleans()) for name in names}
    pipelines = [
        pipeline(name, ready=ready[name], reason=Reason.STARTING) for name in names
    ]
    parts = describe_agent(agent(*pipelines), {}).split("; ")
    more = parts[-1].removeprefix("and ").removesuffix(" more")
    counted = int(more) if more.isdigit() else 0
    told = parts[:-1] if counted else parts
    assert len(told) + counted == len(names)
    waiting = [" not ready: " in part for part in told]
    assert waiting == sorted(waiting, reverse=True)
    if not all(waiting):
        assert sum(waiting) == list(ready.values()).count(False)
