"""Rings of receipts and kept inputs, as a worker that has gone mad may leave them."""

from agent.core.kept import KeptSample, parse_kept, render_kept
from agent.core.receipts import (
    HEADER_BYTES,
    NO_HASH,
    RECORD_BYTES,
    RING_BYTES,
    RingReader,
    RingWriter,
    parse_receipt,
)

KEPT = render_kept(KeptSample(7, (b"in" * 20, b""), (b"out" * 10,), "litert", "cpu"))
_ANSWERED = 6


def _head() -> bytes:
    """Return the beginning of a ring with some records."""
    memory = memoryview(bytearray(RING_BYTES))
    RingReader(memory).allow(10)
    writer = RingWriter(memory)
    put = writer.bind(1, NO_HASH)
    for sample in range(_ANSWERED):
        put(sample, 5, 0, NO_HASH, NO_HASH)
    return bytes(memory[: HEADER_BYTES + 8 * RECORD_BYTES])


RING = _head()


def kept(raw: bytes) -> str:
    """A kept input: it is one, which says the same when written, or none."""
    try:
        sample = parse_kept(raw)
    except ValueError:
        return "none"
    if parse_kept(render_kept(sample)) != sample:
        raise AssertionError("it is another one when written")
    return "kept"


def ring(raw: bytes) -> str:
    """A ring: what is taken from it are whole records, never more than allowed."""
    memory = memoryview(bytearray(RING_BYTES))
    reader = RingReader(memory)
    reader.allow(10)
    found = raw[: HEADER_BYTES + 10 * RECORD_BYTES]
    memory[: len(found)] = found
    try:
        ready = max(reader.look(), reader.look())
        records = reader.copy(ready)
    except ValueError:
        return "mad"
    for at in range(0, len(records), RECORD_BYTES):
        if parse_receipt(records[at : at + RECORD_BYTES]).seq != at // RECORD_BYTES + 1:
            raise AssertionError("a record was taken that is not the next one")
    if len(records) > 10 * RECORD_BYTES or reader.limit != 10:
        raise AssertionError("more than was allowed")
    return "taken" if records else "nothing"
