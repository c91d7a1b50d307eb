"""The writing end of the statistics block (layout: ``agent.core.statistics_block``).

The rules this module keeps:
 * One thread writes: the loop's.
 * Everything that ends a sample is stored between two increments of the sequence.
"""

from agent.core.statistics_block import (
    ACTIVE,
    BLOCK_BYTES,
    BUSY_SINCE_NS,
    FIRST_OUTCOME,
    GENERATION,
    INPUT_WAITING,
    LAG_NS,
    LAYOUT_VERSION,
    NEXT_SEQ,
    RECEIVED,
    SECTION_WORDS,
    SEQUENCE,
    TURN_NS,
    VERSION,
    section_start,
)

_EMPTY = memoryview(bytes(SECTION_WORDS * 8)).cast("Q")


class StatisticsWriter:
    """The block's words, and the stores that are not on the sample path.

    Attributes:
        words: The block as native 8-byte words, for the turn that writes them.
        start: First word of the section that counts now.
    """

    def __init__(self, block: memoryview, first_seq: int) -> None:
        self.words = block[:BLOCK_BYTES].cast("Q")
        self.start = section_start(0)
        self.words[NEXT_SEQ] = first_seq
        self.words[VERSION] = LAYOUT_VERSION

    def enter(self, section: int, generation: int) -> None:
        """Clear a section and count into it from now on."""
        words = self.words
        start = section_start(section)
        words[SEQUENCE] += 1
        words[start : start + SECTION_WORDS] = _EMPTY
        words[start + GENERATION] = generation
        words[ACTIVE] = section
        words[SEQUENCE] += 1
        self.start = start

    def idle(self, now_ns: int) -> None:
        """Say that the loop lives and has nothing to do."""
        self.words[TURN_NS] = now_ns
        self.words[INPUT_WAITING] = 0

    def waiting(self, lag_ns: int) -> None:
        """Say that input was there, and for how long before it was taken."""
        self.words[INPUT_WAITING] = 1
        self.words[LAG_NS] = max(0, lag_ns)

    def count(self, outcome: int, number: int = 1) -> None:
        """Count samples that were received and ended in one step."""
        words = self.words
        words[SEQUENCE] += 1
        words[NEXT_SEQ] += number
        words[self.start + RECEIVED] += number
        words[self.start + FIRST_OUTCOME + outcome] += number
        words[SEQUENCE] += 1

    def end(self, start: int, outcome: int) -> None:
        """End the sample in flight of the section at ``start`` without an answer."""
        words = self.words
        words[SEQUENCE] += 1
        words[start + FIRST_OUTCOME + outcome] += 1
        words[BUSY_SINCE_NS] = 0
        words[SEQUENCE] += 1
