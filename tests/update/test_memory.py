"""What is remembered of refusals."""

from agent.core.reasons import Reason
from agent.errors import AgentError, BundleRefusedError, DeviceError, TrialFailedError
from agent.update.memory import RefusalMemory

FINAL = BundleRefusedError("never", reason=Reason.HARDWARE)
MENDABLE = BundleRefusedError("copied badly", reason=Reason.DIGEST)
CUT_OFF = BundleRefusedError("half of it", reason=Reason.UNREACHABLE)
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


def test_what_a_network_interrupted_is_soon_tried_again() -> None:
    """1 round, then 3 each time: what came stays, and only trying brings the rest."""
    memory = RefusalMemory()
    waited = []
    for _ in range(6):
        memory.remember("door", 1, CUT_OFF)
        waited.append(rounds(memory, 1, 10).index("x"))
    assert waited == [1, 3, 3, 3, 3, 3]


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
