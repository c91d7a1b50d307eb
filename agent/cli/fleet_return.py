"""Taking one board back to what it ran before a rollout.

The rules this module keeps:
 * Each pipeline is rolled back once: asked twice, it would go back twice. Who is busy
   has not been asked.
 * What a pipeline ran before us is none of ours, nor what others ordered since.
 * A board may commit while it is asked: only what it says in the end counts.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from msgspec.structs import replace

from agent.cli.board_answers import State
from agent.cli.board_link import BoardLink
from agent.cli.delivery import next_desired
from agent.cli.fleet_sight import CANDIDATE, Reader
from agent.cli.fleet_state import Kept
from agent.core.reasons import Reason
from agent.core.targets import Wanted
from agent.core.updates import Progress
from agent.core.waves import BoardCourse, Standing
from agent.errors import DeviceError, RequestRefusedError

POLL_S = 0.5
BACK_S = 120.0  # a large bundle is fetched and tried before its trial can be ended


@dataclass(slots=True)
class Return:
    """One board on its way back.

    Attributes:
        pause: Waits some seconds; raises to break off.
        course: What this rollout has done to it.
        asked: Pipelines that were asked to go back.
        given: Generations of desired states that are ours.
    """

    link: BoardLink
    reader: Reader
    pause: Callable[[float], None]
    course: BoardCourse = field(default_factory=BoardCourse)
    asked: set[str] = field(default_factory=set)
    given: set[int] = field(default_factory=set)

    def carry_out(self) -> str:
        """Take the board back; return what it runs then, for people.

        What is committed is rolled back, what is on trial is ended, what has not begun
        is called off.

        Raises:
            AgentError: It refused, was lost, or did not come to an end.
        """
        waited_s = 0.0
        while waited_s < BACK_S:
            state = self.link.state()
            progress = state.update.progress or self.link.updates().progress
            wanted = self.reader.wanted(state)
            names = [name for name, it in wanted.items() if self._is_news(name, it)]
            # One after the other: a board does one thing at a time anyway.
            if not any(self._step(name, state, progress) for name in names):
                return self.reader.running(state)
            self.pause(POLL_S)
            waited_s += POLL_S
        raise DeviceError(
            f"{self.link.where}: it did not go back within {BACK_S:.0f} s",
            reason=Reason.DEADLINE,
            todo="See `tinyward status` of this board.",
        )

    def _step(self, name: str, state: State, progress: Progress | None) -> bool:
        """Bring one pipeline a step further; return whether it is not there yet."""
        if not self._is_tried(name, state, progress) and not self.reader.runs_one(
            state, name
        ):
            return self._call_off(name, state)
        if name not in self.asked:
            try:
                self.link.roll_back(name)
            except RequestRefusedError as err:
                if err.reason != Reason.BUSY:
                    raise
            else:
                self.asked.add(name)
        return True

    def _is_news(self, name: str, wanted: Wanted) -> bool:
        """Return whether a pipeline did not run this before us, as far as is known."""
        before = self.course.before.get(name)
        return before is None or before.runs != f"{wanted.model} {wanted.version}"

    def _is_tried(self, name: str, state: State, progress: Progress | None) -> bool:
        """Return whether our version is on trial; another's is none of our business."""
        wanted = self.reader.wanted(state)[name]
        if progress is not None and progress.pipeline == name:
            return Wanted(progress.model, progress.version) == wanted
        pipeline = state.pipelines[name]
        active = pipeline.active
        if active is None or pipeline.state != CANDIDATE:
            return False
        return Wanted(active.model, active.version) == wanted

    def _call_off(self, name: str, state: State) -> bool:
        """Order what runs, where the order of before may begin later on."""
        active = state.pipelines[name].active
        if name in self.asked or not self.reader.by_push or active is None:
            return False
        pushed, wanted = self.link.desired(), self.reader.wanted(state)[name]
        if pushed is None or pushed.pipelines.get(name) != wanted:
            return False
        # Who ordered the same after us means it. A board that was to be told again has
        # forgotten which generation was the first.
        ours = self.given | {self.course.generation}
        if pushed.generation not in ours and self.course.generation:
            return False
        calm = next_desired(pushed, {name: (active.model, active.version)}, 0)
        if calm is not None:
            self.given.add(calm.generation)
            try:
                self.link.set_desired(calm)
            except RequestRefusedError as err:
                if err.reason not in {Reason.BUSY, Reason.REPLAYED}:
                    raise
        return True


def is_ours(board: BoardCourse, *, by_push: bool) -> bool:
    """Return whether a board may want the version because of this rollout.

    A board that failed wants it as well: what it was told to run stays its order, and
    it tries that again, after a restart or when its repository has news. Where a signed
    file orders, that file has to change.

    >>> is_ours(BoardCourse(Standing.FAILED, told=1, ready=True), by_push=True)
    True
    >>> is_ours(BoardCourse(Standing.TOLD, told=1), by_push=True)  # saved, not told
    False
    """
    if board.standing in {Standing.OVERRULED, Standing.BACK}:
        return False
    # Counted before it is told: who died in between has told it once less.
    unsaid = board.standing in {Standing.TOLD, Standing.FAILED} and not board.ready
    if board.told - unsaid <= 0:
        return False
    return by_push or board.standing not in {Standing.FAILED, Standing.NEW}


def remember(saved: Kept | None, ended: Kept) -> Kept:
    """Return a rollout with what the same one did before to boards that run it.

    Who runs it once more, and then wants it taken back, means all of it.
    """
    if saved is None or saved.assign != ended.assign:
        return ended
    by_push = saved.mode == "push"
    boards = ended.course.boards
    known = {
        name: board
        for name, board in saved.course.boards.items()
        if name in boards and boards[name].standing is Standing.RUNS
        if is_ours(board, by_push=by_push)
    }
    return replace(ended, course=ended.course.with_boards(known))
