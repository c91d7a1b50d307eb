"""Receipts: the record of one inference, and the ring a worker writes them into.

A record is ``RECORD_BYTES`` in network order. The worker fills all of it but ``seq``,
which the log gives when it takes the record. The ring is shared memory: a header of
native 8-byte words, then ``SLOTS`` records. Its writer is the worker's loop, which
stores a record first and raises ``WRITTEN`` after it; its reader is the daemon, which
raises ``READ`` once records are in its hands, and ``LIMIT`` to let more be answered.

The rules this module keeps:
 * ``WRITTEN`` never passes ``LIMIT``, and ``LIMIT`` never ``READ + SLOTS``: a worker
   takes no sample that it could not give a receipt, or that is not paid for.
"""

import struct
from dataclasses import dataclass
from typing import Literal

from msgspec import Struct

Mode = Literal["off", "count", "chain", "inputs"]
InputHash = Literal["sha256", "blake2b"]  # both with 32 bytes of digest

RING_VERSION = 1
WORD = 8
VERSION, WRITTEN, READ, LIMIT = range(4)
HEADER_WORDS = 8  # a cache line
# At 40,000 samples a second, of the fastest model measured, 0.4 s of the daemon's time.
SLOTS = 16_384

# Seq, sample, monotonic ns, flags, pipeline; model, input and output digests.
RECORD = struct.Struct(">QQQII32s32s32s")
RECORD_BYTES = RECORD.size
RING_BYTES = HEADER_WORDS * WORD + SLOTS * RECORD_BYTES
NO_HASH = bytes(32)

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
        seq: Its index in the board's log, from 0; 0 until the log has taken it.
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

    Attributes:
        mode: ``count`` writes records without hashes of inputs and outputs.
        input_hash: What hashes inputs in mode ``inputs``, by the board's CPU.
        keep_one_in: One in so many inputs is kept for audits; 0 for none.
    """

    mode: Mode
    input_hash: InputHash = "sha256"
    keep_one_in: int = 0


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
