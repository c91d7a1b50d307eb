"""What is known of boards, and of when: looks, breaks in the work, and second attempts.

The rules this module keeps:
 * What was seen before a break says nothing about now: a crash, a pause, a laptop that
   slept and a clock that was set all are breaks.
 * Time that nobody worked in is nobody's: no deadline runs meanwhile, no board is lost.
 * What we gave a board is never forgotten: ``before`` is what a return needs.
"""

from collections.abc import Iterable

from msgspec.structs import replace

from agent.core.gates import BAD, COUNTED
from agent.core.waves_course import BoardCourse, Course, Phase, Standing

JUDGED = COUNTED | BAD


def unseen(
    boards: Iterable[tuple[str, BoardCourse]],
    standings: frozenset[Standing],
    since: float,
    now: float,
    patience_s: float,
) -> tuple[str, ...]:
    """Return the boards that nobody saw lately, those given up as lost aside.

    Args:
        boards: Whom to ask about.
        standings: Only boards that stand so.
        since: A look has to have begun then or later, Unix seconds.
        now: Unix seconds; what was seen later than that was seen by another clock.
        patience_s: How long a board may be out of reach.
    """
    return tuple(
        name
        for name, board in boards
        if board.standing in standings
        and not board.is_lost(now, patience_s)
        and not since <= board.seen_at <= now
    )


def resume(course: Course, now: float, *, retry: bool = False) -> Course:
    """Return a course that goes on after a pause, or after its process died.

    Args:
        course: What was saved.
        now: Unix seconds; the wave's deadline counts from here.
        retry: Boards that failed, and those that were told and then lost, are told
            once more.
    """
    course = replace(course, phase=Phase.RUNNING, reason="", why="", began_at=now)
    # Somebody waited for this: what was lost yesterday is looked for again today.
    course = wake(course, 0.0, now)
    if not retry:
        return course
    again = {name: _renewed(it) for name, it in course.boards.items()}
    return replace(course, boards=again, retries=course.retries + 1)


def wake(course: Course, slept_s: float, now: float) -> Course:
    """Return a course that goes on after a break in the work.

    Args:
        course: As it was before the break.
        slept_s: How long that was by the clock, negative for one that was set back.
        now: Unix seconds.
    """
    boards = {name: _woken(it, now) for name, it in course.boards.items()}
    began_at = min(course.began_at + slept_s, now)
    return replace(course, boards=boards, began_at=began_at, awake_at=now)


def untell(board: BoardCourse) -> BoardCourse:
    """Return a board that was to be told, and that nothing was said to after all."""
    return replace(
        board, standing=Standing.NEW, told=max(0, board.told - 1), ready=False
    )


def _woken(board: BoardCourse, now: float) -> BoardCourse:
    """Return a board whose absence counts from now on, and nothing from later."""
    lost_at = now if board.lost_at else 0.0
    settled_at, down_at = min(board.settled_at, now), min(board.down_at, now)
    was = (board.lost_at, board.settled_at, board.down_at)
    # Ten thousand boards that nothing happens to are not copied.
    if was == (lost_at, settled_at, down_at):
        return board
    return replace(board, lost_at=lost_at, settled_at=settled_at, down_at=down_at)


def _renewed(board: BoardCourse) -> BoardCourse:
    """Return a board that may be told once more, if it has to be."""
    stuck = board.lost_at and board.standing is not Standing.COMMITTED
    if not stuck and board.standing not in {Standing.FAILED, Standing.OVERRULED}:
        return board
    return BoardCourse(
        told=board.told,
        lost_at=board.lost_at,
        generation=board.generation,
        mark=board.mark,
        before=board.before,
    )
