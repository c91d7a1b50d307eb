"""Models as a worker watches them: for benchmarks of what watching costs.

``profile_of`` makes a reference of a model's own inputs, so that every detector works;
``share_rows`` measures the share of CPU at every rate.
"""

import itertools
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from agent.core.drift.features import build_reader
from agent.core.drift.fitting import fit_reference
from agent.core.drift.reference import Origin, seal_reference
from agent.core.messages import Anchored, Watch, Watched, render_message
from agent.core.profile import (
    FEATURES_VERSION,
    SCHEMA,
    Profile,
    preprocessing_digest,
    render_profile,
)
from agent.core.statistics_block import NEXT_SEQ
from agent.core.watching import Monitored
from agent.worker.model import LoadedModel
from agent.worker.watch import Clocks, Watcher
from agent.worker.watch_build import watcher_builder
from agent.worker.watch_report import Reporter
from benchmarks.rows import Row
from benchmarks.subjects import Subject
from benchmarks.worker_loop import source_of, worker

# A source at rest, a camera, a fast sensor, a keyword model, and as fast as it can.
RATES: tuple[float, ...] = (1, 10, 100, 1000, 16_000, 0)
CPU_SHARE = 0.02  # the default of [monitor] cpu_share
REFERENCE_SAMPLES = 256
QUIET = 1e6  # a threshold that nothing here passes: what is measured is not an alarm


class Heard:
    """The daemon's end: takes every report as the channel would, and keeps the last."""

    def __init__(self) -> None:
        self.monitored = Monitored()
        self.reports = 0

    def send(self, report: Watched | Anchored) -> None:
        """Encode a report, as it is encoded for the socket."""
        render_message(report)
        self.reports += 1
        if isinstance(report, Watched):
            self.monitored = report.monitored


@dataclass(frozen=True, slots=True)
class Watching:
    """A watcher with all that stands behind it."""

    watcher: Watcher
    heard: Heard
    reporter: Reporter

    def close(self) -> Monitored:
        """End it; return its last word."""
        self.watcher.finish()
        self.reporter.close()
        return self.heard.monitored


def watch(
    model: LoadedModel,
    profile: bytes,
    *,
    cpu_share: float = CPU_SHARE,
    clocks: Clocks | None = None,
) -> Watching:
    """Watch a loaded model as a worker does."""
    heard = Heard()
    reporter = Reporter(heard.send)
    order = Watch(model.generation, profile=profile, cpu_share=cpu_share)
    watcher = watcher_builder(reporter, clocks)(order, model)
    if watcher is None:
        raise ValueError("the model is not to be watched")
    return Watching(watcher, heard, reporter)


def profile_of(it: Subject, model: LoadedModel) -> bytes:
    """Return a profile of the subject's inputs, with thresholds that never alarm."""
    manifest, variant = model.manifest, model.variant
    reader = build_reader(manifest, variant)
    rows = []
    for sample in itertools.islice(_endless(it.inputs), REFERENCE_SAMPLES):
        outputs = model.infer([sample])
        values = reader.read([sample], outputs, *model.judge([sample], outputs))
        if values is not None:
            rows.append(np.array(values))
    fitted = fit_reference(reader.names, np.array(rows))
    quiet = dict.fromkeys(("input", "output", "all", "prediction"), QUIET)
    reference = replace(
        fitted,
        thresholds=quiet,
        classes=tuple(1 for _ in range(reader.classes)),
        eps=np.full(len(reader.names), 0.08),
    )
    origin = Origin(variant.sha256, reader.kind, groups=0, logits=reader.logits)
    made = Profile(
        schema=SCHEMA,
        model=manifest.model,
        preprocessing=preprocessing_digest(manifest),
        features_version=FEATURES_VERSION,
        references=(seal_reference(reference, origin),),
    )
    return render_profile(made)


def _endless(inputs: Sequence[np.ndarray]) -> Iterator[np.ndarray]:
    """Yield inputs with a little noise, so that features move."""
    random = np.random.default_rng(11)
    for sample in itertools.cycle(inputs):
        moved = sample + random.integers(-20, 20) + random.integers(-5, 5, sample.shape)
        yield np.clip(moved, -128, 127).astype(sample.dtype)


def share_rows(
    it: Subject,
    model: LoadedModel,
    seconds: float,
    rates: Sequence[float] = RATES,
) -> list[Row]:
    """Return what watching took of the time, at every rate, as its budget allows.

    Args:
        it: What is answered.
        model: Loaded from it.
        seconds: At each rate; at least three of them.
        rates: Samples a second; 0 is as fast as the model answers.
    """
    profile = profile_of(it, model)
    rows: list[Row] = []
    for rate in rates:
        share, said, reached = share_at(it, model, profile, rate, max(3.0, seconds))
        name = f"{it.name}, {rate:g}/s" if rate else f"{it.name}, flat out"
        what = f"{name}: share of CPU (N = {said.interval}, {reached:.0f}/s)"
        rows.append(Row("watch", what, share, "", CPU_SHARE))
    return rows


def share_at(
    it: Subject, model: LoadedModel, profile: bytes, rate: float, seconds: float
) -> tuple[float, Monitored, float]:
    """Return (share of all time spent watching, last word, samples a second)."""
    watching = watch(model, profile)
    loop, slot, statistics = worker(model, source_of(it, rate), watching.watcher)
    before = statistics.words[NEXT_SEQ]
    stopping = threading.Timer(seconds, slot.stop)
    began = time.perf_counter()
    stopping.start()
    loop.run()
    passed = time.perf_counter() - began
    said = watching.close()
    samples = statistics.words[NEXT_SEQ] - before
    return said.spent_ns / 1e9 / passed, said, samples / passed


def cost_rows(it: Subject, model: LoadedModel, number: int = 20_000) -> list[Row]:
    """Return what a sample costs that is not looked at, and one that is."""
    watching = watch(model, profile_of(it, model), cpu_share=0.5)
    sample = it.inputs[0]
    outputs = model.infer([sample])
    index, score = model.judge([sample], outputs)
    stream = list(itertools.islice(_endless(it.inputs), 512))
    numbers = itertools.count(1)

    def look() -> None:
        seq = next(numbers)
        watching.watcher.look(seq, 0, [stream[seq % 512]], outputs, index, score)

    for _ in range(number):
        look()
    said = watching.close()
    per_look = said.spent_ns / max(1, said.samples) / 1e3
    return [
        Row("loop", f"{it.name}: a look, caches warm", per_look, "us"),
        Row("loop", "a sample that is not looked at", _comparison_ns(), "ns"),
    ]


def _comparison_ns() -> float:
    """Return what the comparison costs that every sample pays."""
    due = [2**62]

    def with_it(seq: int) -> bool:
        return seq >= due[0]

    def without(seq: int) -> bool:
        return seq == 0

    def fastest(compare: Callable[[int], bool]) -> float:
        times = []
        for _ in range(7):
            began = time.perf_counter_ns()
            for seq in range(100_000):
                compare(seq)
            times.append((time.perf_counter_ns() - began) / 100_000)
        return min(times)

    return fastest(with_it) - fastest(without) + _equality_ns()


def _equality_ns() -> float:
    """Return what comparing with a constant costs, which the difference leaves out."""
    times = []
    for _ in range(7):
        began = time.perf_counter_ns()
        for seq in range(100_000):
            seq == 0  # noqa: B015 - what is measured
        middle = time.perf_counter_ns()
        for _seq in range(100_000):
            pass
        times.append((2 * middle - began - time.perf_counter_ns()) / 100_000)
    return max(0.0, min(times))
