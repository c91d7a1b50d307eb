"""Verifies a whole log with nothing but the board's public key.

The rules this module keeps:
 * Every byte of the log is looked at: records against chain and tree, these against
   every checkpoint that is kept, events against their records, and what follows the end
   has to be nothing. Other files in its folder are named, and not looked at.
 * A log without a checkpoint is nobody's word, and verifies by no key.
 * What was removed for the quota is believed as far as a later checkpoint covers it.
 * What is wrong is a fault with a reason and with what proves it to others.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

from agent.audit.foreign import ForeignFolder
from agent.audit.key import verify_ed25519
from agent.audit.log_files import LogFaultError, LogFiles
from agent.audit.reading import read_identity
from agent.core.audit_layout import (
    ROOT,
    ROOT_BYTES,
    SEGMENT_BYTES,
    SEGMENT_LEVEL,
    SEGMENT_RECORDS,
    Frame,
    LogIdentity,
    file_of,
)
from agent.core.checkpoint import NO_HEAD, Checkpoint, board_of, parse_checkpoint
from agent.core.merkle import Tree, fold_peaks, leaf_hash
from agent.core.note import NoteKey, open_note
from agent.core.ratchet import is_mac, next_key
from agent.core.reasons import Reason
from agent.core.receipts import EVENT, RECORD_BYTES, parse_receipt
from agent.errors import BundleRefusedError

__all__ = ["Asked", "LogFaultError", "Verified", "verify_log"]
Progress = Callable[[int, int], None]


@dataclass(slots=True)
class Verified:
    """What was verified.

    Attributes:
        origin: The log's name.
        size: Records that the newest checkpoint covers.
        first: The oldest one that is still there.
        checkpoint: The newest one.
        checkpoints: How many were verified; ``events`` likewise.
        unsigned: Whole records behind the newest checkpoint: nobody vouches for them.
        macs: MACs of the ratchet that were verified.
        strangers: Names of what lies in the folder and is no part of the log.
    """

    origin: str
    size: int = 0
    first: int = 0
    checkpoint: Checkpoint | None = None
    checkpoints: int = 0
    events: int = 0
    unsigned: int = 0
    macs: int = 0
    strangers: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Asked:
    """What a log is verified by.

    Attributes:
        public: The board's raw public key.
        board: Whose log it has to be; empty for anybody's.
        last_seen: A note that was seen before, or empty.
        first_keys: Epoch -> the ratchet's first key, where the owner opened them.
    """

    public: bytes
    board: str = ""
    last_seen: str = ""
    first_keys: Mapping[int, bytes] = field(default_factory=dict)


def verify_log(path: Path, asked: Asked, progress: Progress) -> Verified:
    """Verify a log.

    Args:
        path: Its folder, on the board or a copy.
        asked: See ``Asked``.
        progress: Told records that are done, and of how many.

    Raises:
        LogFaultError: ``log``, ``signature``, ``replayed``, ``forked``, ``malformed``.
        DeviceError: It cannot be read.
        OSError: Likewise.
    """
    folder = ForeignFolder(path)
    try:
        return _Walk(folder, _whose(folder), asked).walk(progress)
    except LogFaultError:
        raise
    except BundleRefusedError as err:
        raise LogFaultError(str(err), Reason(err.reason)) from err


def _whose(folder: ForeignFolder) -> LogIdentity:
    """Return whose log it is.

    Raises:
        LogFaultError: None is here.
    """
    identity = read_identity(folder)
    if identity is None:
        raise LogFaultError(f"{folder.path}: no log is here")
    return identity


class _Walk:
    """One pass over a log, oldest segment first."""

    def __init__(
        self, folder: ForeignFolder, identity: LogIdentity, asked: Asked
    ) -> None:
        self._files = LogFiles(folder, NoteKey(identity.origin, asked.public))
        self._folder = folder
        self._asked = asked
        self._identity = identity
        self._seen = self._read_seen()
        self._tree, self._tail, self._head = Tree(), Tree(), NO_HEAD
        self._inferences = 0
        self._counted = True  # every inference from the first on
        self._mac: tuple[int, bytes] = (0, b"")
        self.found = Verified(identity.origin)

    def walk(self, progress: Progress) -> Verified:
        """Go through all of it.

        Raises:
            LogFaultError: Something is wrong.
        """
        segments = self._files.segments()
        first = min(segments, default=0)
        last = max(segments, default=-1)
        roots = self._files.roots(first, last)
        self.found.first = first * SEGMENT_RECORDS
        self.found.strangers = self._folder.strangers(first)
        self._counted = first == 0
        for number in range(first):
            root, self._head = ROOT.unpack_from(roots, number * ROOT_BYTES)
            self._tree.append_subtree(root, SEGMENT_LEVEL)
            self._look_at_seen()
        for number in range(first, last + 1):
            self._segment(number, roots, is_last=number == last)
            progress(self.size, max(1, (last + 1) * SEGMENT_RECORDS))
        self._finish()
        return self.found

    @property
    def size(self) -> int:
        """Records so far."""
        return self._tree.size + self._tail.size

    # --- what there is

    def _read_seen(self) -> Checkpoint | None:
        """Return the checkpoint that was seen before.

        Raises:
            LogFaultError: ``forked``: the key signs for another log, too.
        """
        asked, origin = self._asked, self._identity.origin
        if asked.board and board_of(origin) != asked.board:
            what = f"one key signs for {asked.board} and {board_of(origin)}"
            raise LogFaultError(what, Reason.FORKED, self._files.newest())
        if not asked.last_seen:
            return None
        raw = asked.last_seen.encode()
        name = asked.last_seen.partition("\n")[0]
        seen = parse_checkpoint(
            open_note(raw, NoteKey(name, asked.public), verify_ed25519)
        )
        if seen.origin not in {origin, self._files.follows()}:
            what = f"one key signs two logs: {seen.origin} and {origin}"
            raise LogFaultError(
                what, Reason.FORKED, asked.last_seen, self._files.newest()
            )
        return seen if seen.origin == origin else None

    # --- one segment

    def _segment(self, number: int, roots: bytes, *, is_last: bool) -> None:
        """Verify one segment.

        Raises:
            LogFaultError: Something is wrong.
        """
        raw = self._folder.read(file_of(number, "records"))
        checkpoints = self._files.checkpoints(number)
        events = self._files.events(number)
        end = SEGMENT_RECORDS if not is_last else self._end(checkpoints, number)
        if len(raw) < end * RECORD_BYTES or len(raw) > SEGMENT_BYTES:
            raise LogFaultError(f"segment {number} has {len(raw)} bytes")
        for place in range(end):
            self._record(raw[place * RECORD_BYTES : (place + 1) * RECORD_BYTES], events)
            self._look_at_seen()
            for signed in checkpoints.get(self.size, ()):
                self._compare(signed.checkpoint, signed.note)
                self._verify_mac(signed.frame)
        if end == SEGMENT_RECORDS:
            self._close(number, roots)
        if is_last:
            self._beyond(raw[end * RECORD_BYTES :], number * SEGMENT_RECORDS + end)
        elif not checkpoints:
            raise LogFaultError(f"segment {number} has no checkpoint")

    def _record(self, record: bytes, events: Mapping[int, bytes]) -> None:
        """Take one record into chain and tree."""
        seq, receipt = self.size, parse_receipt(record)
        if receipt.seq != seq:
            raise LogFaultError(f"record {seq} says that it is {receipt.seq}")
        is_event = bool(receipt.flags & EVENT)
        if is_event and sha256(events.get(seq, b"")).digest() != receipt.output:
            raise LogFaultError(f"event {seq} is not what was logged")
        if not is_event and seq in events:
            raise LogFaultError(f"an event is told of record {seq}, which is none")
        self.found.events += is_event
        self._inferences += not is_event
        self._head = sha256(self._head + record).digest()
        self._tail.append(leaf_hash(record))

    def _close(self, number: int, roots: bytes) -> None:
        """A segment is full: its root has to be the one that was noted."""
        root = self._tail.root()
        if roots[number * ROOT_BYTES :][:ROOT_BYTES] != ROOT.pack(root, self._head):
            raise LogFaultError(f"segment {number} is not the one whose root was noted")
        self._tree.append_subtree(root, SEGMENT_LEVEL)
        self._tail = Tree()

    def _verify_mac(self, frame: Frame) -> None:
        """Verify the MAC of a checkpoint, where the owner opened the first key."""
        firsts = [it for it in self._asked.first_keys if it <= frame.epoch]
        if not firsts:
            return
        epoch, key = self._mac
        if max(firsts) > epoch:
            epoch, key = max(firsts), self._asked.first_keys[max(firsts)]
        while epoch < frame.epoch:
            epoch, key = epoch + 1, next_key(key)
        if epoch != frame.epoch or not is_mac(key, epoch, frame.note, frame.mac):
            what = f"checkpoint {frame.epoch} was made after its key was gone"
            raise LogFaultError(what, Reason.LOG, frame.note.decode())
        self._mac = (epoch, key)
        self.found.macs += 1

    def _end(self, checkpoints: Mapping[int, object], number: int) -> int:
        """Return how many records of the last segment are signed."""
        return max(checkpoints, default=number * SEGMENT_RECORDS) - (
            number * SEGMENT_RECORDS
        )

    # --- what is compared

    def _root(self) -> bytes:
        """Return the root over the records so far."""
        return fold_peaks([*self._tree.peaks, *self._tail.peaks])

    def _compare(self, checkpoint: Checkpoint, note: str) -> None:
        """A checkpoint has to be of these records.

        Raises:
            LogFaultError: ``log``: it is not.
        """
        if (checkpoint.root, checkpoint.head) != (self._root(), self._head):
            what = f"the checkpoint of {self.size} records is not of these"
            raise LogFaultError(what, Reason.LOG, note)
        if self._counted and checkpoint.inferences != self._inferences:
            what = f"the checkpoint of {self.size} records counts others"
            raise LogFaultError(what, Reason.LOG, note)
        if not self._counted:
            self._inferences, self._counted = checkpoint.inferences, True
        self.found.checkpoints += 1
        self.found.checkpoint, self.found.size = checkpoint, checkpoint.size

    def _look_at_seen(self) -> None:
        """Where the log is as long as when it was seen before: it has to be that log.

        Raises:
            LogFaultError: ``forked``.
        """
        seen = self._seen
        if seen is None or seen.size != self.size:
            return
        if (seen.root, seen.head) != (self._root(), self._head):
            what = f"the first {seen.size} records are not those that were seen before"
            raise LogFaultError(
                what, Reason.FORKED, self._asked.last_seen, self._files.newest()
            )
        self._seen = None

    def _beyond(self, raw: bytes, size: int) -> None:
        """Behind the newest checkpoint are whole records that follow, then nothing."""
        place = 0
        while any(raw[place : place + RECORD_BYTES]):
            record = raw[place : place + RECORD_BYTES]
            seq = size + self.found.unsigned
            if len(record) != RECORD_BYTES or parse_receipt(record).seq != seq:
                raise LogFaultError(f"what follows record {seq - 1} is no record")
            self.found.unsigned += 1
            place += RECORD_BYTES
        if any(raw[place:]):
            raise LogFaultError(f"what follows {size} records is not empty")

    def _finish(self) -> None:
        """All was walked: what was seen before has to have been among it.

        Raises:
            LogFaultError: ``replayed``: the log ends before; ``log``.
        """
        if self.found.checkpoint is None:
            what = "nothing here is signed: there is no checkpoint, so no key vouches"
            raise LogFaultError(what, todo="Nothing can be said; take another copy.")
        seen = self._seen
        if seen is None:
            return
        if seen.size > self.size:
            what = f"the log ends after {self.size} records, {seen.size} were seen"
            evidence = (self._asked.last_seen, self._files.newest())
            raise LogFaultError(what, Reason.REPLAYED, *evidence)
        if seen.size:
            raise _incomparable(seen.size, self.found.first)


def _incomparable(seen: int, first: int) -> LogFaultError:
    """Return the error for a checkpoint that nothing is left of to compare it with."""
    return LogFaultError(
        f"what was seen before ({seen} records) cannot be compared any more: the "
        f"quota removed the first {first} records; the log itself is what was signed",
        todo="This accuses nobody. Fetch a checkpoint more often than the quota removes"
        " what it ends with (`tinyward audit head -o FILE`), or raise audit.quota_mb.",
    )
