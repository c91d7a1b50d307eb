"""The conductor: looks at every pipeline once a second and holds it back if need be.

The rules this module keeps:
 * Looking waits for nothing: what a measure takes (another variant has to be loaded) is
   done beside it, one order at a time for each pipeline.
 * A transition is one line in the log, at the moment it is decided; what a pipeline
   could not do about it is another.
 * A pipeline does what it was told with every worker and every model that follows; it
   is told again when that failed, and asked at every look what holds.
 * A pipeline that was taken away and came back between two looks is another one: it
   begins at the bottom, and is told what it has to do.
 * The committed model's manifest says what is done, unless the settings do; a candidate
   does not bring its own steps before it is committed.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NoReturn, Protocol

from msgspec.structs import replace

from agent.core.degradation import (
    DegradeSteps,
    LadderState,
    Level,
    Measure,
    SafeOutput,
)
from agent.core.ladder import Standing, climb, measures_at
from agent.core.lookout import Lookout
from agent.core.readings import BoardReadings
from agent.core.reasons import Reason
from agent.core.snapshot import PipelineSnapshot
from agent.errors import AgentError, DeviceError
from agent.settings import DegradeSettings, PipelineSettings
from agent.supervise.placing import Placed

log = logging.getLogger(__name__)
# As often as the board is read; heat and memory need no more, and a look at a pipeline
# costs 0.2 ms.
LOOK_S = 1.0
# A smaller variant is loaded and warmed within seconds; a lock may be held by a swap.
SHED_S = 30.0
RETRY_S = 10.0  # after a pipeline could not do what it was told


class Sheddable(Protocol):
    """What can be held back; ``agent.supervise.pipeline.Pipeline`` can."""

    @property
    def settings(self) -> PipelineSettings:
        """Its table of the settings."""

    @property
    def committed(self) -> Placed | None:
        """What the store says it runs."""

    @property
    def holding(self) -> tuple[Measure, ...]:
        """The measures that hold at this moment."""

    def snapshot(self) -> PipelineSnapshot:
        """Return the pipeline at this moment; cheap, no waiting."""

    async def shed(
        self, measures: Sequence[Measure], safe_output: SafeOutput
    ) -> tuple[Measure, ...]:
        """Do these measures and no others from now on; the same again is harmless.

        Returns:
            Those that hold now: what a pipeline does not have, such as a smaller
            variant, or not yet, is left out.

        Raises:
            AgentError: The worker did not take the order; it is repeated.
        """


@dataclass(frozen=True, slots=True)
class _Order:
    """What a pipeline is told."""

    measures: tuple[Measure, ...] = ()
    safe_output: SafeOutput = field(default_factory=SafeOutput)


@dataclass(slots=True)
class _Held:
    """One pipeline on its ladder.

    Attributes:
        pipeline: Whose ladder it is: by its name alone it may be another one.
        asked: The last order that it took.
        busy: It is carrying out an order.
        retry_s: When an order that failed is given again.
    """

    pipeline: Sheddable
    lookout: Lookout = field(default_factory=Lookout)
    standing: Standing = field(default_factory=Standing)
    state: LadderState = field(default_factory=LadderState)
    asked: _Order = field(default_factory=_Order)
    busy: bool = False
    retry_s: float = 0.0


class Degrading:
    """Keeps one ladder for each pipeline.

    Args:
        pipelines: By name; they may come and go.
        read_board: The board's newest readings.
        settings: The table ``[degrade]`` as it is now.
        clock: Seconds, monotonic; ``wall`` Unix seconds, for people.
    """

    def __init__(
        self,
        pipelines: Mapping[str, Sheddable],
        read_board: Callable[[], BoardReadings],
        settings: Callable[[], DegradeSettings],
        *,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,  # noqa: TID251 - what `since` says
    ) -> None:
        self._pipelines = pipelines
        self._read_board = read_board
        self._settings = settings
        self._clock = clock
        self._wall = wall
        self._held: dict[str, _Held] = {}

    def states(self) -> Mapping[str, LadderState]:
        """Return where each pipeline stands, and what is done about it."""
        return {name: held.state for name, held in self._held.items()}

    def state(self, pipeline: str) -> LadderState:
        """Return where one pipeline stands; normal where nobody has looked yet."""
        held = self._held.get(pipeline)
        return held.state if held else LadderState()

    async def run(self) -> NoReturn:
        """Look once a second, for ever; ends only by cancellation."""
        async with asyncio.TaskGroup() as group:
            while True:
                for name in self.look():
                    group.create_task(self.carry_out(name))
                await asyncio.sleep(LOOK_S)

    def look(self) -> list[str]:
        """Look at every pipeline; return those that have something to do."""
        for gone in self._held.keys() - self._pipelines.keys():
            del self._held[gone]
        board, limits = self._read_board(), self._settings()
        return [
            name
            for name, pipeline in self._pipelines.items()
            if self._look_at(name, pipeline, board, limits)
        ]

    async def carry_out(self, name: str) -> None:
        """Give a pipeline the order that its level asks for."""
        held = self._held.get(name)
        if held is None or held.busy or self._pipelines.get(name) is not held.pipeline:
            return
        held.busy, pipeline = True, held.pipeline
        order = _order(pipeline, held.standing.level)
        try:
            done = await _shed(pipeline, order)
        except AgentError as err:
            held.retry_s = self._clock() + RETRY_S
            facts = {"pipeline": name, "reason": err.reason, "detail": str(err)}
            log.warning("degradation.not_done", extra=facts)
            return
        finally:
            held.busy = False
        held.asked = order
        held.state = _hold(held.state, order, done)
        if held.state.lacking:
            facts = {"pipeline": name, "detail": ", ".join(held.state.lacking)}
            log.warning("degradation.lacking", extra=facts)

    def _look_at(
        self,
        name: str,
        pipeline: Sheddable,
        board: BoardReadings,
        limits: DegradeSettings,
    ) -> bool:
        """Take one look at one pipeline; return whether it has something to do."""
        held = self._held.get(name)
        if held is None or held.pipeline is not pipeline:
            held = self._held[name] = _Held(pipeline)
        now_s, holding = self._clock(), pipeline.holding
        signals = held.lookout.see(now_s, pipeline.snapshot(), board, holding)
        before, now = held.standing, climb(held.standing, signals, limits)
        held.standing = now
        held.state = replace(
            held.state,
            level=now.level,
            reasons=tuple(str(reason) for reason in now.reasons),
            detail=now.detail,
        )
        held.state = _hold(held.state, held.asked, holding)
        order = _order(pipeline, now.level)
        if now.level is not before.level:
            held.state = _count(held.state, now, self._wall())
            held.retry_s = 0.0
            _log_change(name, before, now, order)
        return order != held.asked and not held.busy and now_s >= held.retry_s


async def _shed(pipeline: Sheddable, order: _Order) -> tuple[Measure, ...]:
    """Give an order, and wait for it, but not for ever.

    Raises:
        AgentError: It was not carried out.
    """
    try:
        async with asyncio.timeout(SHED_S):
            return await pipeline.shed(order.measures, order.safe_output)
    except TimeoutError as err:
        what = f"it was not carried out within {SHED_S:.0f} s"
        raise DeviceError(what, reason=Reason.HANG) from err


def _order(pipeline: Sheddable, level: Level) -> _Order:
    """Return what a pipeline has to do at a level."""
    steps, committed = pipeline.settings.degrade, pipeline.committed
    if steps is None:
        steps = committed.bundle.manifest.degrade if committed else DegradeSteps()
    measures = measures_at(level, steps)
    # What a safe output would say is of no interest where none is given.
    return _Order(measures, steps.safe_output) if measures else _Order()


def _hold(
    state: LadderState, order: _Order, holding: tuple[Measure, ...]
) -> LadderState:
    """Return the state with what is done, and what was asked for in vain."""
    lacking = tuple(it for it in order.measures if it not in holding)
    return replace(state, measures=holding, lacking=lacking)


def _count(state: LadderState, now: Standing, at: float) -> LadderState:
    """Return the state with one more transition."""
    rows = {(level, reason): n for level, reason, n in state.transitions}
    key = (now.level, str(now.reason))
    rows[key] = rows.get(key, 0) + 1
    counted = tuple((level, reason, n) for (level, reason), n in rows.items())
    return replace(state, since=at, transitions=counted)


def _log_change(name: str, before: Standing, now: Standing, order: _Order) -> None:
    """Say that a pipeline stands elsewhere now, why, and what is done about it."""
    up = now.level.rank > before.level.rank
    log.log(
        logging.WARNING if up else logging.INFO,
        "degradation.changed",
        extra={
            "pipeline": name,
            "from": before.level,
            "to": now.level,
            "reason": now.reason,
            "detail": now.detail if up else "",
            "measures": ", ".join(order.measures),
        },
    )
