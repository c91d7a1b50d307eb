"""What a hot board explains of a slow model, and what it does not."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core.readings import BoardReadings
from agent.core.reasons import Reason
from agent.core.slowness import HOT_C, clock_share, excuse, slowed_by
from agent.errors import DeviceError, TrialFailedError
from agent.settings import DegradeSettings

SLOW = TrialFailedError("p95 12 ms, 10 ms allowed", reason=Reason.LATENCY)
CLOCKS = st.lists(st.floats(1e6, 5e9), min_size=1, max_size=10)


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


@given(CLOCKS)
def test_a_cool_board_has_its_full_clock(clocks: list[float]) -> None:
    """A governor that saves power is no throttling."""
    assert clock_share([read(hertz, hot=False) for hertz in clocks]) == 1.0


@given(clocks=CLOCKS, hidden=st.booleans())
def test_a_hot_board_has_a_part_of_its_clock(
    clocks: list[float], *, hidden: bool
) -> None:
    """The share is between nothing and all, and nothing where no clock shows it."""
    full_hertz = max(clocks) if hidden else 6e9
    share = clock_share([read(it, hot=True, full_hertz=full_hertz) for it in clocks])
    assert (0 <= share <= 0.98) if hidden else (0 < share < 1)
    assert clock_share([read(math.nan, hot=True) for _ in clocks]) == 0.0


@pytest.mark.parametrize(
    ("readings", "share"),
    [
        # A Pi shows the frequency that was asked for, whatever its firmware does.
        ([read(1.5e9, hot=True, full_hertz=1.5e9)] * 3, 0.0),
        ([read(0.75e9, hot=True, full_hertz=1.5e9)] * 3, 0.5),
        ([read(0.75e9, hot=False, full_hertz=1.5e9)] * 3, 1.0),
        # Heat alone slows nothing down before the clock shows it.
        ([BoardReadings(cpu_frequency_hertz=3e9, temperatures=(("k", 90),))], 1.0),
        ([BoardReadings(temperatures=(("k", 90.0),))], 0.0),
        ([], 1.0),
    ],
)
def test_shares(readings: list[BoardReadings], share: float) -> None:
    """What is visible is corrected, what is hidden cannot be judged."""
    assert clock_share(readings) == share


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
