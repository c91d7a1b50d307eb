"""What one pipeline has answered in this daemon's life, over all its workers.

The rules this module keeps:
 * A section is folded into the totals exactly once, when it is final: after a swap,
   or when its worker is dead. Until then it is added when someone looks.
 * Counters never fall, and a sample in flight in a dead worker counts as failed.
 * What is kept does not grow with updates: versions that answered long ago are summed
   up in one row, so that all rows together still say what the pipeline answered.
"""

import mmap
from dataclasses import dataclass, field, replace

from agent.core.counts import EMPTY, add_sections, close_section, final_block
from agent.core.reasons import Reason
from agent.core.snapshot import ModelCounts
from agent.core.statistics_block import (
    BLOCK_BYTES,
    OUTCOME_INDEX,
    SEQUENCE,
    Block,
    Section,
    parse_block,
)

# Twice what metrics show, and more than a store can roll back to.
KEPT_VERSIONS = 8
OLDER = 0  # stands for all versions before those; a manifest's are from 1 on
TRIES = 20  # a copy is torn once in some hundred reads of a 26 us loop


@dataclass(frozen=True, slots=True)
class Identity:
    """Whose answers a generation counts; ``stands_in`` as in ``Placed``."""

    model: str
    version: int
    labels: tuple[str, ...]
    stands_in: bool = False


class BlockReader:
    """Reads consistent copies of a block that a worker writes."""

    def __init__(self, descriptor: int) -> None:
        self._memory = mmap.mmap(descriptor, BLOCK_BYTES)
        self._words = memoryview(self._memory).cast("Q")
        self._last: Block | None = None

    def read(self) -> Block | None:
        """Return a consistent copy; the last good one if the writer is too busy."""
        words, memory = self._words, self._memory
        for _ in range(TRIES):
            # Both looks embrace the copy alone: parsing takes as long as a sample.
            before, copy, after = words[SEQUENCE], memory[:], words[SEQUENCE]
            block = parse_block(copy) if before == after else None
            if block is not None and block.sequence == before:
                self._last = block
                break
        return self._last

    def read_final(self) -> Block | None:
        """Return the block of a worker that is dead, or the last good copy of it."""
        block = parse_block(self._memory[:], writer_died=True)
        return final_block(block, self._last)

    def close(self) -> None:
        """Let the memory go."""
        self._words.release()
        self._memory.close()


@dataclass(slots=True)
class Totals:
    """Sums by model version, what answered last at the end.

    Attributes:
        names: Whose answers a generation counts, of those that are not folded.
        next_seq: Number of the next worker's first sample.
    """

    names: dict[int, Identity] = field(default_factory=dict)
    next_seq: int = 1
    _sums: dict[tuple[str, int], Section] = field(default_factory=dict)
    # The part of them that stand-ins answered, where there were any.
    _stood_in: dict[tuple[str, int], Section] = field(default_factory=dict)
    _labels: dict[tuple[str, int], tuple[str, ...]] = field(default_factory=dict)

    def fold(self, section: Section) -> None:
        """Add a section that is final; a second time is no time."""
        identity = self.names.pop(section.generation, None)
        if identity is None:
            return
        key = (identity.model, identity.version)
        self._sums[key] = add_sections(self._sums.pop(key, EMPTY), section)
        self._labels[key] = identity.labels
        _add_stand_in(self._stood_in, identity, section)
        self._join_older()

    def _join_older(self) -> None:
        """Sum up what answered before the newest versions; labels are as one.

        What still counts is none of it: its row would begin anew.
        """
        counting = {(it.model, it.version) for it in self.names.values()}
        known = [it for it in self._sums if it not in counting and it[1] != OLDER]
        for key in known[:-KEPT_VERSIONS]:
            older = (key[0], OLDER)
            section = self._sums.pop(key)
            del self._labels[key]
            self._stood_in.pop(key, None)
            words = (*(0,) * (len(section.labels) - 1), sum(section.labels))
            joined = add_sections(
                self._sums.pop(older, EMPTY), replace(section, labels=words)
            )
            self._sums = {older: joined, **self._sums}
            self._labels[older] = ()

    def fold_retired(self, block: Block) -> None:
        """After a swap: the section that no longer counts is final."""
        self.fold(block.sections[1 - block.active])
        answering = block.sections[block.active].generation
        for generation in [it for it in self.names if it < answering]:
            del self.names[generation]  # it was refused: no section will ever count it

    def fold_dead(self, block: Block, reason: Reason) -> None:
        """After a death: everything is final; what was in flight failed."""
        outcome = OUTCOME_INDEX.get(reason, OUTCOME_INDEX[Reason.CRASH])
        for section in block.sections:
            self.fold(close_section(section, outcome))
        self.names.clear()
        self.next_seq = max(self.next_seq, block.next_seq)

    def counts(self, live: Block | None) -> tuple[ModelCounts, ...]:
        """Return the sums, with what a living worker has counted so far."""
        sums, labels = dict(self._sums), dict(self._labels)
        stood_in = dict(self._stood_in)
        for section in live.sections if live else ():
            identity = self.names.get(section.generation)
            if identity is None:
                continue
            key = (identity.model, identity.version)
            sums[key] = add_sections(sums.get(key, EMPTY), section)
            labels[key] = identity.labels
            _add_stand_in(stood_in, identity, section)
        return tuple(
            ModelCounts(*key, labels[key], section, stood_in.get(key, EMPTY))
            for key, section in sums.items()
        )


def _add_stand_in(
    sums: dict[tuple[str, int], Section], identity: Identity, section: Section
) -> None:
    """Add a section to the stand-ins' sums, if one answered it."""
    if identity.stands_in:
        key = (identity.model, identity.version)
        sums[key] = add_sections(sums.get(key, EMPTY), section)
