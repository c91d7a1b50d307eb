"""Statistics block: a copy is believed only if it shows one moment."""

from array import array
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from agent.core.histogram import BUCKETS
from agent.core.statistics_block import (
    ACTIVE,
    BLOCK_BYTES,
    BLOCK_WORDS,
    BUSY_SINCE_NS,
    FIRST_LABEL,
    FIRST_OUTCOME,
    FIRST_STAGE,
    GENERATION,
    HEADER_WORDS,
    INPUT_WAITING,
    LAYOUT_VERSION,
    MAX_LABELS,
    NEXT_SEQ,
    OK,
    OUTCOME_INDEX,
    OUTCOMES,
    RECEIVED,
    SECTION_WORDS,
    SEQUENCE,
    STAGE_WORDS,
    STAGES,
    VERSION,
    Block,
    parse_block,
    section_start,
)

TOTAL = FIRST_STAGE + (len(STAGES) - 1) * STAGE_WORDS
outcomes = st.integers(min_value=0, max_value=len(OUTCOMES) - 1)
sections = st.integers(min_value=0, max_value=1)


class Writer:
    """Writes as the worker's loop does, one 8-byte store at a time, and keeps each."""

    def __init__(self) -> None:
        self.words = array("Q", bytes(BLOCK_BYTES))
        self.words[VERSION] = LAYOUT_VERSION
        self.stores: list[tuple[int, int]] = []

    def store(self, word: int, value: int) -> None:
        """Store one word."""
        self.words[word] = value
        self.stores.append((word, value))

    def add(self, word: int, by: int = 1) -> None:
        """Count a word up."""
        self.store(word, self.words[word] + by)

    def take(self, section: int) -> None:
        """Write that a sample was taken."""
        start = section_start(section)
        self.add(SEQUENCE)
        self.store(ACTIVE, section)
        self.store(BUSY_SINCE_NS, 1_000)
        self.add(start + RECEIVED)
        self.add(SEQUENCE)

    def end(self, section: int, outcome: int) -> None:
        """Write how the sample ended."""
        start = section_start(section)
        self.add(SEQUENCE)
        self.add(start + FIRST_OUTCOME + outcome)
        if outcome == OK:
            self.add(start + TOTAL, 12_345)
            self.add(start + TOTAL + 1 + 16)
            self.add(start + FIRST_LABEL)
        self.store(BUSY_SINCE_NS, 0)
        self.add(NEXT_SEQ)
        self.add(SEQUENCE)

    def answer(self, section: int, outcome: int) -> None:
        """Write a whole sample."""
        self.take(section)
        self.end(section, outcome)


def parsed(writer: Writer) -> Block:
    """Parse what the writer has written; it has to be believed."""
    block = parse_block(bytes(writer.words))
    assert block is not None
    return block


def agrees(block: Block) -> bool:
    """Say whether the sums of a block hold: nothing lost, nothing counted twice."""
    return all(
        section.in_flight in {0, 1}
        and sum(section.stages[-1].buckets) == section.outcomes[OK]
        for section in block.sections
    )


@given(st.lists(st.tuples(sections, outcomes), max_size=30))
def test_every_sample_is_found_again(samples: list[tuple[int, int]]) -> None:
    """Received and outcomes are what was written, each in its section."""
    writer = Writer()
    for section, outcome in samples:
        writer.answer(section, outcome)
    block = parsed(writer)
    for index, read in enumerate(block.sections):
        ended = [outcome for where, outcome in samples if where == index]
        assert read.received == len(ended)
        assert read.in_flight == 0
        assert read.outcomes == tuple(map(ended.count, range(len(OUTCOMES))))
    assert block.next_seq == len(samples)


def test_a_sample_in_flight_is_seen() -> None:
    """Between taking and ending, exactly one sample is in flight."""
    writer = Writer()
    writer.answer(0, OK)
    writer.take(0)
    block = parsed(writer)
    assert (block.sections[0].received, block.sections[0].in_flight) == (2, 1)
    assert block.busy_since_ns == 1_000


@given(st.lists(st.tuples(sections, outcomes), min_size=1, max_size=8), st.data())
def test_a_copy_between_two_stores_is_refused_or_consistent(
    samples: list[tuple[int, int]], data: st.DataObject
) -> None:
    """Whatever prefix of the stores a copy shows, it is None or its sums agree."""
    writer = Writer()
    for section, outcome in samples:
        writer.answer(section, outcome)
    shown = data.draw(st.integers(min_value=0, max_value=len(writer.stores)))
    words = array("Q", bytes(BLOCK_BYTES))
    words[VERSION] = LAYOUT_VERSION
    for word, value in writer.stores[:shown]:
        words[word] = value
    block = parse_block(bytes(words))
    assert block is None or agrees(block)
    assert (block is None) == bool(words[SEQUENCE] % 2)


@given(
    st.lists(st.tuples(sections, outcomes), min_size=1, max_size=6),
    st.randoms(use_true_random=False),
)
def test_a_torn_copy_is_refused_or_consistent(
    samples: list[tuple[int, int]], chance: Random
) -> None:
    """Stores that arrive in any order, each or not, give None or sums that agree."""
    writer = Writer()
    for section, outcome in samples[:-1]:
        writer.answer(section, outcome)
    words = array("Q", writer.words)
    before = len(writer.stores)
    writer.answer(*samples[-1])
    late = writer.stores[before:]
    chance.shuffle(late)
    for word, value in late[: chance.randrange(len(late) + 1)]:
        words[word] = value
    block = parse_block(bytes(words))
    assert block is None or agrees(block)


@given(st.binary(max_size=64))
def test_a_copy_of_another_length_is_refused(copy: bytes) -> None:
    """Only whole blocks are read."""
    assert parse_block(copy) is None


@given(st.integers(min_value=0, max_value=2**64 - 1))
def test_another_layout_is_refused(version: int) -> None:
    """A block of another layout version is not guessed at."""
    writer = Writer()
    writer.words[VERSION] = version
    assert (parse_block(bytes(writer.words)) is None) == (version != LAYOUT_VERSION)


@given(st.randoms(use_true_random=True), st.booleans())
def test_any_bytes_are_refused_or_consistent(chance: Random, dead: object) -> None:
    """A worker gone mad cannot make the reader fail."""
    words = array("Q", chance.randbytes(BLOCK_BYTES))
    words[VERSION], words[ACTIVE] = LAYOUT_VERSION, words[ACTIVE] % 3
    block = parse_block(words.tobytes(), writer_died=bool(dead))
    assert block is None or bool(dead) or agrees(block)


def test_an_impossible_section_is_refused() -> None:
    """There are two sections; a third one is not looked for beyond the block."""
    writer = Writer()
    writer.words[ACTIVE] = 2
    assert parse_block(bytes(writer.words)) is None


def test_a_dead_writer_leaves_its_last_sample_in_flight() -> None:
    """A worker killed between two increments is read all the same, once it is dead."""
    writer = Writer()
    writer.take(0)
    writer.words[SEQUENCE] += 1
    assert parse_block(bytes(writer.words)) is None
    block = parse_block(bytes(writer.words), writer_died=True)
    assert block is not None
    assert block.sections[0].in_flight == 1


def test_words_do_not_overlap() -> None:
    """Header and sections fill the block without gap or overlap."""
    assert section_start(0) == HEADER_WORDS
    assert section_start(1) == HEADER_WORDS + SECTION_WORDS
    assert section_start(1) + SECTION_WORDS == BLOCK_WORDS
    assert (GENERATION, RECEIVED, FIRST_OUTCOME) == (0, 1, 2)
    assert FIRST_OUTCOME + len(OUTCOMES) == FIRST_STAGE
    assert FIRST_STAGE + len(STAGES) * (1 + BUCKETS) == FIRST_LABEL
    assert SECTION_WORDS == FIRST_LABEL + MAX_LABELS + 1
    assert len({VERSION, SEQUENCE, ACTIVE, BUSY_SINCE_NS, INPUT_WAITING}) == 5


def test_each_reason_has_one_outcome() -> None:
    """A reason tells its outcome: no two outcomes share one."""
    assert len(OUTCOME_INDEX) == len(OUTCOMES)
    assert {outcome for outcome, _ in OUTCOMES} == {"ok", "failed", "dropped"}
