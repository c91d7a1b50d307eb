"""Watching in a real worker: locked in, one thread more, and its word until the end."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from msgspec.structs import replace

from agent.core.flow import CountSink
from agent.core.messages import (
    Anchored,
    Commission,
    Configure,
    Inspected,
    Load,
    Watch,
    Watched,
)
from agent.core.reasons import Reason
from agent.core.watching import Monitored
from agent.supervise.worker_process import WorkerProcess
from tests.fakes.digits import ENDLESS, PATIENCE_S, in_loop, placed, until

SITE_SAMPLES = 200
# A loop with time to spare is watched closely: 712 looks until there is a baseline.
STEADY = replace(ENDLESS, rate=2000.0)


class Listening:
    """A worker, and everything its monitors said."""

    def __init__(self, worker: WorkerProcess) -> None:
        self.worker = worker
        self.heard: list[Watched | Anchored | Inspected] = []
        worker.on_watched = self.heard.append

    async def run(self, generation: int, watch: Watch | None) -> None:
        """Load the demo's first model and let it answer, watched as said."""
        bundle, installed = placed(1).bundle, placed(1).installed
        load = Load(generation, bundle.raw_manifest, "int8", installed.executor)
        if watch is not None:
            await self.worker.tell(watch, PATIENCE_S)
        await self.worker.load(load, bundle.variant_bytes("int8"), PATIENCE_S)
        await self.worker.activate(generation, PATIENCE_S)

    def monitored(self, generation: int) -> list[Monitored]:
        """Return what was said of one load, in order."""
        return [
            it.monitored
            for it in self.heard
            if isinstance(it, Watched) and it.generation == generation
        ]

    def baselines(self) -> list[bytes]:
        """Return the baselines that were completed, in order."""
        return [it.site for it in self.heard if isinstance(it, Anchored)]

    def threads(self) -> dict[str, int]:
        """Return how many threads of each name the worker has."""
        names: dict[str, int] = {}
        for task in Path(f"/proc/{self.worker.pid}/task").iterdir():
            name = (task / "comm").read_text(encoding="utf-8").strip()
            names[name] = names.get(name, 0) + 1
        return names


@asynccontextmanager
async def listening() -> AsyncIterator[Listening]:
    """Start a worker with all its locks; it is ended in the end."""
    worker = await WorkerProcess.start("digits", [Path(ENDLESS.path)])
    try:
        await worker.ready()
        await worker.configure(Configure("digits", STEADY, (CountSink(),)), [])
        async with asyncio.TaskGroup() as group:
            task = group.create_task(worker.listen())
            try:
                yield Listening(worker)
            finally:
                worker.kill()
                await asyncio.wait({task})
    finally:
        await worker.close()
        worker.block.close()


@in_loop
async def test_a_locked_worker_watches_and_collects_a_baseline() -> None:
    """Under every lock there is enough linear algebra for a baseline of its own."""
    async with listening() as it:
        it.worker.limit_memory(8.0, 0)
        order = Watch(1, cpu_share=0.5, site_samples=SITE_SAMPLES)
        await it.run(1, order)
        await until(lambda: len(it.baselines()) == 1, "a baseline")
        said = it.monitored(1)[-1]
        states = {state.anchor: state for state in said.anchors}
        assert states["site"].valid
        assert said.samples >= SITE_SAMPLES
        assert said.spent_ns > 0
        await it.worker.tell(Commission(1, 1), PATIENCE_S)
        await until(lambda: len(it.baselines()) == 2, "another baseline")
        assert it.baselines()[0] != it.baselines()[1]
        assert [one.number for one in it.heard if isinstance(one, Anchored)] == [0, 1]
        # The next worker goes on with what this one found.
        await it.run(2, Watch(2, site=it.baselines()[0], cpu_share=0.5))
        await until(lambda: bool(it.monitored(2)), "a word of the next")
        known = {state.anchor: state for state in it.monitored(2)[0].anchors}
        assert (known["site"].valid, known["site"].digest) == (
            *(True,),
            states["site"].digest,
        )


@in_loop
async def test_watching_costs_one_thread() -> None:
    """It begins with the first model that is watched; linear algebra starts none."""
    async with listening() as it:
        await it.run(1, None)
        unwatched = it.threads()
        await it.run(2, Watch(2, cpu_share=0.5, site_samples=SITE_SAMPLES))
        await until(lambda: bool(it.baselines()), "a baseline")
        assert sum(it.threads().values()) == sum(unwatched.values()) + 1


@in_loop
async def test_what_was_seen_is_said_before_the_end() -> None:
    """A swap and a stop both end with a last word, in which nothing is missing."""
    async with listening() as it:
        await it.run(1, Watch(1))
        await it.run(2, Watch(2))
        await it.worker.stop(PATIENCE_S)
        await until(lambda: it.worker.gone, "its last word")
        for generation in (1, 2):
            said = it.monitored(generation)
            assert [w.samples for w in said] == sorted(w.samples for w in said)
            assert said[0].samples == 0


@in_loop
async def test_a_bad_profile_stops_no_model() -> None:
    """The model answers; the monitor says what is wrong with the profile."""
    async with listening() as it:
        await it.run(1, Watch(1, profile=b"\xffnonsense", cpu_share=0.5))
        await until(lambda: len(it.monitored(1)) > 1, "a second word")
        (shipped, _) = it.monitored(1)[-1].anchors
        assert (shipped.valid, shipped.reason) == (False, Reason.PROFILE)
        assert it.monitored(1)[-1].samples > 0


@in_loop
async def test_a_share_of_nothing_says_nothing() -> None:
    """No thread, no word, and the model answers."""
    async with listening() as it:
        await it.run(1, Watch(1, cpu_share=0.0))
        before = it.threads()
        await it.run(2, None)
        assert (it.heard, it.threads()) == ([], before)
