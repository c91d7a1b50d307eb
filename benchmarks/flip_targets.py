"""Where the weights of a running worker lie, seen from outside, and flipping a bit."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np

from agent.worker.engines.build import InterpreterEngine
from agent.worker.engines.constants import Constant, read_constants
from agent.worker.integrity_memory import (
    DISTINCT,
    SPARE,
    WIDEST,
    heap_blocks,
    mapped_file,
    mapping_blocks,
)
from agent.worker.model import LoadedModel

PAGE = 4096


@dataclass(frozen=True, slots=True)
class Weight:
    """One weight tensor: its name, and its bytes as the file has them at ``offset``."""

    name: str
    offset: int
    content: bytes


def weights_of(model: LoadedModel, descriptor: int, file: bytes) -> list[Weight]:
    """Return the weights of a model that is loaded in this process."""
    ranges = [(it.address, it.size) for it in mapped_file(descriptor)]
    constants = constants_of(model, descriptor)
    first = ranges[0][0]
    return [
        Weight(it.name, it.address - first, file[it.address - first :][: it.size])
        for it in constants
        if not it.flat
    ]


def constants_of(model: LoadedModel, descriptor: int) -> Sequence[Constant]:
    """Return the constants of a model that is loaded in this process."""
    ranges = [(it.address, it.size) for it in mapped_file(descriptor)]
    engine = cast("InterpreterEngine", model.engine)
    return read_constants(engine.interpreter, ranges)


class Memory:
    """The memory of another process (proc_pid_mem(5)); root may write it."""

    def __init__(self, pid: int) -> None:
        self._maps = Path(f"/proc/{pid}/maps")
        self._file = Path(f"/proc/{pid}/mem").open("r+b", buffering=0)  # noqa: SIM115 - closed by close()

    def close(self) -> None:
        """Let go."""
        self._file.close()

    def read(self, address: int, size: int) -> bytes:
        """Return what lies there."""
        self._file.seek(address)
        return self._file.read(size)

    def flip(self, address: int, bit: int) -> None:
        """Flip one bit of the byte there."""
        old = self.read(address, 1)[0]
        self._file.seek(address)
        self._file.write(bytes([old ^ 1 << bit]))

    def source(self, file: bytes) -> int | None:
        """Return where a private copy of a model's file lies, None before it does."""
        for first, last in self._writable():
            if last - first >= len(file) and self.read(first, len(file)) == file:
                return first
        return None

    def packed(self, weights: Sequence[Weight]) -> list[tuple[int, int]]:
        """Return (address, size) of the copies that kernels read, as far as found."""
        blocks = sorted((size, address) for address, size in self._blocks())
        found: dict[int, int] = {}
        for weight in sorted(weights, key=lambda it: -len(it.content)):
            size = len(weight.content)
            wanted = _histogram(weight.content)
            if np.count_nonzero(wanted) < DISTINCT:
                continue
            for have, address in blocks:
                if not size <= have <= WIDEST * size + SPARE or address in found:
                    continue
                if (_histogram(self.read(address, have)) >= wanted).all():
                    found[address] = have
                    break
        return list(found.items())

    def _blocks(self) -> Iterator[tuple[int, int]]:
        """Yield (address, size) of malloc's blocks."""
        for first, last in self._writable():
            try:
                content = self.read(first, last - first)
            except OSError:
                continue
            for offset, size in mapping_blocks(content) or heap_blocks(content):
                yield first + offset, size

    def _writable(self) -> Iterator[tuple[int, int]]:
        """Yield the private mappings that no file is behind."""
        for line in self._maps.read_text(encoding="utf-8").splitlines():
            fields = line.split()
            if fields[1].startswith("rw-p") and fields[4] == "0":
                first, last = (int(it, 16) for it in fields[0].split("-"))
                yield first, last


def draw(chance: random.Random, ranges: Sequence[tuple[int, int]]) -> tuple[int, int]:
    """Return a random (address, bit) within some memory, each bit as likely."""
    at = chance.randrange(sum(size for _, size in ranges))
    for address, size in ranges:
        if at < size:
            return address + at, chance.randrange(8)
        at -= size
    raise AssertionError("unreachable")


def _histogram(content: bytes) -> np.ndarray:
    """Return how often each byte occurs."""
    return np.bincount(np.frombuffer(content, np.uint8), minlength=256)
