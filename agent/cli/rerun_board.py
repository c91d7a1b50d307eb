"""Evidence for an audit, fetched from a board that runs: its records, what it kept.

The rules this module keeps:
 * All records from the first that may be asked for are fetched, and the signed root is
   computed over them: a board that leaves a receipt out of its list, or takes a flag
   away, is found out, and no single proof is needed.
 * What lies before is covered by the left edge of one proof of inclusion: the roots of
   the subtrees before a leaf are the peaks of the tree that ends there.
"""

from base64 import b64decode
from binascii import Error as Base64Error
from collections.abc import Callable, Iterator, Sequence
from hashlib import sha256
from typing import Protocol, TypeVar

from msgspec import Struct

from agent.audit.key import verify_ed25519
from agent.cli.rerun_evidence import is_within
from agent.core.audit_events import AuditEvent, parse_event
from agent.core.checkpoint import board_of, parse_checkpoint
from agent.core.kept_gaps import find_gaps
from agent.core.log_proof import parse_proof
from agent.core.merkle import Tree, leaf_hash
from agent.core.note import NoteKey, open_note
from agent.core.reasons import Reason
from agent.core.receipts import EVENT, RECORD_BYTES, Receipt, parse_receipt
from agent.errors import BundleRefusedError

Answer = TypeVar("Answer")
Progress = Callable[[int, int], None]


class Reader(Protocol):
    """A board that answers; satisfied by ``agent.cli.board_link.BoardLink``."""

    def read_text(self, path: str) -> str:
        """Return an answer that is a text."""

    def read_raw(self, path: str) -> bytes | None:
        """Return an answer's bytes, None for 404."""

    def read_as(self, path: str, kind: type[Answer]) -> Answer:
        """Return a parsed answer."""


class Row(Struct, frozen=True):
    """One record, in base64, and what its event says."""

    record: str
    event: str = ""


class Page(Struct, frozen=True):
    """Some records, the oldest that there is, and how many there are in all."""

    first: int
    size: int
    records: list[Row]


class Kept(Struct, frozen=True):
    """Receipts whose inputs are kept."""

    seqs: list[int]


class BoardEvidence:
    """Evidence of a board that runs; satisfies ``rerun_evidence.Evidence``.

    Args:
        board: Answers.
        public: The raw key by which its log is verified.
        whose: Whose log it has to be; empty for anybody's.
        since: The first receipt that is of interest.
        progress: Told how many records were fetched.

    Raises:
        BundleRefusedError: ``log``, ``signature``, ``malformed``: it is not what was
            signed.
        AgentError: It cannot be asked.
    """

    def __init__(
        self, board: Reader, public: bytes, whose: str, since: int, progress: Progress
    ) -> None:
        self._board = board
        note = board.read_text("/v1/audit/checkpoint")
        origin = note.partition("\n")[0]
        text = open_note(note.encode(), NoteKey(origin, public), verify_ed25519)
        self.checkpoint = parse_checkpoint(text)
        if whose and board_of(origin) != whose:
            raise _wrong(f"this is the log of {board_of(origin)!r}, not of {whose!r}")
        if not self.checkpoint.size:
            raise _wrong("there is no record yet")
        self.first = max(since, self._page(self.checkpoint.size - 1).first)
        self._records: list[bytes] = []
        self._said: list[AuditEvent] = []
        self._fetch(progress)
        if self._root() != self.checkpoint.root:
            raise _wrong("the records that it tells are not those that it signed")
        self._gaps = find_gaps(self._said)

    def receipts(self, first: int, end: int) -> Iterator[Receipt]:
        """Yield receipts, as they were logged."""
        found = self._records[first - self.first : end - self.first]
        yield from map(parse_receipt, found)

    def prove(self, seq: int) -> Receipt:
        """Return one receipt; the root was computed over it."""
        return parse_receipt(self._records[seq - self.first])

    def kept(self, first: int, end: int) -> list[int]:
        """Return whose inputs are there."""
        found: list[int] = []
        while first < end:
            path = f"/v1/audit/kept?from={first}&to={end}"
            seqs = self._board.read_as(path, Kept).seqs
            new = [seq for seq in seqs if first <= seq < end]
            if not new:
                break
            found += new
            first = max(new) + 1
        return sorted(found)

    def sealed(self, seq: int) -> bytes | None:
        """Return one kept input; None where the board does not have it."""
        return self._board.read_raw(f"/v1/audit/kept/{seq}")

    def says_not_kept(self, receipt: Receipt) -> bool:
        """Whether the log says itself that the input of a receipt was not kept."""
        return is_within(self._gaps, receipt)

    def _page(self, start: int) -> Page:
        """Return some records from one on.

        Raises:
            BundleRefusedError: ``log``: there are none.
        """
        page = self._board.read_as(f"/v1/audit/records?from={start}", Page)
        if not page.records:
            raise _wrong(f"it does not tell record {start}")
        return page

    def _fetch(self, progress: Progress) -> None:
        """Fetch all records up to the checkpoint."""
        size = self.checkpoint.size
        while (at := self.first + len(self._records)) < size:
            rows = self._page(at).records[: size - at]
            self._records += [_record(row) for row in rows]
            self._said += [_event(row) for row in rows if row.event]
            progress(len(self._records), size - self.first)

    def _root(self) -> bytes:
        """Return the root over what comes before, and what was fetched."""
        tree = Tree()
        if self.first:
            proof = parse_proof(
                self._board.read_text(f"/v1/audit/proof/{self.first}").encode()
            )
            of = _size_of(proof.note)
            peaks = left_peaks(self.first, of, proof.path)
            try:
                tree = Tree(self.first, peaks)
            except ValueError as err:
                raise _wrong(str(err)) from err
        for record in self._records:
            tree.append(leaf_hash(record))
        return tree.root()


def left_peaks(index: int, size: int, path: Sequence[bytes]) -> list[bytes]:
    """Return the roots of the full subtrees before a leaf, largest first.

    Args:
        index: Which leaf.
        size: Of the tree.
        path: Its proof of inclusion (RFC 9162, 2.1.3.2), leaf first.
    """
    place, last = index, size - 1
    lefts: list[bytes] = []
    for step in path:
        if place & 1 or place == last:
            lefts.append(step)
            while place and not place & 1:
                place, last = place >> 1, last >> 1
        place, last = place >> 1, last >> 1
    return lefts[::-1]


def _size_of(note: str) -> int:
    """Return the size of the tree that a proof is of; the root will tell."""
    text, _, _ = note.partition("\n\n")
    return parse_checkpoint(f"{text}\n").size


def _record(row: Row) -> bytes:
    """Return a record's bytes.

    Raises:
        BundleRefusedError: ``log``: they are none.
    """
    try:
        record = b64decode(row.record, validate=True)
    except Base64Error as err:
        raise _wrong(f"a record in no base64: {err}") from err
    if len(record) != RECORD_BYTES:
        raise _wrong(f"a record of {len(record)} bytes")
    return record


def _event(row: Row) -> AuditEvent:
    """Return what an event says, once it is held against its record.

    Raises:
        BundleRefusedError: ``log``: it is not what was logged.
    """
    receipt, text = parse_receipt(_record(row)), row.event.encode()
    if not receipt.flags & EVENT or sha256(text).digest() != receipt.output:
        raise _wrong(f"event {receipt.seq} is not what was logged")
    try:
        return parse_event(text)
    except ValueError as err:
        raise _wrong(f"event {receipt.seq}: {err}") from err


def _wrong(what: str) -> BundleRefusedError:
    """Return the error for a log that is not what was signed."""
    return BundleRefusedError(f"the board's log: {what}", reason=Reason.LOG)
