"""How a shadow is judged: what it answered beside the active model, by its own rules.

The rules this module keeps:
 * A sample counts only if the active model answered it: what the input spoils is no
   fault of the candidate's.
 * A verdict of "failed" may come early, as soon as no further sample could change it;
   "passed" never does.
 * Too few samples are no verdict (``unseen``): a source that is silent says nothing
   about a model, and what nobody has seen at work is not let in either.
 * A child is not trusted: numbers that cannot be fail it (``crash``).

Laws: one more sample that agrees never turns a pass into a failure; what fails early
fails whatever follows.
"""

from dataclasses import dataclass
from typing import Literal

from agent.core.figures import tell_apart
from agent.core.manifest import Budgets, TrialRules
from agent.core.messages import Shadowed
from agent.core.reasons import Reason

State = Literal["undecided", "passed", "failed", "unseen"]
# Below it, one unlucky sample is more than a tenth of the verdict.
FEWEST_SAMPLES = 10
# A 95th percentile of fewer durations is the largest of them.
FEWEST_TIMED = 20


@dataclass(frozen=True, slots=True)
class Verdict:
    """What evidence amounts to; ``reason`` and ``detail`` say why it failed."""

    state: State
    reason: Reason = Reason.NONE
    detail: str = ""


UNDECIDED, PASSED = Verdict("undecided"), Verdict("passed")


def judge_shadow(
    seen: Shadowed,
    rules: TrialRules,
    budgets: Budgets,
    *,
    ended: bool = False,
    clock_share: float = 1.0,
) -> Verdict:
    """Judge what a shadow has answered so far.

    Args:
        seen: The child's last report.
        rules: The candidate's own; ``budgets`` likewise.
        budgets: See above.
        ended: No more samples will come in time.
        clock_share: As in ``Durations``; both models had it, which were timed at once.
    """
    if not _is_possible(seen):
        return failed(Reason.CRASH, "it reported impossible numbers")
    if seen.not_finite:
        what = f"{seen.not_finite} answers were not finite numbers: {seen.detail}"
        return failed(Reason.NOT_FINITE, what)
    wanted = max(rules.shadow_samples, 1)
    enough = seen.compared >= wanted
    # Until then every sample that is still to come may turn out well.
    total = seen.compared if enough or ended else wanted
    verdict = _judge_answers(seen, total, rules)
    if verdict is not None and (total >= min(wanted, FEWEST_SAMPLES)):
        return verdict
    if not enough and not ended:
        return UNDECIDED
    if seen.compared < min(wanted, FEWEST_SAMPLES):
        what = f"{seen.compared} samples of {wanted} could be compared"
        return Verdict("unseen", Reason.SOURCE_SILENT, what)
    active_ms = seen.active_p95_ms * clock_share
    durations = Durations(seen.timed, seen.p95_ms, active_ms, clock_share)
    return judge_durations(durations, rules, budgets)


@dataclass(frozen=True, slots=True)
class Durations:
    """How long whole samples took.

    Attributes:
        timed: How many durations ``p95_ms``, the candidate's 95th percentile, is of.
        before_ms: The same of the active model; 0 where nobody knows.
        clock_share: Share of its full clock that the board had meanwhile: durations
            are judged as they would have been at full speed.
    """

    timed: int
    p95_ms: float
    before_ms: float = 0.0
    clock_share: float = 1.0


def judge_durations(
    measured: Durations, rules: TrialRules, budgets: Budgets
) -> Verdict:
    """Judge durations against the budget, and against those of the active model.

    A board that is throttled and does not say how much tells nothing about a model:
    it passes, as do too few durations.
    """
    if measured.timed < FEWEST_TIMED or not 0 < measured.clock_share <= 1:
        return PASSED
    corrected_ms = measured.p95_ms * measured.clock_share
    limits = [(budgets.p95_ms, "its budget")]
    if rules.max_slowdown and measured.before_ms > 0:
        limits.append((rules.max_slowdown * measured.before_ms, "by the active model"))
    limit_ms, whose = min(limits)
    if corrected_ms <= limit_ms:
        return PASSED
    p95, limit = tell_apart(corrected_ms, limit_ms, 3)
    what = f"p95 {p95} ms, {limit} ms allowed {whose}"
    return failed(Reason.LATENCY, what)


def failed(reason: Reason, detail: str) -> Verdict:
    """Return the verdict against a candidate."""
    return Verdict("failed", reason, detail)


def _judge_answers(seen: Shadowed, total: int, rules: TrialRules) -> Verdict | None:
    """Return the verdict if too many of ``total`` samples failed or differ."""
    if not total:
        return None
    if seen.failed > rules.max_failed * total:
        what = f"{seen.failed} of {total} samples failed: {seen.detail}"
        return failed(Reason.FAILURES, what)
    differ = seen.compared - seen.agreed
    if total - differ < rules.min_agreement * total:
        share = (total - differ) / total
        return failed(
            Reason.AGREEMENT,
            f"it agrees on {share:.1%} of {total} samples at most, "
            f"{rules.min_agreement:.1%} wanted: {seen.detail}",
        )
    return None


def _is_possible(seen: Shadowed) -> bool:
    """Whether counts and durations can be true together; False for NaN."""
    return (
        seen.agreed + seen.failed + seen.not_finite <= seen.compared
        and seen.timed <= seen.compared
        and 0 <= seen.p95_ms < float("inf")
        and 0 <= seen.active_p95_ms < float("inf")
    )
