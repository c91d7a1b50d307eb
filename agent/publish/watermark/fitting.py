"""What a model has room for: how far its copies can be turned, tried on pilot boards.

A model that is seldom sure has small logits, and a margin that another does not feel
changes what it answers. So margins are tried, from robust to gentle, on copies that
are thrown away.

The rules this module keeps:
 * What has no room is refused early: a head of too few numbers before triggers are
   searched, the rest after some pilots and before the first board's copy.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from agent.core.reasons import Reason
from agent.errors import BundleRefusedError
from agent.publish.watermark.copies import Drawn, Plan, draw_copies
from agent.publish.watermark.markable import Given
from agent.publish.watermark.runtime import Executor

# Logits, in this order. The first is what the published robustness was measured with;
# the last is two steps of a coarse int8 output, below which bits are ties.
MARGINS = (1.2, 0.6, 0.3, 0.2, 0.1)
PILOT = 24  # boards that tell how many pass and how far golden outputs move
GLANCE = 8  # of these come first: where none of them passes the rest would hardly
# Share of pilots that have to pass: with ``DRAWS`` codewords a board, not one board in
# 10^12 is left without a copy; in 10^5, where pilots were lucky and it is an eighth.
PASSING = 0.25
# Of the median lead of a model's first class: a larger margin changes too many answers.
# Measured on digits-2 (1.2 of 3.9 passes) and digits-1 (0.3 of 1.3 does no more).
LEAD_SHARE = 1 / 3
PILOT_ROOM = 1.5  # so that of 10,000 boards few are drawn again for golden outputs


@dataclass(frozen=True, slots=True)
class Fit:
    """What pilots showed.

    Attributes:
        margin: In logits: the largest that enough copies pass with.
        tolerances: Variant -> how far golden outputs of copies are off, with some room.
            Copies are other models by design: the tolerance that their author declared
            for one model on several kernels does not hold for them.
    """

    margin: float
    tolerances: dict[str, float]


def check_room(givens: Mapping[str, Given], bits: int) -> None:
    """Refuse more bits than a head has numbers to turn.

    Each trigger is a condition of its own, and all classes may move together without
    any answer changing: (classes - 1) * (features + 1) numbers are free.

    Raises:
        BundleRefusedError: ``watermark``: and how many bits would fit.
    """
    for name, given in givens.items():
        _, head = given.open()
        classes, width = head.weights.shape
        free = (classes - 1) * width
        if 2 * bits <= free:
            continue
        most = free // 16 * 8
        raise BundleRefusedError(
            f"variant {name} has no room for {bits} bits and as many for tracing: its "
            f"head has {free} numbers to turn",
            reason=Reason.WATERMARK,
            todo=f"Take fewer bits: more than --bits {most} cannot fit."
            if most >= 32  # fewer would not tell two boards apart
            else "Seal this model without marks, or give it more features.",
        )


def likely_margins(plan: Plan) -> tuple[float, ...]:
    """Return the margins that are worth a trial, by how sure the model is."""
    leads = []
    for variant in plan.variants:
        clean = variant.problem.before[len(variant.problem.pairs) :]
        second, first = np.partition(clean, -2, axis=1)[:, -2:].T
        leads.append(float(np.median(first - second)))
    most = LEAD_SHARE * min(leads)
    return tuple(it for it in MARGINS if it <= most) or MARGINS[-1:]


def fit_margin(
    plan: Plan,
    margins: Sequence[float],
    executor: Executor,
    progress: Callable[[int], None],
) -> Fit:
    """Return the first margin that enough pilots pass with.

    Args:
        plan: With tolerances that nothing exceeds.
        margins: Which to try, the most wanted first.
        executor: Runs heads.
        progress: Is called with the number of margins tried.

    Raises:
        BundleRefusedError: ``watermark``: with none of them; says which variant fails
            most, and why.
    """
    drawn: list[Drawn] = []
    for number, margin in enumerate(margins, 1):
        drawn = _pilots(replace(plan, margin=margin), executor)
        progress(number)
        passed = [it for it in drawn if not it.fault]
        if len(passed) >= PASSING * PILOT:
            return Fit(margin, _tolerances(passed))
    faults = Counter(it.fault for it in drawn if it.fault)
    fault, times = faults.most_common(1)[0]
    raise BundleRefusedError(
        f"this model has no room for {plan.bits} bits and as many for tracing: {fault} "
        f"in {times} of {len(drawn)} trial copies, with a margin of {margins[-1]:g}",
        reason=Reason.WATERMARK,
        todo=f"Take fewer bits (--bits {max(32, plan.bits // 16 * 8)}), lower --margin "
        "or --floor, give more --data, or leave out the variant.",
    )


def _pilots(plan: Plan, executor: Executor) -> list[Drawn]:
    """Return copies for nobody: a few of each variant, and more if some pass."""
    boards = [str(number) for number in range(PILOT)]
    for variant in plan.variants:
        alone = replace(plan, variants=(variant,))
        drawn = draw_copies(alone, boards[:GLANCE], executor)
        if all(it.fault for it in drawn):
            return drawn
    return draw_copies(plan, boards, executor)


def _tolerances(passed: Sequence[Drawn]) -> dict[str, float]:
    """Return by variant how far golden outputs may be off."""
    return {
        name: PILOT_ROOM * max(it.checks[name].deviation for it in passed)
        for name in passed[0].checks
    }
