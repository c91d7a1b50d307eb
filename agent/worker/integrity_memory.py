"""Where a loaded model lies in this process's memory: its file, and packed copies.

The file is one mapping of the model's memfd. XNNPACK computes from copies of its own:
each weight tensor, reordered for the kernels, in one block of malloc's. No interface
tells where. But a block of the right size that came into being while the interpreter
was built, and holds every byte of a tensor as often as that tensor does, is its copy:
the smallest such block is taken. It is read where it lies, so what is found here is
what the kernels read.

The rules this module keeps:
 * Addresses that others may unmap at any time are read through write(2), which answers
   EFAULT where reading ends a process.
 * What is not sure is left out, and counted as not covered: a block that is no copy
   would change some day, and be taken for damage.
 * Blocks are found by glibc's headers (malloc/malloc.c: size and flags before each
   chunk); where those are not found, nothing packed is covered.
"""

import ctypes
import mmap
import os
import sys
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from agent.worker.engines.constants import Constant

PAGE = mmap.PAGESIZE
HEADER = 16  # of a chunk: the size before it and its own, 8 bytes each
FLAGS = 7  # of a size: PREV_INUSE, IS_MMAPPED, NON_MAIN_ARENA
MMAPPED, IN_USE = 2, 1
PIECE = 64 * 1024
UNNAMED = 5  # fields of a mapping that is no file's
MOST = 256 * 1024 * 1024  # of one mapping; the scratch costs what is copied
ARENA_ALIGNMENT = 64 * 1024 * 1024  # HEAP_MAX_SIZE of malloc/arena.c
FIRST_CHUNK = 8192  # a heap's own structures are shorter
SHORTEST = 256  # of a block that may be a copy: one tile of 16 channels is longer
# A packed copy is padded to tiles of some 16 channels of 8 inputs each, and holds a
# bias and a scale of 4 bytes beside each: 8.2 times the tensor for a first layer of
# one channel, 1.01 to 1.1 times for large ones (measured on the MLPerf-Tiny models).
WIDEST, SPARE = 8, 1024
# A tensor of few different bytes, all zeros say, is found wherever those bytes are.
DISTINCT = 32
DAMAGED = 0.05  # of a copy's bytes: beyond that it is taken for something else by now


@dataclass(frozen=True, slots=True)
class Block:
    """A piece of memory; ``what`` lies there, for people."""

    address: int
    size: int
    what: str = ""


class Peek:
    """Copies memory that may be gone meanwhile; ``size`` bytes at a time."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._scratch = os.memfd_create("peek", os.MFD_CLOEXEC)
        os.ftruncate(self._scratch, size)
        self._memory = mmap.mmap(self._scratch, size, mmap.MAP_SHARED, mmap.PROT_READ)
        self._pwrite = ctypes.CDLL(None, use_errno=True).pwrite
        self._pwrite.restype = ctypes.c_ssize_t
        self._pwrite.argtypes = (
            *(ctypes.c_int, ctypes.c_void_p),
            *(ctypes.c_size_t, ctypes.c_long),
        )

    def copy(self, address: int, size: int) -> memoryview:
        """Return what lies there, until the next copy; shorter where nothing is."""
        taken = self._pwrite(self._scratch, address, min(size, self.size), 0)
        return memoryview(self._memory)[: max(0, taken)]

    def __del__(self) -> None:
        """Take no more copies; the last one goes with whoever looks at it."""
        os.close(self._scratch)


def mapped_file(descriptor: int) -> list[Block]:
    """Return the mappings of a descriptor's file in this process (proc_pid_maps(5))."""
    inode = os.fstat(descriptor).st_ino
    found: list[Block] = []
    for first, last, fields in _mappings():
        if fields[4] == str(inode) and "memfd:" in fields[-1]:
            found.append(Block(first, last - first, fields[2]))
    return found


class Blocks:
    """The blocks that malloc has handed out to a thread, as of one moment.

    Those of 128 KB and more are mappings of their own; the others come from the
    thread's arena.

    Args:
        heap: An address in the thread's heap; of the thread that asks, if left out.

    Attributes:
        sums: (address, size) of each of a size that matters -> a checksum of it.
        heap: See above.
    """

    def __init__(self, heap: int = 0) -> None:
        self.sums: dict[tuple[int, int], int] = {}
        own = self.heap = heap or _own_heap()
        peek = Peek(MOST)
        for first, last, fields in _mappings():
            if not fields[1].startswith("rw"):
                continue
            if first <= own < last:
                self._look_at_heap(peek, first, last)
            elif len(fields) == UNNAMED:
                self._look_at_mapping(peek, first, last)

    def _look_at_heap(self, peek: Peek, first: int, last: int) -> None:
        """Note the blocks of the heap that this thread's malloc takes from."""
        size = last - first
        if first % ARENA_ALIGNMENT == 0:
            # heap_info.size, its third word: how much of a heap is in use.
            size = int.from_bytes(peek.copy(first, 32)[16:24], sys.byteorder)
        content = peek.copy(first, size)
        self._note(first, content, heap_blocks(content))

    def _look_at_mapping(self, peek: Peek, first: int, last: int) -> None:
        """Note the blocks that are mappings of their own, if these are such."""
        word = int.from_bytes(peek.copy(first, HEADER)[8:], sys.byteorder)
        if word & FLAGS == MMAPPED and not word & ~FLAGS & (PAGE - 1):
            content = peek.copy(first, last - first)
            self._note(first, content, mapping_blocks(content))

    def _note(
        self, first: int, content: memoryview, blocks: Sequence[tuple[int, int]]
    ) -> None:
        """Note blocks by their places in a copy of the memory at ``first``."""
        for offset, size in blocks:
            piece = content[offset : offset + size]
            self.sums[first + offset, size] = zlib.crc32(piece)


@dataclass(frozen=True, slots=True)
class Copy:
    """A packed copy of a weight tensor."""

    block: Block
    constant: Constant

    def is_one(self) -> bool:
        """Whether it still is a copy, damaged as it may be.

        A block that somebody else uses by now shares no more with the weights than
        chance has it; a few bits that flipped leave all other bytes as they were.
        """
        wanted = _histogram(self.constant.address, self.constant.size)
        have = _histogram(self.block.address, self.block.size)
        missing = int(np.maximum(wanted - have, 0).sum())
        return missing <= DAMAGED * self.constant.size


def packed_copies(
    constants: Sequence[Constant], before: Blocks, after: Blocks
) -> list[Copy]:
    """Return the packed copies of a model's weights that were made between two looks.

    The largest tensors come first: of those whose bytes are among another's, too.

    Args:
        constants: The weights, as the file holds them.
        before: What there was before the interpreter was built; ``after`` afterwards.
        after: See above.
    """
    new = sorted(
        (size, address)
        for (address, size), checksum in after.sums.items()
        if before.sums.get((address, size)) != checksum
    )
    found: dict[int, Copy] = {}
    counted: dict[int, NDArray[np.int64]] = {}
    for constant in sorted(constants, key=lambda it: -it.size):
        wanted = _histogram(constant.address, constant.size)
        if constant.flat or np.count_nonzero(wanted) < DISTINCT:
            continue
        for size, address in new:
            if not constant.size <= size <= WIDEST * constant.size + SPARE:
                continue
            if address not in counted:
                counted[address] = _histogram(address, size)
            if address not in found and bool((counted[address] >= wanted).all()):
                block = Block(address, size, constant.name[-200:])
                found[address] = Copy(block, constant)
                break
    return list(found.values())


def view(block: Block) -> memoryview:
    """Return a block's bytes where they lie; whoever holds it keeps the model alive."""
    return memoryview((ctypes.c_char * block.size).from_address(block.address))


def _histogram(address: int, size: int) -> NDArray[np.int64]:
    """Return how often each byte occurs: what no reordering changes.

    In pieces: counting takes eight times their size, for a moment. What is not there
    any more has fewer bytes than it should.
    """
    counts = np.zeros(256, np.int64)
    peek = Peek(min(size, PIECE))
    for place in range(0, size, PIECE):
        piece = peek.copy(address + place, min(PIECE, size - place))
        counts += np.bincount(np.frombuffer(piece, np.uint8), minlength=256)
    return counts


def _mappings() -> Iterator[tuple[int, int, list[str]]]:
    """Yield (first, behind the last, fields) of each mapping (proc_pid_maps(5))."""
    for line in Path("/proc/self/maps").read_text(encoding="utf-8").splitlines():
        fields = line.split(maxsplit=5)
        first, _, last = fields[0].partition("-")
        yield int(first, 16), int(last, 16), fields


def _own_heap() -> int:
    """Return an address in the heap that this thread's malloc takes from."""
    libc = ctypes.CDLL(None)
    libc.malloc.restype = ctypes.c_void_p
    libc.free.argtypes = (ctypes.c_void_p,)
    taken = libc.malloc(ctypes.c_size_t(SHORTEST))
    libc.free(taken)
    return int(taken or 0)


def _words(content: bytes | memoryview) -> NDArray[np.uint64]:
    """Return memory as words of 8 bytes."""
    return np.frombuffer(content[: len(content) // HEADER * HEADER], np.uint64)


def heap_blocks(content: bytes | memoryview) -> list[tuple[int, int]]:
    """Return (offset, size) of the blocks in a heap; none where it is no glibc heap."""
    words = _words(content)
    end = 8 * len(words)
    for offset in range(0, min(FIRST_CHUNK, end), HEADER):
        if (found := _chain(words, offset, end)) is not None:
            return found
    return []


def _chain(
    words: NDArray[np.uint64], offset: int, end: int
) -> list[tuple[int, int]] | None:
    """Follow chunk after chunk; return those in use if the last one ends at ``end``.

    Each chunk but the last is followed by one whose flag says whether it is in use;
    the last one is what has never been handed out.
    """
    found: list[tuple[int, int]] = []
    size_before = 0
    while offset < end:
        word = int(words[offset // 8 + 1])
        size = word & ~FLAGS
        if size < 2 * HEADER or size % HEADER or offset + size > end:
            return None
        if size_before - 8 >= SHORTEST and word & IN_USE:
            found.append((offset - size_before + HEADER, size_before - 8))
        size_before = size
        offset += size
    return found


def mapping_blocks(content: bytes | memoryview) -> list[tuple[int, int]]:
    """Return (offset, size) of the blocks that are mappings of their own, in a row."""
    words = _words(content)
    found: list[tuple[int, int]] = []
    offset, end = 0, 8 * len(words)
    while offset < end:
        word = int(words[offset // 8 + 1])
        size = word & ~FLAGS
        if word & FLAGS != MMAPPED or not size or size % PAGE or offset + size > end:
            break
        found.append((offset + HEADER, size - HEADER))
        offset += size
    return found
