"""The meter's state: a number is taken once, a crash is settled, units are kept."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from msgspec.structs import replace

from agent.core.meter import (
    WINDOW,
    MeterState,
    Remains,
    Window,
    redeem,
    settle,
)
from agent.core.reasons import Reason
from agent.core.voucher import MAX_TOTAL, MAX_UNITS, Kind, Voucher
from tests.fakes.vouchers import refused_for

NOW_S = 1_800_000_000.0


def voucher(
    seq: int, units: int = 100, kind: Kind = Kind.UNITS, expiry_s: int = 0
) -> Voucher:
    """Return a voucher that is believed."""
    return Voucher(kind, bytes(8), bytes(32), seq, units, expiry_s)


# --- the window


@given(st.lists(st.integers(1, 300), max_size=200))
@example([65, 1])
@example([64, 1, 1])
def test_no_number_is_taken_twice(seqs: list[int]) -> None:
    """Law: nothing is taken twice, and nothing that is older than the window."""
    window, taken = Window(), set[int]()
    for seq in seqs:
        highest = max(taken, default=0)
        expected = seq in taken or seq <= highest - WINDOW
        assert expected == window.has(seq)
        if not expected:
            taken.add(seq)
        window = window.take(seq)
        assert window.highest == max(taken)
        assert window.taken < 2**WINDOW


@given(st.sets(st.integers(1, 200)), st.integers(1, 200))
def test_a_window_can_be_closed(seqs: set[int], below: int) -> None:
    """After that it has all numbers up to this one, and the others as before."""
    window = Window()
    for seq in sorted(seqs):
        window = window.take(seq)
    closed = window.close_below(below)
    assert all(closed.has(seq) for seq in range(1, below + 1))
    for seq in range(below + 1, 300):
        assert window.has(seq) == closed.has(seq)


# --- redeeming


def test_units_are_added_once() -> None:
    """A voucher adds its units; the same one again is `replayed`."""
    state = redeem(MeterState(), voucher(1, 250), NOW_S)
    assert (state.bought, state.left) == (250, 250)
    again = refused_for(lambda: redeem(state, voucher(1, 250), NOW_S))
    assert again == Reason.REPLAYED
    assert redeem(state, voucher(2), NOW_S).bought == 350


def test_vouchers_of_a_window_come_in_any_order() -> None:
    """Of 64 numbers each counts, whichever comes first; an older one does not."""
    state = redeem(MeterState(), voucher(64), NOW_S)
    for seq in range(1, 64):
        state = redeem(state, voucher(seq), NOW_S)
    assert state.bought == 6400
    late = redeem(MeterState(), voucher(65), NOW_S)
    assert refused_for(lambda: redeem(late, voucher(1), NOW_S)) == Reason.REPLAYED


def test_replayed_comes_before_expired() -> None:
    """Who brings an old voucher again learns that it was redeemed."""
    state = redeem(MeterState(), voucher(1, expiry_s=int(NOW_S)), NOW_S)
    later = NOW_S + 10
    again = voucher(1, expiry_s=int(NOW_S))
    assert refused_for(lambda: redeem(state, again, later)) == Reason.REPLAYED
    other = voucher(2, expiry_s=int(NOW_S))
    assert refused_for(lambda: redeem(state, other, later)) == Reason.EXPIRED


def test_a_clock_in_1970_expires_what_was_seen_to() -> None:
    """What a dated voucher was taken at is a floor: a clock set back gains nothing."""
    state = redeem(MeterState(), voucher(1, expiry_s=int(NOW_S)), NOW_S)
    old = voucher(2, expiry_s=int(NOW_S) - 1)
    assert refused_for(lambda: redeem(state, old, 0.0)) == Reason.EXPIRED
    assert redeem(state, voucher(3, expiry_s=int(NOW_S)), 0.0).seen_s == int(NOW_S)


def test_more_units_than_a_counter_holds_are_refused() -> None:
    """The sum stays within what JSON keeps exact; nothing is changed by a refusal."""
    full = MeterState(bought=MAX_TOTAL - 5, time_s=MAX_TOTAL)
    assert refused_for(lambda: redeem(full, voucher(1, 6), NOW_S)) == Reason.UNITS
    time = voucher(1, 1, Kind.TIME)
    assert refused_for(lambda: redeem(full, time, NOW_S)) == Reason.UNITS
    huge = voucher(1, MAX_UNITS + 1)
    assert refused_for(lambda: redeem(MeterState(), huge, NOW_S)) == Reason.UNITS
    assert redeem(full, voucher(1, 5), NOW_S).bought == MAX_TOTAL


def test_time_and_dates_are_kept() -> None:
    """Seconds add up; of two dates the later one holds."""
    state = redeem(MeterState(), voucher(1, 60, Kind.TIME), NOW_S)
    state = redeem(state, voucher(2, 30, Kind.TIME), NOW_S)
    late, early = int(NOW_S) + 900, int(NOW_S) + 100
    state = redeem(state, voucher(3, late, Kind.UNTIL), NOW_S)
    state = redeem(state, voucher(4, early, Kind.UNTIL), NOW_S)
    assert (90, late, 0) == (state.time_s, state.until_s, state.bought)


@given(st.integers(0, 1000), st.integers(0, 1000), st.integers(0, 300))
def test_what_is_taken_back_was_left(bought: int, used: int, held: int) -> None:
    """No more than is left and not handed out; of all of it nothing stays left."""
    state = MeterState(bought=bought, used=min(bought, used), reserved=2000)
    back = redeem(state, voucher(9, 400, Kind.REVOKE), NOW_S, held)
    free = max(0, bought - state.used - held)
    assert back.bought == bought - min(free, 400)
    assert state.used + min(held, 2000) <= back.reserved
    assert refused_for(lambda: redeem(back, voucher(8), NOW_S)) == Reason.REPLAYED
    gone = redeem(state, voucher(9, 0, Kind.REVOKE), NOW_S, held)
    assert (gone.left, gone.owed) == (0, state.owed)  # what is held is owed when used
    assert gone.used + held == gone.reserved
    assert (gone.until_s, gone.time_s) == (0, 0)


# --- after a crash


@given(
    st.integers(0, 500),
    st.integers(0, 500),
    st.integers(0, 500),
    st.booleans(),
    st.booleans(),
    st.booleans(),
)
def test_a_crash_is_settled(
    lease: int,
    truly: int,
    more: int,
    refund: bool,  # noqa: FBT001 - drawn
    same_boot: bool,  # noqa: FBT001 - drawn
    logged: bool,  # noqa: FBT001 - drawn
) -> None:
    """Law: what was used is charged, at most what was reserved, refund or not."""
    truly = min(truly, lease)
    handed = min(lease, truly + more)
    state = MeterState(bought=10_000, used=50, reserved=50 + lease, inferences=50)
    known = 50 + truly if logged else None
    remains = Remains(50 + handed if same_boot else None, known)
    settled = settle(state, remains, refund=refund)
    assert truly <= settled.charged <= lease
    assert lease == settled.charged + settled.refunded
    assert settled.state.used == settled.state.reserved == 50 + settled.charged
    if not refund:
        assert settled.charged == lease
    elif same_boot:
        assert settled.charged == handed
    else:
        assert settled.charged == lease


def test_after_a_loss_of_power_nothing_is_given_back() -> None:
    """A log that lost its tail says less than was answered: the lease says the rest."""
    state = MeterState(bought=900, used=100, reserved=300, inferences=100)
    remains = Remains(None, 130)
    kept = settle(state, remains, refund=False)
    assert (kept.charged, kept.refunded, kept.state.lost) == (200, 0, 170)
    assert settle(state, remains, refund=True) == kept


def test_an_old_copy_of_the_state_is_behind_its_log() -> None:
    """What the log knows of and the state does not is charged, and said."""
    state = MeterState(bought=900, used=100, reserved=100, inferences=100)
    settled = settle(state, Remains(None, 700), refund=True)
    assert (settled.behind, settled.charged) == (600, 600)
    assert settled.state.used == 700
    free = replace(state, lenient=True)
    assert settle(free, Remains(None, 700), refund=True).behind == 0


def test_an_orderly_end_leaves_nothing_to_settle() -> None:
    """Where nothing is reserved nothing is lost; the log may have begun anew."""
    state = MeterState(bought=900, used=100, reserved=100, inferences=100)
    for remains in (Remains(), Remains(100, 100), Remains(5000, 40)):
        settled = settle(state, remains, refund=False)
        assert (settled.charged, settled.refunded, settled.behind) == (0, 0, 0)
        assert settled.state.used == 100


@pytest.mark.parametrize("bought", [0, 40, 900])
def test_left_and_owed(bought: int) -> None:
    """Of what is bought and used one is left, or owed, or neither."""
    state = MeterState(bought=bought, used=40)
    assert (max(0, bought - 40), max(0, 40 - bought)) == (state.left, state.owed)
