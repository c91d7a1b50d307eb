"""What is remembered of refusals, and how long pauses get."""

from hypothesis import given
from hypothesis import strategies as st

from agent.core.reasons import Reason
from agent.errors import AgentError, BundleRefusedError, DeviceError, TrialFailedError
from agent.update.memory import RefusalMemory
from agent.update.pace import (
    FIRST_SPAN_S,
    FLOOR_S,
    JITTER,
    MAX_BACKOFF_S,
    Pace,
)

FINAL = BundleRefusedError("never", reason=Reason.HARDWARE)
MENDABLE = BundleRefusedError("copied badly", reason=Reason.DIGEST)
LOCAL = DeviceError("full", reason=Reason.DISK_FULL)
GOLDEN = TrialFailedError("wrong", reason=Reason.GOLDEN)


def rounds(memory: RefusalMemory, key: int, count: int) -> str:
    """Return what ``may_try`` says in so many rounds: x for yes, . for no."""
    tries = [memory.may_try("door", key) for _ in range(count)]
    return "".join("x" if tried else "." for tried in tries)


def test_nothing_is_known_of_the_unknown() -> None:
    """What was never refused may be tried, every time."""
    assert rounds(RefusalMemory(), 1, 3) == "xxx"


def test_final_refusals_stand_until_the_key_changes() -> None:
    """Not asked again however long, and at once where the key is another."""
    for error in (FINAL, GOLDEN):
        memory = RefusalMemory()
        assert memory.remember("door", 1, error)
        assert rounds(memory, 1, 100) == "." * 100
        assert rounds(memory, 2, 1) == "x"
        assert memory.may_try("window", 1)


def test_what_may_mend_itself_is_tried_more_and_more_rarely() -> None:
    """After 1, 3, 7 rounds, and so on up to 63."""
    for error in (MENDABLE, LOCAL):
        memory = RefusalMemory()
        waits = []
        for _ in range(8):
            memory.remember("door", 1, error)
            waits.append(next(n for n in range(100) if memory.may_try("door", 1)))
        assert waits == [1, 3, 7, 15, 31, 63, 63, 63]


def test_a_busy_board_is_no_verdict_for_ever() -> None:
    """A trial that failed for want of time or memory is made again, later and later."""
    for reason in (Reason.HANG, Reason.MEMORY, Reason.LATENCY, Reason.CRASH):
        memory = RefusalMemory()
        memory.remember("door", 1, TrialFailedError("busy", reason=reason))
        assert rounds(memory, 1, 3) == ".xx"


def test_only_changes_are_news() -> None:
    """The same again is no news; another reason or another key is."""
    memory = RefusalMemory()
    told: list[tuple[int, AgentError]] = [
        (1, MENDABLE),
        (1, MENDABLE),
        (1, LOCAL),
        (2, LOCAL),
        (2, LOCAL),
    ]
    news = [memory.remember("door", key, error) for key, error in told]
    assert news == [True, False, True, True, False]


def test_forgetting_says_whether_there_was_anything() -> None:
    """What is forgotten may be tried and is news again."""
    memory = RefusalMemory()
    assert not memory.forget("door")
    memory.remember("door", 1, FINAL)
    assert memory.forget("door")
    assert rounds(memory, 1, 1) == "x"
    assert memory.remember("door", 1, FINAL)


def test_34_what_is_revoked_no_longer_is_forgotten() -> None:
    """Of those bytes, and for that reason only."""
    memory = RefusalMemory()
    revoked = BundleRefusedError("revoked", reason=Reason.REVOKED)
    for subject, error, sha256 in (
        ("door", revoked, "a"),
        ("factory/door", revoked, "a"),
        ("window", revoked, "b"),
        ("gate", FINAL, "a"),
    ):
        memory.remember(subject, 1, error, None, sha256)
    memory.forget_revoked({"a", "c"})
    subjects = ("door", "factory/door", "window", "gate")
    assert [memory.may_try(it, 1) for it in subjects] == [True, True, False, False]


def test_hurry_spares_what_is_final() -> None:
    """A poke lets mendable things be tried at once, and final ones stay refused."""
    memory = RefusalMemory()
    for _ in range(5):
        memory.remember("door", 1, MENDABLE)
    memory.hurry()
    assert rounds(memory, 1, 1) == "x"
    memory.remember("door", 1, FINAL)
    memory.hurry()
    assert rounds(memory, 1, 3) == "..."


@given(
    poll_s=st.floats(0.01, 1e6),
    draws=st.lists(st.floats(0, 1, exclude_max=True), min_size=1, max_size=40),
)
def test_failures_draw_from_the_whole_of_a_span(
    poll_s: float, draws: list[float]
) -> None:
    """The pause is the drawn share of a span that doubles up to its cap."""
    chance = iter(draws)
    pace = Pace(poll_s, lambda: next(chance))
    span_s, cap_s = FIRST_SPAN_S, max(MAX_BACKOFF_S, poll_s)
    for draw in draws:
        pause_s = pace.after(failed=True)
        assert max(draw * min(span_s, cap_s), min(FLOOR_S, poll_s)) == pause_s
        span_s *= 2


@given(draw=st.floats(0, 1, exclude_max=True))
def test_a_network_that_comes_up_after_the_boot_is_found_at_once(draw: float) -> None:
    """The first look of a boot is too early: the next comes in seconds, not minutes."""
    pace = Pace(300.0, lambda: draw)
    assert FLOOR_S <= pace.after(failed=True) <= FIRST_SPAN_S <= 5.0


@given(poll_s=st.floats(0.01, 1e6), draw=st.floats(0, 1, exclude_max=True))
def test_success_ends_the_backoff(poll_s: float, draw: float) -> None:
    """However many failures before, one good look brings the usual pause back."""
    pace = Pace(poll_s, lambda: draw)
    for _ in range(20):
        pace.after(failed=True)
    pause_s = pace.after(failed=False)
    assert abs(pause_s - poll_s) <= poll_s * JITTER * (1 + 1e-9)


def test_full_jitter_doubles_its_span_up_to_its_cap() -> None:
    """With the highest draw: from seconds to an hour, or to poll_s if that is more."""
    for poll_s, cap_s in ((300.0, 3600.0), (7200.0, 7200.0)):
        pace = Pace(poll_s, lambda: 1.0)
        pauses = [pace.after(failed=True) for _ in range(13)]
        assert pauses[:4] == [4.0, 8.0, 16.0, 32.0]
        assert pauses[9:] == [2048.0, *[min(4096.0, cap_s)], cap_s, cap_s]


def test_no_draw_hammers_a_server() -> None:
    """The lowest draw still leaves a second, or poll_s if that is less."""
    for poll_s, least_s in ((300.0, 1.0), (0.05, 0.05)):
        pace = Pace(poll_s, lambda: 0.0)
        assert [pace.after(failed=True) for _ in range(3)] == [least_s] * 3


def test_a_servers_wish_is_honoured_from_the_first_failure() -> None:
    """Retry-After stretches any pause, to a day at most, and shortens none."""
    pace = Pace(300.0, lambda: 1.0)
    assert pace.after(failed=True, asked_s=120.0) == 120.0
    assert pace.after(failed=True, asked_s=1.0) == 8.0
    assert pace.after(failed=True, asked_s=1e9) == 86_400.0
