"""``loop``: the full worker loop beside the bare interpreter loop, in one process.

Bare is ``set_tensor``, ``invoke``, ``get_tensor`` on the same model and inputs. Ours is
``agent.worker.loop.Loop`` with the ``files`` source in memory, no preprocess, the
statistics block on, and the counting sink. The sides alternate.
"""

import contextlib
import gc
import itertools
import mmap
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import cast

import numpy as np

from agent.core.executors import Kernels
from agent.core.flow import FilesSource
from agent.core.statistics_block import BLOCK_BYTES, NEXT_SEQ
from agent.worker.content import seal_content
from agent.worker.control import candidate_builder
from agent.worker.engines.build import InterpreterEngine
from agent.worker.loop import Loop
from agent.worker.model import LoadedModel, load_model
from agent.worker.run import SWITCH_INTERVAL_S
from agent.worker.slot import ModelSlot
from agent.worker.sources import Source, build_source
from agent.worker.statistics import StatisticsWriter
from benchmarks.rows import Row, median, percentile
from benchmarks.subjects import Subject, first_executor, subject

# Model, kernels, target, and how much longer a side has to run to be a fair sample.
CASES: tuple[tuple[str, Kernels, float, float], ...] = (
    ("kws", "xnnpack", 0.90, 1.0),
    ("vww", "xnnpack", 0.97, 2.0),
    ("resnet", "reference", 0.99, 6.0),
)
ADDED_P50_US, ADDED_P99_US = 7.0, 40.0


def run(rounds: int, seconds: float) -> list[Row]:
    """Return ratios of throughput and the time added per sample."""
    rows: list[Row] = []
    for name, kernels, target, longer in CASES:
        rows += _case(subject(name), kernels, target, rounds, seconds * longer)
    return rows


def _case(
    it: Subject, kernels: Kernels, target: float, rounds: int, seconds: float
) -> list[Row]:
    """Compare the two loops on one model."""
    with _settled():
        model = _load(it, kernels)
        ratios, bare_us = [], []
        for round_ in range(rounds):
            sides = [
                lambda: _bare(model, it, seconds),
                lambda: _ours(model, it, seconds),
            ]
            if round_ % 2:
                ours, bare = sides[1](), sides[0]()
            else:
                bare, ours = sides[0](), sides[1]()
            ratios.append(bare / ours)
            bare_us.append(bare)
        added = [_added(model, it, seconds) for _ in range(max(3, rounds // 3))]
    what = f"{it.name}, {kernels}" + ("" if it.public else " (demo model)")
    ratio, spread = median(ratios)
    return [
        Row("loop", f"{what}: bare inference", median(bare_us)[0], "us"),
        Row("loop", f"{what}: throughput ratio", ratio, "", target, "above", spread),
        Row(
            "loop",
            f"{what}: added p50",
            median([row[0] for row in added])[0],
            "us",
            ADDED_P50_US,
        ),
        Row(
            "loop",
            f"{what}: added p99",
            median([row[1] for row in added])[0],
            "us",
            ADDED_P99_US,
        ),
    ]


@contextlib.contextmanager
def _settled() -> Iterator[None]:
    """Give this process the settings of a worker while it is measured."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
        sys.setswitchinterval(before)


def _load(it: Subject, kernels: Kernels) -> LoadedModel:
    """Load a model as the worker does."""
    descriptor = seal_content(it.content(), it.name)
    try:
        executor = first_executor(kernels)
        return load_model(1, it.bundle.manifest, "only", executor, descriptor)
    finally:
        os.close(descriptor)


def _bare(model: LoadedModel, it: Subject, seconds: float) -> float:
    """Return us per inference of the bare loop."""
    step = _bare_step(model)
    inputs, count = it.inputs, len(it.inputs)
    done = 0
    began = time.perf_counter()
    until = began + seconds
    while time.perf_counter() < until:
        for _ in range(count):
            step(inputs[done % count])
            done += 1
    return (time.perf_counter() - began) / done * 1e6


def _bare_step(model: LoadedModel) -> Callable[[np.ndarray], np.ndarray]:
    """Return set_tensor, invoke, get_tensor on the model's own interpreter."""
    interpreter = cast("InterpreterEngine", model.engine).interpreter
    put, invoke, get = (
        interpreter.set_tensor,
        interpreter.invoke,
        interpreter.get_tensor,
    )
    first = interpreter.get_input_details()[0]["index"]
    last = interpreter.get_output_details()[0]["index"]

    def step(sample: np.ndarray) -> np.ndarray:
        put(first, sample)
        invoke()
        answer: np.ndarray = get(last)
        return answer

    return step


def _ours(model: LoadedModel, it: Subject, seconds: float) -> float:
    """Return us per sample of the worker's loop."""
    loop, slot, statistics = _worker(model, _source(it))
    before = statistics.words[NEXT_SEQ]
    threading.Timer(seconds, slot.stop).start()
    began = time.perf_counter()
    loop.run()
    elapsed = time.perf_counter() - began
    return elapsed / (statistics.words[NEXT_SEQ] - before) * 1e6


def _source(it: Subject) -> Source:
    """Return the ``files`` source in memory, as fast as possible."""
    settings = FilesSource(path=str(it.samples), loop=True, memory=True)
    return build_source(settings, None)


def _worker(
    model: LoadedModel, source: Source
) -> tuple[Loop, ModelSlot, StatisticsWriter]:
    """Build the worker's loop around a model."""
    memory = mmap.mmap(-1, BLOCK_BYTES)
    statistics = StatisticsWriter(memoryview(memory), 1)
    slot = ModelSlot(statistics)
    build = candidate_builder("bench", [], statistics, time.time)  # noqa: TID251 - a benchmark
    slot.wanted = build(model, 0)
    return Loop(source, slot, statistics, lambda: None), slot, statistics


class StampedSource:
    """A source that notes when each sample is asked for: one sample ends there."""

    ready_ns = 0
    dropped = 0
    partial = 0
    ended = False

    def __init__(self, source: Source) -> None:
        self._take = source.take
        self.stamps: list[int] = []

    def take(self, timeout_s: float) -> object:
        """Note the time, take a sample."""
        self.stamps.append(time.perf_counter_ns())
        return self._take(timeout_s)


def _added(model: LoadedModel, it: Subject, seconds: float) -> tuple[float, float]:
    """Return (p50, p99) of a whole turn of ours beyond the bare loop's, in us."""
    step, inputs, count = _bare_step(model), it.inputs, len(it.inputs)
    bare: list[int] = []
    until = time.perf_counter() + seconds
    done = 0
    while time.perf_counter() < until:
        for _ in range(count):
            bare.append(time.perf_counter_ns())
            step(inputs[done % count])
            done += 1
    source = StampedSource(_source(it))
    loop, slot, _ = _worker(model, source)  # type: ignore[arg-type]  # a test's source
    threading.Timer(seconds, slot.stop).start()
    loop.run()
    bare_us = [(b - a) / 1e3 for a, b in itertools.pairwise(bare)]
    stamps = source.stamps
    ours_us = [(b - a) / 1e3 for a, b in itertools.pairwise(stamps)]
    return (
        percentile(ours_us, 0.5) - percentile(bare_us, 0.5),
        percentile(ours_us, 0.99) - percentile(bare_us, 0.99),
    )
