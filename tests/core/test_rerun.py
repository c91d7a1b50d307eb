"""What an audit concludes: exact where that can be asked, near elsewhere."""

import math

from hypothesis import given
from hypothesis import strategies as st

from agent.core.reasons import Reason
from agent.core.rerun import BAD, Recomputed, bad, conclude, executor_word

distances = st.one_of(st.floats(0, 1e30), st.just(math.inf))


@given(st.booleans(), st.booleans(), distances, st.floats(0, 1e30))
def test_every_result_has_its_reason(
    exact: bool,  # noqa: FBT001 - drawn
    comparable: bool,  # noqa: FBT001 - drawn
    distance: float,
    tolerance: float,
) -> None:
    """Right is the same to the bit, or near where the kernels are others."""
    found = Recomputed(3, exact, comparable, distance, tolerance)
    verdict = conclude(found)
    right = exact or (not comparable and distance <= tolerance)
    assert right == (verdict.result not in BAD)
    assert right == (verdict.reason is Reason.NONE)
    assert verdict.distance is None or math.isfinite(verdict.distance)
    assert bool(verdict.detail) == (not right)


@given(distances, st.floats(0, 1e30), st.floats(0, 1e30))
def test_more_tolerance_never_finds_more(
    distance: float, one: float, other: float
) -> None:
    """What passes a tolerance passes a wider one."""
    narrow, wide = sorted((one, other))
    results = [
        conclude(Recomputed(1, distance=distance, tolerance=it)).result
        for it in (narrow, wide)
    ]
    assert results != ["close", "differs"]


def test_skipped_is_no_finding() -> None:
    """A model that the auditor did not bring says nothing about the board."""
    assert bad(1, "skipped", "why").reason is Reason.NONE
    assert bad(1, "missing", "why").reason is Reason.AUDIT


def test_threads_do_not_change_bits() -> None:
    """Outputs are the same for any number of threads with the same kernels."""
    one, four = (f"litert 2.3.0 / xnnpack / {threads}" for threads in (1, 4))
    assert executor_word(one) == executor_word(four)
    assert executor_word("odd") == "odd"
