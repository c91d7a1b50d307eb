"""What an audit concludes from one inference that was computed anew.

Where the auditor computes with the board's own executor on a CPU of the same abilities,
the answer has to be the same to the bit; other kernels round otherwise, and are given
``FACTOR`` times the largest distance that the auditor's kernels show among themselves.
That tolerance is wide for some models: one sample may pass where several do not, and a
detection rate belongs to every verdict (``python -m benchmarks audit``).
"""

import math
from typing import Literal

from msgspec import Struct

from agent.core.reasons import Reason

# Of the distance seen between kernels: without a false alarm on the public models.
FACTOR = 1.5
Result = Literal[
    "exact",
    "close",
    "differs",
    "unbound",
    "unopened",
    "missing",
    "not_kept",
    "skipped",
]
BAD: frozenset[Result] = frozenset({"differs", "unbound", "unopened", "missing"})


class Recomputed(Struct, frozen=True):
    """What came of one inference elsewhere.

    Attributes:
        seq: Of its receipt.
        exact: Some kernels here gave the very bytes.
        comparable: The board's executor is here, too, on a CPU of the same abilities.
        distance: From what the board answered, in real units, by the nearest kernels.
        tolerance: See the module.
        detail: Why it could not be computed, if it could not.
        remembers: The model's own variables make its answer depend on earlier ones,
            which nobody kept: nothing can be said.
    """

    seq: int
    exact: bool = False
    comparable: bool = False
    distance: float = math.inf
    tolerance: float = 0.0
    detail: str = ""
    remembers: bool = False


class Verdict(Struct, frozen=True):
    """What an audit says about one receipt.

    Attributes:
        result: ``exact`` and ``close`` are right. ``differs``: computed anew it gives
            another answer. ``unbound``: what was kept is not what the receipt is
            about. ``unopened``: it was not sealed to this key for this receipt.
            ``missing``: the receipt says that it was kept, and it is not there.
            ``not_kept``: it was to be kept, and the log says that it was not.
            ``skipped``: of a model that the auditor did not bring, or that remembers.
        reason: ``audit`` where the result is bad.
    """

    seq: int
    result: Result
    reason: Reason = Reason.NONE
    distance: float | None = None
    tolerance: float | None = None
    detail: str = ""


def conclude(found: Recomputed) -> Verdict:
    """Return the verdict on an inference that was computed anew.

    >>> conclude(Recomputed(7, exact=True, distance=0.0)).result
    'exact'
    >>> conclude(Recomputed(7, distance=0.5, tolerance=1.0)).result
    'close'
    >>> conclude(Recomputed(7, comparable=True, distance=0.5, tolerance=1.0)).result
    'differs'
    """
    if found.remembers:
        return bad(found.seq, "skipped", "the model itself remembers earlier samples")
    apart = found.distance if math.isfinite(found.distance) else None
    if found.exact:
        return Verdict(found.seq, "exact", distance=0.0, tolerance=found.tolerance)
    if found.distance <= found.tolerance and not found.comparable:
        return Verdict(found.seq, "close", Reason.NONE, apart, found.tolerance)
    detail = found.detail or (
        "the same executor on such a CPU answers otherwise"
        if found.comparable
        else "further from the board's answer than any kernels are apart"
    )
    return Verdict(found.seq, "differs", Reason.AUDIT, apart, found.tolerance, detail)


def bad(seq: int, result: Result, detail: str) -> Verdict:
    """Return a verdict without a computation."""
    reason = Reason.AUDIT if result in BAD else Reason.NONE
    return Verdict(seq, result, reason, detail=detail)


def executor_word(described: str) -> str:
    """Return what of an executor decides about bits: all but its threads.

    >>> executor_word("litert 2.3.0 / xnnpack / 4")
    'litert 2.3.0 / xnnpack'
    """
    return described.rpartition(" / ")[0] or described
