"""The lookout: what of a pipeline counts for its ladder, and what does not."""

from dataclasses import replace
from math import nan

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace as replace_struct

from agent.core.counts import EMPTY
from agent.core.degradation import Measure
from agent.core.executors import Executor
from agent.core.histogram import BUCKETS, bucket_index
from agent.core.installed import Installed
from agent.core.lookout import (
    CRASHES_S,
    REVIEW_S,
    WINDOW_S,
    Growth,
    Lookout,
    hottest,
    judge_watch,
)
from agent.core.readings import BoardReadings
from agent.core.sensors import FORGOTTEN_S
from agent.core.signals import LastRead, Signals
from agent.core.snapshot import ModelCounts, PipelineSnapshot
from agent.core.statistics_block import OK, Section, StageCounts
from agent.core.watching import Alarm, ModelWatch, Monitored

BUDGET_MS = 10.0
BOARD = BoardReadings()
STUCK = Alarm("shipped", "stuck", active=True)


def section(in_time: int, late: int) -> Section:
    """Return what a model counted that answered so often in time, and so often late."""
    buckets = [0] * BUCKETS
    buckets[bucket_index(1_000_000)] = in_time
    buckets[bucket_index(50_000_000)] = late
    outcomes = list(EMPTY.outcomes)
    outcomes[OK] = in_time + late
    stages = (*EMPTY.stages[:-1], StageCounts(1, tuple(buckets)))
    return replace(EMPTY, outcomes=tuple(outcomes), stages=stages)


def pipeline(
    in_time: int = 0,
    late: int = 0,
    *,
    version: int = 1,
    state: str = "active",
    deaths: int = 0,
    alarms: tuple[Alarm, ...] = (),
) -> PipelineSnapshot:
    """Return a pipeline whose model has answered, died and alarmed so often."""
    active = Installed("kws", version, "", 0, "", Executor("litert", "plain", 1, ""))
    counts = ModelCounts("kws", version, (), section(in_time, late))
    return PipelineSnapshot(
        name="door",
        model="kws",
        active=active,
        state=state,
        ready=True,
        reason="",
        counts=(counts,),
        restarts={"crash": deaths, "requested": 7, "source_failed": 9},
        swaps={},
        gap_s=0.0,
        lag_s=0.0,
        sink_dropped={},
        watch=(ModelWatch("kws", version, Monitored(alarms=alarms)),),
        budgets_ms={version: BUDGET_MS},
    )


def see(*looks: tuple[float, PipelineSnapshot]) -> list[Signals]:
    """Return the signals of some looks."""
    lookout = Lookout()
    return [lookout.see(now_s, it, BOARD) for now_s, it in looks]


def test_late_answers_of_the_window_count() -> None:
    """What was answered before the first look, or long ago, is no news."""
    found = see(
        (0.0, pipeline(1000, 1000)),
        (1.0, pipeline(1008, 1002)),
        (WINDOW_S / 2, pipeline(1010, 1010)),
        (WINDOW_S + 1.0, pipeline(1010, 1010)),
        (2 * WINDOW_S, pipeline(1010, 1010)),
    )
    counted = [(it.answers, it.late) for it in found]
    assert counted == [(0, 0), (10, 2), (20, 10), (10, 8), (0, 0)]


def test_another_model_begins_anew() -> None:
    """Its predecessor's answers say nothing about it; nor do they of another budget."""
    looks = [pipeline(0, 0), pipeline(9, 9), pipeline(50, 50, version=2)]
    looks += [pipeline(60, 60, version=2)]
    looks += [replace(looks[-1], budgets_ms={2: 60.0})]
    found = see(*enumerate(looks))
    assert [it.answers for it in found] == [0, 18, 0, 20, 0]


def test_counters_that_fall_begin_anew() -> None:
    """No daemon does that; a number that cannot be is no late answer."""
    found = see(*enumerate([pipeline(50, 50), pipeline(10, 10), pipeline(20, 20)]))
    assert [(it.answers, it.late) for it in found] == [(0, 0), (0, 0), (20, 10)]


def test_without_a_budget_nothing_is_late() -> None:
    """Nor without a model."""
    unknown = replace(pipeline(50, 50), budgets_ms={})
    nobody = replace(pipeline(50, 50), active=None, state="none")
    found = see(*enumerate([unknown, unknown, nobody]))
    assert {(it.answers, it.late) for it in found} == {(0, 0)}


def test_deaths_count_for_ten_minutes() -> None:
    """Crashes, hangs and memory do; replacements on purpose and sources don't."""
    found = see(
        (0.0, pipeline(deaths=3)),
        (1.0, pipeline(deaths=4)),
        (300.0, pipeline(deaths=6)),
        (CRASHES_S, pipeline(deaths=6)),
        (CRASHES_S + 1.0, pipeline(deaths=6)),
        (CRASHES_S + 300.0, pipeline(deaths=6)),
    )
    assert [it.crashes for it in found] == [0, 1, 3, 3, 2, 0]


def test_a_candidate_holds_nothing_back() -> None:
    """Its late answers, its alarms and its death are for its probation to judge."""
    tried = pipeline(50, 500, version=2, state="candidate", alarms=(STUCK,))
    dying = replace(pipeline(50, 50, deaths=1), state="none")
    gone = replace(dying, restarts={"crash": 0})
    found = see(*enumerate([pipeline(), tried, tried, gone, dying, pipeline(deaths=1)]))
    assert {it.answers for it in found} == {0}
    assert [it.drift for it in found[1:3]] == ["none", "none"]
    assert [it.crashes for it in found] == [0] * 6
    own = see(*enumerate([pipeline(), pipeline(deaths=1)]))
    assert own[-1].crashes == 1


def test_a_stand_in_that_dies_is_not_the_committed_model() -> None:
    """It gives way by itself; deaths for want of memory count, whoever runs."""
    looks = [pipeline(), replace(pipeline(deaths=2), stand_in_deaths=2)]
    looks += [replace(pipeline(deaths=3), stand_in_deaths=2)]
    assert [it.crashes for it in see(*enumerate(looks))] == [0, 0, 1]


def test_another_variant_does_not_review_an_alarm() -> None:
    """Nobody watches it; another executor of the same variant is watched on."""
    lookout, stuck = Lookout(), pipeline(alarms=(STUCK,))
    assert stuck.active is not None
    alike = replace(stuck, stand_in=stuck.active)
    small = replace(stuck, stand_in=replace_struct(stuck.active, variant="small"))
    assert lookout.see(0.0, alike, BOARD).drift == "critical"
    assert lookout.see(1.0, small, BOARD).drift == "none"
    assert lookout.see(REVIEW_S, stuck, BOARD).drift == "none"
    assert lookout.see(REVIEW_S + 1.0, stuck, BOARD).drift == "critical"


def test_a_sensor_that_is_missing_is_remembered() -> None:
    """With its age, each by its name, and not for ever."""
    lookout = Lookout()

    def lost(now_s: float, *temperatures: tuple[str, float]) -> LastRead | None:
        board = BoardReadings(temperatures=temperatures)
        return lookout.see(now_s, pipeline(), board).lost

    assert lost(0.0, ("cpu", 97.0), ("gpu", 50.0)) is None
    assert lost(1.0, ("gpu", 51.0)) == LastRead(97.0, "cpu", 1.0)
    assert lost(2.0, ("cpu", nan), ("gpu", 51.0)) == LastRead(97.0, "cpu", 2.0)
    assert lost(3.0) == LastRead(97.0, "cpu", 3.0)
    assert lost(4.0, ("cpu", 60.0)) == LastRead(51.0, "gpu", 2.0)
    assert lost(4.0 + FORGOTTEN_S) == LastRead(60.0, "cpu", FORGOTTEN_S)
    assert lost(4.5 + FORGOTTEN_S) is None


@pytest.mark.parametrize("measure", [Measure.ABSTAIN, Measure.SAFE_OUTPUT])
def test_an_alarm_that_nobody_reviews_is_no_news(measure: Measure) -> None:
    """Without answers the monitor sees nothing: afterwards it gets its time to look."""
    lookout, stuck = Lookout(), pipeline(alarms=(STUCK,))

    def drift(now_s: float, *measures: Measure) -> str:
        return lookout.see(now_s, stuck, BOARD, measures).drift

    assert drift(0.0, Measure.HALF_RATE) == "critical"
    assert drift(1.0, measure) == "none"
    assert drift(REVIEW_S) == "none"
    assert drift(REVIEW_S + 1.0) == "critical"


@pytest.mark.parametrize(
    ("alarms", "drift"),
    [
        ((), "none"),
        ((Alarm("shipped", "stuck", active=False),), "none"),
        ((Alarm("shipped", "input", active=True),), "warning"),
        ((Alarm("site", "all", active=True, confirmed=True),), "confirmed"),
        ((Alarm("site", "all", active=True, confirmed=True), STUCK), "critical"),
        ((Alarm("shipped", "output", active=True),), "critical"),
    ],
)
def test_the_worst_alarm_counts(alarms: tuple[Alarm, ...], drift: str) -> None:
    """By its severity, else by whether the second detector agrees."""
    assert judge_watch(ModelWatch("kws", 1, Monitored(alarms=alarms))) == drift
    assert judge_watch(None) == "none"


def test_the_board_is_passed_on() -> None:
    """The hottest sensor that can be, the kinds that hold, and memory as it is."""
    board = BoardReadings(
        temperatures=(("cpu", 61.0), ("gpu", 62.0), ("pmic", 999.0), ("x", nan)),
        throttled=(("under_voltage", True), ("throttled", False)),
        memory_available_bytes=5.0,
        memory_stalled_percent=6.0,
    )
    found = Lookout().see(9.0, pipeline(), board)
    assert found == Signals(
        now_s=9.0,
        celsius=62.0,
        sensor="gpu",
        throttled=("under_voltage",),
        memory_available_bytes=5.0,
        memory_stalled_percent=6.0,
    )
    assert hottest(BOARD)[0] == ""


@given(
    st.lists(st.tuples(st.floats(0.01, 30.0), st.integers(0, 9)), min_size=1),
    st.floats(1.0, 60.0),
)
def test_growth_is_that_of_the_span(
    steps: list[tuple[float, int]], span_s: float
) -> None:
    """Neither the first look nor what is older is in it."""
    growth, now_s, total = Growth(span_s), 0.0, 0
    came: list[tuple[float, int]] = []
    for step_s, more in steps:
        now_s, total = now_s + step_s, total + more
        came.append((now_s, more))
        (found,) = growth.add(now_s, total)
        within = [n for at_s, n in came[1:] if at_s > now_s - span_s]
        assert found == sum(within)
