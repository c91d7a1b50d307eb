"""The shadow ring: shared memory in which a worker leaves samples for a shadow child.

One process writes, one reads, nobody waits. The ring is ``RING_BYTES`` of shared
memory: a header of native 8-byte words, then slots of one fixed size. The first record
fixes that size, so that small samples have many slots and large ones a few; memory that
no record touches is never allocated.

The rules this module keeps:
 * A record that finds no free slot, or is larger than one, is dropped and counted.
 * Neither side believes the other: whatever the memory holds, nothing is raised, and
   what is read is a whole record as it was written, or nothing.
 * A writer that was killed in the middle of a record leaves the ring as it was before
   that record; the next writer goes on.

A Python store carries no barrier and Arm reorders them: a slot is believed if it bears
the awaited number, before and after its bytes were copied, and its checksum agrees,
which includes that number and the length: the words of an older record never fit.

>>> memory = memoryview(bytearray(RING_BYTES))
>>> writer, reader = RingWriter(memory), RingReader(memory)
>>> writer.write([b"one ", b"record"]), reader.read(), reader.read()
(True, b'one record', None)
"""

import zlib
from collections.abc import Sequence

RING_BYTES = 32 * 1024 * 1024  # two pictures of 2,000 x 2,600 in colour
HEADER_BYTES = 4096  # one page, so that slots begin on their own
MAX_SLOTS = 64  # what a shadow may lag behind; more would only cost memory
MIN_SLOTS = 2  # one is written while the other is read
# The first record may be a short one: the others may be twice as long.
HEADROOM = 2
UNIT = 64  # a cache line: the granularity of slots, and the room of their heads
WORD = 8
LIMIT = 2**62  # no count of a board's life gets there

# Header words
WRITTEN, TAKEN, SLOT_BYTES, OVERRUNS, OVERSIZED = range(5)
# Words of a slot's head
NUMBER, LENGTH, CHECKSUM = range(3)
TORN_LOOKS = 100  # looks at a record that does not agree, until it is given up

Piece = bytes | bytearray | memoryview


def slot_bytes_for(record_bytes: int, ring_bytes: int = RING_BYTES) -> int:
    """Return the size of slots when the first record is so long.

    >>> slot_bytes_for(1), RING_BYTES // slot_bytes_for(RING_BYTES // 3)
    (524224, 2)
    """
    room = ring_bytes - HEADER_BYTES
    most = room // MIN_SLOTS // UNIT * UNIT
    least = room // MAX_SLOTS // UNIT * UNIT
    return min(most, max(least, -(-HEADROOM * (record_bytes + UNIT) // UNIT) * UNIT))


class _Ring:
    """The memory as words and bytes, and where slots lie.

    Args:
        memory: ``RING_BYTES`` of it; tests take less.
    """

    def __init__(self, memory: memoryview) -> None:
        self._bytes = memory.cast("B")
        self._words = self._bytes.cast("Q")
        # Taken from the header once: the other side may change it at any time.
        self._slot_bytes = 0
        self._slots = 0

    def close(self) -> None:
        """Let the memory go; it can be unmapped then."""
        self._words.release()
        self._bytes.release()

    def _is_laid_out(self) -> bool:
        """Whether it is known where slots lie."""
        if not self._slots:
            size = self._words[SLOT_BYTES]
            sane = size > UNIT and not size % UNIT
            slots = (len(self._bytes) - HEADER_BYTES) // size if sane else 0
            if MIN_SLOTS <= slots <= MAX_SLOTS:
                self._slot_bytes, self._slots = size, slots
        return self._slots > 0

    def _start(self, number: int) -> int:
        """Return the first byte of the slot of a record."""
        return HEADER_BYTES + (number % self._slots) * self._slot_bytes


class RingWriter(_Ring):
    """The worker's end: never waits, never raises."""

    def __init__(self, memory: memoryview) -> None:
        super().__init__(memory)
        words = self._words
        self._written = words[WRITTEN] % LIMIT  # by the writer before this one
        self._overruns = words[OVERRUNS] % LIMIT
        self._oversized = words[OVERSIZED] % LIMIT

    def has_room(self) -> bool:
        """Whether a record has a slot; one that has none is counted as dropped.

        To be asked before a record is made: mostly, on a fast source, it has none.
        """
        words = self._words
        if not words[SLOT_BYTES]:
            return True  # the first one will say how large slots are
        # A reader gone mad may claim anything: then nothing is free.
        free = self._is_laid_out() and 0 <= self._written - words[TAKEN] < self._slots
        if not free:
            self._overruns += 1
            words[OVERRUNS] = self._overruns
        return free

    def write(self, pieces: Sequence[Piece]) -> bool:
        """Leave one record, given in pieces; False if it was dropped and counted."""
        words = self._words
        length = sum(len(piece) for piece in pieces)
        if not words[SLOT_BYTES]:
            words[SLOT_BYTES] = slot_bytes_for(length, len(self._bytes))
        if not self.has_room():
            return False
        if length > self._slot_bytes - UNIT:
            self._oversized += 1
            words[OVERSIZED] = self._oversized
            return False
        self._fill(self._start(self._written), pieces, length)
        self._written += 1
        words[WRITTEN] = self._written
        return True

    def _fill(self, start: int, pieces: Sequence[Piece], length: int) -> None:
        """Write a slot; its number comes last."""
        words, head = self._words, start // WORD
        number = self._written + 1
        at, checksum = start + UNIT, _seed(number, length)
        for piece in pieces:
            self._bytes[at : at + len(piece)] = piece
            checksum = zlib.crc32(piece, checksum)
            at += len(piece)
        words[head + LENGTH] = length
        words[head + CHECKSUM] = checksum
        words[head + NUMBER] = number


class RingReader(_Ring):
    """The shadow's end: takes records in order.

    Attributes:
        torn: Records that never agreed with their checksum.
    """

    def __init__(self, memory: memoryview) -> None:
        super().__init__(memory)
        self._taken = self._words[TAKEN] % LIMIT
        self._looks = 0
        self.torn = 0

    @property
    def dropped(self) -> int:
        """Records that found no room so far."""
        return (self._words[OVERRUNS] + self._words[OVERSIZED]) % LIMIT

    def read(self) -> bytes | None:
        """Return the next record, or None if there is none yet."""
        if not self._is_laid_out() or self._words[WRITTEN] <= self._taken:
            return None
        record = self._copy(self._start(self._taken))
        if record is None:
            self._looks += 1
            if self._looks < TORN_LOOKS:
                return None
            self.torn += 1
        self._looks = 0
        self._taken += 1
        self._words[TAKEN] = self._taken
        return record

    def _copy(self, start: int) -> bytes | None:
        """Return the record of a slot; None if it is torn, or not the awaited one."""
        words, head = self._words, start // WORD
        number, length = words[head + NUMBER], words[head + LENGTH]
        if number != self._taken + 1 or length > self._slot_bytes - UNIT:
            return None
        record = bytes(self._bytes[start + UNIT : start + UNIT + length])
        whole = zlib.crc32(record, _seed(number, length)) == words[head + CHECKSUM]
        return record if whole and words[head + NUMBER] == number else None


def _seed(number: int, length: int) -> int:
    """Return the checksum that a record begins with."""
    return zlib.crc32(b"%d %d" % (number, length))
