"""The ladder: scenarios second by second, and the laws that hold whatever comes."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import pairwise
from math import inf, nan

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.core.degradation import DegradeSteps, Level, Measure
from agent.core.ladder import RECENT_S, Standing, climb, measures_at
from agent.core.reasons import Reason
from agent.core.signals import LastRead, Signals, judge_signals, worst
from agent.settings import DegradeSettings
from tests.core.ladders import LIMITS, limits, signals, worsened

COOL, WARM, HOT = 60.0, 82.0, 90.0
QUICK = DegradeSettings(patience_s=20.0, calm_s=10.0)
MEASURES = st.lists(st.sampled_from(list(Measure)), max_size=5).map(tuple)


def looks(*runs: tuple[int, Signals]) -> list[Signals]:
    """Return looks, one a second: so many of each kind, one kind after the other."""
    found = [seen for count, seen in runs for _ in range(count)]
    return [replace(seen, now_s=float(at)) for at, seen in enumerate(found)]


def heat(celsius: float) -> Signals:
    """Return a look at a board of some temperature."""
    return Signals(0.0, celsius=celsius, sensor="soc")


def missing(celsius: float, age_s: float = 1.0) -> Signals:
    """Return a look at a board whose only sensor is not read any more."""
    return Signals(0.0, lost=LastRead(celsius, "soc", age_s))


def follow(
    seen: Iterable[Signals], by: DegradeSettings = QUICK, at: Standing | None = None
) -> list[Standing]:
    """Return the standings after each look."""
    standing, found = at or Standing(), []
    for each in seen:
        standing = climb(standing, each, by)
        found.append(standing)
    return found


def as_last_read(seen: Signals) -> Signals:
    """Return a look as if a sensor that was read lately still said the same."""
    lost = seen.lost
    if lost is None or lost.age_s > RECENT_S or lost.celsius < seen.celsius:
        return seen
    return replace(seen, celsius=lost.celsius)


def changes(standings: Sequence[Standing]) -> list[str]:
    """Return the transitions: when, to where, why."""
    levels = [Level.NORMAL, *(it.level for it in standings)]
    return [
        f"{at}: {it.level} {it.reason}"
        for at, it in enumerate(standings)
        if it.level is not levels[at]
    ]


@pytest.mark.parametrize(
    ("seen", "expected"),
    [
        (looks((100, heat(COOL))), []),
        # Two readings of nonsense in a row move nothing, three are believed.
        (looks((5, heat(COOL)), (2, heat(HOT)), (5, heat(COOL))), []),
        (looks((5, heat(COOL)), (3, heat(WARM))), ["7: suspect heat"]),
        # Over a level if need be, and down one by one.
        (
            looks((3, heat(HOT)), (40, heat(COOL))),
            ["2: degraded heat", "13: suspect calm", "24: normal calm"],
        ),
        # Degraded helps to hold the temperature: it stays there.
        (looks((3, heat(HOT)), (60, heat(WARM))), ["2: degraded heat"]),
        # It does not help: safe after the patience, and down when it is cool.
        (
            looks((40, heat(HOT)), (35, heat(COOL))),
            [
                "2: degraded heat",
                "23: safe heat",
                "50: degraded calm",
                "61: suspect calm",
                "72: normal calm",
            ],
        ),
        # What holds it changes on the way; the reason is what raised it.
        (
            looks((3, heat(WARM)), (3, Signals(0.0, drift="critical"))),
            ["2: suspect heat"],
        ),
        # A relapse while it calms down begins the calm anew.
        (
            looks((3, heat(WARM)), (8, heat(COOL)), (1, heat(76.0)), (11, heat(COOL))),
            ["2: suspect heat", "22: normal calm"],
        ),
        (looks((30, Signals(0.0, crashes=3))), ["2: degraded crashes"]),
        (
            looks((10, Signals(0.0, crashes=3)), (25, Signals(0.0, crashes=4))),
            ["2: degraded crashes", "30: safe crashes"],
        ),
        (looks((99, Signals(0.0, throttled=("x",)))), ["2: suspect throttled"]),
    ],
)  # fmt: skip
def test_scenarios(seen: list[Signals], expected: list[str]) -> None:
    """Second by second: when it moves, to where, and for what."""
    assert changes(follow(seen)) == expected


def test_a_sensor_that_flaps_raises_nothing() -> None:
    """Hot in every other look is no heat; but neither is it calm."""
    flapping = looks(*[(1, heat(HOT)), (1, heat(COOL))] * 50)
    assert changes(follow(flapping)) == []
    up = follow(looks((3, heat(HOT))))[-1]
    later = [replace(it, now_s=it.now_s + 3) for it in flapping]
    assert {it.level for it in follow(later, at=up)} == {Level.DEGRADED}


def test_a_sensor_that_answers_now_and_then_is_believed() -> None:
    """Three hot readings are three, whatever nobody read between them; two are two."""
    rare = looks(*[(1, heat(HOT)), (4, missing(HOT))] * 3)
    assert changes(follow(rare)) == ["10: degraded heat"]
    assert changes(follow(looks((2, heat(HOT)), (60, missing(HOT))))) == []
    old = missing(HOT, RECENT_S + 1.0)
    assert changes(follow(looks(*[(1, heat(HOT)), (1, old)] * 20))) == []
    # A cool reading between two hot ones breaks the row, read or not read afterwards.
    cool = looks(*[(2, heat(HOT)), (1, heat(COOL)), (1, missing(COOL))] * 20)
    assert changes(follow(cool)) == []


def test_a_sensor_that_is_gone_is_not_cool() -> None:
    """The level is kept while what was read last holds it; then it calms down."""
    up = looks((40, heat(HOT)), (300, missing(97.0, 300.0)))
    stands = follow(up)
    assert changes(stands) == ["2: degraded heat", "23: safe heat"]
    assert stands[-1].detail == "soc, 300 s ago: 97 C, 85 C allowed"
    assert stands[-1].reasons == (Reason.HEAT,)
    gone = [replace(Signals(0.0), now_s=340.0 + at) for at in range(12)]
    assert follow(gone, at=stands[-1])[-1].level is Level.DEGRADED
    # What had cooled down before it was lost holds nothing.
    calm = looks((3, heat(HOT)), (30, missing(COOL, 300.0)))
    assert follow(calm)[-1].level is Level.NORMAL


def test_patience_is_not_spent_on_what_nobody_read() -> None:
    """Degraded may have helped meanwhile: it is neither stuck nor calm."""
    stands = follow(looks((3, heat(HOT)), (99, missing(HOT, 5.0)), (18, heat(HOT))))
    assert changes(stands) == ["2: degraded heat"]


def test_words_follow_the_look() -> None:
    """What holds it now, and what it calms down from; nothing at all when normal."""
    stands = follow(looks((4, heat(86.0)), (1, heat(83.0)), (22, heat(COOL))))
    assert stands[3].detail == "soc 86 C, 85 C allowed"
    assert stands[4].detail == "soc 83 C, 80 C wanted for a while"
    assert stands[5].detail == stands[4].detail
    assert stands[5].reasons == (Reason.HEAT,)
    assert (stands[-1].level, stands[-1].detail) == (Level.NORMAL, "")
    assert stands[-1].reasons == ()


def test_a_gap_proves_nothing() -> None:
    """Two looks an hour apart are two looks, for heat and for calm alike."""
    hot = [replace(heat(HOT), now_s=at) for at in (0.0, 3600.0)]
    assert follow(hot)[-1].level is Level.NORMAL
    up = follow(looks((3, heat(HOT))))[-1]
    cool = [replace(heat(COOL), now_s=at) for at in (3600.0, 7200.0, 10800.0)]
    assert follow(cool, at=up)[-1].level is Level.DEGRADED


@pytest.mark.parametrize("odd_s", [nan, inf, -inf, -1e9, 1e18])
def test_odd_clocks_break_nothing(odd_s: float) -> None:
    """One look with an impossible time is one look; those after it count again."""
    odd = replace(heat(HOT), now_s=odd_s)
    assert follow([odd, odd, odd])[-1].level is Level.NORMAL
    after = follow([odd, *looks((4, heat(HOT)))])
    assert after[-1].level is Level.DEGRADED


def test_settings_may_change_on_the_way() -> None:
    """A reload that allows more heat calms down a board; one that allows less holds."""
    up = follow(looks((3, heat(HOT))))[-1]
    lenient = DegradeSettings(hot_c=100.0, very_hot_c=110.0, calm_s=5.0)
    later = [replace(it, now_s=it.now_s + 3) for it in looks((20, heat(HOT)))]
    assert follow(later, lenient, up)[-1].level is Level.NORMAL
    assert follow(later, LIMITS, up)[-1].level is Level.DEGRADED


@given(at=st.sampled_from(list(Level)), own=st.tuples(MEASURES, MEASURES, MEASURES))
def test_a_level_does_what_those_below_do(
    at: Level, own: tuple[tuple[Measure, ...], ...]
) -> None:
    """All of them, once, but of abstaining and a constant answer only one."""
    found = measures_at(at, DegradeSteps(own[0], own[1], own[2]))
    asked = {it for level in own[: at.rank] for it in level}
    silent = {Measure.ABSTAIN, Measure.SAFE_OUTPUT}
    assert len(found) == len(set(found))
    assert set(found) - silent == asked - silent
    assert len(silent & set(found)) == min(1, len(silent & asked))


@pytest.mark.parametrize(
    ("degraded", "safe", "expected"),
    [
        ("abstain", "safe_output", "safe_output"),
        ("safe_output", "abstain", "abstain"),
        ("abstain safe_output", "", "safe_output"),
        ("half_rate abstain", "one_thread", "half_rate abstain one_thread"),
    ],
)
def test_who_answers_when_the_model_does_not(
    degraded: str, safe: str, expected: str
) -> None:
    """The highest level says it."""
    low, high = (tuple(map(Measure, text.split())) for text in (degraded, safe))
    found = measures_at(Level.SAFE, DegradeSteps((), low, high))
    assert " ".join(found) == expected


@st.composite
def walks(draw: st.DrawFn) -> list[Signals]:
    """Return looks at a board that goes through some states, for a while each."""
    states = draw(st.lists(signals(), min_size=1, max_size=4))
    runs = draw(
        st.lists(st.tuples(st.sampled_from(states), st.integers(1, 30)), max_size=12)
    )
    found, now_s = [], 0.0
    for seen, count in runs:
        step_s = draw(st.sampled_from((0.25, 1.0, 1.0, 1.5, 60.0)))
        for _ in range(count):
            now_s += step_s
            found.append(replace(seen, now_s=now_s))
    return found


@given(seen=walks(), by=limits())
def test_it_never_skips_a_level_downwards(
    seen: list[Signals], by: DegradeSettings
) -> None:
    """And safe is entered from degraded only."""
    ranks = [0, *(it.level.rank for it in follow(seen, by))]
    steps = list(pairwise(ranks))
    assert all(after - before >= -1 for before, after in steps)
    assert {before for before, after in steps if before != after == 3} <= {2}


@given(seen=walks(), by=limits(), age_s=st.floats(0.1, 3600.0))
def test_what_nobody_read_changes_nothing(
    seen: list[Signals], by: DegradeSettings, age_s: float
) -> None:
    """A heat that is not read moves no level up, nor one down that it holds."""
    up = follow(seen, by)[-1] if seen else Standing()
    start_s = up.seen_s or 0.0
    lost = missing(150.0, age_s)
    blind = [replace(lost, now_s=start_s + at) for at in range(1, 60)]
    after = follow(blind, by, at=up)
    assert {it.level for it in after} == {up.level}


@given(seen=walks(), by=limits())
def test_it_cannot_be_pumped(seen: list[Signals], by: DegradeSettings) -> None:
    """Each way down takes its calm, and there are three levels to climb."""
    stands = follow(seen, by)
    seconds = seen[-1].now_s - seen[0].now_s if seen else 0.0
    assert len(changes(stands)) <= 3 + 2 * seconds / by.calm_s


@given(seen=walks(), by=limits())
def test_it_is_no_higher_than_was_said(
    seen: list[Signals], by: DegradeSettings
) -> None:
    """Up to degraded a signal has said so for a while; safe is a matter of patience."""
    said = [worst(judge_signals(it, by)).rank for it in seen]
    maybe = [worst(judge_signals(as_last_read(it), by)).rank for it in seen]
    ranks = [0, *(it.level.rank for it in follow(seen, by))]
    degraded_since_s = 0.0
    for at, (before, after) in enumerate(pairwise(ranks)):
        if after > before:
            confirmed = min(after, Level.DEGRADED.rank)
            # Three looks, and between them none at which it was known to be less.
            less = [k for k in range(at) if maybe[k] < confirmed]
            row = said[less[-1] + 1 if less else 0 : at + 1]
            assert sum(sure >= confirmed for sure in row) >= 3
        if after == 2 != before:
            degraded_since_s = seen[at].now_s
        if after == 3 != before:
            assert seen[at].now_s - degraded_since_s >= by.patience_s


@settings(max_examples=60)
@given(data=st.data(), by=limits())
def test_worse_is_never_lower(data: st.DataObject, by: DegradeSettings) -> None:
    """Look for look worse signals hold a pipeline at least as far back."""
    seen = data.draw(walks())
    kinds: dict[Signals, Signals] = {}  # a state is worse by the same in all its looks
    worse_seen = []
    for it in seen:
        kind = replace(it, now_s=0.0)
        if kind not in kinds:
            kinds[kind] = data.draw(worsened(kind))
        worse_seen.append(replace(kinds[kind], now_s=it.now_s))
    pairs = zip(follow(seen, by), follow(worse_seen, by), strict=True)
    assert all(high.level.rank >= low.level.rank for low, high in pairs)


@given(seen=walks(), by=limits())
def test_it_is_deterministic(seen: list[Signals], by: DegradeSettings) -> None:
    """The same looks lead to the same places."""
    assert follow(seen, by) == follow(seen, by)
