"""Waves of a rollout: from what is known of each board to what is to be done now.

The rules this module keeps:
 * No board outside the waves that were reached is told anything, and no wave is left
   while a gate is closed: that of any wave so far, not only of the last.
 * At most ``at_once`` boards are on their way; one that is given up as out of reach is
   not counted any more.
 * A board is told once, and once more for each time that an operator says so.
 * Nobody is told, and no wave is left, on the strength of what was seen before a break
   in the work; a wave is left on what was seen after its soak alone.
 * Nothing here remembers: the same plan, course and time decide the same.

>>> from agent.core.inventory import BoardTable
>>> boards = [BoardTable(f"b{n}", f"10.0.0.{n}") for n in range(4)]
>>> plan = Plan(draw_waves(boards, ("25%", "all"), "kws@8"))
>>> course = begin(plan, now=100.0)
>>> decide(plan, course, now=100.0).act
<Act.TELL: 'tell'>
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from msgspec.structs import replace

from agent.core.gates import COUNTED, Reading, describe_fault, explain, judge
from agent.core.inventory import GateTable
from agent.core.reasons import Reason
from agent.core.waves_course import (
    FLYING,
    BoardCourse,
    Course,
    LogRow,
    Phase,
    Standing,
    is_settled,
)
from agent.core.waves_draw import Wave, draw_waves
from agent.core.waves_seen import JUDGED, resume, unseen, untell, wake

__all__ = [
    "Act",
    "BoardCourse",
    "Course",
    "Decision",
    "Phase",
    "Plan",
    "Standing",
    "Wave",
    "begin",
    "carry_out",
    "decide",
    "draw_waves",
    "readings",
    "resume",
    "untell",
    "wake",
]

PATIENCE_S = 60.0  # a board that restarts is back in 10 s, a router in 60 s
ENDED = frozenset({Standing.COMMITTED, Standing.FAILED})
ADVICE_OVERRULED = "settle it with them; --retry orders it again, over theirs"


class Act(StrEnum):
    """What is to be done now."""

    TELL = "tell"
    WAIT = "wait"
    PASS = "pass"  # noqa: S105 - to the next wave
    PAUSE = "pause"
    ABORT = "abort"  # which only an operator decides
    DONE = "done"
    REST = "rest"  # paused, aborted or done already


@dataclass(frozen=True, slots=True)
class Plan:
    """What does not change while a rollout goes on.

    Attributes:
        waves: In their order.
        gate: What boards may do; ``at_once`` how many are on their way together.
        patience_s: How long a board may be out of reach before it counts as lost.
        left_out: How many boards of the inventory are in no wave.
    """

    waves: Sequence[Wave]
    gate: GateTable = field(default_factory=GateTable)
    at_once: int = 8
    patience_s: float = PATIENCE_S
    left_out: int = 0


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do now.

    Attributes:
        boards: Whom to tell; for a wait, for whom.
        until: When a wait may be over by the passing of time alone, Unix seconds; 0
            where nobody knows.
        reason: Why not more; ``why`` the same for people.
        look: These boards are to be looked at before anything else is decided.
    """

    act: Act
    boards: tuple[str, ...] = ()
    until: float = 0.0
    reason: str = ""
    why: str = ""
    look: bool = False


def begin(plan: Plan, now: float) -> Course:
    """Return a rollout that has not told anybody anything."""
    boards = {board: BoardCourse() for wave in plan.waves for board in wave.boards}
    return Course(began_at=now, awake_at=now, boards=boards)


def decide(plan: Plan, course: Course, now: float) -> Decision:
    """Return what to do now.

    Args:
        plan: The waves and their limits.
        course: What is known of every board.
        now: Unix seconds.
    """
    if course.phase is not Phase.RUNNING:
        return Decision(Act.REST, reason=course.reason, why=course.why)
    # What closed a gate yesterday may have mended itself as well: look first.
    blind = _unseen(plan, course, JUDGED, course.awake_at, now)
    closed = None if blind else next(_obstacles(plan, course, now), None)
    if blind or closed is not None:
        return closed or _look(blind)
    pending = _pending(plan, course, now)
    if not pending:
        return _go_on(plan, course, now)
    return _bring_on(plan, course, pending, now)


def carry_out(course: Course, decision: Decision, now: float) -> Course:
    """Return the course with a decision taken down, before anybody is told of it."""
    if decision.act in {Act.WAIT, Act.REST}:
        return course
    row = LogRow(
        now,
        decision.act,
        course.wave,
        decision.boards,
        decision.reason,
        decision.why,
    )
    course = replace(course, log=(*course.log, row))
    match decision.act:
        case Act.TELL:
            return _tell(course, decision.boards, now)
        case Act.PASS:
            return replace(course, wave=course.wave + 1, began_at=now)
        case Act.DONE:
            return replace(course, phase=Phase.DONE, reason="", why=decision.why)
        case _:
            aborted = decision.act is Act.ABORT
            phase = Phase.ABORTED if aborted else Phase.PAUSED
            return replace(
                course, phase=phase, reason=decision.reason, why=decision.why
            )


def readings(
    plan: Plan, course: Course, now: float, wave: int | None = None
) -> tuple[Reading, ...]:
    """Return the gates of a wave, by default of the one that is under way."""
    index = course.wave if wave is None else wave
    boards = [(name, course.boards[name]) for name in plan.waves[index].boards]
    return judge(boards, plan.gate, now, plan.patience_s)


def _obstacles(plan: Plan, course: Course, now: float) -> Iterator[Decision]:
    """Yield why nobody may be told anything more."""
    for name in _reached(plan, course):
        board = course.boards[name]
        if board.standing is Standing.OVERRULED:
            why = f"{name}: {board.detail}; {ADVICE_OVERRULED}"
            yield Decision(Act.PAUSE, (name,), 0.0, Reason.ROLLOUT, why)
    for wave in range(course.wave + 1):
        for reading in readings(plan, course, now, wave):
            if reading.closes:
                size = len(plan.waves[wave].boards)
                why = f"wave {plan.waves[wave].name}: {explain(reading, size)}"
                first = course.boards[reading.boards[0]]
                said = describe_fault(first, plan.gate)
                why += f" ({said})" if said else ""
                yield Decision(Act.PAUSE, reading.boards, 0.0, Reason.GATE, why)


def _reached(plan: Plan, course: Course) -> Iterator[str]:
    """Yield the boards of the waves that were reached, in their order."""
    for wave in plan.waves[: course.wave + 1]:
        yield from wave.boards


def _fresh(plan: Plan, course: Course) -> tuple[str, ...]:
    """Return who may be told: boards that answer, and that nobody told so far."""
    return tuple(
        name
        for name in _reached(plan, course)
        if course.boards[name].standing is Standing.NEW
        and not course.boards[name].lost_at
    )


def _flying(plan: Plan, course: Course, now: float) -> list[str]:
    """Return the boards that are on their way."""
    return [
        name
        for name in _reached(plan, course)
        if course.boards[name].is_under_way(now, plan.patience_s)
    ]


def _pending(plan: Plan, course: Course, now: float) -> tuple[str, ...]:
    """Return the boards that the wave waits for."""
    return tuple(
        name
        for name in _reached(plan, course)
        if not is_settled(course.boards[name], now, plan.patience_s)
    )


def _bring_on(
    plan: Plan, course: Course, pending: tuple[str, ...], now: float
) -> Decision:
    """Tell whom there is room for, or wait for those on their way until it is late."""
    deadline = course.began_at + plan.gate.deadline_s
    if now >= deadline:
        # They may have come to their end while nobody looked.
        blind = _unseen(plan, course, FLYING, course.awake_at, now)
        if blind:
            return _look(blind)
        why = f"not at an end in time: {_some(pending)}"
        return Decision(Act.PAUSE, pending, 0.0, Reason.DEADLINE, why)
    fresh = _fresh(plan, course)
    room = max(0, plan.at_once - len(_flying(plan, course, now)))
    if fresh[:room]:
        return Decision(Act.TELL, fresh[:room])
    return Decision(Act.WAIT, pending, deadline, why=f"{len(pending)} on their way")


def _go_on(plan: Plan, course: Course, now: float) -> Decision:
    """Soak, then go to the next wave, or be done."""
    boards = [course.boards[name] for name in plan.waves[course.wave].boards]
    ended_at = max((it.settled_at for it in boards if it.standing in ENDED), default=0)
    # A clock that was set back makes the soak as long as it was meant, not longer.
    left_s = min(ended_at + plan.gate.soak_s - now, plan.gate.soak_s)
    if ended_at and left_s > 0:
        return Decision(Act.WAIT, (), now + left_s, why="soaks")
    soaked_at = min(ended_at + plan.gate.soak_s, now) if ended_at else 0.0
    blind = _unseen(plan, course, COUNTED, max(soaked_at, course.awake_at), now)
    mute = _mute(plan, course, now)
    if blind or mute:
        return _look(blind) if blind else _hear(plan, course, mute, now)
    if course.wave + 1 < len(plan.waves):
        return Decision(Act.PASS, why=f"{plan.waves[course.wave].name} is through")
    left = [it for it in course.boards.values() if it.standing not in COUNTED]
    but = f"; {len(left)} of {len(course.boards)} boards do not run it" if left else ""
    but += f"; {plan.left_out} boards are in no wave" if plan.left_out else ""
    return Decision(Act.DONE, why=f"all waves are through{but}")


def _unseen(
    plan: Plan,
    course: Course,
    standings: frozenset[Standing],
    since: float,
    now: float,
) -> tuple[str, ...]:
    """Return the boards of the waves so far that nobody saw since then."""
    boards = ((name, course.boards[name]) for name in _reached(plan, course))
    return unseen(boards, standings, since, now, plan.patience_s)


def _look(names: tuple[str, ...]) -> Decision:
    """Return a wait for looks at boards."""
    why = f"looks at {_some(names)} once more"
    return Decision(Act.WAIT, names, why=why, look=True)


def _mute(plan: Plan, course: Course, now: float) -> tuple[str, ...]:
    """Return the boards that run the version, and do not answer with it."""
    boards = ((name, course.boards[name]) for name in _reached(plan, course))
    return tuple(
        name
        for name, it in boards
        if it.standing in COUNTED
        and not it.is_lost(now, plan.patience_s)
        and (it.down_at or it.health.silent)
    )


def _hear(plan: Plan, course: Course, mute: tuple[str, ...], now: float) -> Decision:
    """Wait for the first samples of boards; without any in time they are bad ones."""
    why = f"no sample yet from {_some(mute)}, where there were some before"
    deadline = course.began_at + plan.gate.deadline_s
    if now < deadline:
        return Decision(Act.WAIT, mute, deadline, why=why)
    return Decision(Act.PAUSE, mute, 0.0, Reason.GATE, why)


def _some(names: Sequence[str]) -> str:
    """Return the first of some boards."""
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")


def _tell(course: Course, names: Sequence[str], now: float) -> Course:
    """Mark boards as told."""
    told = {}
    for name in names:
        board = course.boards[name]
        told[name] = replace(
            board,
            standing=Standing.TOLD,
            told=board.told + 1,
            told_at=now,
            ready=False,
        )
    return course.with_boards(told)
