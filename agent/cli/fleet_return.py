"""Taking one board back to what it ran before a rollout.

The rules this module keeps:
 * Each pipeline is rolled back once: asked twice, it would go back twice. Who is busy
   has not been asked.
 * A board may commit while it is asked: only what it says in the end counts.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from agent.cli.board_answers import State
from agent.cli.board_link import BoardLink
from agent.cli.delivery import next_desired
from agent.cli.fleet_sight import Reader
from agent.core.reasons import Reason
from agent.core.updates import Progress
from agent.errors import DeviceError, RequestRefusedError

POLL_S = 0.5
BACK_S = 120.0  # a large bundle is fetched and tried before its trial can be ended


@dataclass(slots=True)
class Return:
    """One board on its way back.

    Attributes:
        pause: Waits some seconds; raises to break off.
        asked: Pipelines that were asked to go back.
    """

    link: BoardLink
    reader: Reader
    pause: Callable[[float], None]
    asked: set[str] = field(default_factory=set)

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
            names = self.reader.wanted(state)
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
        tried = progress is not None and progress.pipeline == name
        if not tried and not self.reader.runs_one(state, name):
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

    def _call_off(self, name: str, state: State) -> bool:
        """Order what runs, where the order of before may begin later on."""
        active = state.pipelines[name].active
        if name in self.asked or not self.reader.by_push or active is None:
            return False
        pushed, wanted = self.link.desired(), self.reader.wanted(state)[name]
        if pushed is None or pushed.pipelines.get(name) != wanted:
            return False
        calm = next_desired(pushed, {name: (active.model, active.version)}, 0)
        if calm is not None:
            try:
                self.link.set_desired(calm)
            except RequestRefusedError as err:
                if err.reason not in {Reason.BUSY, Reason.REPLAYED}:
                    raise
        return True
