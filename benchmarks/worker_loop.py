"""A worker's loop in this process, for benchmarks of the loop and of its monitor."""

import contextlib
import mmap
import threading
import time
from collections.abc import Iterator

from agent.core.flow import FilesSource
from agent.core.statistics_block import BLOCK_BYTES
from agent.worker.control import candidate_builder
from agent.worker.loop import Loop
from agent.worker.model import LoadedModel
from agent.worker.slot import ModelSlot
from agent.worker.sources import Source, build_source
from agent.worker.statistics import StatisticsWriter
from agent.worker.watch import Watcher
from benchmarks.subjects import Subject


def source_of(it: Subject, rate: float = 0.0) -> Source:
    """Return the ``files`` source in memory, at a rate or as fast as possible."""
    settings = FilesSource(path=str(it.samples), loop=True, memory=True, rate=rate)
    return build_source(settings, None)


class RunningClock:
    """Time that passes only while a loop runs.

    Sides of a benchmark take turns; a monitor must not take the others' time for its
    own loop's spare time.
    """

    def __init__(self) -> None:
        self._passed_ns = 0
        self._since_ns = 0

    def now(self) -> int:
        """Return the time in which loops ran, in ns."""
        running_ns = time.perf_counter_ns() - self._since_ns if self._since_ns else 0
        return self._passed_ns + running_ns

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Let it run."""
        self._since_ns = time.perf_counter_ns()
        try:
            yield
        finally:
            self._passed_ns, self._since_ns = self.now(), 0


class Workplace:
    """A worker's slot and statistics, in which loops run one after the other.

    Numbers and sums go on from loop to loop, as a monitor expects of one worker.
    """

    def __init__(
        self,
        model: LoadedModel,
        watcher: Watcher | None = None,
        clock: RunningClock | None = None,
    ) -> None:
        memory = mmap.mmap(-1, BLOCK_BYTES)
        # A watcher that has seen others goes on with the number that is due.
        first_seq = max(1, watcher.due[0]) if watcher else 1
        self.statistics = StatisticsWriter(memoryview(memory), first_seq)
        self.slot = ModelSlot(self.statistics)
        self.clock = clock or RunningClock()
        build = candidate_builder("bench", [], self.statistics, time.time)  # noqa: TID251 - a benchmark
        self.slot.wanted = build(model, 0, watcher=watcher)

    def loop(self, source: Source) -> Loop:
        """Return a loop over a source."""
        self.slot.running = True
        return Loop(source, self.slot, self.statistics, lambda: None)

    def run(self, source: Source, seconds: float) -> None:
        """Run a loop over a source for some seconds."""
        loop = self.loop(source)
        timer = threading.Timer(seconds, self.slot.stop)
        timer.start()
        with self.clock.running():
            loop.run()


def worker(
    model: LoadedModel, source: Source, watcher: Watcher | None = None
) -> tuple[Loop, ModelSlot, StatisticsWriter]:
    """Build the worker's loop around a model, watched or not."""
    place = Workplace(model, watcher)
    return place.loop(source), place.slot, place.statistics
