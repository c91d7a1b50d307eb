"""How a shadow is judged: what it answered beside the active model, by its own rules.

The rules this module keeps:
 * A sample counts only if the active model answered it: what the input spoils is no
   fault of the candidate's.
 * A verdict of "failed" may come early, as soon as no further sample could change it;
   "passed" never does.
 * Too few samples are no verdict (``unseen``): a source that is silent says nothing
   about a model, and what nobody has seen at work is not let in either.
 * What was timed while the board was slowed down fails nobody against a budget. Who
   kept it even so passes; who did not is judged by the rest of the time, and tried
   again later where there was hardly any. Beside the active model both were slowed
   alike, so that this comparison always holds.
 * A child is not trusted: numbers that cannot be fail it (``crash``).

Laws: one more sample that agrees never turns a pass into a failure; what fails early
fails whatever follows.
"""

from dataclasses import dataclass
from math import inf
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
LATE = 0.05  # what a 95th percentile leaves over


@dataclass(frozen=True, slots=True)
class Verdict:
    """What evidence amounts to; ``reason`` and ``detail`` say why it failed.

    ``excused``: it was slow, and unseen only because the board was slowed down.
    """

    state: State
    reason: Reason = Reason.NONE
    detail: str = ""
    excused: bool = False


UNDECIDED, PASSED = Verdict("undecided"), Verdict("passed")


@dataclass(frozen=True, slots=True)
class Spells:
    """What slowed a board down during a trial, and what was counted while nothing did.

    Attributes:
        slowed: What did at some time; nothing where none did, and all that was counted
            counts.
        timed: Durations of the rest of the time; ``late`` those over the budget.
    """

    slowed: Reason = Reason.NONE
    timed: int = 0
    late: int = 0


NEVER_SLOWED = Spells()


def judge_shadow(
    seen: Shadowed,
    rules: TrialRules,
    budgets: Budgets,
    *,
    ended: bool = False,
    spells: Spells = NEVER_SLOWED,
) -> Verdict:
    """Judge what a shadow has answered so far.

    Args:
        seen: The child's last report.
        rules: The candidate's own; ``budgets`` likewise.
        budgets: See above.
        ended: No more samples will come in time.
        spells: When the board was slowed down.
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
    verdict = _judge_shadow_time(seen, rules, budgets, spells)
    return UNDECIDED if verdict.state == "unseen" and not ended else verdict


@dataclass(frozen=True, slots=True)
class Durations:
    """How long whole samples took.

    Attributes:
        timed: How many durations ``p95_ms``, the candidate's 95th percentile, is of.
        before_ms: The same of the active model; 0 where nobody knows.
    """

    timed: int
    p95_ms: float
    before_ms: float = 0.0


def judge_durations(
    measured: Durations, rules: TrialRules, budgets: Budgets
) -> Verdict:
    """Judge durations against the budget, and against those of the active model.

    Too few pass.
    """
    if measured.timed < FEWEST_TIMED:
        return PASSED
    limits = [(budgets.p95_ms, "its budget")]
    if rules.max_slowdown and measured.before_ms > 0:
        limits.append((rules.max_slowdown * measured.before_ms, "by the active model"))
    limit_ms, whose = min(limits)
    if measured.p95_ms <= limit_ms:
        return PASSED
    p95, limit = tell_apart(measured.p95_ms, limit_ms, 3)
    what = f"p95 {p95} ms, {limit} ms allowed {whose}"
    return failed(Reason.LATENCY, what)


def unseen_for(slowed: Reason, slow: Verdict) -> Verdict:
    """Return the verdict on who is slow on a board that was nearly always slowed down.

    >>> slow = failed(Reason.LATENCY, "p95 12 ms, 10 ms allowed")
    >>> unseen_for(Reason.HEAT, slow).detail
    'p95 12 ms, 10 ms allowed, but the board was slowed down (heat)'
    """
    what = f"{slow.detail}, but the board was slowed down ({slowed})"
    return Verdict("unseen", slowed, what, excused=True)


def failed(reason: Reason, detail: str) -> Verdict:
    """Return the verdict against a candidate."""
    return Verdict("failed", reason, detail)


def _judge_shadow_time(
    seen: Shadowed, rules: TrialRules, budgets: Budgets, spells: Spells
) -> Verdict:
    """Judge a shadow's durations: those beside the active model's whatever slowed both.

    Against its budget only those count that nothing slowed; who keeps it all the same
    keeps it.
    """
    measured = Durations(seen.timed, seen.p95_ms, seen.active_p95_ms)
    slow = judge_durations(measured, rules, budgets)
    if slow.state == "passed" or not spells.slowed:
        return slow
    beside = judge_durations(measured, rules, Budgets(p95_ms=inf))
    if beside.state == "failed":
        return beside
    if spells.timed < FEWEST_TIMED:
        return unseen_for(spells.slowed, slow)
    if spells.late <= LATE * spells.timed:
        return PASSED
    return failed(
        Reason.LATENCY,
        f"{spells.late} of {spells.timed} samples took longer than the "
        f"{budgets.p95_ms:g} ms of its budget while nothing slowed the board down",
    )


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
        and seen.late <= seen.timed <= seen.compared
        and 0 <= seen.p95_ms < float("inf")
        and 0 <= seen.active_p95_ms < float("inf")
    )
