"""The shadow ring: whole records in order, or nothing, whatever the memory holds."""

import random
from collections import deque

from hypothesis import given
from hypothesis import strategies as st

from agent.core.shadow_ring import (
    HEADER_BYTES,
    LIMIT,
    MAX_SLOTS,
    OVERRUNS,
    OVERSIZED,
    RING_BYTES,
    SLOT_BYTES,
    TAKEN,
    TORN_LOOKS,
    UNIT,
    WRITTEN,
    RingReader,
    RingWriter,
    slot_bytes_for,
)

SMALL = HEADER_BYTES + MAX_SLOTS * 4 * UNIT  # 64 slots of 192 bytes beside their heads
records = st.binary(max_size=150)


def ring(size: int = SMALL) -> bytearray:
    """Return empty memory."""
    return bytearray(size)


def words(memory: bytearray) -> memoryview:
    """Return memory as its words."""
    return memoryview(memory).cast("Q")


def ends(memory: bytearray) -> tuple[RingWriter, RingReader]:
    """Return both ends of a ring."""
    return RingWriter(memoryview(memory)), RingReader(memoryview(memory))


@given(st.lists(st.lists(records, max_size=3) | st.none(), max_size=200))
def test_what_fits_comes_out_in_order(steps: list[list[bytes] | None]) -> None:
    """Any turns of writing (pieces) and reading (None): a queue, full at its end."""
    writer, reader = ends(ring())
    expected: deque[bytes] = deque()
    dropped = 0
    for pieces in steps:
        if pieces is None:
            assert reader.read() == (expected.popleft() if expected else None)
            continue
        fits = len(expected) < MAX_SLOTS and sum(map(len, pieces)) <= 3 * UNIT
        assert writer.write(pieces) == fits
        if fits:
            expected.append(b"".join(pieces))
        else:
            dropped += 1
        assert reader.dropped == dropped


@given(st.lists(records, min_size=1, max_size=80), st.integers(0, 2**32))
def test_stores_in_any_order_give_whole_records_or_nothing(
    contents: list[bytes], seed: int
) -> None:
    """A reader that sees any part of a record's stores reads it whole, or not at all.

    Arm may show stores in any order: of all words that one write changed, any may be
    old and any new.
    """
    memory = ring()
    writer = RingWriter(memoryview(memory))
    chance = random.Random(seed)  # noqa: S311 - drawn by hypothesis
    reader_memory = ring()
    reader = RingReader(memoryview(reader_memory))
    for content in contents:
        before = words(memory).tolist()
        assert writer.write([content])
        after = words(memory).tolist()
        changed = [at for at, word in enumerate(after) if word != before[at]]
        shown = words(reader_memory)
        taken = shown[TAKEN]
        for at in changed:
            shown[at] = after[at] if chance.random() < 0.7 else before[at]
        assert reader.read() in (content, None)
        if shown[TAKEN] == taken:
            for at in changed:  # in the end all is visible
                shown[at] = after[at]
            assert content == reader.read()
        words(memory)[TAKEN] = shown[TAKEN]


@given(
    st.dictionaries(
        st.integers(0, SMALL // 8 - 1),
        st.integers(0, 2**64 - 1) | st.integers(0, 3 * UNIT),
        max_size=20,
    ),
    st.lists(records, max_size=10),
)
def test_no_memory_makes_an_end_raise(
    spoilt: dict[int, int], contents: list[bytes]
) -> None:
    """Whatever one side has written into it, the other drops, skips or goes on."""
    memory = ring()
    for at, word in spoilt.items():
        words(memory)[at] = word
    writer, reader = ends(memory)
    for content in contents:
        writer.write([content])
        for at, word in spoilt.items():
            words(memory)[at] = word
        found = reader.read()
        assert found is None or isinstance(found, bytes)


@given(st.sampled_from([TAKEN, WRITTEN, SLOT_BYTES, OVERRUNS, OVERSIZED]))
def test_a_header_of_the_largest_numbers(word: int) -> None:
    """No counter overflows, in whatever order the two ends are opened."""
    memory = ring()
    words(memory)[word] = 2**64 - 1
    writer, reader = ends(memory)
    for _ in range(3):
        writer.write([b"x"])
        reader.read()
    assert reader.dropped < LIMIT


def test_a_writer_that_died_in_the_middle() -> None:
    """The next writer goes on as if that record had never begun."""
    memory = ring()
    writer, reader = ends(memory)
    writer.write([b"one"])
    writer._fill(writer._start(1), [b"half a rec"], 10)  # and no more
    later = RingWriter(memoryview(memory))
    assert later.write([b"two"])
    assert [reader.read() for _ in range(3)] == [b"one", b"two", None]


def test_a_record_that_stays_torn_is_given_up() -> None:
    """A reader does not wait for ever for bytes that will never agree."""
    memory = ring()
    writer, reader = ends(memory)
    writer.write([b"good"])
    writer.write([b"fine"])
    at = HEADER_BYTES + UNIT
    memory[at : at + 4] = b"evil"
    found = [reader.read() for _ in range(TORN_LOOKS + 1)]
    assert [it for it in found if it] == [b"fine"]
    assert reader.torn == 1


def test_large_records_have_two_slots_and_room_to_grow() -> None:
    """Slots are for twice the first record, and there are never less than two."""
    one = RING_BYTES // 8
    assert 2 * one <= slot_bytes_for(one) < 2 * one + 4 * UNIT
    assert (RING_BYTES - HEADER_BYTES) // slot_bytes_for(RING_BYTES) == 2
    writer, _ = ends(ring())
    assert not writer.write([bytes(SMALL)])
    assert writer.write([b"x"])


def test_closing_lets_the_memory_go() -> None:
    """No view of it is left."""
    memory = ring()
    for end in ends(memory):
        end.close()
    memory.extend(b"x")  # raises BufferError while views exist
    assert len(memory) == SMALL + 1


def test_a_slot_seen_before_it_was_written_again() -> None:
    """A whole record of the round before is not the awaited one."""
    memory, shown = ring(), ring()
    writer, reader = RingWriter(memoryview(memory)), RingReader(memoryview(shown))
    for number in range(MAX_SLOTS):
        assert writer.write([b"old %d" % number])
        shown[:] = memory
        words(shown)[TAKEN] = number
        assert reader.read() == b"old %d" % number
        words(memory)[TAKEN] = words(shown)[TAKEN]
    assert writer.write([b"new"])
    words(shown)[WRITTEN] = words(memory)[WRITTEN]  # seen before its slot is
    assert reader.read() is None
    shown[:] = memory
    assert reader.read() == b"new"


def test_counters_at_their_end() -> None:
    """Two ends that agree on an impossible number do not overflow."""
    memory = ring()
    words(memory)[WRITTEN] = words(memory)[TAKEN] = 2**64 - 1
    writer, reader = ends(memory)
    writer.write([b"x"])
    reader.read()
    assert words(memory)[WRITTEN] in (2**64 - 1, LIMIT)
