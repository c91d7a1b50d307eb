"""Liveness: a hang is told from an idle loop and from a fast one."""

from hypothesis import given
from hypothesis import strategies as st

from agent.core.liveness import Progress, is_hung, note_progress

DEADLINE_NS = 1_000
times = st.integers(min_value=1, max_value=10**15)
steps = st.integers(min_value=1, max_value=DEADLINE_NS)


def seen(
    last: Progress | None, now_ns: int, seq: int, turn: int, busy: int
) -> Progress:
    """Note one look at a block."""
    return note_progress(last, seq=seq, turn_ns=turn, busy_since_ns=busy, now_ns=now_ns)


@given(times, st.lists(steps, min_size=1, max_size=20))
def test_an_idle_loop_never_hangs(start_ns: int, gaps: list[int]) -> None:
    """It turns, so it lives, however long no sample comes."""
    now_ns, last = start_ns, None
    for gap in gaps:
        now_ns += gap
        last = seen(last, now_ns, seq=7, turn=now_ns, busy=0)
        assert not is_hung(last, now_ns=now_ns, deadline_ns=DEADLINE_NS)


@given(times, st.lists(st.tuples(steps, st.booleans()), min_size=1, max_size=20))
def test_a_loop_that_counts_never_hangs(
    start_ns: int, looks: list[tuple[int, bool]]
) -> None:
    """Numbers that move are life, seen busy with a fresh sample or between two."""
    now_ns, last, seq = start_ns, None, 1
    for gap, busy in looks:
        now_ns, seq = now_ns + gap, seq + 1
        last = seen(last, now_ns, seq=seq, turn=5, busy=now_ns - 1 if busy else 0)
        assert not is_hung(last, now_ns=now_ns, deadline_ns=DEADLINE_NS)


@given(start_ns=times, late_ns=steps, busy=st.booleans())
def test_standing_still_beyond_the_deadline_is_a_hang(
    start_ns: int, late_ns: int, *, busy: bool
) -> None:
    """One sample, or one look at the source, that takes too long; not before."""
    since = start_ns if busy else 0
    last = seen(None, start_ns, seq=3, turn=9, busy=since)
    on_time = start_ns + DEADLINE_NS
    late = on_time + late_ns
    assert not is_hung(
        seen(last, on_time, 3, 9, since), now_ns=on_time, deadline_ns=DEADLINE_NS
    )
    assert is_hung(seen(last, late, 3, 9, since), now_ns=late, deadline_ns=DEADLINE_NS)


@given(times, steps)
def test_a_sample_counts_from_its_own_beginning(start_ns: int, gap: int) -> None:
    """A first look at a sample that has been stuck for long sees the hang at once."""
    now_ns = start_ns + DEADLINE_NS + gap
    first = seen(None, now_ns, seq=3, turn=9, busy=start_ns)
    assert is_hung(first, now_ns=now_ns, deadline_ns=DEADLINE_NS)
