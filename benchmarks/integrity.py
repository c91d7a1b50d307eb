"""``integrity``: flips weight bits of a running worker; which check finds them, when.

A real, locked-in worker answers; one random bit at a time is flipped from outside, in
the mapped file or in the packed copies that kernels compute from, and flipped back
once it was found. The places are looked up from outside, by reading its memory. Then
the same in this process, for the share that known answers and the shadow audit would
have found by themselves.
"""

import asyncio
import os
import random
import sys
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from agent.core.flow import CountSink, FilesSource
from agent.core.integrity import Check, Evidence
from agent.core.messages import Configure, Inspect, Inspected, Load
from agent.supervise.worker_process import Report, WorkerProcess
from agent.worker.content import seal_content
from agent.worker.engines import build_engine
from agent.worker.integrity_answers import KnownAnswers
from agent.worker.integrity_audit import Audit, other_executor
from agent.worker.integrity_memory import (
    Block,
    Blocks,
    packed_copies,
    view,
)
from agent.worker.model import LoadedModel, load_model
from benchmarks.flip_targets import Memory, Weight, constants_of, draw, weights_of
from benchmarks.rows import Row, median, percentile
from benchmarks.subjects import Subject, first_executor, subject

PROGRAM = (sys.executable, "-I", str(Path(__file__).with_name("flip_worker.py")))
MODELS = ("demo", "kws", "resnet", "vww")
FAST_MBPS = 10.0  # a pass takes 10 to 60 ms, long beside what a message takes
GENERATION = 1
START_S = 20.0
LOST_S = 2.0  # what is not found until then, some 30 passes, is not found
FOUND_TARGET = 99.0  # %
SEED = 7


@dataclass(slots=True)
class Heard:
    """What the worker says."""

    passed: int = 0
    covered: int = 0
    skipped: dict[Check, str] = field(default_factory=dict)
    news: asyncio.Queue[Evidence] = field(default_factory=asyncio.Queue)

    def take(self, said: Report) -> None:
        """Keep it; nobody is replaced here."""
        if not isinstance(said, Inspected):
            return
        self.passed = said.checked.passed
        self.covered = sum(said.checked.bytes.values())
        self.skipped = dict(said.checked.skipped)
        if said.evidence is not None:
            self.news.put_nowait(said.evidence)


@dataclass(slots=True)
class Found:
    """What became of some flips."""

    flips: int = 0
    by: Counter[str] = field(default_factory=Counter)
    passes: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)


async def run(models: tuple[str, ...], flips: int) -> list[Row]:
    """Return what was found, for each model."""
    rows: list[Row] = []
    for name in models:
        it = subject(name)
        rows += await _worker_rows(it, flips)
        rows += _check_rows(it, flips)
    return rows


async def _worker_rows(it: Subject, flips: int) -> list[Row]:
    """Flip bits in a real worker."""
    what = it.name + ("" if it.public else " (demo model)")
    rows: list[Row] = []
    async with _working(it) as (worker, heard):
        memory = Memory(worker.pid)
        try:
            weights = await asyncio.to_thread(_weights, it)
            source = await _until_private(memory, it.content())
            packed = memory.packed(weights)
            places = {
                "source": [(source + w.offset, len(w.content)) for w in weights],
                "packed": packed,
            }
            weight_bytes = sum(len(w.content) for w in weights)
            rows.append(
                Row("integrity", f"{what}: weights in the file", weight_bytes, "bytes")
            )
            rows.append(
                Row(
                    "integrity",
                    f"{what}: packed copies found from outside",
                    sum(size for _, size in packed),
                    "bytes",
                )
            )
            rows.append(
                Row("integrity", f"{what}: covered by a pass", heard.covered, "bytes")
            )
            for kind, ranges in places.items():
                if not ranges:
                    continue
                found = await _flip(memory, heard, ranges, flips)
                rows += _found_rows(f"{what}, {kind}", found)
        finally:
            memory.close()
    return rows


async def _until_private(memory: Memory, file: bytes) -> int:
    """Return where the worker's private copy of its model's file lies, once it does."""
    async with asyncio.timeout(START_S):
        while (found := memory.source(file)) is None:
            await asyncio.sleep(0.05)
    return found


@asynccontextmanager
async def _working(it: Subject) -> AsyncIterator[tuple[WorkerProcess, Heard]]:
    """Start a worker that answers, rests, and checks itself fast."""
    worker = await WorkerProcess.start(it.name, [it.samples.parent], program=PROGRAM)
    heard = Heard()
    worker.on_watched = heard.take
    source = FilesSource(str(it.samples), loop=False)
    try:
        await worker.ready()
        await worker.configure(Configure(it.name, source, (CountSink(),)), [])
        async with asyncio.TaskGroup() as group:
            listening = group.create_task(worker.listen())
            order = Inspect(FAST_MBPS, known_answers=True)
            await worker.tell(order, START_S)
            bundle = it.bundle
            load = Load(GENERATION, bundle.raw_manifest, "only", first_executor())
            await worker.load(load, bundle.variant_bytes("only"), START_S)
            await worker.activate(GENERATION, START_S)
            while not heard.passed:
                await asyncio.sleep(0.01)
            yield worker, heard
            worker.kill()
            await asyncio.wait({listening})
    finally:
        await worker.close()
        worker.block.close()


async def _flip(
    memory: Memory, heard: Heard, ranges: list[tuple[int, int]], flips: int
) -> Found:
    """Flip bits one by one; each is flipped back."""
    chance, found = random.Random(SEED), Found()  # noqa: S311 - no secret
    pass_s = heard.covered / (FAST_MBPS * 1e6)
    for _ in range(flips):
        address, bit = draw(chance, ranges)
        began_s = time.perf_counter()
        memory.flip(address, bit)
        found.flips += 1
        try:
            evidence = await asyncio.wait_for(heard.news.get(), LOST_S)
        except TimeoutError:
            found.by["nobody"] += 1
        else:
            took_s = time.perf_counter() - began_s
            found.by[evidence.check] += 1
            found.seconds.append(took_s)
            found.passes.append(took_s / pass_s)
        memory.flip(address, bit)
        # Until the slice was seen whole again, it is not said to differ again.
        await asyncio.sleep(2 * pass_s + 0.02)
        while not heard.news.empty():
            heard.news.get_nowait()
    return found


def _found_rows(what: str, found: Found) -> list[Row]:
    """Return the rows of some flips."""
    share = 100.0 * (found.flips - found.by["nobody"]) / found.flips
    rows = [
        Row(
            "integrity",
            f"{what}: of {found.flips} flips found",
            share,
            "%",
            FOUND_TARGET,
            "above",
        )
    ]
    rows += [
        Row("integrity", f"{what}: found first by {check}", number, "flips")
        for check, number in sorted(found.by.items())
        if check != "nobody"
    ]
    if found.passes:
        middle, spread = median(found.passes)
        rows.append(
            Row("integrity", f"{what}: found after", middle, "passes", spread=spread)
        )
        worst = percentile(found.seconds, 0.99) * 1e3
        rows.append(Row("integrity", f"{what}: found after, p99", worst, "ms"))
    return rows


def _weights(it: Subject) -> list[Weight]:
    """Return the weights of a subject's model, from a copy loaded here."""
    descriptor = seal_content(it.content(), "weights")
    try:
        model = load_model(1, it.bundle.manifest, "only", first_executor(), descriptor)
        return weights_of(model, descriptor, it.content())
    finally:
        os.close(descriptor)


# --- each check by itself


def _check_rows(it: Subject, flips: int) -> list[Row]:
    """Return what known answers and the audit would have found by themselves."""
    rows: list[Row] = []
    # The packed copies are looked for in the heap of the thread that builds the model.
    thread = threading.Thread(target=lambda: rows.extend(_alone(it, flips)))
    thread.start()
    thread.join()
    return rows


def _alone(it: Subject, flips: int) -> list[Row]:
    """Flip bits of packed copies in this process, and ask each check."""
    before = Blocks()
    descriptor = seal_content(it.content(), "alone")
    model = load_model(1, it.bundle.manifest, "only", first_executor(), descriptor)
    answers = KnownAnswers(model.engine, model.variant)
    shapes = {spec.name: spec.shape for spec in model.variant.inputs}
    other = build_engine(
        other_executor(model.executor), f"/proc/self/fd/{descriptor}", shapes
    )
    packed = _packed(model, descriptor, before)
    os.close(descriptor)
    chance = random.Random(SEED)  # noqa: S311 - no secret
    counts: Counter[str] = Counter()
    for _ in range(flips if packed else 0):
        address, bit = draw(chance, [(b.address, b.size) for b in packed])
        byte = view(Block(address, 1)).cast("B")
        audit = Audit(other, model.variant, answers.known)
        for _ in answers.known:
            audit.work()
        byte[0] ^= 1 << bit
        known = [answers.check(at) for at in range(len(answers.known))]
        counts["answers"] += any(known)
        counts["one answer"] += known[0] is not None
        counts["audit"] += _audited(audit, model, it)
        counts["seen"] += any(known) or _changed(model, it, byte, bit)
        byte[0] ^= 1 << bit
    named = f"{it.name}, packed, in process"
    titles = {
        "one answer": "1 known answer alone",
        "answers": f"{len(answers.known)} known answers alone",
        "audit": "one audited sample alone",
        "seen": "flips that change any answer here",
    }
    return [
        Row("integrity", f"{named}: {title}", 100.0 * counts[key] / flips, "%")
        for key, title in titles.items()
    ]


def _packed(model: LoadedModel, descriptor: int, before: Blocks) -> list[Block]:
    """Return the packed copies of a model that was just built in this thread."""
    copies = packed_copies(constants_of(model, descriptor), before, Blocks())
    return [it.block for it in copies]


def _audited(audit: Audit, model: LoadedModel, it: Subject) -> bool:
    """Whether one audited sample differs by more than the tolerance."""
    inputs = [np.asarray(it.inputs[0])]
    return audit.distance(inputs, model.engine.infer(inputs)) > audit.tolerance


def _changed(model: LoadedModel, it: Subject, byte: memoryview, bit: int) -> bool:
    """Whether a flipped bit changes the answer to any of the subject's samples."""
    flipped = [model.engine.infer([x])[0].tobytes() for x in it.inputs]
    byte[0] ^= 1 << bit
    right = [model.engine.infer([x])[0].tobytes() for x in it.inputs]
    byte[0] ^= 1 << bit
    return flipped != right
