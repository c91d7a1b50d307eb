"""What a worker may write into a receipt, whoever controls it.

Workers parse what the world sends, and are sandboxed because of that. A record of one
that was taken over may lie about its answer, which nobody here can see; it may not say
that it is an event of the log, speak for another pipeline, or name a model that the
daemon never gave it.

The rules this module keeps:
 * What stands before the first record that cannot be is taken: it was written before.
"""

from collections.abc import Container
from dataclasses import dataclass
from struct import Struct

from agent.core.receipts import (
    BLAKE2B,
    FAILED,
    INPUT_HASHED,
    KEPT,
    RECORD_BYTES,
    ReceiptOrder,
)

WORKERS_FLAGS = FAILED | INPUT_HASHED | BLAKE2B | KEPT
# Monotonic ns, flags, pipeline and model; the rest of a record is the worker's word.
_CLAIMED = Struct(f">16xQII32s{RECORD_BYTES - 64}x")


@dataclass(frozen=True, slots=True)
class Bounds:
    """What one worker's records may say.

    Attributes:
        flags: Those that it may set; see ``flags_of``.
        pipeline: The word by which records name its pipeline.
        models: Digests of the models that it was given.
    """

    flags: int
    pipeline: int
    models: Container[bytes]

    def judge(self, records: bytes | memoryview) -> tuple[int, str]:
        """Judge whole records, in order.

        Returns:
            How many come before the first that cannot be, and what is wrong with that
            one; empty where nothing is.
        """
        found = list(_CLAIMED.iter_unpack(records))
        # Few kinds in many records: 0.3 us a record, as the log itself takes 2 us.
        wrong = {kind: self._complain(*kind) for kind in {it[1:] for it in found}}
        if not any(wrong.values()) and all(it[0] for it in found):
            return len(found), ""
        for at, (monotonic_ns, *kind) in enumerate(found):
            if what := wrong[kind[0], kind[1], kind[2]]:
                return at, what
            if not monotonic_ns:
                return at, "a receipt of no time"
        raise AssertionError("one of them was wrong")

    def _complain(self, flags: int, pipeline: int, model: bytes) -> str:
        """Return what is wrong with a record; empty where nothing is."""
        if flags & ~self.flags:
            return f"a receipt with flags {flags:#x}"
        if pipeline != self.pipeline:
            return "a receipt of another pipeline"
        if model not in self.models:
            return f"a receipt of model {model.hex()[:12]}, which was not loaded"
        return ""


def may_be_workers(record: bytes, pipeline: int) -> bool:
    """Whether a pipeline's worker may have written a record; its model is not known.

    >>> may_be_workers(bytes(RECORD_BYTES), 0)
    False
    """
    monotonic_ns, flags, claimed, _ = _CLAIMED.unpack(record)
    mine = claimed == pipeline and not flags & ~WORKERS_FLAGS
    return mine and bool(monotonic_ns)


def flags_of(order: ReceiptOrder) -> int:
    """Return the flags that a worker may set by its order.

    >>> flags_of(ReceiptOrder("chain")) == FAILED
    True
    """
    hashed = INPUT_HASHED | (BLAKE2B if order.input_hash == "blake2b" else 0)
    flags = FAILED
    if order.keep_one_in:
        flags |= KEPT | hashed  # a sample that is kept is hashed in every mode
    return flags | hashed if order.mode == "inputs" else flags
