"""How long pauses get, of one board and of many."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.update.pace import FIRST_SPAN_S, FLOOR_S, HICCUP_SPAN_S, JITTER, SPREAD, Pace
from benchmarks.fleet_numbers import POLL_S, paced

draws = st.floats(0, 1, exclude_max=True)
HERD = 2.0  # times the steady rate, at most
PERIODS = 2.0  # until all boards are current, at most


@given(poll_s=st.floats(0.01, 1e6), drawn=st.lists(draws, min_size=1, max_size=40))
def test_a_boot_draws_from_the_whole_of_a_span(
    poll_s: float, drawn: list[float]
) -> None:
    """The drawn share of a span that doubles; from poll_s on, the usual pause."""
    chance = iter(drawn)
    pace = Pace(poll_s, lambda: next(chance))
    span_s = FIRST_SPAN_S
    for draw in drawn:
        pause_s = pace.after(failed=True)
        if span_s < poll_s:
            assert max(draw * span_s, FLOOR_S) == pause_s
        else:
            assert abs(pause_s - poll_s) <= poll_s * JITTER * (1 + 1e-9)
        span_s *= 2


@given(draw=draws)
def test_a_network_that_comes_up_after_the_boot_is_found_at_once(draw: float) -> None:
    """The first look of a boot is too early: the next comes in seconds, not minutes."""
    pace = Pace(300.0, lambda: draw)
    assert FLOOR_S <= pace.after(failed=True) <= FIRST_SPAN_S <= 5.0


@given(
    poll_s=st.floats(0.01, HICCUP_SPAN_S),
    failures=st.integers(0, 20),
    drawn=st.data(),
)
def test_whoever_looked_once_keeps_to_the_period(
    poll_s: float, failures: int, drawn: st.DataObject
) -> None:
    """After one good look no failure makes a board hurry, or wait for longer."""
    pace = Pace(poll_s, lambda: drawn.draw(draws))
    for _ in range(failures):
        pace.after(failed=True)
    spread_s = pace.after(failed=False)
    assert abs(spread_s - poll_s) <= poll_s * SPREAD * (1 + 1e-9)
    for failed in (True, False, True, True):
        pause_s = pace.after(failed=failed)
        assert abs(pause_s - poll_s) <= poll_s * JITTER * (1 + 1e-9)


@given(
    poll_s=st.floats(HICCUP_SPAN_S, 1e6, exclude_min=True),
    failures=st.integers(0, 20),
    drawn=st.data(),
)
def test_a_hiccup_does_not_cost_a_long_period(
    poll_s: float, failures: int, drawn: st.DataObject
) -> None:
    """The first failure after a good look: five minutes at most; then up to poll_s."""
    pace = Pace(poll_s, lambda: drawn.draw(draws))
    for _ in range(failures):
        pace.after(failed=True)
    pace.after(failed=False)
    span_s = HICCUP_SPAN_S
    while span_s < poll_s:
        assert FLOOR_S <= pace.after(failed=True) <= span_s
        span_s *= 2
    assert abs(pace.after(failed=True) - poll_s) <= poll_s * JITTER * (1 + 1e-9)


@given(draw=draws, failed=st.booleans(), worked=st.booleans())
def test_no_window_is_slept_through(
    draw: float,
    *,
    failed: bool,
    worked: bool,
) -> None:
    """What is due in ten minutes is due then, whatever came of the looks before."""
    pace = Pace(3600.0, lambda: draw)
    if worked:
        pace.after(failed=False)
    for _ in range(12):
        pause_s = pace.after(failed=failed, due_s=600.0)
        assert pause_s <= 600.0 + JITTER * 3600.0


def test_what_was_due_before_a_failure_hurries_nobody() -> None:
    """The plan could not be made anew; and a server's wish goes before the window."""
    pace = Pace(300.0, lambda: 0.5)
    pace.after(failed=False)
    assert pace.after(failed=True, due_s=-5.0) == 300.0
    assert pace.after(failed=True, due_s=60.0) == 75.0
    assert pace.after(failed=True, due_s=60.0, asked_s=900.0) == 900.0


def test_a_boot_doubles_its_span_up_to_the_period() -> None:
    """With the highest draw: seconds, then minutes, then what poll_s says."""
    pace = Pace(100.0, lambda: 1.0)
    pauses = [pace.after(failed=True) for _ in range(7)]
    assert pauses == pytest.approx([4.0, 8.0, 16.0, 32.0, 64.0, 110.0, 110.0])


def test_no_draw_hammers_a_server() -> None:
    """The lowest draw still leaves a second, or poll_s less its jitter."""
    for poll_s, least_s in ((300.0, 1.0), (0.05, 0.045)):
        pace = Pace(poll_s, lambda: 0.0)
        pauses = [pace.after(failed=True) for _ in range(3)]
        assert pauses == pytest.approx([least_s] * 3)


def test_a_servers_wish_is_honoured_from_the_first_failure() -> None:
    """Retry-After stretches any pause, to a day at most, and shortens none."""
    pace = Pace(300.0, lambda: 1.0)
    assert pace.after(failed=True, asked_s=120.0) == 120.0
    assert pace.after(failed=True, asked_s=1.0) == 8.0
    assert pace.after(failed=True, asked_s=1e9) == 86_400.0
    pace.after(failed=False)
    assert pace.after(failed=True, asked_s=1200.0) == 1200.0


@pytest.mark.parametrize("away_s", [20.0, 60.0, POLL_S, 4 * POLL_S])
def test_a_server_that_returns_is_not_run_over(away_s: float) -> None:
    """20,000 boards: twice the steady rate in no second, all current in two periods."""
    herd = paced(20_000, away_s)
    assert herd.busiest <= HERD
    assert herd.busiest_away <= HERD
    assert herd.last_s <= PERIODS * POLL_S


def test_a_fleet_that_boots_without_its_server_spreads_itself() -> None:
    """Switched on in one moment, ten minutes early: the server sees no herd."""
    herd = paced(20_000, 2 * POLL_S, together=True)
    assert herd.busiest <= HERD
    assert herd.last_s <= PERIODS * POLL_S


@pytest.mark.parametrize("poll_s", [600.0, 1800.0, 3600.0])
@pytest.mark.parametrize("away_s", [60.0, 1200.0, 3600.0])
def test_long_periods_ask_less_than_the_usual_one(poll_s: float, away_s: float) -> None:
    """20,000 boards: never twice of what they ask for steadily at five minutes."""
    herd = paced(20_000, away_s, poll_s=poll_s)
    usual = POLL_S / poll_s  # of its own steady rate, in shares of the usual one
    assert max(herd.busiest, herd.busiest_away) * usual <= HERD
    assert herd.last_s <= PERIODS * poll_s
