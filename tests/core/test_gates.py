"""Gates: figures beside limits, and what closes them."""

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from agent.core.gates import (
    MIN_SAMPLES,
    compare,
    describe_fault,
    explain,
    find_fault,
    judge,
    worst,
)
from agent.core.inventory import GateTable
from agent.core.waves import BoardCourse, Standing
from agent.core.waves_course import Figures, Health

LIMITS = GateTable()
NOW, PATIENCE_S = 1000.0, 60.0
GOOD = BoardCourse(Standing.COMMITTED, told=1, health=Health(samples=500))
healths = st.builds(
    Health,
    samples=st.integers(0, 10**6),
    errors_share=st.floats(0, 1),
    latency_ratio=st.floats(0, 100),
    critical=st.booleans(),
)
counts = st.integers(0, 10**6)
figures = st.builds(
    Figures, answered=counts, failed=counts, p95_ms=st.floats(0, 1e4, width=32)
)


def sick(
    errors_share: float = 0.0, latency_ratio: float = 0.0, *, critical: bool = False
) -> BoardCourse:
    """Return a board that committed, and does badly."""
    return BoardCourse(
        Standing.COMMITTED,
        told=1,
        health=Health(
            *(500, errors_share, latency_ratio, critical),
            p95_ms=2.0 * latency_ratio,
            before_ms=2.0,
            allowed_ms=3.0,
        ),
    )


def closed(*boards: BoardCourse, limits: GateTable = LIMITS) -> list[str]:
    """Return the names of the gates that a wave closes."""
    named = [(f"b{index}", board) for index, board in enumerate(boards)]
    return [it.name for it in judge(named, limits, NOW, PATIENCE_S) if it.closes]


@given(st.lists(healths, max_size=4), st.randoms())
def test_the_worst_pipeline_counts_in_any_order(
    rows: list[Health], chance: Random
) -> None:
    """Whatever the order, and no row is better than their worst."""
    mixed = list(rows)
    chance.shuffle(mixed)
    found = worst(rows)
    assert found == worst(mixed)
    assert all(found.errors_share >= row.errors_share for row in rows)


@given(figures, figures, figures)
def test_shares_are_shares_whatever_boards_say(
    active: Figures, wanted: Figures, after: Figures
) -> None:
    """Counters that fall mean a daemon that began anew, and no negative share."""
    found = compare(active, wanted, after)
    assert 0 <= found.errors_share <= 1
    assert found.samples >= 0
    assert found.latency_ratio >= 0


@given(
    st.lists(st.sampled_from([GOOD, sick(errors_share=0.5)]), max_size=30),
    st.floats(0, 1),
)
def test_a_gate_closes_above_its_share_and_not_at_it(
    boards: list[BoardCourse], share: float
) -> None:
    """The same count closes it wherever the boards stand."""
    bad = sum(bool(it.health.errors_share) for it in boards)
    limits = GateTable(failed_share=share)
    expected = ["failed"] if bad > share * len(boards) + 1e-6 else []
    if abs(bad - share * len(boards)) > 1e-6 or not boards:
        assert expected == closed(*boards, limits=limits)
    assert closed(*boards, limits=limits) == closed(*boards[::-1], limits=limits)


def test_what_was_counted_before_the_commit_does_not_count() -> None:
    """A version that ran here once is judged by what it does now."""
    before = Figures(answered=1000, p95_ms=4.0)
    there = Figures(answered=100, failed=50, p95_ms=9.0)
    after = Figures(answered=280, failed=70, p95_ms=6.0)
    found = compare(before, there, replace(after, answered=480, failed=90))
    assert (
        found.samples,
        found.errors_share,
        found.latency_ratio,
    ) == (420, 40 / 420, 1.5)
    reborn = Figures(answered=99, failed=11, p95_ms=6.0)
    found = compare(before, there, reborn)
    assert (
        found.samples,
        found.errors_share,
        found.latency_ratio,
    ) == (110, 0.1, 0.0)


def test_few_samples_say_nothing() -> None:
    """One failure of three is no third, and their p95 is none."""
    few = Figures(answered=MIN_SAMPLES - 2, failed=1, p95_ms=99.0)
    found = compare(Figures(answered=1000, p95_ms=1.0), Figures(), few)
    assert (
        found.samples,
        found.errors_share,
        found.latency_ratio,
    ) == (MIN_SAMPLES - 1, 0.0, 0.0)


@pytest.mark.parametrize(
    ("board", "fault"),
    [
        (GOOD, ""),
        (BoardCourse(), ""),
        (BoardCourse(Standing.UPDATING, health=Health(critical=True)), ""),
        (BoardCourse(Standing.RUNS), ""),
        (BoardCourse(Standing.FAILED, "golden"), "golden"),
        (BoardCourse(Standing.FAILED), "rollout"),
        (BoardCourse(Standing.OVERRULED, "rollout"), "rollout"),
        (BoardCourse(Standing.BACK), ""),
        (sick(errors_share=0.02), "failures"),
        (sick(latency_ratio=1.6), "latency"),
        (sick(latency_ratio=1.5), ""),
        (sick(critical=True), "drift"),
    ],
)
def test_what_makes_a_board_a_bad_one(board: BoardCourse, fault: str) -> None:
    """Its own failure, or a figure above its limit once it has committed."""
    assert fault == find_fault(board, LIMITS)


def test_drift_may_be_left_out() -> None:
    """Where the inventory says so it closes nothing, and is not shown."""
    limits = GateTable(drift=False)
    assert closed(sick(critical=True), limits=limits) == []
    rows = judge([("b", GOOD)], limits, NOW, PATIENCE_S)
    assert "drift" not in [row.name for row in rows]


def test_the_readings_of_a_wave() -> None:
    """Shares of boards, worst figures of boards, and who they are."""
    lost = BoardCourse(Standing.TOLD, lost_at=NOW - 61)
    gone = BoardCourse(Standing.NEW, lost_at=NOW - 59)
    failed = BoardCourse(Standing.FAILED, "golden")
    wave = [("a", GOOD), ("b", failed), ("c", lost), ("d", gone)]
    wave += [("e", sick(latency_ratio=2.0))]
    rows = {it.name: it for it in judge(wave, LIMITS, NOW, PATIENCE_S)}
    assert (
        rows["failed"].figure,
        rows["failed"].boards,
        rows["failed"].closes,
    ) == (0.4, ("b", "e"), True)
    assert (
        rows["unreachable"].figure,
        rows["unreachable"].boards,
        rows["unreachable"].closes,
    ) == (0.2, ("c",), True)
    assert (
        rows["latency"].figure,
        rows["latency"].boards,
        rows["latency"].closes,
    ) == (2.0, ("e",), False)
    expected = "failed: 2 of 5 boards (40 %), at most 0 % allowed: b, e"
    assert expected == explain(rows["failed"], 5)


@given(st.floats(0.01, 1.0), st.floats(1.0, 100.0), st.floats(0.0, 100.0))
def test_noise_of_a_fast_model_closes_nothing(
    before_ms: float, ratio: float, budget_ms: float
) -> None:
    """Within its budget, or a millisecond more than before, no ratio is slow."""
    allowed_ms = budget_ms or before_ms + 1.0
    after_ms = min(before_ms * ratio, allowed_ms)
    before = Figures(answered=1000, p95_ms=before_ms)
    after = Figures(answered=1000, p95_ms=after_ms, budget_ms=budget_ms)
    board = BoardCourse(Standing.COMMITTED, health=compare(before, Figures(), after))
    assert find_fault(board, LIMITS) == ""


def test_a_gate_says_what_was_measured() -> None:
    """The figure, the one before it, and of how many samples."""
    before = Figures(answered=1000, p95_ms=2.1)
    after = Figures(answered=940, p95_ms=5.5)
    slow = BoardCourse(Standing.COMMITTED, health=compare(before, Figures(), after))
    expected = "p95 5.5 ms, 2.1 ms before (2.62 times, at most 1.5), 940 samples"
    assert expected == describe_fault(slow, LIMITS)
    failing = "50 % of 500 samples failed, at most 1 %"
    assert failing == describe_fault(sick(errors_share=0.5), LIMITS)


def test_who_is_not_ready_is_a_bad_board_after_a_moment() -> None:
    """A restart is forgiven, for as long as one takes; a hang is not."""
    board = replace(GOOD, down="hang", down_at=NOW, seen_at=NOW + 9)
    assert find_fault(board, LIMITS) == ""
    gone = replace(board, seen_at=NOW + 10)
    assert find_fault(gone, LIMITS) == "hang"
    assert describe_fault(gone, LIMITS) == "it runs the version and is not ready [hang]"


def test_a_version_that_says_nothing_is_silent_where_the_one_before_spoke() -> None:
    """No sample since the commit; a board that never had one is none the worse."""
    spoke, nothing = Figures(answered=5), Figures()
    assert compare(spoke, nothing, nothing).silent
    assert not compare(nothing, nothing, nothing).silent
    assert not compare(spoke, nothing, Figures(answered=1)).silent
