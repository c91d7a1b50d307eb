"""Totals of a pipeline: each section is folded once, and counters never fall."""

import mmap
import os

from hypothesis import given, settings
from hypothesis import strategies as st

from agent.core.reasons import Reason
from agent.core.statistics_block import (
    ACTIVE,
    BLOCK_BYTES,
    BLOCK_WORDS,
    FIRST_OUTCOME,
    GENERATION,
    NEXT_SEQ,
    OUTCOME_INDEX,
    RECEIVED,
    SEQUENCE,
    SINK_DROPPED,
    VERSION,
    section_start,
)
from agent.supervise.memfd import shared_memory
from agent.supervise.totals import (
    KEPT_VERSIONS,
    OLDER,
    BlockReader,
    Identity,
    Totals,
)
from agent.worker.statistics import StatisticsWriter
from tests.fakes.worker_parts import Board

INPUT = OUTCOME_INDEX[Reason.INPUT]
WARMING = OUTCOME_INDEX[Reason.WARMING]
actions = st.lists(
    st.sampled_from(["count", "swap", "fold", "die_idle", "die_busy", "look"]),
    max_size=40,
)


class Life:
    """Workers that count, swap and die, and the daemon's sums of them."""

    def __init__(self, versions: int = 2) -> None:
        self.versions = versions
        self.totals = Totals()
        self.generation = 0
        self.counted = 0
        self.crashed = 0
        self.seen = 0
        self.folded = True
        self.begin()

    def begin(self) -> None:
        """Start a worker with its first model."""
        self.board = Board()
        self.section = 1
        self.swap()

    def swap(self) -> None:
        """Let the next model count."""
        if not self.folded:
            self.totals.fold_retired(self.board.block())
        self.generation += 1
        version = 1 + self.generation % self.versions
        self.totals.names[self.generation] = Identity("digits", version, ())
        self.section = 1 - self.section
        self.board.writer.enter(self.section, self.generation)
        self.folded = False

    def die(self, *, busy: bool) -> None:
        """End the worker, perhaps within a sample, and start another."""
        if busy:
            words = self.board.writer.words
            words[section_start(self.section) + RECEIVED] += 1
            self.crashed += 1
        self.totals.fold_dead(self.board.block(), Reason.CRASH)
        self.folded = True
        self.begin()

    def perform(self, action: str) -> None:
        """Do one thing."""
        match action:
            case "count":
                self.board.writer.count(INPUT)
                self.counted += 1
            case "swap":
                self.swap()
            case "fold":
                self.totals.fold_retired(self.board.block())
                self.folded = True
            case "die_idle" | "die_busy":
                self.die(busy=action == "die_busy")
            case _:
                assert action == "look"

    def check(self) -> None:
        """Sums are exact at every moment, whoever has folded what."""
        live = self.totals.counts(self.board.block())
        received = sum(counts.section.received for counts in live)
        crash = sum(c.section.outcomes[OUTCOME_INDEX[Reason.CRASH]] for c in live)
        assert received == self.counted + self.crashed >= self.seen
        assert crash == self.crashed
        self.seen = received


@settings(max_examples=500)  # a fault here needs a certain order of three actions
@given(actions)
def test_sums_are_exact_whatever_happens(script: list[str]) -> None:
    """Counting, swapping, folding twice and dying: nothing is lost or counted twice."""
    life = Life()
    for action in script:
        life.perform(action)
        life.check()


@settings(max_examples=200)
@given(
    st.lists(st.sampled_from(["count", "swap", "fold", "die_busy"]), max_size=80),
    st.integers(1, 40),
)
def test_law_old_versions_are_one_row_and_nothing_is_lost(
    script: list[str], versions: int
) -> None:
    """A daemon may live through hundreds of updates: sums are exact, rows are few."""
    life = Life(versions)
    for action in script:
        life.perform(action)
        life.check()
        rows = life.totals.counts(life.board.block())
        keys = [(row.model, row.version) for row in rows]
        assert len(keys) == len(set(keys)) <= KEPT_VERSIONS + 3  # older, two that count
        assert OLDER not in {row.version for row in rows[1:]}


def test_hundreds_of_versions_are_few_rows() -> None:
    """The newest stand by themselves, those before them as one without labels."""
    life = Life(1_000)
    for _ in range(100):
        life.perform("count")
        life.perform("fold")
        life.perform("swap")
    life.perform("fold")
    life.check()
    rows = life.totals.counts(None)
    assert [row.version for row in rows] == [OLDER, *range(94, 102)]
    assert rows[0].section.received == 92
    assert len(life.totals._sums) == len(life.totals._labels) == KEPT_VERSIONS + 1


def test_nothing_grows_with_swaps_refusals_and_deaths() -> None:
    """However long a daemon lives, it keeps the names of what may still count."""
    life = Life()
    for number in range(60):
        life.perform("count")
        life.generation += 1  # a candidate that no worker would load
        life.totals.names[life.generation] = Identity("digits", 9, ())
        life.perform("die_busy" if number % 7 == 0 else "swap")
        life.perform("fold")
        life.check()
        assert len(life.totals.names) == 1


def test_other_reasons_of_death_count_as_crash() -> None:
    """A sample in flight when memory ended failed for `crash`: `oom` is no outcome."""
    totals, board = Totals(), Board()
    totals.names[1] = Identity("digits", 1, ("zero",))
    board.writer.enter(0, 1)
    board.writer.words[section_start(0) + RECEIVED] += 1
    totals.fold_dead(board.block(), Reason.OOM)
    (counts,) = totals.counts(None)
    assert counts.section.outcomes[OUTCOME_INDEX[Reason.CRASH]] == 1
    assert counts.labels == ("zero",)


def test_a_reader_keeps_the_last_good_copy() -> None:
    """While the writer stands within a store, the copy before it is shown."""
    descriptor = shared_memory("statistics", BLOCK_BYTES)
    reader = BlockReader(descriptor)
    writer = StatisticsWriter(memoryview(mmap.mmap(descriptor, BLOCK_BYTES)), 5)
    os.close(descriptor)
    assert reader.read() is not None
    writer.enter(0, 1)
    writer.count(WARMING)
    good = reader.read()
    writer.words[SEQUENCE] += 1
    writer.words[section_start(0) + RECEIVED] += 1
    assert reader.read() == good
    final = reader.read_final()
    assert good is not None
    assert final is not None
    assert (good.next_seq, final.sections[0].in_flight) == (6, 1)
    reader.close()


def shared(first_seq: int = 1) -> tuple[BlockReader, StatisticsWriter]:
    """Return both ends of a block."""
    descriptor = shared_memory("statistics", BLOCK_BYTES)
    reader = BlockReader(descriptor)
    writer = StatisticsWriter(memoryview(mmap.mmap(descriptor, BLOCK_BYTES)), first_seq)
    os.close(descriptor)
    return reader, writer


damaged = st.one_of(
    st.sampled_from(
        [
            *(VERSION, ACTIVE, NEXT_SEQ, SINK_DROPPED),
            *(section_start(0) + word for word in (GENERATION, RECEIVED)),
            section_start(0) + FIRST_OUTCOME + INPUT,
        ]
    ),
    st.integers(0, BLOCK_WORDS - 1),
)


@settings(max_examples=300)
@given(damaged, st.integers(0, 2**64 - 1) | st.integers(0, 20), st.booleans())
def test_no_word_of_a_dead_worker_is_believed_blindly(
    word: int, value: int, busy: object
) -> None:
    """One damaged word: counters never fall, and the next worker can count on."""
    reader, writer = shared()
    totals = Totals()
    totals.names[1] = Identity("digits", 1, ())
    writer.enter(0, 1)
    writer.words[SINK_DROPPED] = 3
    for _ in range(5):
        writer.count(INPUT)
    before = totals.counts(reader.read())[0].section
    writer.count(INPUT)
    writer.words[section_start(0) + RECEIVED] += bool(busy)
    writer.words[word] = value
    final = reader.read_final()
    assert final is not None
    totals.fold_dead(final, Reason.CRASH)
    (after,) = totals.counts(None)
    assert after.section.received >= before.received
    assert after.section.received == sum(after.section.outcomes)
    for now, then in zip(after.section.outcomes, before.outcomes, strict=True):
        assert now >= then
    assert final.sink_dropped[0] >= 3
    assert 6 <= totals.next_seq <= 9
    reader.close()


def test_a_worker_that_died_unseen_is_believed_if_it_makes_sense() -> None:
    """Without a copy to compare with, at least the sums have to be possible."""
    reader, writer = shared()
    writer.enter(0, 1)
    writer.count(INPUT)
    writer.words[section_start(0) + RECEIVED] += 1
    final = reader.read_final()
    assert final is not None
    assert final.sections[0].in_flight == 1
    writer.words[section_start(0) + RECEIVED] = 0
    assert reader.read_final() is None
    reader.close()


def test_a_swap_between_the_last_look_and_the_end_is_believed() -> None:
    """The section that was cleared for the next model starts from nothing."""
    reader, writer = shared()
    writer.enter(0, 1)
    writer.count(INPUT, 5)
    assert reader.read() is not None
    writer.enter(1, 2)
    writer.count(INPUT, 2)
    final = reader.read_final()
    assert final is not None
    assert [section.received for section in final.sections] == [5, 2]
    assert final.next_seq == 8
    reader.close()


def test_what_stand_ins_answered_is_told_apart() -> None:
    """It is part of the version's sum, living or folded, and nobody else's."""
    life = Life(versions=1)
    life.board.writer.count(INPUT)
    life.totals.names[life.generation] = Identity("digits", 1, (), stands_in=True)
    living = life.totals.counts(life.board.block())
    life.swap()
    folded = life.totals.counts(life.board.block())
    for (row,) in (living, folded):
        assert row.section.received == row.stand_ins.received == 1
    life.board.writer.count(INPUT)
    (row,) = life.totals.counts(life.board.block())
    assert (row.section.received, row.stand_ins.received) == (2, 1)
