"""The statistics block: the shared memory that one worker writes and the daemon reads.

A block is ``BLOCK_BYTES`` of native unsigned 8-byte words: a header and two sections.
The worker counts into the section of the model that answers; a swap clears the other
section and moves there, so that no count is ever attributed to the wrong version.

The rules this module keeps:
 * The writer makes ``SEQUENCE`` odd, stores, makes it even. Python stores carry no
   barrier and Arm reorders them, so ``parse_block`` believes a copy only if the
   sequence is even *and* the sums agree; the caller also compares the sequence.
 * ``received`` rises when a sample is taken, an outcome when it ends: their
   difference is ``in_flight``, 0 or 1, also in the block of a killed worker.
 * Words are unsigned: a word for "none" is 0. None gets near ``LIMIT`` in a board's
   life: a copy with such a word was written by a worker gone mad.
"""

from dataclasses import dataclass

from agent.core.histogram import BUCKETS
from agent.core.reasons import Reason

LAYOUT_VERSION = 2
WORD = 8
LIMIT = 2**62  # 146 years in ns; sums of a few such still fit a word

# Header words
VERSION, SEQUENCE, ACTIVE, BUSY_SINCE_NS, INPUT_WAITING, TURN_NS = range(6)
GAP_NS, LAG_NS, NEXT_SEQ = 6, 7, 8
SINK_DROPPED = 9
MAX_SINKS = 8
HEADER_WORDS = SINK_DROPPED + MAX_SINKS

STAGES = ("preprocess", "infer", "postprocess", "total")
OUTCOMES: tuple[tuple[str, Reason], ...] = (
    ("ok", Reason.NONE),
    ("failed", Reason.INPUT),
    ("failed", Reason.INVOKE),
    ("failed", Reason.OUTPUT),
    ("failed", Reason.CRASH),
    ("failed", Reason.HANG),
    ("dropped", Reason.OVERRUN),
    ("dropped", Reason.PARTIAL),
    ("dropped", Reason.WARMING),
    ("dropped", Reason.STOPPING),
    ("dropped", Reason.SHED),
    ("dropped", Reason.ABSTAINED),
)
OK = 0
OUTCOME_INDEX = {reason: index for index, (_, reason) in enumerate(OUTCOMES)}
MAX_LABELS = 64  # one more word counts all other labels

# Section words, relative to the section's start
GENERATION, RECEIVED, FIRST_OUTCOME = 0, 1, 2
FIRST_STAGE = FIRST_OUTCOME + len(OUTCOMES)
STAGE_WORDS = 1 + BUCKETS  # sum of ns, then the buckets
FIRST_LABEL = FIRST_STAGE + len(STAGES) * STAGE_WORDS
SECTION_WORDS = FIRST_LABEL + MAX_LABELS + 1
BLOCK_WORDS = HEADER_WORDS + 2 * SECTION_WORDS
BLOCK_BYTES = BLOCK_WORDS * WORD


@dataclass(frozen=True, slots=True)
class StageCounts:
    """Durations of one stage: their sum in ns and their fine histogram."""

    sum_ns: int
    buckets: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Section:
    """What one loaded model answered.

    Attributes:
        generation: Which load of the daemon this is; 0 means none yet.
        received: Samples taken; ``outcomes`` how they ended, as in ``OUTCOMES``.
        stages: Durations by stage, as in ``STAGES``; ``total`` counts ok samples only.
        labels: Top-1 answers by label, at most 64, then all others.
    """

    generation: int
    received: int
    outcomes: tuple[int, ...]
    stages: tuple[StageCounts, ...]
    labels: tuple[int, ...]

    @property
    def in_flight(self) -> int:
        """Samples taken and not ended: 0 or 1."""
        return self.received - sum(self.outcomes)


@dataclass(frozen=True, slots=True)
class Block:
    """One consistent copy of a statistics block; times are CLOCK_MONOTONIC ns."""

    sequence: int
    active: int
    busy_since_ns: int
    input_waiting: bool
    turn_ns: int
    gap_ns: int
    lag_ns: int
    next_seq: int
    sink_dropped: tuple[int, ...]
    sections: tuple[Section, Section]


def section_start(index: int) -> int:
    """Return the first word of section 0 or 1."""
    return HEADER_WORDS + index * SECTION_WORDS


def parse_block(copy: bytes, *, writer_died: bool = False) -> Block | None:
    """Return the block in ``copy``, or None if it is torn or of another layout.

    With ``writer_died`` nobody writes any more: an odd sequence then only means that
    the last sample did not end, and counts as in flight; ``agent.core.counts`` says
    what else is asked of such a block.
    """
    if len(copy) != BLOCK_BYTES:
        return None
    words = memoryview(copy).cast("Q").tolist()
    if words[VERSION] != LAYOUT_VERSION or words[ACTIVE] > 1:
        return None
    if max(words) >= LIMIT or (words[SEQUENCE] % 2 and not writer_died):
        return None
    sections = (_section(words, 0), _section(words, 1))
    if not writer_died and not all(_sums_agree(section) for section in sections):
        return None
    return Block(
        sequence=words[SEQUENCE],
        active=words[ACTIVE],
        busy_since_ns=words[BUSY_SINCE_NS],
        input_waiting=bool(words[INPUT_WAITING]),
        turn_ns=words[TURN_NS],
        gap_ns=words[GAP_NS],
        lag_ns=words[LAG_NS],
        next_seq=words[NEXT_SEQ],
        sink_dropped=tuple(words[SINK_DROPPED : SINK_DROPPED + MAX_SINKS]),
        sections=sections,
    )


def _section(words: list[int], index: int) -> Section:
    """Cut one section out of the words."""
    start = section_start(index)
    cut = words[start : start + SECTION_WORDS]
    return Section(
        generation=cut[GENERATION],
        received=cut[RECEIVED],
        outcomes=tuple(cut[FIRST_OUTCOME:FIRST_STAGE]),
        stages=tuple(
            StageCounts(cut[first], tuple(cut[first + 1 : first + STAGE_WORDS]))
            for first in range(FIRST_STAGE, FIRST_LABEL, STAGE_WORDS)
        ),
        labels=tuple(cut[FIRST_LABEL:]),
    )


def _sums_agree(section: Section) -> bool:
    """A copy that mixes two moments breaks one of these sums."""
    total = sum(section.stages[-1].buckets)
    return section.in_flight in (0, 1) and total == section.outcomes[OK]
