"""``receipts``: what a receipt costs each inference, and the loop.

The cost is taken apart: what the worker does (hashes, record, gate), on a model that
does nothing; and what the daemon does for each record (chain, Merkle tree, meter, its
share of signatures and of the log's thread), as CPU time of all threads. Both go one
after the other, on two cores where there are two. The meter is a daemon's own, with
units from a voucher and leases that it writes.

The ratio is that of the worker's loop with receipts in a mode against the same loop
without them, alternating. The daemon's side runs in a process of its own, as it does.
All times are CPU times of the thread that works: a loop that never waits is as fast as
that, and who else wants the machine does not count.
"""

import contextlib
import json
import math
import mmap
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from agent.audit.recorder import LogRecorder
from agent.core.receipts import (
    HEADER_BYTES,
    LIMIT,
    NO_HASH,
    RING_BYTES,
    Mode,
    Receipt,
    ReceiptOrder,
    pack_receipt,
)
from agent.core.statistics_block import BLOCK_BYTES, NEXT_SEQ
from agent.supervise.memfd import shared_memory
from agent.supervise.receipts import BATCH
from agent.worker.control import candidate_builder
from agent.worker.gated import GatedLoop
from agent.worker.loop import Loop
from agent.worker.model import LoadedModel
from agent.worker.receipts import Receipts
from agent.worker.samples import Arrays
from agent.worker.statistics import StatisticsWriter
from benchmarks.loop import load, settled
from benchmarks.receipts_log import PIPELINE, open_bench_log, open_bench_meter
from benchmarks.rows import Row, median
from benchmarks.subjects import Subject, subject
from benchmarks.worker_loop import Workplace, source_of

WHOLE_US, HASHED_US, RATIO = 10.0, 45.0, 0.95
CALLS = 4_000
RECORDS = 40 * BATCH  # 82 k: 320 checkpoints, 40 segments
# Model, and the target of its ratio in chain mode.
LOOPS = (("vww", RATIO), ("kws", None))


def run(rounds: int, seconds: float) -> list[Row]:
    """Return costs of a receipt, and ratios of the loop."""
    with settled():
        worker = {
            mode: _worker_us(mode, rounds) for mode in ("count", "chain", "inputs")
        }
    log_us, log_spread = median([_log_us() for _ in range(max(3, rounds // 8))])
    rows = [
        Row("receipts", f"in the worker, mode {mode}", found[0], "us", spread=found[1])
        for mode, found in worker.items()
    ]
    rows += [
        Row(
            "receipts",
            "in the daemon: chain, tree, checkpoints, meter",
            log_us,
            "us",
            spread=log_spread,
        ),
        _whole("without an input's hash", worker["chain"][0] + log_us, WHOLE_US),
        _whole("with the hash of 27 KB", worker["inputs"][0] + log_us, HASHED_US),
    ]
    for name, target in LOOPS:
        rows += _loop(name, target, rounds, seconds)
    return rows


def _whole(what: str, value_us: float, target_us: float) -> Row:
    """Return the row of a whole receipt."""
    return Row("receipts", f"whole receipt {what}", value_us, "us", target_us)


# --- what a receipt costs


def _worker_us(mode: Mode, rounds: int) -> tuple[float, float]:
    """Return what a receipt adds to an inference in the worker, in us."""
    place = RingPlace(mode)
    given = [np.zeros((1, 96, 96, 3), np.int8)]
    said: Arrays = [np.zeros((1, 2), np.int8)]
    bare = replace(
        load(subject("kws"), "xnnpack"),
        infer=lambda _: said,
        judge=lambda _inputs, _outputs: (0, 0.5),
    )
    receipted = place.receipts.of(bare)

    def call(model: LoadedModel, *, gated: bool) -> float:
        infer, judge, ring = model.infer, model.judge, place.receipts.ring
        words = ring.words
        began = time.thread_time()
        for _ in range(CALLS):
            if gated and ring.written >= words[LIMIT]:
                return math.inf
            judge(given, infer(given))
        return (time.thread_time() - began) / CALLS * 1e6

    added = [
        call(receipted, gated=True) - call(bare, gated=False) for _ in range(rounds)
    ]
    return median(added)


def _log_us() -> float:
    """Return CPU time that one record costs the daemon, all threads, in us."""
    one = Receipt(1, 1, 1, 0, 1, bytes(32), NO_HASH, bytes(32))
    batch = memoryview(pack_receipt(one) * BATCH)
    with tempfile.TemporaryDirectory() as folder:
        opened = open_bench_log(Path(folder))
        meter = open_bench_meter(Path(folder))
        recorder = LogRecorder(opened, meter)
        began = time.process_time()
        for _ in range(RECORDS // BATCH):
            recorder.take(PIPELINE, batch)
            recorder.allowance(PIPELINE)
            while opened.size - opened.durable.checkpoint.size > 4 * BATCH:
                time.sleep(0.001)  # as a board's log is given time by its samples
        opened.mark()
        while opened.durable.checkpoint.size < opened.size:
            time.sleep(0.001)
        spent_s = time.process_time() - began
        meter.close()
        return spent_s / RECORDS * 1e6


# --- what the loop loses


class RingPlace(Workplace):
    """A worker's slot and statistics with a ring that is never full of itself."""

    def __init__(self, mode: Mode, model: LoadedModel | None = None) -> None:
        self.descriptor = shared_memory("bench", RING_BYTES)
        self.memory = mmap.mmap(self.descriptor, RING_BYTES)
        words = memoryview(self.memory)[:HEADER_BYTES].cast("Q")
        if model is None:
            words[LIMIT] = 2**62  # no gate: the ring is written round and round
        self.statistics = StatisticsWriter(memoryview(mmap.mmap(-1, BLOCK_BYTES)), 1)
        order, ring = ReceiptOrder(mode), memoryview(self.memory)
        self.receipts = Receipts(order, "bench", ring, self.statistics)
        if model is not None:
            super().__init__(model)
            self.receipts = Receipts(order, "bench", ring, self.statistics)
            build = candidate_builder(
                "bench",
                [],
                self.statistics,
                time.time,  # noqa: TID251 - a benchmark
                self.receipts,
            )
            self.slot.wanted = build(model, 0)

    def loop(self, source: object) -> Loop:
        """Return a loop with a gate over a source."""
        self.slot.running = True
        parts = (source, self.slot, self.statistics, lambda: None)
        return GatedLoop(*parts, self.receipts.ring)  # type: ignore[arg-type]  # a Source


@dataclass(frozen=True, slots=True)
class Drained:
    """What the daemon's side says in the end."""

    records: int
    cpu_s: float
    lost: int


@contextlib.contextmanager
def draining(place: RingPlace, said: list[Drained]) -> Iterator[None]:
    """Let a process of its own empty the ring into a log."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "benchmarks.receipts_log"]
        with subprocess.Popen(
            [*command, str(place.descriptor), folder],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            pass_fds=[place.descriptor],
            text=True,
        ) as child:
            assert child.stdin is not None  # noqa: S101 - typing
            assert child.stdout is not None  # noqa: S101 - typing
            child.stdout.readline()
            yield
            child.stdin.close()
            said.append(Drained(**json.loads(child.stdout.readline())))
    os.close(place.descriptor)


def _loop(name: str, target: float | None, rounds: int, seconds: float) -> list[Row]:
    """Return the loop's ratio with receipts in chain mode, and the daemon's share."""
    it = subject(name)
    what = name + ("" if it.public else " (demo model)")
    said: list[Drained] = []
    with settled():
        model = load(it, "xnnpack")
        plain, chained = Workplace(model), RingPlace("chain", model)
        sides = {"off": plain, "chain": chained}
        ratios, spent_s = [], 0.0
        with draining(chained, said):
            for turn in range(rounds):
                order = sorted(sides, reverse=bool(turn % 2))
                took = {side: _us(it, seconds, sides[side]) for side in order}
                ratios.append(took["off"] / took["chain"])
                spent_s += seconds
    ratio, spread = median(ratios)
    (drained,) = said
    share = drained.cpu_s / spent_s * 100
    return [
        Row(
            "receipts",
            f"{what}: throughput, chain / off",
            ratio,
            "",
            target,
            "above",
            spread,
        ),
        Row("receipts", f"{what}: records", drained.records / spent_s, "1/s"),
        Row("receipts", f"{what}: the daemon's CPU", share, "%"),
        Row("receipts", f"{what}: records lost", float(drained.lost), "", 0.0),
    ]


def _us(it: Subject, seconds: float, place: Workplace) -> float:
    """Return CPU us per sample of a loop."""
    words = place.statistics.words
    before, began = words[NEXT_SEQ], time.thread_time()
    place.run(source_of(it), seconds)
    return (time.thread_time() - began) / (words[NEXT_SEQ] - before) * 1e6
