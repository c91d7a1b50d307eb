"""What is remembered of refusals, and how long pauses get."""

from hypothesis import given
from hypothesis import strategies as st

from agent.core.reasons import Reason
from agent.errors import AgentError, BundleRefusedError, DeviceError, TrialFailedError
from agent.update.memory import RefusalMemory
from agent.update.pace import JITTER, MAX_BACKOFF_S, Pace

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
def test_failures_never_make_it_faster(poll_s: float, draws: list[float]) -> None:
    """After failures the pause is at least poll_s and at most poll_s and the cap."""
    chance = iter(draws)
    pace = Pace(poll_s, lambda: next(chance))
    for _ in draws:
        pause_s = pace.after(failed=True)
        assert poll_s <= pause_s <= poll_s + max(MAX_BACKOFF_S, poll_s)


@given(poll_s=st.floats(0.01, 1e6), draw=st.floats(0, 1, exclude_max=True))
def test_success_ends_the_backoff(poll_s: float, draw: float) -> None:
    """However many failures before, one good look brings the usual pause back."""
    pace = Pace(poll_s, lambda: draw)
    for _ in range(20):
        pace.after(failed=True)
    pause_s = pace.after(failed=False)
    assert abs(pause_s - poll_s) <= poll_s * JITTER * (1 + 1e-9)


def test_full_jitter_doubles_its_span() -> None:
    """With the highest draw, the span on top doubles up to the cap."""
    pace = Pace(300.0, lambda: 1.0)
    pauses = [pace.after(failed=True) for _ in range(6)]
    assert pauses == [900.0, 1500.0, 2700.0, 3900.0, 3900.0, 3900.0]
