"""A figure and its limit: readable, and never the same by rounding."""

from hypothesis import given
from hypothesis import strategies as st

from agent.core.figures import tell_apart
from agent.core.manifest import Budgets, TrialRules
from agent.core.messages import Finding
from agent.core.shadow_verdict import FEWEST_TIMED, Durations, judge_durations
from agent.core.trial_verdict import judge_budgets

figures = st.floats(0, 1e6)


@given(figures, figures, st.integers(0, 3))
def test_law_what_is_more_reads_as_more(one: float, other: float, digits: int) -> None:
    """Whoever reads both sees which is larger."""
    texts = [float(text) for text in tell_apart(one, other, digits)]
    assert (one > other, one < other) == (texts[0] > texts[1], texts[0] < texts[1])


def test_a_budget_of_a_microsecond_is_told_from_what_broke_it() -> None:
    """ "0.001 ms, 0.001 ms allowed" explains nothing: there are digits enough."""
    slow = Finding(0, p50_ms=0.001, p95_ms=0.0014, ram_bytes=1)
    judged = judge_budgets(slow, Budgets(p95_ms=0.001, ram_mb=1))
    assert judged.detail == "p95 0.0014 ms, 0.0010 ms allowed"
    large = Finding(0, p50_ms=0.001, p95_ms=0.0014, ram_bytes=1_000_001)
    judged = judge_budgets(large, Budgets(p95_ms=1, ram_mb=1))
    assert judged.detail == "1.000001 MB, 1.000000 MB allowed"
    verdict = judge_durations(
        Durations(FEWEST_TIMED, p95_ms=0.0014),
        TrialRules(),
        Budgets(p95_ms=0.001, ram_mb=1),
    )
    assert verdict.detail == "p95 0.0014 ms, 0.0010 ms allowed its budget"
