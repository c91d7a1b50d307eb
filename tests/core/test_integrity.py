"""What follows of a mismatch: decided from times alone."""

from hypothesis import given
from hypothesis import strategies as st

from agent.core.integrity import (
    CHECKS,
    WINDOW_S,
    Answer,
    Check,
    Checked,
    Evidence,
    IntegrityView,
    add_counts,
    answer_mismatch,
    describe_evidence,
)
from agent.core.integrity_words import describe_integrity, say_integrity
from agent.core.messages import Inspected, parse_from_child, render_message

TIMES = st.floats(0, 1e9)
COUNTS = st.dictionaries(st.sampled_from(CHECKS), st.integers(0, 10**9))


@given(TIMES)
def test_the_first_mismatch_restarts(now_s: float) -> None:
    """Whenever it comes, the first one costs a restart and no more."""
    assert answer_mismatch(None, now_s) is Answer.RESTART


@given(TIMES, TIMES)
def test_what_repeats_soon_is_set_aside(before_s: float, later_s: float) -> None:
    """A second one within the window rolls back; after it, it is a first one again."""
    soon = later_s <= WINDOW_S
    expected = Answer.ROLL_BACK if soon else Answer.RESTART
    found = answer_mismatch(before_s, before_s + later_s)
    # At the edge the sum of two floats decides.
    assert found is expected or abs(later_s - WINDOW_S) < 1


@given(COUNTS, COUNTS)
def test_counts_add_up_in_any_order(
    left: dict[Check, int], right: dict[Check, int]
) -> None:
    """The order of two workers does not matter, and nothing is lost."""
    total = add_counts(left, right)
    assert total == add_counts(right, left)
    assert sum(total.values()) == sum(left.values()) + sum(right.values())
    assert add_counts(left, {}) == left


@given(st.sampled_from(CHECKS), st.integers(0, 2**40), st.floats(0, 1e30))
def test_evidence_survives_the_way_to_the_daemon(
    check: Check, place: int, difference: float
) -> None:
    """What a worker found is what the daemon reads."""
    evidence = Evidence(check, place, "weights", "ab", "cd", difference)
    said = Inspected(3, Checked(checks={"source": 1}, pass_s=0.5), evidence)
    assert parse_from_child(render_message(said)) == said
    assert describe_evidence(evidence).startswith(f"{check}: ")


def test_words_for_people() -> None:
    """One line says what was found, or how much is checked; nothing if nothing is."""
    assert describe_integrity(IntegrityView()) is None
    now = Checked(bytes={"source": 50_000, "packed": 40_000})
    counts: dict[Check, int] = {"source": 3, "packed": 3, "answers": 7, "audit": 1}
    fine = IntegrityView(wanted=True, now=now, checks=counts)
    assert say_integrity(fine) == (
        "as verified: 90 KB hashed 3 times, 7 known answers, 1 audits"
    )
    bad = IntegrityView(
        wanted=True,
        now=now,
        checks=counts,
        mismatches={"packed": 1},
        last=Evidence("packed"),
        answer="restart",
    )
    assert say_integrity(bad) == ("1 found, restarted: the copies that kernels read")
