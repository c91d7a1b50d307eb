"""Health gates: whether the boards of a wave do well enough for the next one.

The rules this module keeps:
 * A limit of one board (errors, latency, drift) makes that board a bad one; the share
   of bad boards, and that of boards out of reach, is what closes a gate.
 * What is not known closes nothing: few samples have no share, and no p95.
 * A gate that closes says what was measured, and beside what.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from agent.core.inventory import GateTable
from agent.core.reasons import Reason
from agent.core.waves_course import BoardCourse, Figures, Health, Standing

# Of fewer samples one failure is a bad share already.
MIN_SAMPLES = 20
# Of n samples n / 20 +- sqrt(n * 0.05 * 0.95) lie above the true p95: of 400 these are
# 20 +- 4.4, so that what is measured lies between the true p94 and p96. Of 100 it may
# as well be the p93 or the p97, and two builds of one model differ by half.
MIN_TIMED = 400
# Where a bundle declares no budget: a kernel's tick is 1 to 4 ms, so that less than one
# is what a scheduler adds to a fast model, and no camera or microphone notices.
FLOOR_MS = 1.0
# A board that restarts is back in 10 s: until then it is not down, only away.
DOWN_S = 10.0
# A share of k in n boards is compared as k with share * n, which floats may miss.
TINY = 1e-9
COUNTED = frozenset({Standing.COMMITTED, Standing.RUNS})
BAD = frozenset({Standing.FAILED, Standing.OVERRULED})


@dataclass(frozen=True, slots=True)
class Reading:
    """One gate: a figure beside its limit.

    Attributes:
        name: ``failed``, ``unreachable``, ``errors``, ``latency`` or ``drift``.
        figure: A share of the wave's boards for the first two; the worst board's share,
            ratio, and the number of boards for the others. None where nothing is known.
        limit: What it may be at most.
        boards: Those that are above, or are counted, in the wave's order.
        closes: The gate is closed by this figure.
    """

    name: str
    figure: float | None
    limit: float
    boards: tuple[str, ...] = ()
    closes: bool = False


def compare(active: Figures, wanted: Figures, after: Figures) -> Health:
    """Return how a version does, beside the one before it.

    Args:
        active: The version before, when the board was told.
        wanted: The new version at that moment: it may have run there once.
        after: The new version now.
    """
    # A daemon that started anew counts from zero.
    fresh = after.answered < wanted.answered or after.failed < wanted.failed
    begun = Figures() if fresh else wanted
    failed = after.failed - begun.failed
    samples = after.answered - begun.answered + failed
    known = min(active.answered, after.answered) >= MIN_TIMED and active.p95_ms > 0
    return Health(
        samples=samples,
        errors_share=failed / samples if samples >= MIN_SAMPLES else 0.0,
        latency_ratio=after.p95_ms / active.p95_ms if known else 0.0,
        critical=after.critical,
        p95_ms=after.p95_ms,
        before_ms=active.p95_ms,
        timed=after.answered,
        allowed_ms=after.budget_ms or active.p95_ms + FLOOR_MS,
        silent=samples == 0 and active.answered > 0,
    )


def worst(healths: Iterable[Health]) -> Health:
    """Return the health of a board by those of its pipelines.

    Law: the order of pipelines does not matter.
    """
    rows = list(healths)
    if not rows:
        return Health()
    # Within its budget a pipeline is never slow: it must not hide one that is above.
    slowest = max(
        rows,
        key=lambda row: (
            row.p95_ms > row.allowed_ms,
            row.latency_ratio,
            *(row.p95_ms, row.before_ms, row.timed, row.allowed_ms),
        ),
    )
    return Health(
        samples=min(row.samples for row in rows),
        errors_share=max(row.errors_share for row in rows),
        latency_ratio=slowest.latency_ratio,
        critical=any(row.critical for row in rows),
        p95_ms=slowest.p95_ms,
        before_ms=slowest.before_ms,
        timed=slowest.timed,
        allowed_ms=slowest.allowed_ms,
        silent=any(row.silent for row in rows),
    )


def find_fault(board: BoardCourse, limits: GateTable) -> str:
    """Return why a board is a bad one: a reason; empty for a good one.

    >>> slow = Health(latency_ratio=2.0, p95_ms=8.0, before_ms=4.0, allowed_ms=5.0)
    >>> board = BoardCourse(standing=Standing.COMMITTED, health=slow)
    >>> str(find_fault(board, GateTable()))
    'latency'
    """
    if board.standing in BAD:
        return board.reason or Reason.ROLLOUT
    if board.standing not in COUNTED:
        return Reason.NONE
    health = board.health
    # Who soaks for less than a restart takes does not wait for one either.
    if board.down and board.seen_at - board.down_at >= min(DOWN_S, limits.soak_s):
        return board.down
    if health.errors_share > limits.errors_share:
        return Reason.FAILURES
    if (
        health.latency_ratio > limits.latency_ratio
        and health.p95_ms > health.allowed_ms
    ):
        return Reason.LATENCY
    return Reason.DRIFT if limits.drift and health.critical else Reason.NONE


def describe_fault(board: BoardCourse, limits: GateTable) -> str:
    """Return what makes a board a bad one, in figures; empty for a good one.

    >>> slow = Health(0, 0.0, 2.6, p95_ms=5.5, before_ms=2.1, timed=940, allowed_ms=3.1)
    >>> describe_fault(BoardCourse(Standing.COMMITTED, health=slow), GateTable())
    'p95 5.5 ms, 2.1 ms before (2.6 times, at most 1.5), 940 samples'
    """
    fault, health = find_fault(board, limits), board.health
    if not fault or board.standing in BAD:
        return board.detail or fault
    if board.down == fault:
        return f"it runs the version and is not ready [{fault}]"
    if fault == Reason.FAILURES:
        share, most = health.errors_share * 100, limits.errors_share * 100
        return f"{share:.3g} % of {health.samples} samples failed, at most {most:.3g} %"
    if fault == Reason.LATENCY:
        times = f"{health.latency_ratio:.3g} times, at most {limits.latency_ratio:.3g}"
        before = f"{health.before_ms:.3g} ms before ({times})"
        return f"p95 {health.p95_ms:.3g} ms, {before}, {health.timed} samples"
    return "an alarm about the drift of its output is critical"


def judge(
    boards: Sequence[tuple[str, BoardCourse]],
    limits: GateTable,
    now: float,
    patience_s: float,
) -> tuple[Reading, ...]:
    """Return all readings of one wave.

    Args:
        boards: The wave's, in its order.
        limits: What they may do.
        now: Unix seconds.
        patience_s: How long a board may be out of reach.
    """
    lost = [name for name, it in boards if it.is_lost(now, patience_s)]
    bad = [name for name, it in boards if find_fault(it, limits)]
    return (
        _share("failed", bad, limits.failed_share, len(boards)),
        _share("unreachable", lost, limits.unreachable_share, len(boards)),
        *_worst_readings([it for it in boards if it[1].standing in COUNTED], limits),
    )


def explain(reading: Reading, size: int) -> str:
    """Return what a closed gate says.

    >>> explain(Reading("failed", 0.25, 0.0, ("a",), closes=True), 4)
    'failed: 1 of 4 boards (25 %), at most 0 % allowed: a'
    """
    count = len(reading.boards)
    some = ", ".join(reading.boards[:3]) + (", ..." if count > 3 else "")
    share, limit = f"{count / size:.3g}", f"{reading.limit * 100:.3g} %"
    of_wave = f"{count} of {size} boards ({float(share) * 100:.3g} %)"
    return f"{reading.name}: {of_wave}, at most {limit} allowed: {some}"


def _share(name: str, boards: Sequence[str], limit: float, size: int) -> Reading:
    """Return the reading of a share of boards."""
    closes = len(boards) > limit * size + TINY
    figure = len(boards) / size if size else 0.0
    return Reading(name, figure, limit, tuple(boards), closes)


def _worst_readings(
    boards: Sequence[tuple[str, BoardCourse]], limits: GateTable
) -> tuple[Reading, ...]:
    """Return the figures of the worst boards; they make bad boards, and close nothing.

    Boards that have not answered enough samples say nothing about errors.
    """
    known = [it.health for _, it in boards if it.health.samples >= MIN_SAMPLES]
    ratios = [it.health.latency_ratio for _, it in boards if it.health.latency_ratio]
    faults = [(name, find_fault(it, limits)) for name, it in boards]

    def at_fault(reason: str) -> tuple[str, ...]:
        return tuple(name for name, fault in faults if fault == reason)

    errors = max((health.errors_share for health in known), default=None)
    drifting = float(sum(it.health.critical for _, it in boards))
    failing, slow, moved = map(
        at_fault, (Reason.FAILURES, Reason.LATENCY, Reason.DRIFT)
    )
    latency = max(ratios, default=None)
    rows = [
        Reading("errors", errors, limits.errors_share, failing),
        Reading("latency", latency, limits.latency_ratio, slow),
    ]
    return (*rows, Reading("drift", drifting, 0.0, moved)) if limits.drift else (*rows,)
