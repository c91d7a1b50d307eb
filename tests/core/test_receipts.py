"""The ring of receipts: whatever the two ends do when, nothing is lost or doubled."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.core.receipts import (
    HEADER_BYTES,
    KEPT,
    LIMIT,
    NO_HASH,
    READ,
    RECORD_BYTES,
    RING_BYTES,
    SLOTS,
    TORN_LOOKS,
    WORD,
    WRITTEN,
    Receipt,
    RingReader,
    RingWriter,
    kept_numbers,
    pack_receipt,
    parse_receipt,
)

words = st.integers(0, 2**64 - 1)
hashes = st.binary(min_size=32, max_size=32)
receipts = st.builds(
    Receipt,
    *(words, words, words),
    *(st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1)),
    *(hashes, hashes, hashes),
)
# What the two ends may do next: answer some samples, look, and take some records, have
# so many more allowed.
steps = st.lists(
    st.one_of(
        st.tuples(st.just("answer"), st.integers(1, 40)),
        st.tuples(st.just("answer"), st.just(SLOTS)),
        st.tuples(st.just("take"), st.integers(0, 50)),
        st.tuples(st.just("take"), st.just(SLOTS)),
        st.tuples(st.just("allow"), st.integers(0, 30)),
        st.tuples(st.just("allow"), st.just(SLOTS * 2)),
    ),
    max_size=30,
)


class Ends:
    """A ring with its two ends, and what should have come of them."""

    def __init__(self) -> None:
        self.memory = bytearray(RING_BYTES)
        view = memoryview(self.memory)
        self.words = view.cast("Q")
        self.reader = RingReader(view)
        self.writer = RingWriter(view)
        self.put = self.writer.bind(1, NO_HASH)
        self.answered = 0
        self.taken: list[int] = []

    def answer(self, samples: int) -> None:
        """Answer samples as the loop does: each after a look at the gate."""
        for _ in range(samples):
            if self.writer.closed:
                return
            self.answered += 1
            self.put(self.answered, 0, 0, NO_HASH, NO_HASH)

    def take(self, count: int, ready: int) -> None:
        """Take at most ``count`` of those that are ready."""
        found = self.reader.copy(min(count, ready))
        numbers = [
            parse_receipt(found[at : at + RECORD_BYTES])
            for at in range(0, len(found), RECORD_BYTES)
        ]
        self.taken += [it.sample for it in numbers]
        self.reader.take(len(numbers))

    def check(self) -> None:
        """Check what holds at every moment."""
        written, read, limit = (self.words[it] for it in (WRITTEN, READ, LIMIT))
        assert read <= written <= limit <= read + SLOTS
        assert list(range(1, len(self.taken) + 1)) == self.taken


@given(receipts)
def test_records_give_receipts_back(receipt: Receipt) -> None:
    """``parse_receipt(pack_receipt(r)) == r``."""
    assert receipt == parse_receipt(pack_receipt(receipt))


@given(st.binary(max_size=300).filter(lambda it: len(it) != RECORD_BYTES))
def test_other_lengths_are_no_records(content: bytes) -> None:
    """Half a record, or one and a half, is a ValueError."""
    with pytest.raises(ValueError, match="128 bytes"):
        parse_receipt(content)


@given(steps)
@settings(max_examples=40, deadline=None)  # some examples go round a ring of 2 MB
def test_nothing_is_lost_or_doubled(script: list[tuple[str, int]]) -> None:
    """Any interleaving: records come once and in order, and never above the limit."""
    ends = Ends()
    for what, number in script:
        match what:
            case "answer":
                ends.answer(number)
            case "take":
                ends.take(number, ends.reader.look())
            case _:
                ends.reader.allow(number)
        ends.check()
    ends.take(SLOTS, ends.reader.look_finally())
    assert ends.answered == len(ends.taken)


def test_a_record_is_taken_one_look_after_it_was_seen() -> None:
    """What a store buffer may hold back has drained by then."""
    ends = Ends()
    ends.reader.allow(3)
    ends.answer(2)
    assert (ends.reader.look(), ends.reader.look()) == (0, 2)


@given(written=st.integers(0, 2**64 - 1))
def test_a_ring_that_cannot_be_is_refused(written: int) -> None:
    """A writer that claims more than it may is found out; its death adds nothing."""
    ends = Ends()
    ends.reader.allow(10)
    ends.answer(4)
    ends.reader.look()
    ends.words[WRITTEN] = written
    possible = 4 <= written <= 10
    if possible:
        ends.reader.look()
    else:
        with pytest.raises(ValueError, match="at most"):
            ends.reader.look()
    assert ends.reader.look_finally() == (written if possible else 4)


def test_a_record_that_is_not_whole_is_not_counted() -> None:
    """Counted and not written: those before it are taken, and nothing after it."""
    ends = Ends()
    ends.reader.allow(10)
    ends.answer(3)
    ends.words[WRITTEN] = 5
    ends.take(SLOTS, ends.reader.look_finally())
    assert ends.taken == [1, 2, 3]


def test_a_record_that_never_comes_ends_its_worker() -> None:
    """After enough looks it is no delay."""
    ends = Ends()
    ends.reader.allow(10)
    ends.words[WRITTEN] = 1
    for _ in range(TORN_LOOKS - 1):
        assert ends.reader.copy(1) == b""
    with pytest.raises(ValueError, match="not there"):
        ends.reader.copy(1)


def test_a_later_lap_overwrites_what_was_taken() -> None:
    """The numbers tell one lap from another."""
    ends = Ends()
    for _ in range(5):
        ends.reader.allow(SLOTS)
        ends.answer(SLOTS // 2 + 7)
        ends.take(SLOTS, ends.reader.look_finally())
        ends.check()
    assert len(ends.taken) == 5 * (SLOTS // 2 + 7)


@given(st.lists(st.integers(0, 31), max_size=20))
def test_kept_ones_are_found_by_their_flag(flags: list[int]) -> None:
    """The places of records with the flag, and no others."""
    made = [Receipt(0, 1, 1, it, 1, NO_HASH, NO_HASH, NO_HASH) for it in flags]
    records = b"".join(map(pack_receipt, made))
    expected = [at for at, it in enumerate(flags) if it & KEPT]
    assert expected == list(kept_numbers(memoryview(records)))


def test_the_header_has_room_for_its_words() -> None:
    """Records begin behind a cache line of words."""
    assert max(WRITTEN, READ, LIMIT) * WORD < HEADER_BYTES == 64
