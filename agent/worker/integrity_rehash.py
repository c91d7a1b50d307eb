"""Hashing a model's memory bit by bit, for as long as it answers.

What was verified when the model was loaded is noted in slices; each is hashed again
where it lies, at the addresses from which the interpreter and its kernels read: a page
that differs is found, whoever else still sees the right bytes in the same file.

The rules this module keeps:
 * The file's slices are believed only if together they have the verified digest.
 * A slice's bytes are copied and hashed without the GIL, 64 KB at a time: the loop
   waits for none of it.
"""

import hashlib
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from agent.core.integrity import Check, Evidence
from agent.worker.integrity_memory import Block, Copy, Peek

# 40 us with SHA instructions, 200 without: the share of a thread is what
# ``rehash_mbps`` makes it, and so short a turn delays nobody.
SLICE_BYTES = 64 * 1024
SHOWN = 16  # digits of a digest that evidence shows


@dataclass(frozen=True, slots=True)
class Slice:
    """A piece of memory that must not change.

    Attributes:
        place: Its offset in the file, or in the packed copy.
        digest: SHA-256 of what was verified.
        copy: The packed copy that it is a part of.
    """

    check: Check
    block: Block
    place: int
    digest: bytes
    copy: Copy | None = None

    def look(self, peek: Peek) -> Evidence | None:
        """Hash it again; return what differs, if anything does."""
        found = digest(peek, self.block)
        if found == self.digest:
            return None
        return Evidence(
            self.check,
            self.place,
            self.block.what,
            self.digest.hex()[:SHOWN],
            found.hex()[:SHOWN],
        )


class Rehash:
    """The slices of one loaded model.

    Args:
        source: Where its file is mapped; ``size`` bytes of it are the model.
        size: See above.
        sha256: The verified digest.
        packed: The copies that kernels read.

    Attributes:
        slices: What is hashed, in the order of a pass; read through ``peek``.
        wrong: What differed from the verified bytes at once, if anything did.
        bytes: Check -> bytes that a pass covers.
    """

    def __init__(
        self, source: Sequence[Block], size: int, sha256: str, packed: Sequence[Copy]
    ) -> None:
        self.wrong: Evidence | None = None
        self.peek = Peek(SLICE_BYTES)
        self.slices: list[Slice] = []
        whole = [
            it for it in source if int(it.what or "0", 16) == 0 and it.size >= size
        ]
        for mapping in whole[:1]:
            file = Block(mapping.address, size, "the file")
            self.slices += self._slices("source", file)
            found = self._digest_all()
            if found != sha256:
                self.wrong = Evidence(
                    "source", 0, "the file", sha256[:SHOWN], found[:SHOWN]
                )
        for copy in packed:
            self.slices += self._slices("packed", copy.block, copy)
        self.bytes = self._covered()

    def leave_out(self, copies: Collection[Copy]) -> None:
        """Look no more at what is no copy of any weights."""
        self.slices = [it for it in self.slices if it.copy not in copies]
        self.bytes = self._covered()

    def _covered(self) -> dict[Check, int]:
        """Return how many bytes each check covers."""
        covered: dict[Check, int] = {}
        for it in self.slices:
            covered[it.check] = covered.get(it.check, 0) + it.block.size
        return covered

    def _digest_all(self) -> str:
        """Return the SHA-256 of all slices, one after the other."""
        whole = hashlib.sha256()
        for it in self.slices:
            whole.update(self.peek.copy(it.block.address, it.block.size))
        return whole.hexdigest()

    def _slices(
        self, check: Check, block: Block, copy: Copy | None = None
    ) -> Iterator[Slice]:
        """Cut memory into slices and note what they hold now."""
        for place in range(0, block.size, SLICE_BYTES):
            size = min(SLICE_BYTES, block.size - place)
            piece = Block(block.address + place, size, block.what)
            yield Slice(check, piece, place, digest(self.peek, piece), copy)


def digest(peek: Peek, block: Block) -> bytes:
    """Return the SHA-256 of a piece of memory, through the cache that kernels use.

    It is copied first (64 KB: 5 us): what is not mapped any more is a difference then,
    where reading it in place would end the process.
    """
    return hashlib.sha256(peek.copy(block.address, block.size)).digest()
