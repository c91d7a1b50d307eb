"""``loop``: the full worker loop beside the bare interpreter loop, in one process.

Bare is ``set_tensor``, ``invoke``, ``get_tensor`` on the same model and inputs. Ours is
``agent.worker.loop.Loop`` with the ``files`` source in memory, no preprocess, the
statistics block on, and the counting sink; then the same with a monitor on it, at the
default share of CPU, against the same targets. The sides alternate.
"""

import contextlib
import gc
import itertools
import os
import sys
import time
from collections.abc import Callable, Iterator
from typing import cast

import numpy as np

from agent.core.executors import Kernels
from agent.core.statistics_block import NEXT_SEQ
from agent.worker.content import seal_content
from agent.worker.engines.build import InterpreterEngine
from agent.worker.model import LoadedModel, load_model
from agent.worker.run import SWITCH_INTERVAL_S
from agent.worker.sources import Source
from agent.worker.watch import Clocks
from agent.worker.watch_pace import CLOSE_LOOKS
from benchmarks.rows import Row, median, percentile
from benchmarks.subjects import Subject, first_executor, subject
from benchmarks.watched import profile_of, watch
from benchmarks.worker_loop import RunningClock, Workplace, source_of

# Model, kernels, target, and how much longer a side has to run to be a fair sample.
CASES: tuple[tuple[str, Kernels, float, float], ...] = (
    ("kws", "xnnpack", 0.90, 1.0),
    ("vww", "xnnpack", 0.97, 2.0),
    ("resnet", "reference", 0.99, 6.0),
)
ADDED_P50_US, ADDED_P99_US = 7.0, 40.0
BUSY_S = 15.0  # a loop is known to be busy after 4 s, and N follows within 10
CLOSE_RUNS = 30  # of a second, for a new monitor's first looks at a share of 2 %


def run(rounds: int, seconds: float) -> list[Row]:
    """Return ratios of throughput and the time added per sample."""
    rows: list[Row] = []
    for name, kernels, target, longer in CASES:
        rows += _case(subject(name), kernels, target, rounds, seconds * longer)
    return rows


def _case(
    it: Subject, kernels: Kernels, target: float, rounds: int, seconds: float
) -> list[Row]:
    """Compare the two loops on one model: without a monitor, and with it."""
    what = f"{it.name}, {kernels}" + ("" if it.public else " (demo model)")
    with settled():
        model = load(it, kernels)
        clock = RunningClock()
        watching = watch(model, profile_of(it, model), clocks=Clocks(now=clock.now))
        watched = Workplace(model, watching.watcher, clock)
        # Its first looks are close together, until it knows the stream's memory.
        for _ in range(CLOSE_RUNS):
            if watching.heard.monitored.samples <= CLOSE_LOOKS:
                _ours(it, 1.0, watched)
        _ours(it, BUSY_S, watched)  # and until it knows that its loop has no spare time
        bare_us: list[float] = []
        ratios: dict[Workplace, list[float]] = {Workplace(model): [], watched: []}
        for round_ in range(rounds):
            times = _round(model, it, seconds, list(ratios), round_)
            bare_us.append(times[0])
            for each, ours in zip(ratios, times[1:], strict=True):
                ratios[each].append(times[0] / ours)
        rows = [Row("loop", f"{what}: bare inference", median(bare_us)[0], "us")]
        for each, found in ratios.items():
            name = f"{what}, watched" if each is watched else what
            ratio, spread = median(found)
            title = f"{name}: throughput ratio"
            rows.append(Row("loop", title, ratio, "", target, "above", spread))
            rows += _added_rows(model, it, seconds, each, (name, max(3, rounds // 3)))
        said = watching.close()
    n = f"{what}, watched: one in so many"
    return [*rows, Row("loop", n, float(said.interval), "samples")]


def _round(
    model: LoadedModel,
    it: Subject,
    seconds: float,
    places: list[Workplace],
    turn: int,
) -> list[float]:
    """Return us per sample: bare, then in each place; who begins alternates."""
    sides: list[Callable[[], float]] = [
        lambda: _bare(model, it, seconds),
        *(lambda each=each: _ours(it, seconds, each) for each in places),
    ]
    order = list(range(len(sides)))
    if turn % 2:
        order.reverse()
    times = {at: sides[at]() for at in order}
    return [times[at] for at in range(len(sides))]


def _added_rows(
    model: LoadedModel,
    it: Subject,
    seconds: float,
    place: Workplace,
    named: tuple[str, int],
) -> list[Row]:
    """Return what a turn takes beyond a bare inference, median of some rounds."""
    name, rounds = named
    added = [_added(model, it, seconds, place) for _ in range(rounds)]
    p50, p99 = (median([row[at] for row in added])[0] for at in (0, 1))
    return [
        Row("loop", f"{name}: added p50", p50, "us", ADDED_P50_US),
        Row("loop", f"{name}: added p99", p99, "us", ADDED_P99_US),
    ]


@contextlib.contextmanager
def settled() -> Iterator[None]:
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


def load(it: Subject, kernels: Kernels) -> LoadedModel:
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


def _ours(it: Subject, seconds: float, place: Workplace) -> float:
    """Return us per sample of the worker's loop."""
    words = place.statistics.words
    before = words[NEXT_SEQ]
    began = time.perf_counter()
    place.run(source_of(it), seconds)
    elapsed = time.perf_counter() - began
    return elapsed / (words[NEXT_SEQ] - before) * 1e6


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


def _added(
    model: LoadedModel, it: Subject, seconds: float, place: Workplace
) -> tuple[float, float]:
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
    source = StampedSource(source_of(it))
    place.run(source, seconds)  # type: ignore[arg-type]  # a benchmark's source
    bare_us = [(b - a) / 1e3 for a, b in itertools.pairwise(bare)]
    stamps = source.stamps
    ours_us = [(b - a) / 1e3 for a, b in itertools.pairwise(stamps)]
    return (
        percentile(ours_us, 0.5) - percentile(bare_us, 0.5),
        percentile(ours_us, 0.99) - percentile(bare_us, 0.99),
    )
