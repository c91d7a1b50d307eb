"""The DDI client and the real machine: what goes on between orders and jobs."""

import asyncio

from agent.core.fleet_settings import DdiSettings
from agent.update.ddi_client import DdiClient
from tests.fakes.ddi_desk import DdiBench
from tests.fakes.ddi_wire import SERVER, MemoryWire
from tests.fakes.lives import Gate, running, until

BOTH_RUN = [(2, 0), (2, 0)]


class BoardBench(DdiBench):
    """A board with its client, at a server in memory.

    Attributes:
        wire: The server; ``client`` polls it when a test says so.
        trial: Holds up the second trial: the first pipeline is committed by then.
    """

    def __init__(self, attempts: int = 3) -> None:
        super().__init__()
        self.wire = MemoryWire()
        settings = DdiSettings(url=SERVER, controller="pi-1", attempts=attempts)
        assert self.poller.sources.ddi is not None
        self.client = DdiClient(
            settings,
            "board",
            self.wire,
            self.poller.sources.ddi,
            self.errands,
            lambda: self.now,
            lambda: 0.5,
        )
        self.trial = Gate()
        self._trials = 0

    async def hold_second_trial(self) -> None:
        """Let the first trial pass, and the others once they are let go."""
        self._trials += 1
        if self._trials > 1:
            await self.trial()

    def runs(self) -> list[tuple[int, int]]:
        """Return what runs in both pipelines, and what was before."""
        return [self.versions("door"), self.versions("window")]


def test_no_strike_while_another_pipeline_is_on_trial() -> None:
    """A cut download waits for its turn: the order is not called failed meanwhile."""

    async def course() -> None:
        bench = BoardBench()
        bench.trials.pauses["watch"] = bench.trial
        bench.wire.deploy("5", "models/kws/2.bundle")
        bench.repository.broken_at = 1024  # the first download, of the door, is cut
        async with running(bench):
            await bench.client.poll()
            await bench.trial.reached.wait()
            for _ in range(20):
                bench.now += 600.0
                await bench.client.poll()
            assert not [it for it in bench.wire.told() if "closed" in it]
            bench.trial.opened.set()
            await until(lambda: "window" in committed(bench))
            await until(lambda: bench.poller.intake.job is None)
            for _ in range(2):  # the failure is seen; it has waited long enough
                await bench.client.poll()
                bench.now += 600.0
            await until(lambda: bench.runs() == BOTH_RUN)
            await until(lambda: bench.poller.intake.job is None)
            await bench.client.poll()
        assert bench.wire.told()[-1] == "deploymentBase/5 closed/success"

    asyncio.run(asyncio.wait_for(course(), 30))


def test_cancel_of_what_was_committed_in_part() -> None:
    """It is rejected, the trial under way is not ended, and the rest is installed."""

    async def course() -> None:
        bench = BoardBench()
        bench.trials.pauses["watch"] = bench.hold_second_trial
        bench.wire.deploy("5", "models/kws/2.bundle")
        async with running(bench):
            await bench.client.poll()
            await bench.trial.reached.wait()
            bench.wire.cancel("9", "5")
            await bench.client.poll()
            assert bench.wire.told()[-1] == "cancelAction/9 rejected"
            bench.wire.deploy("5", "models/kws/2.bundle")
            bench.trial.opened.set()
            await until(lambda: bench.runs() == BOTH_RUN)
            await until(lambda: bench.poller.intake.job is None)
            await bench.client.poll()
        assert bench.wire.told()[-1] == "deploymentBase/5 closed/success"

    asyncio.run(asyncio.wait_for(course(), 30))


def committed(bench: BoardBench) -> set[str]:
    """Return the pipelines in which something was committed."""
    return {it.pipeline for it in bench.store.reports() if it.result == "committed"}
