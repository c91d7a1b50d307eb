"""What the agent knows about itself, for its listeners: now, and the last minutes.

The rules this module keeps:
 * Everything a listener asks for is at hand: nothing here waits, and a scrape computes
   no statistics of samples.
 * The board is read and the trends grow whether anybody looks or not: a page that is
   opened after an incident shows it.
"""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from agent import __version__
from agent.core.degradation import LadderState
from agent.core.discretion import Discretion
from agent.core.events import Event
from agent.core.log_view import LogView
from agent.core.meter_status import MeterStatus
from agent.core.readings import BoardReadings
from agent.core.reasons import Reason
from agent.core.snapshot import AgentSnapshot, UpdateSnapshot
from agent.core.trend import PERIOD_S, Trend, TrendPoint
from agent.settings import MonitorSettings
from agent.supervise.pipeline import Pipeline
from agent.supervise.worker_process import own_resident_bytes
from agent.telemetry.event_ring import EventRing

# The first look at the repository waits for the first answers, but not for ever: an
# unplugged camera must not keep a board from its updates.
FIRST_LOOK_S = 3.0
READY_POLL_S = 0.05
READ_BOARD_S = 1.0  # 0.1 ms each; a `board` source of 1/s gets a new reading each time


def _no_log() -> LogView | None:
    """No receipts are given."""
    return None


def _no_meter() -> MeterStatus | None:
    """Nothing is metered."""
    return None


class AgentFacts:
    """Looks at everything that runs; satisfies ``agent.endpoint.needs.Facts``.

    Args:
        pipelines: By name; they may be added later.
        update: What the update machine says.
        monitor: The settings of what is shown.
        state_dir: Whose disk is looked at.
        board: The board's id.
    """

    def __init__(
        self,
        pipelines: Mapping[str, Pipeline],
        update: Callable[[], UpdateSnapshot],
        monitor: MonitorSettings,
        state_dir: Path,
        board: str,
    ) -> None:
        self._pipelines = pipelines
        self._update = update
        self._monitor = monitor
        self._discretion = Discretion() if monitor.privacy else None
        self._state_dir = state_dir
        self._board = board
        self._ring = EventRing()
        self._trends: dict[str, Trend] = {}
        self._metrics: Callable[[str], tuple[str, bytes]] | None = None
        self._readings: Callable[[], BoardReadings] = BoardReadings
        self._ladders: Callable[[], Mapping[str, LadderState]] = dict
        self._log: Callable[[], LogView | None] = _no_log
        self._meter: Callable[[], MeterStatus | None] = _no_meter

    def snapshot(self) -> AgentSnapshot:
        """Return the agent as of now, as privacy mode allows; cheap, no waiting."""
        agent = self._look()
        if self._discretion is None:
            return agent
        shown = tuple(self._discretion.hide(it) for it in agent.pipelines)
        return replace(agent, pipelines=shown)

    def _look(self) -> AgentSnapshot:
        """Return the agent as of now."""
        ladders = self._ladders()
        engines: dict[str, str] = {}
        for pipeline in self._pipelines.values():
            engines |= pipeline.engines
        return AgentSnapshot(
            version=__version__,
            engines=engines,
            pipelines=tuple(
                replace(it.snapshot(), ladder=ladders.get(name, LadderState()))
                for name, it in self._pipelines.items()
            ),
            update=self._update(),
            daemon_rss_bytes=own_resident_bytes(),
            now=time.time(),  # noqa: TID251 - the daemon owns the clock
            board=self._board,
            log=self._log(),
            meter=self._meter(),
        )

    def metrics(self, accept: str) -> tuple[str, bytes]:
        """Return content type and body of a scrape."""
        if self._metrics is None:
            return "text/plain", b""
        return self._metrics(accept)

    def events(self, after: int) -> Sequence[Event]:
        """Return the kept events with an id above ``after``, oldest first."""
        return self._ring.events(after)

    def trends(self) -> Mapping[str, Sequence[TrendPoint]]:
        """Return the last minutes of every pipeline, oldest first."""
        return {name: trend.points() for name, trend in self._trends.items()}

    def readings(self) -> BoardReadings:
        """Return the board's newest readings."""
        return self._readings()

    async def first_answers(self) -> None:
        """Wait until every pipeline with a model answers, a few seconds at most."""
        deadline = time.monotonic() + FIRST_LOOK_S
        while time.monotonic() < deadline:
            reasons = [it.snapshot().reason for it in self._pipelines.values()]
            if all(reason in (Reason.NONE, Reason.NO_MODEL) for reason in reasons):
                return
            await asyncio.sleep(READY_POLL_S)

    async def run(self) -> None:
        """Keep the board's readings, the trends and the events at hand."""
        from agent.board.readings import BoardWatch
        from agent.board.sensors import find_sensors

        watch = BoardWatch(find_sensors(self._state_dir), READ_BOARD_S)
        self._readings = lambda: watch.readings
        self._metrics = self._expose()
        async with asyncio.TaskGroup() as group:
            group.create_task(watch.run())
            group.create_task(self._follow_trends())

    def follow(self, monitor: MonitorSettings) -> None:
        """Show by other settings, and forget the pipelines that were removed."""
        for name in self._trends.keys() - self._pipelines.keys():
            del self._trends[name]
        if monitor == self._monitor:
            return
        self._monitor = monitor
        self._discretion = Discretion() if monitor.privacy else None
        if self._metrics is not None:
            self._metrics = self._expose()

    def _expose(self) -> Callable[[str], tuple[str, bytes]]:
        """Return what answers a scrape."""
        from agent.telemetry.estimate import expect
        from agent.telemetry.exposition import Exposition

        exposition = Exposition(self._monitor)
        exposition.foresee(
            [
                expect(name, placed.bundle, placed.installed.variant)
                for name, pipeline in self._pipelines.items()
                if (placed := pipeline.committed) is not None
            ]
        )

        def look() -> tuple[AgentSnapshot, BoardReadings]:
            return self._look(), self._readings()

        return lambda accept: exposition.scrape(look, accept)

    def follow_ladders(self, states: Callable[[], Mapping[str, LadderState]]) -> None:
        """Show from now on how much each pipeline is held back."""
        self._ladders = states

    def follow_log(
        self,
        log: Callable[[], LogView | None],
        meter: Callable[[], MeterStatus | None],
    ) -> None:
        """Show from now on what is logged of what was answered, and what is paid."""
        self._log, self._meter = log, meter

    def listen(self) -> Callable[[], None]:
        """Begin to keep events; return what ends it."""
        self._ring.install()
        return self._ring.remove

    async def _follow_trends(self) -> None:
        """Take a look at every pipeline, now and then."""
        while True:
            now, monotonic = time.time(), time.monotonic()  # noqa: TID251 - as above
            for name, pipeline in self._pipelines.items():
                trend = self._trends.setdefault(name, Trend())
                trend.add(pipeline.snapshot(), now, monotonic)
            await asyncio.sleep(PERIOD_S)
