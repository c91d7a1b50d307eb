"""How often a rollout looks at each board, and at which ones now.

The rules this module keeps:
 * Boards on their way come first; those that nobody was told about are left alone.
"""

from collections.abc import Collection, Iterator, Mapping

from agent.core.waves import BoardCourse, Course, Phase, Plan, Standing
from agent.core.waves_course import FLYING

FLYING_S = 1.0  # a board allows ten times as many questions
# At first more often: a small model is fetched and tried within a second or two.
EAGER_S, EAGER_FLYING_S = 2.0, 0.2
LOST_S = 2.0
WAVE_S = 5.0  # boards that soak: figures move over minutes
REACHED_S = 30.0  # boards of the waves before
NEVER_S = float("inf")


def due_boards(
    plan: Plan,
    course: Course,
    looked: Mapping[str, float],
    taken: Collection[str],
    now: float,
    asked: Collection[str] = (),
) -> Iterator[str]:
    """Yield the boards to look at now, the most urgent first.

    Args:
        plan: The waves.
        course: What is known of every board.
        looked: Board -> when it was looked at last, Unix seconds.
        taken: Boards that a thread is busy with.
        now: Unix seconds.
        asked: Boards that a decision waits for a look at.
    """
    # A rollout that rests only wants to know how what it told comes out.
    resting = course.phase is not Phase.RUNNING
    names = [
        name
        for wave in plan.waves[: course.wave + 1]
        for name in wave.boards
        if name not in taken
        and not (resting and course.boards[name].standing not in FLYING)
    ]
    current, at_once = frozenset(plan.waves[course.wave].boards), frozenset(asked)
    names.sort(
        key=lambda name: (
            course.boards[name].standing not in FLYING,
            name not in at_once,
        )
    )
    for name in names:
        board = course.boards[name]
        pace_s = _pace(plan, board, now, current=name in current)
        # A look that began now ends the wait, or loses the board: none comes after it.
        if name in at_once and not board.lost_at:
            pace_s = 0.0
        # A clock that was set back makes nobody wait.
        if not 0 <= now - looked.get(name, 0.0) < pace_s:
            yield name


def _pace(plan: Plan, board: BoardCourse, now: float, *, current: bool) -> float:
    """Return how long a board is left alone after a look, in seconds."""
    if board.lost_at:
        given_up = board.is_lost(now, plan.patience_s)
        return REACHED_S if given_up else min(LOST_S, plan.patience_s / 4)
    if board.standing in FLYING:
        # A board that is to be told is asked how it is at once.
        if not board.ready:
            return 0.0
        return EAGER_FLYING_S if now - board.told_at < EAGER_S else FLYING_S
    if board.standing in {Standing.NEW, Standing.BACK}:
        return NEVER_S
    # Four looks at least before a wave is judged for the last time.
    return min(WAVE_S, plan.gate.soak_s / 4) if current else REACHED_S
