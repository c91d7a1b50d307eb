"""Which other pair of a bundle may run instead, where a board has to do with less.

The rules this module keeps:
 * Only what passed preflight on this board stands in: whatever was passed over for a
   reason stays passed over.
 * A smaller variant is one that was measured to be faster here than the chosen one, or
   where none is, to take less memory: by its name alone nothing is smaller, and what
   was never measured (0) is nothing.
 * One thread means the same variant on the same kernels, which were examined so.

>>> from agent.core.executors import Executor
>>> fast = Executor("litert", "xnnpack", 2)
>>> calm = PassedOver("a", Executor("litert", "xnnpack", 1), p50_ms=3.0)
>>> chosen = Installed("m", 1, "", 0, "a", fast, p50_ms=2.0, passed_over=(calm,))
>>> found = choose_stand_in(chosen, {Measure.ONE_THREAD})
>>> found is not None and found[1].threads
1
>>> choose_stand_in(chosen, {Measure.SMALL_VARIANT})
"""

from collections.abc import Collection, Iterable

from msgspec.structs import replace

from agent.core.degradation import Measure
from agent.core.installed import Installed, PassedOver
from agent.core.variant_choice import Pair

# What repeats to a few per cent is not less because it is a little less.
LESS = 0.97


def choose_stand_in(installed: Installed, measures: Collection[Measure]) -> Pair | None:
    """Return what is to run instead of what was chosen; None for nothing else.

    Args:
        installed: What was chosen, and what was passed over for it.
        measures: What is asked for; those that cannot be had change nothing.
    """
    fit = [row for row in installed.passed_over if not row.reason]
    before: Pair = (installed.variant, installed.executor)
    found = before
    if Measure.SMALL_VARIANT in measures:
        found = _smaller(installed, fit) or found
    if Measure.ONE_THREAD in measures:
        found = _on_one_thread(found, fit) or found
    return None if found == before else found


def _smaller(installed: Installed, fit: Iterable[PassedOver]) -> Pair | None:
    """Return the cheapest pair of another variant, if it is cheaper at all."""
    others = [row for row in fit if row.variant != installed.variant]
    faster = [row for row in others if 0 < row.p50_ms < LESS * installed.p50_ms]
    slighter = [
        row
        for row in others
        if row.p50_ms > 0 and 0 < row.ram_bytes < LESS * installed.ram_bytes
    ]
    if faster:
        best = min(faster, key=lambda row: (row.p50_ms, row.ram_bytes))
    elif slighter:
        best = min(slighter, key=lambda row: (row.ram_bytes, row.p50_ms))
    else:
        return None
    return best.variant, best.executor


def _on_one_thread(pair: Pair, fit: Iterable[PassedOver]) -> Pair | None:
    """Return the same on one thread, if that was examined."""
    variant, executor = pair
    wanted = (variant, replace(executor, threads=1))
    known = {(row.variant, row.executor.describe()) for row in fit}
    return wanted if (variant, wanted[1].describe()) in known else None
