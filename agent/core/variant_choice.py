"""Which of the pairs that passed preflight runs, and why none of the others does.

The rules this module keeps:
 * Law: the choice is a pair that passed; a pair that did not pass changes nothing.
 * Law: what was chosen and what was passed over are together the whole plan, as long as
   that has no more than ``MAX_PASSED_OVER`` others.
 * Where every variant that passed says how accurate it is, the most accurate one runs,
   on what is fastest for it; else the fastest pair. A budget is the author's word for
   what is fast enough: below it, time saved is worth less to whoever reads the answers
   than answers that are right. Accuracies are comparable only within one bundle, and
   where all of them are known: one that is missing is not a bad one.
 * The order of the plan, which begins with the author's order, only breaks ties.
"""

from collections.abc import Mapping, Sequence
from math import isfinite

from agent.core.executors import Executor
from agent.core.figures import tell_apart
from agent.core.installed import PassedOver
from agent.core.messages import Finding

Pair = tuple[str, Executor]
# Medians of one executor on a quiet machine repeat to a few per cent: closer than
# that, two pairs are equally fast.
TIE_SHARE = 0.03
# Shares of right answers on some 1,000 test samples are not known better.
TIE_ACCURACY = 0.001
# Kept with every installed model, and shown: one for each of 16 variants, and some.
MAX_PASSED_OVER = 16
MAX_DETAIL = 200


def choose_pair(
    plan: Sequence[Pair], verdicts: Sequence[Finding], accuracy: Mapping[str, float]
) -> tuple[int, str]:
    """Return the number of the pair that is to run, and why, for people.

    Args:
        plan: What was tried.
        verdicts: One for each pair; at least one without a reason.
        accuracy: Variant -> share of right answers, of those that say it.
    """
    passed = [at for at, found in enumerate(verdicts) if not found.reason]
    named = {plan[at][0] for at in passed}
    by_accuracy = len(named) > 1 and named <= accuracy.keys()
    rivals = passed
    if by_accuracy:
        best = max(accuracy[name] for name in named)
        least = best - TIE_ACCURACY
        rivals = [at for at in passed if accuracy[plan[at][0]] >= least]
    fastest_ms = min(verdicts[at].p50_ms for at in rivals)
    limit_ms = fastest_ms * (1 + TIE_SHARE)
    chosen = next(at for at in rivals if verdicts[at].p50_ms <= limit_ms)
    if by_accuracy:
        what = f"most accurate of {len(named)} variants that keep the budgets"
        return chosen, f"{what}, {accuracy[plan[chosen][0]]:.4g}"
    if len(passed) == 1:
        return chosen, "the only one that passed"
    return chosen, f"fastest of {len(passed)} that passed, {fastest_ms:.3g} ms"


def explain_losers(
    plan: Sequence[Pair],
    verdicts: Sequence[Finding],
    chosen: int,
    accuracy: Mapping[str, float],
) -> tuple[PassedOver, ...]:
    """Return why each other pair does not run, the most telling first.

    That is the best pair of each other variant, then what else passed, then what did
    not. Findings come from a child that is not trusted: what is kept of them is
    bounded, and can be written as JSON.
    """
    others = [at for at in range(len(plan)) if at != chosen]
    others.sort(key=lambda at: (bool(verdicts[at].reason), verdicts[at].p50_ms))
    seen = {plan[chosen][0]: 1}
    ranks: dict[int, int] = {}
    for at in others:
        ranks[at] = seen.get(plan[at][0], 0)
        seen[plan[at][0]] = ranks[at] + 1
    others.sort(key=lambda at: (bool(verdicts[at].reason), ranks[at]))
    return tuple(
        PassedOver(
            *plan[at],
            str(verdicts[at].reason),
            _why_not(plan, verdicts, at, chosen, accuracy)[:MAX_DETAIL],
            _finite(verdicts[at].p50_ms),
            verdicts[at].ram_bytes,
        )
        for at in others[:MAX_PASSED_OVER]
    )


def _why_not(
    plan: Sequence[Pair],
    verdicts: Sequence[Finding],
    at: int,
    chosen: int,
    accuracy: Mapping[str, float],
) -> str:
    """Say why one pair was not chosen."""
    found, best = verdicts[at], verdicts[chosen]
    if found.reason:
        return found.detail
    mine, theirs = (accuracy.get(plan[it][0]) for it in (at, chosen))
    if mine is not None and theirs is not None and mine < theirs - TIE_ACCURACY:
        texts = tell_apart(mine, theirs, 2)
        return f"{found.p50_ms:.3g} ms, accuracy {texts[0]} against {texts[1]}"
    slower_ms = found.p50_ms - best.p50_ms
    if slower_ms <= best.p50_ms * TIE_SHARE:
        return f"{found.p50_ms:.3g} ms, no faster"
    return f"{found.p50_ms:.3g} ms, {slower_ms:.2g} ms slower"


def _finite(value: float) -> float:
    """Return a number that JSON can hold."""
    return value if isfinite(value) else 0.0
