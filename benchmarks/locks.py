"""``locks``: a worker inside its locks beside one without, taking turns.

Both are real worker processes on the same model; while one is measured the other is
stopped (SIGSTOP).
"""

import asyncio
import os
import signal
import time

from agent.core.flow import CountSink, FilesSource
from agent.core.messages import Configure, Load
from agent.supervise.worker_process import WorkerProcess
from benchmarks.rows import Row, median
from benchmarks.subjects import Subject, first_executor, subject

TARGET = 0.97


async def run(rounds: int, seconds: float) -> list[Row]:
    """Return the ratio of throughputs."""
    it = subject("kws")
    async with asyncio.TaskGroup() as group:
        locked = await _worker(it, group, unlocked=False)
        free = await _worker(it, group, unlocked=True)
        ratios = []
        for round_ in range(rounds):
            order = (locked, free) if round_ % 2 else (free, locked)
            speeds = {side.pid: await _speed(side, seconds) for side in order}
            if all(speeds.values()):  # a crowded machine may not run one at all
                ratios.append(speeds[locked.pid] / speeds[free.pid])
        await locked.close()
        await free.close()
    held = [name for name, why in locked.locks.items() if not why]
    ratio, spread = median(ratios)
    return [
        Row("locks", f"layers that hold: {', '.join(held)}", len(held), ""),
        Row("locks", "kws: locked / unlocked", ratio, "", TARGET, "above", spread),
    ]


async def _worker(
    it: Subject, group: asyncio.TaskGroup, *, unlocked: bool
) -> WorkerProcess:
    """Start a worker that answers, and stop it for now."""
    worker = await WorkerProcess.start(it.name, [it.samples.parent], unlocked=unlocked)
    await worker.ready()
    source = FilesSource(path=str(it.samples), loop=True, memory=True)
    await worker.configure(Configure(it.name, source, (CountSink(),)), [])
    group.create_task(worker.listen())
    order = Load(1, it.bundle.raw_manifest, "only", first_executor())
    await worker.load(order, it.bundle.variant_bytes("only"), 30.0)
    await worker.activate(1, 30.0)
    os.kill(worker.pid, signal.SIGSTOP)
    return worker


async def _speed(worker: WorkerProcess, seconds: float) -> float:
    """Return samples per second of a worker that only runs now."""
    os.kill(worker.pid, signal.SIGCONT)
    await asyncio.sleep(0.05)
    first, began = _count(worker), time.perf_counter()
    await asyncio.sleep(seconds)
    last, ended = _count(worker), time.perf_counter()
    os.kill(worker.pid, signal.SIGSTOP)
    return (last - first) / (ended - began)


def _count(worker: WorkerProcess) -> int:
    """Return how many samples it has taken."""
    block = worker.block.read()
    return block.next_seq if block else 0
