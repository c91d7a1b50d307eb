"""Proofs about one record, or about two checkpoints, that need nothing else.

A proof of a record is a text: its number, the path to the root, the checkpoint that has
this root; as extra lines the record and what an event says. Tools for transparency logs
read all but the extra.

Laws: ``parse_proof(render_proof(p)) == p``; a proof that a log makes is judged to be
one with its key, and with no other.

Source: C2SP tlog-proof, RFC 9162 section 2.1.3.
"""

from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from struct import Struct

from agent.core.audit_layout import MAX_EVENT_BYTES
from agent.core.checkpoint import Checkpoint, parse_checkpoint, parse_decimal
from agent.core.merkle import (
    HASH_BYTES,
    MAX_LEVELS,
    leaf_hash,
    verify_consistency,
    verify_inclusion,
)
from agent.core.note import (
    MAX_NOTE_BYTES,
    NoteKey,
    Verify,
    decode_base64,
    malformed,
    open_note,
    split_note,
)
from agent.core.reasons import Reason
from agent.core.receipts import EVENT, RECORD_BYTES, Receipt, parse_receipt
from agent.errors import BundleRefusedError

HEADER = "c2sp.org/tlog-proof@v1"
MAX_PROOF_BYTES = MAX_NOTE_BYTES + 8192
_PATH = Struct(">QQ")
OLDER = (
    "Take the newest copy of the log; if this is it, an older one was brought back on "
    "the board: keep both as evidence."
)
UNPROVEN = (
    "Ask the board for the proof anew: `tinyward audit proof`; if it stays so, the "
    "record is not in the log that was signed."
)


@dataclass(frozen=True, slots=True)
class RecordProof:
    """A record is in a log.

    Attributes:
        record: Its bytes.
        index: Its number.
        path: From its sibling up.
        note: The signed checkpoint whose root the path leads to.
        event: What it says, where it is an event.
    """

    record: bytes
    index: int
    path: tuple[bytes, ...]
    note: str
    event: bytes = b""


@dataclass(frozen=True, slots=True)
class Proven:
    """What a proof proves.

    Attributes:
        receipt: The record.
        checkpoint: Of the log that it is in.
        event: What it says, where it is an event.
    """

    receipt: Receipt
    checkpoint: Checkpoint
    event: bytes


def render_proof(proof: RecordProof) -> str:
    """Return a proof as a text."""
    extra = b64encode(proof.record + proof.event).decode()
    path = "".join(f"{b64encode(step).decode()}\n" for step in proof.path)
    return f"{HEADER}\nextra {extra}\nindex {proof.index}\n{path}\n{proof.note}"


def parse_proof(raw: bytes) -> RecordProof:
    """Parse a proof; nothing of it is verified yet.

    Raises:
        BundleRefusedError: ``malformed``.
    """
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as err:
        raise malformed("a proof that is no UTF-8") from err
    head, blank, note = text.partition("\n\n")
    lines = head.split("\n")
    good = len(raw) <= MAX_PROOF_BYTES and blank and 3 <= len(lines) <= 3 + MAX_LEVELS
    if not good or lines[0] != HEADER:
        raise malformed(f"no {HEADER}")
    extra, index = _value(lines[1], "extra"), _value(lines[2], "index")
    said = decode_base64(extra)
    if not RECORD_BYTES <= len(said) <= RECORD_BYTES + MAX_EVENT_BYTES:
        raise malformed("a proof without its record")
    split_note(note.encode())
    return RecordProof(
        said[:RECORD_BYTES],
        parse_decimal(index),
        parse_path(lines[3:]),
        note,
        said[RECORD_BYTES:],
    )


def parse_path(lines: Sequence[str]) -> tuple[bytes, ...]:
    """Parse hashes.

    Raises:
        BundleRefusedError: ``malformed``.
    """
    path = tuple(decode_base64(line) for line in lines)
    if any(len(step) != HASH_BYTES for step in path):
        raise malformed("a hash has 32 bytes")
    return path


def judge_proof(proof: RecordProof, key: NoteKey, verify: Verify) -> Proven:
    """Return what a proof proves.

    Raises:
        BundleRefusedError: ``malformed``; ``signature``; ``log``: it proves nothing.
    """
    checkpoint = parse_checkpoint(open_note(proof.note.encode(), key, verify))
    receipt = parse_receipt(proof.record)
    leaf = leaf_hash(proof.record)
    if not verify_inclusion(
        leaf, proof.index, checkpoint.size, proof.path, checkpoint.root
    ):
        raise _unproven("the path does not lead to the checkpoint's root")
    if receipt.seq != proof.index:
        raise _unproven(f"the record is number {receipt.seq}, not {proof.index}")
    is_event = bool(receipt.flags & EVENT)
    if bool(proof.event) != is_event or (
        is_event and sha256(proof.event).digest() != receipt.output
    ):
        raise _unproven("what the event says is not what was logged")
    return Proven(receipt, checkpoint, proof.event)


def judge_growth(old: Checkpoint, new: Checkpoint, path: Sequence[bytes]) -> None:
    """Stay silent if one checkpoint's log grew into the other's.

    Raises:
        BundleRefusedError: ``replayed``: the new one is shorter; ``forked``: they are
            of two logs, or of two histories.
    """
    if old.origin != new.origin:
        what = f"one key signs two logs: {old.origin} and {new.origin}"
        raise BundleRefusedError(what, reason=Reason.FORKED)
    if new.size < old.size:
        what = f"{new.size} records, and {old.size} were seen before"
        raise BundleRefusedError(what, reason=Reason.REPLAYED, todo=OLDER)
    if not verify_consistency(old.size, new.size, old.root, new.root, path):
        what = f"the first {old.size} of {new.size} records are not those seen before"
        raise BundleRefusedError(what, reason=Reason.FORKED)


def pack_path(index: int, size: int, path: Sequence[bytes]) -> bytes:
    """Return the least that proves a record to who has it and the checkpoint.

    >>> len(pack_path(0, 10**6, [bytes(32)] * 20))
    656
    """
    return _PATH.pack(index, size) + b"".join(path)


def unpack_path(raw: bytes) -> tuple[int, int, tuple[bytes, ...]]:
    """Return number, size and path.

    Raises:
        BundleRefusedError: ``malformed``.
    """
    steps, rest = divmod(len(raw) - _PATH.size, HASH_BYTES)
    if rest or not 0 <= steps <= MAX_LEVELS:
        raise malformed("no path")
    index, size = _PATH.unpack_from(raw)
    starts = range(_PATH.size, len(raw), HASH_BYTES)
    return index, size, tuple(raw[at : at + HASH_BYTES] for at in starts)


def _value(line: str, word: str) -> str:
    """Return what a line says after its word."""
    first, space, value = line.partition(" ")
    if first != word or not space:
        raise malformed(f"a proof has a line `{word}`")
    return value


def _unproven(what: str) -> BundleRefusedError:
    """Return the error for what proves nothing."""
    return BundleRefusedError(what, reason=Reason.LOG, todo=UNPROVEN)
