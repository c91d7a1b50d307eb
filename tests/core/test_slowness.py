"""What a hot board explains of a slow model, and what it does not."""

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core.readings import BoardReadings
from agent.core.reasons import Reason
from agent.core.slowness import FULL_CLOCK, HOT_C, excuse, slowed_by
from agent.errors import DeviceError, TrialFailedError
from agent.settings import DegradeSettings

SLOW = TrialFailedError("p95 12 ms, 10 ms allowed", reason=Reason.LATENCY)
CLOCKS = st.floats(1e6, 5e9)


def read(hertz: float, *, hot: bool, full_hertz: float = math.nan) -> BoardReadings:
    """Return a reading of a board that is hot, or not."""
    return BoardReadings(
        cpu_frequency_hertz=hertz,
        cpu_frequency_max_hertz=full_hertz,
        throttled=(("throttled", hot),),
    )


def test_the_heat_is_that_of_the_settings() -> None:
    """Whoever says nothing of heat gets one answer in trials and on the ladder."""
    assert DegradeSettings().hot_c == HOT_C


@pytest.mark.parametrize(
    ("board", "reason"),
    [
        (BoardReadings(), ""),
        (BoardReadings(temperatures=(("soc", 79.9),)), ""),
        (BoardReadings(temperatures=(("soc", 80.0),)), "heat"),
        (BoardReadings(temperatures=(("soc", math.nan), ("gpu", 81.0))), "heat"),
        (BoardReadings(temperatures=(("soc", 2000.0),)), ""),
        (BoardReadings(throttled=(("throttled", False),)), ""),
        (BoardReadings(throttled=(("frequency_capped", True),)), "throttled"),
        (
            BoardReadings(throttled=(("throttled", True), ("under_voltage", True))),
            "under_voltage",
        ),
        (BoardReadings(cooling=(("pwm-fan", 1.0),)), ""),
        (BoardReadings(cooling=(("thermal-cpufreq-0", 0.0),)), ""),
        (BoardReadings(cooling=(("thermal-cpufreq-0", math.nan),)), ""),
        (BoardReadings(cooling=(("thermal-cpufreq-0", 0.25),)), "throttled"),
        (BoardReadings(cooling=(("Processor", 0.1),)), "throttled"),
    ],
)
def test_what_slows_a_board_down(board: BoardReadings, reason: str) -> None:
    """The firmware's word, a brake on the processor, or heat; no fan, no nonsense."""
    assert str(slowed_by(board)) == reason


@given(st.floats(0, 5e9), st.floats(0, 5e9), st.floats(-20, 79.9))
def test_who_saves_power_is_not_slowed_down(
    hertz: float, full_hertz: float, celsius: float
) -> None:
    """Law: on a cool board that nobody holds down no clock counts."""
    board = read(hertz, hot=False, full_hertz=full_hertz)
    assert not slowed_by(replace(board, temperatures=(("soc", celsius),)))


@given(hertz=CLOCKS, full_hertz=CLOCKS, held=st.booleans())
def test_heat_alone_slows_no_full_clock(
    *, hertz: float, full_hertz: float, held: bool
) -> None:
    """Law: heat counts where the clock is not full, a brake at any clock."""
    board = read(hertz, hot=held, full_hertz=full_hertz)
    hot = replace(board, temperatures=(("soc", 90.0),))
    slowed = slowed_by(hot)
    if held:
        assert slowed == Reason.THROTTLED
    else:
        assert (slowed == "heat") is (hertz < FULL_CLOCK * full_hertz)


@pytest.mark.parametrize(("hot_c", "reason"), [(85.0, ""), (81.0, "heat")])
def test_what_is_hot_is_for_the_settings_to_say(hot_c: float, reason: str) -> None:
    """A board that is built for 85 degrees is not slowed down at 82."""
    board = BoardReadings(temperatures=(("soc", 82.0),))
    assert str(slowed_by(board, hot_c)) == reason
    assert (excuse(SLOW, [board], hot_c) is SLOW) is (not reason)


def test_a_slow_board_excuses_slowness() -> None:
    """What it was slowed by is the reason, and it is for the operator: try later."""
    found = excuse(SLOW, [BoardReadings(), read(1e9, hot=True)])
    assert isinstance(found, DeviceError)
    assert found.reason == Reason.THROTTLED
    assert str(SLOW) in str(found)


@pytest.mark.parametrize("reason", [it for it in Reason if it is not Reason.LATENCY])
def test_a_slow_board_excuses_nothing_else(reason: Reason) -> None:
    """A model that crashes does so on a cool board as well."""
    error = TrialFailedError("no", reason=reason)
    assert excuse(error, [read(1e9, hot=True)]) is error


def test_a_cool_board_excuses_nothing() -> None:
    """The same error goes on."""
    assert excuse(SLOW, [BoardReadings(), read(1e9, hot=False)]) is SLOW
    assert excuse(SLOW, []) is SLOW
