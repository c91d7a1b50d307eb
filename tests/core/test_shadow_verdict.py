"""Judging a shadow: what agrees may only help, what fails early stays failed."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from agent.core.manifest import Budgets, TrialRules
from agent.core.messages import Shadowed
from agent.core.reasons import Reason
from agent.core.shadow_verdict import (
    FEWEST_SAMPLES,
    FEWEST_TIMED,
    Durations,
    Spells,
    judge_durations,
    judge_shadow,
)

BUDGETS = Budgets(p95_ms=10.0)
RULES = TrialRules(shadow_samples=100, min_agreement=0.9, max_failed=0.05)
shares = st.floats(0, 1)
rules = st.builds(
    TrialRules,
    shadow_samples=st.integers(1, 200),
    min_agreement=shares,
    max_failed=shares,
)


@st.composite
def reports(draw: st.DrawFn) -> Shadowed:
    """Return a report that can be true, of any length."""
    agreed, failed, differ = (draw(st.integers(0, 150)) for _ in range(3))
    not_finite = draw(st.sampled_from([0, 0, 0, 1]))
    compared = agreed + failed + differ + not_finite
    return Shadowed(
        compared=compared,
        agreed=agreed,
        failed=failed,
        not_finite=not_finite,
        timed=draw(st.integers(0, compared)),
        p95_ms=draw(st.floats(0, 20)),
        active_p95_ms=draw(st.floats(0, 20)),
    )


def seen(agreed: int, failed: int = 0, differ: int = 0, **more: float) -> Shadowed:
    """Return a report of so many samples."""
    compared = agreed + failed + differ
    return Shadowed(compared, agreed, failed, **more)  # type: ignore[arg-type] # fields of the report


@given(reports(), rules)
def test_one_more_that_agrees_never_hurts(report: Shadowed, stated: TrialRules) -> None:
    """A pass stays a pass with one more sample that agrees."""
    after = replace(report, compared=report.compared + 1, agreed=report.agreed + 1)
    if judge_shadow(report, stated, BUDGETS).state == "passed":
        assert judge_shadow(after, stated, BUDGETS).state == "passed"


@given(reports(), rules, st.integers(0, 200), st.integers(0, 200))
def test_what_fails_early_fails_whatever_follows(
    report: Shadowed, stated: TrialRules, agreed: int, failed: int
) -> None:
    """No continuation up to the wanted number saves what has failed before it."""
    early = judge_shadow(report, stated, BUDGETS)
    if early.state != "failed" or report.compared >= stated.shadow_samples:
        return
    left = stated.shadow_samples - report.compared
    agreed = min(agreed, left)
    failed = min(failed, left - agreed)
    later = replace(
        report,
        compared=report.compared + left,
        agreed=report.agreed + agreed,
        failed=report.failed + failed,
    )
    assert judge_shadow(later, stated, BUDGETS).state == "failed"


@given(report=reports(), stated=rules, ended=st.booleans())
def test_what_passes_has_kept_its_promises(
    *, report: Shadowed, stated: TrialRules, ended: bool
) -> None:
    """Nothing passes that differs, fails or is slow beyond its rules, or was unseen."""
    if judge_shadow(report, stated, BUDGETS, ended=ended).state != "passed":
        return
    assert report.compared >= min(stated.shadow_samples, FEWEST_SAMPLES)
    assert ended or report.compared >= stated.shadow_samples
    assert report.failed <= stated.max_failed * report.compared
    assert report.not_finite == 0
    assert report.timed < FEWEST_TIMED or report.p95_ms <= BUDGETS.p95_ms
    # Whatever rounding does to a share: one sample makes no difference of two.
    assert report.agreed >= stated.min_agreement * report.compared - 1e-6


@pytest.mark.parametrize(
    ("report", "ended", "state", "reason"),
    [
        (seen(100), False, "passed", ""),
        (seen(90, differ=10), False, "passed", ""),
        (seen(89, differ=11), False, "failed", "agreement"),
        (seen(0, differ=11), False, "failed", "agreement"),
        (seen(0, differ=10), False, "undecided", ""),
        (seen(95, failed=5), False, "passed", ""),
        (seen(94, failed=6), False, "failed", "failures"),
        (seen(99), False, "undecided", ""),
        (seen(10), True, "passed", ""),
        (seen(8, differ=2), True, "failed", "agreement"),
        (seen(9), True, "unseen", "source_silent"),
        (seen(0, differ=9), True, "unseen", "source_silent"),
        (seen(0), True, "unseen", "source_silent"),
        (Shadowed(1, 0, 0, 1), False, "failed", "not_finite"),
        (seen(100, timed=20, p95_ms=10.1), False, "failed", "latency"),
        (seen(100, timed=19, p95_ms=10.1), False, "passed", ""),
        (Shadowed(1, 2), False, "failed", "crash"),
        (Shadowed(1, 1, timed=2), False, "failed", "crash"),
        (seen(30, timed=20, late=21), False, "failed", "crash"),
        (seen(100, timed=20, p95_ms=math.nan), False, "failed", "crash"),
        (seen(100, active_p95_ms=math.inf), False, "failed", "crash"),
    ],
)
def test_verdicts(report: Shadowed, ended: bool, state: str, reason: str) -> None:  # noqa: FBT001 - a row of the table
    """Each rule, at its limit and just beyond it."""
    verdict = judge_shadow(report, RULES, BUDGETS, ended=ended)
    assert (verdict.state, str(verdict.reason)) == (state, reason)


@pytest.mark.parametrize(
    ("measured", "slowdown", "state"),
    [
        (Durations(20, 9.0, 1.0), 0.0, "passed"),
        (Durations(20, 2.0, 1.0), 2.0, "passed"),
        (Durations(20, 2.1, 1.0), 2.0, "failed"),
        (Durations(20, 2.1, 0.0), 2.0, "passed"),
        (Durations(20, 11.0), 0.0, "failed"),
        (Durations(19, 99.0), 0.0, "passed"),
    ],
)
def test_durations(measured: Durations, slowdown: float, state: str) -> None:
    """The budget counts, and the active model's durations."""
    stated = TrialRules(max_slowdown=slowdown)
    verdict = judge_durations(measured, stated, BUDGETS)
    assert verdict.state == state
    assert verdict.reason == (Reason.LATENCY if state == "failed" else Reason.NONE)


FEW, MANY = FEWEST_TIMED - 1, 10 * FEWEST_TIMED


@pytest.mark.parametrize(
    ("p95_ms", "active_ms", "spells", "states"),
    [
        # Who keeps the budget on a slow board keeps it.
        (9.0, 0.0, Spells(Reason.HEAT), ("passed", "passed")),
        # Who does not is judged by the rest of the time...
        (99.0, 0.0, Spells(Reason.UNDER_VOLTAGE, MANY, 10), ("passed", "passed")),
        (99.0, 0.0, Spells(Reason.UNDER_VOLTAGE, MANY, 11), ("failed", "failed")),
        # ...and tried again where there was hardly any.
        (99.0, 0.0, Spells(Reason.THROTTLED, FEW, FEW), ("undecided", "unseen")),
        (99.0, 0.0, Spells(), ("failed", "failed")),
        # Both were slowed alike: no excuse beside the active model.
        (9.0, 4.0, Spells(Reason.THROTTLED), ("failed", "failed")),
        (99.0, 50.0, Spells(Reason.THROTTLED), ("undecided", "unseen")),
        (99.0, 40.0, Spells(Reason.THROTTLED), ("failed", "failed")),
    ],
)
def test_a_board_that_was_slowed_down(
    p95_ms: float, active_ms: float, spells: Spells, states: tuple[str, str]
) -> None:
    """A bad minute excuses that minute, and never the comparison of both models."""
    stated = replace(RULES, max_slowdown=2.0)
    report = seen(1000, timed=1000, p95_ms=p95_ms, active_p95_ms=active_ms)
    for ended, state in zip((False, True), states, strict=True):
        found = judge_shadow(report, stated, BUDGETS, ended=ended, spells=spells)
        assert found.state == state
        assert found.excused is (state == "unseen")
        reason = {"failed": Reason.LATENCY, "unseen": spells.slowed}.get(state, "")
        assert found.reason == reason


@given(
    reports(),
    st.sampled_from([Reason.HEAT, Reason.UNDER_VOLTAGE]),
    st.integers(0, 300),
    st.floats(0, 1),
)
def test_a_slowed_board_lets_nobody_pass_without_a_look(
    report: Shadowed, slowed: Reason, timed: int, late: float
) -> None:
    """Law: who passes kept its budget in all of the time, or in enough calm time."""
    spells = Spells(slowed, timed, int(late * timed))
    found = judge_shadow(report, RULES, BUDGETS, ended=True, spells=spells)
    if found.state == "passed" and report.timed >= FEWEST_TIMED:
        calm = timed >= FEWEST_TIMED and spells.late <= 0.05 * timed
        assert calm or report.p95_ms <= BUDGETS.p95_ms
