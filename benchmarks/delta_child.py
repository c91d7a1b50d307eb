"""The child of ``delta``: applies one as the daemon does, and says what that took.

``python -m benchmarks.delta_child OLD PATCH NEW LENGTH SHA256``; the old bytes are
hashed by reading and then mapped, as the store does it.
"""

import asyncio
import hashlib
import json
import os
import sys
import time
from collections.abc import Callable
from io import FileIO
from pathlib import Path

from agent.store.staging import map_file
from agent.update.delta_apply import apply_delta
from agent.update.threads import in_thread

TICK_S = 0.001


def main(old: Path, patch: Path, new: Path, length: int, sha256: str) -> None:
    """Apply, and print peak memory over base, seconds, and the longest stall."""
    base, frame = _mapped(old), _mapped(patch)
    before = _memory("VmRSS")
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # forget the peak
    with new.open("wb", buffering=0) as out:

        def apply() -> None:
            apply_delta(base, frame, lambda piece: _write(out, piece), length, sha256)

        began = time.perf_counter()
        stall_s = asyncio.run(_watched(apply))
        seconds = time.perf_counter() - began
    peak = _memory("VmHWM") - before
    said = {"peak_bytes": peak, "seconds": seconds, "stall_s": stall_s}
    sys.stdout.write(json.dumps(said))


async def _watched(call: Callable[[], None]) -> float:
    """Make a call in a thread; return by how much the loop was late at worst."""
    worst = 0.0
    async with asyncio.TaskGroup() as group:
        task = group.create_task(in_thread(call))
        while not task.done():
            began = time.perf_counter()
            await asyncio.sleep(TICK_S)
            worst = max(worst, time.perf_counter() - began - TICK_S)
    return worst


def _write(out: FileIO, piece: memoryview) -> None:
    """Write a piece."""
    out.write(piece)


def _mapped(path: Path) -> memoryview:
    """Return a file's bytes as the store gives them."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            hashlib.file_digest(file, "sha256")
        return map_file(descriptor, os.fstat(descriptor).st_size)
    finally:
        os.close(descriptor)


def _memory(field: str) -> int:
    """Return a field of /proc/self/status in bytes."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise LookupError(field)


if __name__ == "__main__":
    places = [Path(place) for place in sys.argv[1:4]]
    main(places[0], places[1], places[2], int(sys.argv[4]), sys.argv[5])
