"""What the log takes, brought to the disk by a thread of its own.

The rules this module keeps:
 * The loop never waits for the disk: it puts orders in a queue, where they stay until
   a checkpoint that covers them is on the medium. After a failure all of them are
   performed again, on new descriptors, at the same places.
 * The order is: records and events, the roots of full segments, then the checkpoint,
   then the ratchet's step. What a checkpoint says is on the medium before it is.
 * The oldest whole segments go when there are more bytes than the quota; the segment
   that is written never goes.
"""

import logging
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace

from agent.audit.files import Folder
from agent.audit.ratchet import Ratchet
from agent.core.audit_layout import (
    KINDS,
    ROOT,
    ROOT_BYTES,
    ROOTS,
    SEGMENT_BYTES,
    SEGMENT_RECORDS,
    Frame,
    file_of,
    pack_event_line,
    pack_frame,
    parse_file_name,
    segment_of,
)
from agent.core.checkpoint import Checkpoint, render_checkpoint
from agent.core.disk_reasons import disk_reason
from agent.core.note import NoteKey, Sign, sign_note
from agent.core.reasons import Reason
from agent.core.receipts import RECORD_BYTES

log = logging.getLogger(__name__)
RETRY_S = 1.0  # a full disk is looked at so often; a stalled card comes back by itself


@dataclass(frozen=True, slots=True)
class Piece:
    """Records of one segment: ``content`` begins with number ``seq``."""

    seq: int
    content: bytes


@dataclass(frozen=True, slots=True)
class Said:
    """What the event of record ``seq`` says."""

    seq: int
    text: bytes


@dataclass(frozen=True, slots=True)
class Full:
    """A segment is full: its root, and the chain after it."""

    segment: int
    root: bytes
    head: bytes


Order = Piece | Said | Full | Checkpoint


@dataclass(slots=True)
class Signer:
    """Who signs a log.

    Attributes:
        key: By which name and public key.
        sign: With the private one.
        ratchet: Makes MACs; None without.
    """

    key: NoteKey
    sign: Sign
    ratchet: Ratchet | None = None


@dataclass(slots=True)
class Durable:
    """What is on the medium; exchanged as a whole, read by any thread.

    Attributes:
        checkpoint: The newest one; ``note`` is its signed form.
        trouble: Why nothing can be written now, or nothing.
        bytes: What the log takes on the disk.
        first: The oldest record that is still there.
        checkpoints: How many were signed since the start.
    """

    checkpoint: Checkpoint
    note: str = ""
    trouble: Reason = Reason.NONE
    bytes: int = 0
    first: int = 0
    checkpoints: int = 0


@dataclass(slots=True)
class _Progress:
    """How far the orders at hand are: all of it is done again after a failure."""

    performed: int = 0
    dirty: set[str] = field(default_factory=set)
    starts: dict[str, int] = field(default_factory=dict)  # at the last checkpoint
    ends: dict[str, int] = field(default_factory=dict)


class Writer:
    """Performs orders in a thread.

    Args:
        folder: The log's.
        signer: Signs checkpoints.
        quota_bytes: What the log may take.
        durable: What is on the medium already.
    """

    def __init__(
        self, folder: Folder, signer: Signer, quota_bytes: int, durable: Durable
    ) -> None:
        self._folder = folder
        self._signer = signer
        self.quota_bytes = quota_bytes
        self.durable = durable
        self._orders: list[Order] = []
        self._progress = _Progress()
        self._used, self._first = durable.bytes, durable.first
        self._stirred = threading.Condition()
        self._ended: Callable[[], None] | None = None
        self._thread = threading.Thread(target=self._run, name="audit", daemon=True)

    def start(self) -> None:
        """Begin to perform orders."""
        self._thread.start()

    def put(self, *orders: Order) -> None:
        """Perform these orders, after those before; returns at once."""
        with self._stirred:
            self._orders.extend(orders)
            self._stirred.notify()

    def finish(self, ended: Callable[[], None]) -> None:
        """End once all orders were performed, or the disk does not take them.

        Args:
            ended: Called by the thread, last of all.
        """
        with self._stirred:
            self._ended = ended
            self._stirred.notify()

    def _run(self) -> None:
        """Perform orders until the end, and say so to a loop that still runs."""
        self._work()
        self._folder.close()
        if self._ended is not None:
            with suppress(RuntimeError):
                self._ended()

    def _work(self) -> None:
        """Perform orders until there are no more, or they are not taken at the end."""
        while True:
            with self._stirred:
                while self._progress.performed == len(self._orders):
                    if self._ended is not None:
                        return
                    self._stirred.wait()
            try:
                self.perform()
            except OSError as err:
                self._fail(err)
                with self._stirred:
                    if self._ended is not None:
                        return
                    self._stirred.wait(RETRY_S)

    def perform(self) -> None:
        """Perform the orders at hand.

        Raises:
            OSError: The disk does not play along; all orders since the last checkpoint
                are performed again.
        """
        while self._progress.performed < len(self._orders):
            order = self._orders[self._progress.performed]
            if isinstance(order, Checkpoint):
                self._seal(order)
                with self._stirred:
                    del self._orders[: self._progress.performed + 1]
                self._progress.performed = 0
            else:
                self._write(order)
                self._progress.performed += 1

    def _write(self, order: Piece | Said | Full) -> None:
        """Write what is not signed yet."""
        if isinstance(order, Full):
            place = order.segment * ROOT_BYTES
            self._put(ROOTS, place, ROOT.pack(order.root, order.head))
            return
        segment = order.seq // SEGMENT_RECORDS
        if isinstance(order, Said):
            line = pack_event_line(order.seq, order.text)
            self._append(file_of(segment, "events"), line)
            return
        name = file_of(segment, "records")
        if self._folder.size(name) < SEGMENT_BYTES:
            self._folder.allocate(name, SEGMENT_BYTES)
            self._make_room(segment)
        place = order.seq % SEGMENT_RECORDS * RECORD_BYTES
        self._put(name, place, order.content)

    def _put(self, name: str, place: int, content: bytes) -> None:
        """Write at a place."""
        self._folder.write(name, place, content)
        self._progress.dirty.add(name)

    def _append(self, name: str, content: bytes) -> None:
        """Write at the end that a file had at the last checkpoint, or since."""
        progress = self._progress
        if name not in progress.starts:
            progress.starts[name] = progress.ends[name] = self._folder.size(name)
        place = progress.ends[name]
        self._put(name, place, content)
        progress.ends[name] = place + len(content)

    def _seal(self, checkpoint: Checkpoint) -> None:
        """Sign a checkpoint of what is on the medium, and bring it there."""
        progress, ratchet = self._progress, self._signer.ratchet
        self._folder.sync(sorted(progress.dirty))
        progress.dirty.clear()
        text = render_checkpoint(checkpoint)
        note = sign_note(text, self._signer.key, self._signer.sign)
        frame = Frame(note.encode())
        if ratchet is not None:
            frame = Frame(frame.note, ratchet.epoch, ratchet.mac(frame.note))
        name = file_of(segment_of(checkpoint.size), "notes")
        self._append(name, pack_frame(frame))
        self._folder.sync([name])
        progress.dirty.clear()
        if ratchet is not None:
            ratchet.step()
        self._progress = _Progress(self._progress.performed)
        before = self.durable
        self.durable = Durable(
            checkpoint,
            note,
            bytes=self._used,
            first=self._first,
            checkpoints=before.checkpoints + 1,
        )
        if before.trouble:
            log.info("audit.recovered", extra={"records": checkpoint.size})

    def _make_room(self, current: int) -> None:
        """Remove the oldest whole segments while there are too many bytes."""
        folder = self._folder
        sizes = {name: folder.size(name) for name in folder.names()}
        found = [parse_file_name(name) for name in sizes]
        used = sum(sizes.values())
        segments = sorted({it[0] for it in found if it is not None})
        # The one before this holds the newest checkpoint, until this has one.
        while used > self.quota_bytes and segments and segments[0] < current - 1:
            for name in (file_of(segments[0], kind) for kind in KINDS):
                used -= sizes.get(name, 0)
                folder.remove(name)
            del segments[0]
        self._used, self._first = used, min(segments, default=0) * SEGMENT_RECORDS

    def _fail(self, err: OSError) -> None:
        """Begin anew after the last checkpoint, with other descriptors."""
        self._folder.close()
        starts = self._progress.starts
        self._progress = _Progress(starts=starts, ends=dict(starts))
        reason, before = disk_reason(err.errno), self.durable
        if before.trouble != reason:
            said = {"reason": reason, "detail": str(err)}
            log.warning("audit.not_written", extra=said)
        self.durable = replace(before, trouble=reason)
