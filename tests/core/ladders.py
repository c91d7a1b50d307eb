"""Signals and settings of any kind, for the laws of the ladder."""

from dataclasses import replace
from math import nan

from hypothesis import strategies as st

from agent.core.ladder import RECENT_S
from agent.core.signals import Drift, LastRead, Signals
from agent.settings import DegradeSettings

LIMITS = DegradeSettings()
DRIFTS: tuple[Drift, ...] = ("none", "warning", "confirmed", "critical")
# Around the age up to which what was read last neither breaks nor lengthens anything.
AGES = (1.0, RECENT_S, RECENT_S + 1.0, 600.0)
KINDS = ("throttled", "under_voltage", "soft_temperature_limit")


@st.composite
def signals(draw: st.DrawFn) -> Signals:
    """Return any look at a board that can be: absent sensors, no nonsense."""
    answers = draw(st.integers(0, 100))
    ages = st.sampled_from(AGES)
    lost = st.builds(LastRead, st.floats(0, 120), st.just("gpu"), ages)
    return Signals(
        now_s=0.0,
        celsius=draw(st.just(nan) | st.floats(0, 120)),
        sensor="soc",
        lost=draw(st.none() | lost),
        throttled=tuple(draw(st.lists(st.sampled_from(KINDS), unique=True))),
        memory_available_bytes=draw(st.just(nan) | st.floats(0, 200e6)),
        memory_stalled_percent=draw(st.just(nan) | st.floats(0, 100)),
        answers=answers,
        late=draw(st.integers(0, answers)),
        crashes=draw(st.integers(0, 6)),
        drift=draw(st.sampled_from(DRIFTS)),
    )


@st.composite
def worsened(draw: st.DrawFn, seen: Signals) -> Signals:
    """Return a look that is worse in any of its signals, or the same."""
    hotter, stalls = draw(st.floats(0, 40)), draw(st.floats(0, 1))
    stalled = seen.memory_stalled_percent
    lost = seen.lost
    if lost is not None:
        lost = lost._replace(celsius=lost.celsius + draw(st.floats(0, 40)))
    worse = DRIFTS[draw(st.integers(DRIFTS.index(seen.drift), 3)) :][0]
    return replace(
        seen,
        celsius=seen.celsius + hotter,
        lost=lost,
        throttled=seen.throttled or tuple(draw(st.lists(st.sampled_from(KINDS)))),
        memory_available_bytes=seen.memory_available_bytes * draw(st.floats(0, 1)),
        memory_stalled_percent=stalled + (100 - stalled) * stalls,
        late=draw(st.integers(seen.late, seen.answers)),
        crashes=seen.crashes + draw(st.integers(0, 3)),
        drift=worse,
    )


@st.composite
def limits(draw: st.DrawFn) -> DegradeSettings:
    """Return settings that somebody may write."""
    hot_c = draw(st.floats(40, 100))
    return DegradeSettings(
        hot_c=hot_c,
        very_hot_c=hot_c + draw(st.floats(-10, 20)),
        low_memory_mb=draw(st.floats(0, 100)),
        stalled_percent=draw(st.floats(1, 100)),
        missed_share=draw(st.floats(0.01, 1)),
        crashes=draw(st.integers(1, 4)),
        drift=draw(st.sampled_from(("normal", "suspect", "degraded", "safe"))),
        patience_s=draw(st.integers(2, 20)),
        calm_s=draw(st.integers(2, 20)),
    )
