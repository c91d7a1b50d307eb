"""What signals say: thresholds, nonsense, and laws that hold for any of them."""

from dataclasses import replace
from math import inf, nan

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core.degradation import Level
from agent.core.signals import Opinion, Signals, judge_signals, worst
from agent.settings import DegradeSettings
from tests.core.ladders import LIMITS, limits, signals, worsened

MB = 1e6
QUIET = Signals(0.0)
WAITING = "of time spent waiting for memory"


def said(found: tuple[Opinion, ...]) -> list[str]:
    """Return opinions as words."""
    return [f"{it.level} {it.reason}: {it.detail}" for it in found]


@pytest.mark.parametrize(
    ("seen", "expected"),
    [
        (QUIET, []),
        (replace(QUIET, celsius=79.9, sensor="soc"), []),
        (
            replace(QUIET, celsius=80.0, sensor="soc"),
            ["suspect heat: soc 80.0 C, 80.0 C allowed"],
        ),
        (
            replace(QUIET, celsius=86.0, sensor="soc"),
            ["degraded heat: soc 86 C, 85 C allowed"],
        ),
        (
            replace(QUIET, memory_available_bytes=31 * MB),
            ["suspect memory_pressure: 31 MB of memory left, 48 MB wanted"],
        ),
        (
            replace(QUIET, memory_available_bytes=0.0),
            [
                ("degraded memory_pressure: 0 MB of memory left, "
                "less than half of 48 MB wanted")
            ],
        ),
        (
            replace(QUIET, memory_stalled_percent=12.0),
            [f"suspect memory_pressure: 12 % {WAITING}, 10 % allowed"],
        ),
        (
            replace(
                QUIET, memory_stalled_percent=50.0, memory_available_bytes=40 * MB
            ),
            [f"degraded memory_pressure: 50 % {WAITING}, 50 % allowed"],
        ),
        (
            replace(QUIET, answers=620, late=192),
            ["suspect deadline: 31% of 620 answers late, 20% allowed"],
        ),
        (
            replace(QUIET, answers=20, late=20),
            ["degraded deadline: 100% of 20 answers late, 40% allowed"],
        ),
        (replace(QUIET, answers=19, late=19), []),
        (replace(QUIET, crashes=1), []),
        (
            replace(QUIET, crashes=2),
            ["suspect crashes: the worker died 2 times within ten minutes"],
        ),
        (
            replace(QUIET, crashes=3),
            ["degraded crashes: the worker died 3 times within ten minutes"],
        ),
        (replace(QUIET, drift="warning"), ["suspect drift: drift: a warning"]),
        (replace(QUIET, drift="critical"), ["suspect drift: drift is critical"]),
        (
            replace(QUIET, throttled=("soft_temperature_limit", "throttled")),
            ["suspect throttled: the board says: soft temperature limit, throttled"],
        ),
        (
            replace(QUIET, throttled=("throttled", "under_voltage")),
            ["suspect under_voltage: the board says: throttled, under voltage"],
        ),
        (
            replace(
                QUIET, throttled=("throttled",), celsius=90, sensor="soc", crashes=2
            ),
            [
                "degraded heat: soc 90 C, 85 C allowed",
                "suspect crashes: the worker died 2 times within ten minutes",
                "suspect throttled: the board says: throttled",
            ],
        ),
    ],
)  # fmt: skip
def test_what_is_said(seen: Signals, expected: list[str]) -> None:
    """A level, a reason and a sentence with both numbers; the worst first."""
    assert said(judge_signals(seen, LIMITS)) == expected


@pytest.mark.parametrize(
    "seen",
    [
        replace(QUIET, celsius=nan, memory_available_bytes=nan),
        replace(QUIET, celsius=2000.0),
        replace(QUIET, celsius=inf),
        replace(QUIET, celsius=-273.0),
        replace(QUIET, memory_available_bytes=-1.0),
        replace(QUIET, memory_available_bytes=inf),
        replace(QUIET, memory_stalled_percent=nan),
        replace(QUIET, memory_stalled_percent=101.0),
        replace(QUIET, answers=10, late=20),
        replace(QUIET, answers=100, late=-5),
        replace(QUIET, crashes=-1),
    ],
)
def test_nonsense_says_nothing(seen: Signals) -> None:
    """What is absent or cannot be is no reason to do less, nor to go on doing less."""
    assert judge_signals(seen, LIMITS) == ()
    assert judge_signals(seen, LIMITS, relaxed=True) == ()


@pytest.mark.parametrize(
    ("seen", "level"),
    [
        (replace(QUIET, celsius=84.9), Level.DEGRADED),
        (replace(QUIET, celsius=79.9), Level.SUSPECT),
        (replace(QUIET, celsius=74.9), Level.NORMAL),
        (replace(QUIET, memory_available_bytes=59 * MB), Level.SUSPECT),
        (replace(QUIET, memory_available_bytes=61 * MB), Level.NORMAL),
        (replace(QUIET, memory_stalled_percent=5.1), Level.SUSPECT),
        (replace(QUIET, answers=100, late=11), Level.SUSPECT),
        (replace(QUIET, answers=100, late=9), Level.NORMAL),
        (replace(QUIET, crashes=1), Level.NORMAL),
    ],
)
def test_signals_are_let_go_later(seen: Signals, level: Level) -> None:
    """Five kelvin, a quarter more memory, half as many stalls and late answers."""
    assert worst(judge_signals(seen, LIMITS, relaxed=True)) == level


@pytest.mark.parametrize(
    ("drift", "allowed", "expected"),
    [
        ("critical", "normal", "normal normal"),
        ("critical", "suspect", "suspect suspect"),
        ("critical", "degraded", "degraded degraded"),
        ("critical", "safe", "degraded safe"),
        ("confirmed", "safe", "degraded safe"),
        ("warning", "safe", "suspect safe"),
        ("none", "safe", "normal"),
    ],
)
def test_drift_leads_as_far_as_it_may(drift: str, allowed: str, expected: str) -> None:
    """The settings say how far; a warning alone never holds back a pipeline."""
    strict = DegradeSettings(drift=allowed)  # type: ignore[arg-type] # parametrised
    seen = Signals(0.0, drift=drift)  # type: ignore[arg-type] # parametrised
    found = judge_signals(seen, strict)
    words = f"{found[0].level} {found[0].highest}" if found else "normal"
    assert words.removesuffix(" normal") == expected.removesuffix(" normal")


def test_deaths_lead_to_safe_only_if_one_more_came() -> None:
    """They stay for ten minutes: the same three prove nothing after two."""
    found = [judge_signals(replace(QUIET, crashes=n), LIMITS)[0] for n in (2, 3, 4)]
    assert [it.highest for it in found] == [Level.DEGRADED, Level.DEGRADED, Level.SAFE]


@given(seen=signals(), by=limits())
def test_no_signal_is_safe_by_itself(seen: Signals, by: DegradeSettings) -> None:
    """Only what does not help leads there; the worst comes first."""
    found = judge_signals(seen, by)
    ranks = [it.level.rank for it in found]
    assert ranks == sorted(ranks, reverse=True)
    assert worst(found).rank <= Level.DEGRADED.rank


@given(seen=signals(), by=limits())
def test_relaxed_says_no_less(seen: Signals, by: DegradeSettings) -> None:
    """What raises a signal holds it, too."""
    raised = {it.reason: it.level.rank for it in judge_signals(seen, by)}
    held = judge_signals(seen, by, relaxed=True)
    ranks = {it.reason: it.level.rank for it in held}
    assert all(ranks.get(why, 0) >= rank for why, rank in raised.items())


@given(data=st.data(), by=limits(), relaxed=st.booleans())
def test_worse_never_says_less(
    data: st.DataObject, by: DegradeSettings, *, relaxed: bool
) -> None:
    """Each signal is monotone, and so is the worst of them."""
    seen = data.draw(signals())
    worse = data.draw(worsened(seen))
    before = judge_signals(seen, by, relaxed=relaxed)
    after = judge_signals(worse, by, relaxed=relaxed)
    assert worst(after).rank >= worst(before).rank
