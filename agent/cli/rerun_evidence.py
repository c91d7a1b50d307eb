"""What an audit reads: a board's log that was verified, and what it kept.

The rules this module keeps:
 * Only what a signed checkpoint covers is looked at; every record that is used was
   proven to be in it.
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

from agent.audit.archive import Archive
from agent.audit.kept import KeptFolder
from agent.audit.verify import Asked, verify_log
from agent.core.audit_events import AuditEvent, parse_event
from agent.core.audit_layout import SEGMENT_RECORDS, segment_of
from agent.core.checkpoint import Checkpoint, board_of
from agent.core.kept_gaps import Gap, find_gaps
from agent.core.reasons import Reason
from agent.core.receipts import Receipt, parse_receipt
from agent.errors import DeviceError

Progress = Callable[[int, int], None]


class Evidence(Protocol):
    """A log, and what was kept beside it.

    Attributes:
        checkpoint: The one whose signature was verified.
        first: The oldest record that is still there.
    """

    checkpoint: Checkpoint
    first: int

    def receipts(self, first: int, end: int) -> Iterator[Receipt]:
        """Yield receipts, as they were logged."""

    def prove(self, seq: int) -> Receipt:
        """Return one receipt, once its inclusion was verified.

        Raises:
            AgentError: It is not in the log.
        """

    def kept(self, first: int, end: int) -> list[int]:
        """Return whose inputs are there."""

    def sealed(self, seq: int) -> bytes | None:
        """Return one kept input; None where it is not there."""

    def says_not_kept(self, receipt: Receipt) -> bool:
        """Whether the log says itself that the input of a receipt was not kept."""


class FolderEvidence:
    """Evidence in folders: of a board, of its card, or copies; satisfies ``Evidence``.

    Args:
        log: The log's folder.
        kept: Where kept inputs lie.
        asked: By which key, and whose it has to be.
        progress: Told how many records were verified.

    Raises:
        LogFaultError: The log is not what was signed.
        DeviceError: ``log``: it has no checkpoint, or cannot be read.
    """

    def __init__(self, log: Path, kept: Path, asked: Asked, progress: Progress) -> None:
        try:
            verified = verify_log(log, asked, progress)
        except OSError as err:
            raise DeviceError(f"{log}: {err.strerror}", reason=Reason.LOG) from err
        if verified.checkpoint is None:
            raise DeviceError(f"{log}: no checkpoint is signed", reason=Reason.LOG)
        self.checkpoint = verified.checkpoint
        self.first = verified.first
        self._archive = Archive(log)
        self._kept = KeptFolder(kept)
        self._gaps = find_gaps(self._events())

    def receipts(self, first: int, end: int) -> Iterator[Receipt]:
        """Yield receipts, as they were logged."""
        at = first
        while at < end:
            records = self._archive.records(at, end - at, self.checkpoint.size)
            yield from map(parse_receipt, records)
            at += len(records)

    def prove(self, seq: int) -> Receipt:
        """Return one receipt; ``Archive.prove`` verifies what it found."""
        record, _ = self._archive.prove(seq, self.checkpoint)
        return parse_receipt(record)

    def kept(self, first: int, end: int) -> list[int]:
        """Return whose inputs are there."""
        return self._kept.seqs(first, end)

    def sealed(self, seq: int) -> bytes | None:
        """Return one kept input."""
        return self._kept.read(seq)

    def says_not_kept(self, receipt: Receipt) -> bool:
        """Whether the log says itself that the input of a receipt was not kept."""
        return is_within(self._gaps, receipt)

    def _events(self) -> Iterator[AuditEvent]:
        """Yield the events of the log; ``verify_log`` held them against records."""
        end = self.checkpoint.size
        for segment in range(self.first // SEGMENT_RECORDS, segment_of(end) + 1):
            for seq, text in self._archive.events(segment):
                if seq < end:
                    yield parse_event(text)


def is_within(gaps: Sequence[Gap], receipt: Receipt) -> bool:
    """Whether a receipt is of one of some gaps."""
    seq, word = receipt.seq, receipt.pipeline
    return any(it.pipeline == word and it.first <= seq <= it.last for it in gaps)


def whose(evidence: Evidence) -> str:
    """Return the board's id."""
    return board_of(evidence.checkpoint.origin)
