"""The packed weights in a worker's memory, and flipping a bit of them, as root."""

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from agent.worker.integrity_memory import heap_blocks, mapping_blocks

# The demo's classifier: its largest weight tensor. A packed copy is a little longer.
LEAST, MOST = 256, 64 * 1024


def need_root() -> None:
    """Skip, and say so, where the memory of a process cannot be written."""
    if os.geteuid() != 0:
        pytest.skip("only root may write into the memory of a locked-in worker")


def flip_packed(pid: int, weights: bytes) -> None:
    """Flip a bit in the middle of the packed copy of some weights.

    Raises:
        LookupError: There is none.
    """
    wanted = np.bincount(np.frombuffer(weights, np.uint8), minlength=256)
    with Path(f"/proc/{pid}/mem").open("r+b", buffering=0) as memory:
        for address, content in sorted(_blocks(pid, memory.fileno()), key=_length):
            have = np.bincount(np.frombuffer(content, np.uint8), minlength=256)
            if len(content) >= len(weights) and (have >= wanted).all():
                place = len(content) // 2
                os.pwrite(memory.fileno(), bytes([content[place] ^ 4]), address + place)
                return
    raise LookupError("no packed copy was found")


def _length(block: tuple[int, bytes]) -> int:
    """Return how long a block is."""
    return len(block[1])


def _blocks(pid: int, memory: int) -> Iterator[tuple[int, bytes]]:
    """Yield (address, content) of what malloc has handed out in a process."""
    for line in Path(f"/proc/{pid}/maps").read_text(encoding="utf-8").splitlines():
        fields = line.split()
        if not fields[1].startswith("rw-p") or fields[4] != "0":
            continue
        first, last = (int(it, 16) for it in fields[0].split("-"))
        try:
            content = os.pread(memory, last - first, first)
        except OSError:
            continue
        for offset, size in mapping_blocks(content) or heap_blocks(content):
            if LEAST <= size <= MOST:
                yield first + offset, content[offset : offset + size]
