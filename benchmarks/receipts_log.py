"""A daemon's side of receipts, in a process of its own: empties a ring into a log.

``python -m benchmarks.receipts_log RING FOLDER``: until standard input ends; then it
prints its records and its CPU seconds as JSON.
"""

import asyncio
import json
import mmap
import sys
import time
from pathlib import Path

from agent.audit.key import load_audit_key
from agent.audit.log import AuditLog, Place
from agent.audit.opening import Opening, open_log
from agent.audit.recorder import LogRecorder, NoMeter
from agent.core.protect_settings import AuditSettings
from agent.core.receipts import RECORD_BYTES, RING_BYTES, RingReader
from agent.supervise.receipts import BATCH, DRAIN_S


class EndedError(Exception):
    """Whoever asked has heard enough."""


def open_bench_log(folder: Path) -> AuditLog:
    """Open a new log as the daemon does."""
    key = load_audit_key(folder / "audit.key", may_make=True)
    place = Place("", "-", lambda: "-", time.time)  # noqa: TID251 - a benchmark
    return open_log(AuditSettings(), Opening(folder, "bench", key, None, place))


async def drain(descriptor: int, folder: Path) -> None:
    """Do what ``agent.supervise.receipts`` does, until standard input ends."""
    ring = RingReader(memoryview(mmap.mmap(descriptor, RING_BYTES)))
    opened = open_bench_log(folder)
    recorder = LogRecorder(opened, NoMeter())
    ring.allow(recorder.allowance("bench")[0])
    began_s = time.process_time()
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(_end())
            group.create_task(opened.run())
            print("ready", flush=True)
            await _drain(ring, recorder)
    except* EndedError:
        pass
    spent_s = time.process_time() - began_s
    told = {"records": ring.taken, "cpu_s": spent_s, "lost": opened.lost}
    print(json.dumps(told), flush=True)
    await opened.close()


async def _end() -> None:
    """End everything with standard input."""
    await asyncio.to_thread(sys.stdin.read)
    raise EndedError


async def _drain(ring: RingReader, recorder: LogRecorder) -> None:
    """Empty the ring, for ever."""
    while True:
        ready = ring.look()
        while ready > 0:
            batch = ring.copy(min(ready, BATCH))
            recorder.take("bench", memoryview(batch))
            count = len(batch) // RECORD_BYTES
            ring.take(count)
            ready -= count
            await asyncio.sleep(0)
        ring.allow(recorder.allowance("bench")[0])
        await asyncio.sleep(DRAIN_S)


if __name__ == "__main__":
    asyncio.run(drain(int(sys.argv[1]), Path(sys.argv[2])))
