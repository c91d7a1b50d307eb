"""The clock floor moves by signed times only, and not further than they vouch for."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core.reasons import Reason
from agent.errors import BundleRefusedError
from agent.publish.roles import spell
from agent.trust.clock import learned_time, moment, parse_issued

TIMES = st.datetimes(datetime(1970, 1, 1), datetime(9999, 12, 31))  # noqa: DTZ001 - UTC follows


@given(TIMES)
def test_a_spelled_time_parses_to_itself(naive: datetime) -> None:
    """What the publisher writes is what the board reads, to the second."""
    time = naive.replace(tzinfo=UTC, microsecond=0)
    assert int(time.timestamp()) == parse_issued(spell(time))


def test_no_issue_time_is_none_learned() -> None:
    """Repositories of other tools have no x-issued; nothing follows from that."""
    assert parse_issued(None) == 0


@pytest.mark.parametrize(
    "value",
    [
        "",
        "soon",
        "2026-01-31",
        "2026-01-31T12:00:00",
        "2026-13-01T00:00:00Z",
        7,
        [],
        {},
    ],
)
def test_other_spellings_are_refused(value: object) -> None:
    """Anything but a UTC time is ``metadata``."""
    with pytest.raises(BundleRefusedError) as caught:
        parse_issued(value)
    assert caught.value.reason == Reason.METADATA


@given(st.integers(0, 2**40), st.lists(TIMES, min_size=1, max_size=2))
def test_an_online_key_claims_no_time_beyond_the_offline_roles(
    issued_s: int, naive: list[datetime]
) -> None:
    """The learned time is the earliest of the issue time and the offline expiries."""
    expiries = [time.replace(tzinfo=UTC) for time in naive]
    learned = learned_time(issued_s, expiries)
    assert learned <= issued_s
    assert all(learned <= expiry.timestamp() for expiry in expiries)
    assert learned in {issued_s, *(int(expiry.timestamp()) for expiry in expiries)}


@given(st.floats(allow_nan=False))
def test_every_clock_is_a_moment(now_s: float) -> None:
    """A clock that shows nonsense becomes the nearest time that exists."""
    assert datetime(1970, 1, 1, tzinfo=UTC) <= moment(now_s)
