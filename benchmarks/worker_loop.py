"""A worker's loop in this process, for benchmarks of the loop and of its monitor."""

import mmap
import time

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


def worker(
    model: LoadedModel, source: Source, watcher: Watcher | None = None
) -> tuple[Loop, ModelSlot, StatisticsWriter]:
    """Build the worker's loop around a model, watched or not."""
    memory = mmap.mmap(-1, BLOCK_BYTES)
    # A watcher that has seen others goes on with the number that is due.
    first_seq = max(1, watcher.due[0]) if watcher else 1
    statistics = StatisticsWriter(memoryview(memory), first_seq)
    slot = ModelSlot(statistics)
    build = candidate_builder("bench", [], statistics, time.time)  # noqa: TID251 - a benchmark
    slot.wanted = build(model, 0, watcher=watcher)
    return Loop(source, slot, statistics, lambda: None), slot, statistics
