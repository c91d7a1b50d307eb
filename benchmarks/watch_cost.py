"""What watching costs: per watched sample, in memory, and as a share of the CPU.

Each is measured on the worker's own eye and watcher, with both anchors at work.
"""

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from agent.core.drift.monitor import Monitor, Setup
from agent.core.manifest import Manifest, TensorSpec
from agent.worker.watch import Clocks, Rules, Watcher
from agent.worker.watch_eyes import Eyes
from agent.worker.watch_pace import Pace
from benchmarks.rows import Row, median
from benchmarks.watch_runs import new_monitor
from benchmarks.watch_subjects import (
    SOFTMAX,
    Tensors,
    Watched,
    make_watched,
    plain_manifest,
    read_all,
)

LOOKS = 2000  # of one round
RATES = (1, 3, 10, 30, 100, 300, 1000, 3000, 10_000, 16_000)  # samples/s
SHARE = 0.02  # of the CPU: the default budget
MODEL_NS = 26_000  # the keyword model's time for a sample
PACED_SAMPLES = 200  # at the least; and for so many virtual seconds:
PACED_S = 20.0
SITE_SAMPLES = 2000


@dataclass(frozen=True, slots=True)
class Case:
    """One kind of input.

    Attributes:
        target_us: Bound of the time for a watched sample.
    """

    name: str
    spec: TensorSpec
    classes: int
    target_us: float


CASES = (
    Case(
        "image 96x96x3",
        TensorSpec("image", (1, 96, 96, 3), "uint8", 1 / 255),
        *(2, 40.0),
    ),
    Case(
        "spectrogram 49x10",
        TensorSpec("spectrogram", (1, 49, 10, 1), "int8", 0.58, 83),
        *(12, 27.0),
    ),
    Case("32 floats", TensorSpec("readings", (1, 32), "float32"), *(4, 18.0)),
)


def cost_rows(rounds: int) -> list[Row]:
    """Return time, state and share of each kind of input."""
    rows: list[Row] = []
    for case in CASES:
        watched, tensors = _watched(case)
        monitor = new_monitor(watched.shipped, _baseline(watched, tensors))
        alone = _without_site(watched)
        both, spread = _time(Eyes(watched.reader, monitor), tensors, rounds)
        one, spread_one = _time(Eyes(watched.reader, alone), tensors, rounds)
        what = f"{case.name}: watched sample"
        state = [
            (_bytes_of(held) + _bytes_of(watched.reader)) / 1000
            for held in (alone, monitor)
        ]
        rows += [
            Row(
                *("watch", f"{what}, shipped anchor", one, "us", case.target_us),
                *("below", spread_one),
            ),
            Row("watch", f"{what}, both anchors", both, "us", spread=spread),
            Row("watch", f"{case.name}: state, shipped anchor", state[0], "kB", 64),
            Row("watch", f"{case.name}: state, both anchors", state[1], "kB"),
            Row("watch", f"{case.name}: profile", len(watched.raw) / 1000, "kB", 64),
        ]
        shares = [_share(watched, tensors, rate) for rate in RATES]
        rows += [
            Row(
                *("watch", f"{case.name}: largest share of the CPU over the budget"),
                *(max(shares) / SHARE, ""),
                1.0,
            ),
            Row(
                *("watch", f"{case.name}: share of the CPU at 16,000 samples/s"),
                *(shares[-1], ""),
            ),
        ]
    return rows


def _watched(case: Case) -> tuple[Watched, list[Tensors]]:
    """Return a watched model of this input, and samples of it."""
    random = np.random.default_rng(41)
    softmax = TensorSpec("softmax", (1, case.classes), **SOFTMAX)  # type: ignore[arg-type]  # of a dict
    labels = [f"class {at}" for at in range(case.classes)]
    manifest: Manifest = plain_manifest("cost", case.spec, (softmax,), labels)
    tensors = [_sample(case, random) for _ in range(600)]
    return make_watched(manifest, tensors, groups=None, random=random), tensors


def _sample(case: Case, random: np.random.Generator) -> Tensors:
    """Return a random input whose level and spread differ, and a random answer."""
    level, spread = random.normal(0, 10), random.uniform(10, 30)
    values = random.normal(level, spread, case.spec.shape)
    if case.spec.dtype == "float32":
        given = values.astype(np.float32)
    else:
        middle = 128 if case.spec.dtype == "uint8" else 0
        limits = np.iinfo(case.spec.dtype)
        values = np.clip(values + middle, limits.min, limits.max)
        given = values.astype(case.spec.dtype)
    shares = random.dirichlet(np.full(case.classes, 0.3)) * 256 - 128
    stored = np.clip(np.rint(shares), -128, 127).astype(np.int8)
    return [given], [stored[None]]


def _baseline(watched: Watched, tensors: Sequence[Tensors]) -> bytes:
    """Return a board's baseline."""
    looks = read_all(watched.reader, tensors)
    random = np.random.default_rng(42)
    monitor = new_monitor(watched.shipped)
    for at in range(20 * SITE_SAMPLES):
        row = int(random.integers(len(looks)))
        monitor.observe(
            looks.values[row],
            int(looks.index[row]),
            float(looks.confidence[row]),
            int(looks.checksum[row]),
            at,
        )
        fresh = monitor.baseline()
        if fresh is not None:
            return fresh
    raise ValueError("no baseline was completed")


def _without_site(watched: Watched) -> Monitor:
    """Return a monitor that neither has a baseline nor collects one."""
    reader = watched.reader
    return Monitor(
        Setup(
            names=reader.names,
            columns=reader.columns,
            classes=reader.classes,
            shipped=watched.shipped.reference,
            site_samples=0,
        )
    )


def _time(eye: Eyes, tensors: Sequence[Tensors], rounds: int) -> tuple[float, float]:
    """Return the median time of a look over the rounds, in us, and its spread."""
    found = []
    seq = 0
    count = len(tensors)
    for _ in range(rounds + 1):
        began = time.thread_time_ns()
        for _ in range(LOOKS):
            inputs, outputs = tensors[seq % count]
            eye.look(seq, inputs, outputs, 1, 0.9)
            seq += 1
        found.append((time.thread_time_ns() - began) / LOOKS / 1000)
    return median(found[1:])  # the first meets cold caches


def _share(watched: Watched, tensors: Sequence[Tensors], rate: float) -> float:
    """Return what looks took of the time, at this rate.

    Looks are real, and their CPU time counts; between them a clock of ours jumps.
    """
    clock = [0]
    clocks = Clocks(now=lambda: clock[0], spent=time.thread_time_ns)
    eye = Eyes(watched.reader, new_monitor(watched.shipped))
    pace = Pace(SHARE, 0)
    watcher = Watcher(Rules(1), eye, pace, lambda _said: None, clocks)
    period_ns = round(1e9 / rate)
    count = len(tensors)
    for seq in range(max(PACED_SAMPLES, round(rate * PACED_S))):
        clock[0] += period_ns
        if seq >= watcher.due[0]:
            inputs, outputs = tensors[seq % count]
            watcher.look(seq, MODEL_NS, inputs, outputs, 1, 0.9)
    return pace.spent_ns / clock[0]


def _bytes_of(thing: object, seen: set[int] | None = None) -> int:
    """Return the bytes of all arrays and containers that an object keeps to itself."""
    known = set() if seen is None else seen
    if id(thing) in known or isinstance(thing, type):
        return 0
    known.add(id(thing))
    if isinstance(thing, np.ndarray):
        return thing.nbytes if thing.base is None else _bytes_of(thing.base, known)
    return sys.getsizeof(thing) + sum(_bytes_of(part, known) for part in _parts(thing))


def _parts(thing: object) -> list[Any]:
    """Return what an object refers to, as far as it is its own."""
    if isinstance(thing, dict):
        return [*thing.keys(), *thing.values()]
    if isinstance(thing, list | tuple | set | frozenset):
        return list(thing)
    own = getattr(thing, "__module__", "")
    if not (isinstance(own, str) and own.startswith("agent.core.drift")):
        return []
    slots = [
        getattr(thing, name)
        for kind in type(thing).__mro__
        for name in getattr(kind, "__slots__", ())
        if hasattr(thing, name)
    ]
    return [*slots, *getattr(thing, "__dict__", {}).values()]
