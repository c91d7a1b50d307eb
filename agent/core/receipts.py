"""Receipts: the record of one inference, and the ring a worker writes them into.

A record is ``RECORD_BYTES`` in network order. The worker fills all of it; in the ring
``seq`` is the record's number there, from 1, with which no memory is born. The log puts
its own in that place when it takes the record. The ring is shared memory: a header of
native 8-byte words, then ``SLOTS`` records. Its writer is the worker's loop, which
stores a record first and raises ``WRITTEN`` after it; its reader is the daemon, which
raises ``READ`` once records are in its hands, and ``LIMIT`` to let more be answered.

The rules this module keeps:
 * ``WRITTEN`` never passes ``LIMIT``, and ``LIMIT`` never ``READ + SLOTS``: a worker
   takes no sample that it could not give a receipt, or that is not paid for.
 * ``LIMIT`` never falls: the writer may have looked at it just before.
 * Python's stores carry no barrier and Arm reorders them. While a writer lives, a
   record is therefore taken one look after it was first seen, long after any store
   buffer has drained, and only if it bears its number. A death is a barrier itself.
 * The reader believes no word of the ring but its own copies of what it wrote there.

>>> memory = memoryview(bytearray(RING_BYTES))
>>> writer, reader = RingWriter(memory), RingReader(memory)
>>> reader.allow(1)
>>> writer.bind(1, NO_HASH)(7, 123, 0, NO_HASH, NO_HASH), writer.closed
(None, True)
>>> reader.look(), reader.look()
(0, 1)
>>> parse_receipt(reader.copy(1)).sample
7
"""

import hashlib
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from msgspec import Struct

Mode = Literal["off", "count", "chain", "inputs"]
InputHash = Literal["sha256", "blake2b"]  # both with 32 bytes of digest
Put = Callable[[int, int, int, bytes, bytes], None]

RING_VERSION = 1
WORD = 8
# The last three are for the start after a kill: which boot, which log, and how many
# inferences that knew of.
VERSION, WRITTEN, READ, LIMIT, BOOT, LOG, ANSWERED = range(7)
HEADER_WORDS = 8  # a cache line
# At 40,000 samples a second, of the fastest model measured, 0.4 s of the daemon's time.
SLOTS = 16_384

# Seq, sample, monotonic ns, flags, pipeline; model, input and output digests.
RECORD = struct.Struct(">QQQII32s32s32s")
RECORD_BYTES = RECORD.size
NUMBER = struct.Struct(f">Q{RECORD.size - 8}x")  # of a record, its first field
HEADER_BYTES = HEADER_WORDS * WORD
RING_BYTES = HEADER_BYTES + SLOTS * RECORD_BYTES
# Looks, 0.1 s apart, at a next record that was counted and does not bear its number:
# stores take nanoseconds, so that is no delay but a writer gone mad.
TORN_LOOKS = 20
NO_HASH = bytes(32)
NO_SEQ = 2**62  # of a record that found no room in the log, which counts it as lost
FLAGS_END = 28  # in a record, big-endian: its last byte holds the flags below

# Flags
FAILED = 1 << 0  # the sample ended without an answer
INPUT_HASHED = 1 << 1
BLAKE2B = 1 << 2  # the input's hash is BLAKE2b-256, else SHA-256
KEPT = 1 << 3  # its input was kept for an audit
EVENT = 1 << 4  # no inference: the digests are of what the log says beside it


@dataclass(frozen=True, slots=True)
class Receipt:
    """One record, parsed.

    Attributes:
        seq: Its index in the board's log, from 0; in a ring its number there.
        sample: The pipeline's number of the sample, from 1; 0 for events.
        monotonic_ns: CLOCK_MONOTONIC when it ended.
        flags: See above.
        pipeline: First 4 bytes of SHA-256 of the pipeline's name.
        model: SHA-256 of the .tflite that ran.
        input: Hash of the model's input tensors, ``NO_HASH`` where none is made.
        output: SHA-256 of its output tensors.
    """

    seq: int
    sample: int
    monotonic_ns: int
    flags: int
    pipeline: int
    model: bytes
    input: bytes
    output: bytes


class ReceiptOrder(Struct, frozen=True):
    """How a worker gives receipts; the ring's descriptor is the message's last.

    Where inputs are kept, the ring that they are left in follows it.

    Attributes:
        mode: ``count`` writes records without hashes of inputs and outputs.
        input_hash: What hashes inputs in mode ``inputs``, and those that are kept in
            any mode, by the board's CPU.
        keep_one_in: One in so many inputs is kept for audits; 0 for none.
    """

    mode: Mode
    input_hash: InputHash = "sha256"
    keep_one_in: int = 0


def name_word(pipeline: str) -> int:
    """Return the word by which records name a pipeline.

    >>> hex(name_word("digits"))
    '0xcc6b6bad'
    """
    return int.from_bytes(hashlib.sha256(pipeline.encode()).digest()[:4])


def pack_receipt(receipt: Receipt) -> bytes:
    """Return the record of a receipt.

    Law: ``parse_receipt(pack_receipt(r)) == r``.
    """
    return RECORD.pack(
        receipt.seq,
        receipt.sample,
        receipt.monotonic_ns,
        receipt.flags,
        receipt.pipeline,
        receipt.model,
        receipt.input,
        receipt.output,
    )


def parse_receipt(record: bytes | memoryview) -> Receipt:
    """Parse one record of ``RECORD_BYTES``.

    Raises:
        ValueError: It has another length.
    """
    try:
        return Receipt(*RECORD.unpack(record))
    except struct.error as err:
        raise ValueError(f"a record has {RECORD_BYTES} bytes: {err}") from err


class RingWriter:
    """The worker's end: one thread writes, and never waits.

    Attributes:
        written: How many records it has written; the number of the last one.
        words: The header, for the loop's gate: a property costs 50 ns more.
    """

    def __init__(self, memory: memoryview) -> None:
        self._bytes = memory[:RING_BYTES]
        self.words = self._bytes[:HEADER_BYTES].cast("Q")
        self.written = self.words[WRITTEN]

    @property
    def closed(self) -> bool:
        """Whether no more samples may be answered now."""
        return self.written >= self.words[LIMIT]

    def bind(self, pipeline: int, model: bytes) -> Put:
        """Return what writes the records of one model: (sample, ns, flags, in, out).

        It is the loop's gate that asks ``closed`` first: one that has just passed it
        writes one record at most.
        """
        ring, words, pack_into = self._bytes, self.words, RECORD.pack_into

        def put(
            sample: int, monotonic_ns: int, flags: int, given: bytes, said: bytes
        ) -> None:
            number = self.written
            at = HEADER_BYTES + number % SLOTS * RECORD_BYTES
            number += 1
            # In pieces, or by a tuple that is unpacked, it takes 0.1 us more.
            pack_into(
                ring,
                at,
                number,
                sample,
                monotonic_ns,
                flags,
                pipeline,
                model,
                given,
                said,
            )
            self.written = words[WRITTEN] = number

        return put


class RingReader:
    """The daemon's end: takes records in order, and says how many more there may be.

    Attributes:
        taken: Records that were taken so far.
        limit: How many may be written.
        seen: How many were, at the last look.
    """

    def __init__(self, memory: memoryview) -> None:
        self._bytes = memory[:RING_BYTES]
        self._words = self._bytes[:HEADER_BYTES].cast("Q")
        self._words[VERSION] = RING_VERSION
        self.taken = self.limit = self.seen = 0
        self._torn = 0

    @property
    def closed(self) -> bool:
        """Whether the writer had used all that it may, at the last look."""
        return self.seen >= self.limit

    def allow(self, more: int) -> None:
        """Let so many be written beyond those taken, as far as there is room."""
        self.limit = max(self.limit, self.taken + min(more, SLOTS))
        self._words[LIMIT] = self.limit

    def look(self) -> int:
        """Return how many records can be taken now: those of the last look.

        Raises:
            ValueError: The writer says what cannot be.
        """
        ready = self.seen - self.taken
        written = self._words[WRITTEN]
        if not self.seen <= written <= self.limit:
            raise ValueError(
                f"{written} records after {self.seen}, of {self.limit} at most"
            )
        self.seen = written
        return ready

    def look_finally(self) -> int:
        """Return how many records a writer that is dead has left; raise nothing."""
        written = self._words[WRITTEN]
        if self.seen <= written <= self.limit:
            self.seen = written
        return self.seen - self.taken

    def copy(self, count: int) -> bytes:
        """Return the next records, at most ``count``, in order; none is taken yet.

        It is fewer where one does not bear its number.

        Raises:
            ValueError: The next one has not for ``TORN_LOOKS``.
        """
        first, last = self.taken % SLOTS, (self.taken + count - 1) % SLOTS + 1
        if count <= 0:
            return b""
        if first < last:
            found = bytes(self._slots(first, last))
        else:
            found = bytes(self._slots(first, SLOTS)) + bytes(self._slots(0, last))
        whole = _in_order(found, self.taken)
        self._torn = 0 if whole else self._torn + 1
        if self._torn >= TORN_LOOKS:
            raise ValueError(f"record {self.taken} is counted, and is not there")
        return found[: whole * RECORD_BYTES]

    def take(self, count: int) -> None:
        """Note that the next ``count`` records are in safe hands: they may go."""
        self.taken += count
        self._words[READ] = self.taken

    def note(self, boot: int, log: int, answered: int) -> None:
        """Say for the start after a kill when and for whom this ring is."""
        words = self._words
        words[BOOT], words[LOG], words[ANSWERED] = boot, log, answered

    def close(self) -> None:
        """Let the memory go; it can be unmapped then."""
        self._words.release()
        self._bytes.release()

    def _slots(self, first: int, end: int) -> memoryview:
        """Return some slots that lie side by side."""
        start = HEADER_BYTES + first * RECORD_BYTES
        return self._bytes[start : HEADER_BYTES + end * RECORD_BYTES]


def kept_numbers(records: bytes | memoryview) -> Sequence[int]:
    """Return which of some records say that their input was kept: their places.

    >>> kept_numbers(bytes(FLAGS_END - 1) + bytes([KEPT]) + bytes(100))
    [0]
    """
    low = records[FLAGS_END - 1 :: RECORD_BYTES]
    return [at for at, flags in enumerate(low) if flags & KEPT]


def _in_order(records: bytes, number: int) -> int:
    """Return how many of some records bear the numbers after ``number``."""
    numbers = [it for (it,) in NUMBER.iter_unpack(records)]
    if numbers == list(range(number + 1, number + 1 + len(numbers))):
        return len(numbers)
    wrong = (at for at, it in enumerate(numbers) if it != number + 1 + at)
    return next(wrong)
