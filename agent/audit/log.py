"""The log of receipts: takes records, gives them their place, and signs what it has.

The rules this module keeps:
 * All of it belongs to the loop but ``Writer``: a record has its number, its place in
   the chain and in the tree when ``take`` returns, and is on the medium with the next
   checkpoint.
 * What finds no room is counted, and said in the log as soon as it takes again: a
   record is lost, never silently.
 * A checkpoint is made after so many records or so much time, and one at the end of
   each segment: that one can be proven consistent for ever.
"""

import asyncio
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from struct import Struct

from agent.audit.writer import Durable, Full, Order, Piece, Said, Writer
from agent.core.audit_events import GAP, LOST, STOPPED, event_record, render_event
from agent.core.audit_layout import SEGMENT_LEVEL, SEGMENT_RECORDS
from agent.core.checkpoint import Checkpoint
from agent.core.log_view import LogView
from agent.core.merkle import Tree
from agent.core.protect_settings import AuditSettings
from agent.core.reasons import Reason
from agent.core.receipts import EVENT, NO_HASH, RECORD_BYTES

# Records that may wait for the disk: 1 MB, and half of what a ring holds, where they
# are found again if this process is killed.
BACKLOG = 8_192
# Checkpoints' worth of answers that go ahead of the disk where answers stop with it:
# one that is being signed, and one that fills.
AHEAD = 2
UNLIMITED = 2**62
NO_SEQ = 2**62  # no log has as many records
LOOK_S = 1.0  # how often is looked whether a checkpoint is due
FINISH_S = 2.0  # what the disk gets for the last checkpoint: systemd gives us 5 s
_SEQ = Struct(">Q")
_FLAGS = Struct(">I")
MB = 1_000_000
FLAGS_AT = 24  # seq, sample and monotonic ns come before


@dataclass(slots=True)
class Grown:
    """What the log is at one moment; ``agent.audit.recovery`` says it at the start.

    Attributes:
        tree: Over all full segments.
        tail: Over the segment that is written.
        head: The chain's.
        inferences: Records that are no events; ``lost`` those that found no room.
        starts: How often the log was opened, this time included.
        gaps: Starts after which the last moments before them may be missing.
    """

    tree: Tree
    tail: Tree
    head: bytes
    inferences: int = 0
    lost: int = 0
    starts: int = 1
    gaps: int = 0

    @property
    def size(self) -> int:
        """Records in it."""
        return self.tree.size + self.tail.size

    def root(self) -> bytes:
        """Return the root over all of them."""
        whole = self.tree.copy()
        # The tail has fewer leaves than a segment: its peaks follow the tree's.
        return Tree(self.size, [*whole.peaks, *self.tail.peaks]).root()


@dataclass(frozen=True, slots=True)
class Place:
    """Where and when this log is written.

    Attributes:
        origin: Its name.
        boot: The kernel's boot id.
        runtime: Returns what answers, as checkpoints name it.
        clock: Unix seconds; ``monotonic_ns`` CLOCK_MONOTONIC.
    """

    origin: str
    boot: str
    runtime: Callable[[], str]
    clock: Callable[[], float]
    monotonic_ns: Callable[[], int] = time.monotonic_ns


class AuditLog:
    """A log that is open. Made by ``agent.audit.opening.open_log``.

    Args:
        settings: When checkpoints are due, and what a full disk means.
        place: See ``Place``.
        grown: What it is so far.
        writer: Brings it to the disk.
    """

    def __init__(
        self, settings: AuditSettings, place: Place, grown: Grown, writer: Writer
    ) -> None:
        self.settings = settings
        self._place = place
        self._grown = grown
        self._writer = writer
        self._marked = grown.size
        self._marked_s = place.monotonic_ns() / 1e9
        self._untold = 0  # records that were lost, and not said to be
        self._then: tuple[int, Callable[[], None]] | None = None
        self.ended_well = True  # the life before this one
        self.aside = 0  # logs before it that were damaged, and lie beside it

    # --- what it is

    @property
    def origin(self) -> str:
        """Its name in checkpoints."""
        return self._place.origin

    @property
    def size(self) -> int:
        """Records in it, those included that are not on the medium yet."""
        return self._grown.size

    @property
    def inferences(self) -> int:
        """Records that are no events."""
        return self._grown.inferences

    @property
    def lost(self) -> int:
        """Records that found no room, ever."""
        return self._grown.lost

    @property
    def durable(self) -> Durable:
        """What is on the medium."""
        return self._writer.durable

    def view(self) -> LogView:
        """Return what is told of it."""
        durable, grown = self.durable, self._grown
        signed = durable.checkpoint
        now_s, then_s = self._place.monotonic_ns() / 1e9, signed.monotonic_ns / 1e9
        return LogView(
            records=grown.size,
            inferences=grown.inferences,
            lost=grown.lost,
            checkpoints=durable.checkpoints,
            unsigned=grown.size - signed.size,
            bytes=durable.bytes,
            # That of another boot says nothing about now.
            age_s=max(0.0, now_s - then_s) if durable.checkpoints else 0.0,
            trouble=durable.trouble,
            aside=self.aside,
            gaps=grown.gaps,
        )

    def allowance(self) -> tuple[int, Reason]:
        """Return how many more records may be made now, and why not more."""
        if self.settings.when_full == "count":
            return UNLIMITED, Reason.NONE
        if self._is_due():
            self._mark()  # or those who wait for it would wait for its time
        if self.durable.trouble:
            return 0, self.durable.trouble
        ahead = min(AHEAD * self.settings.checkpoint_records, BACKLOG)
        return max(0, ahead - self._waiting()), Reason.LOG

    # --- what it takes

    def take(self, records: memoryview | bytes) -> int:
        """Append records, and return the number of the first of them.

        Args:
            records: Whole ones, in order; their ``seq`` is given here.

        Returns:
            ``NO_SEQ`` where they found no room: all of them are counted as lost.
        """
        count, first = len(records) // RECORD_BYTES, self._grown.size
        if self.settings.when_full == "count" and count > self._room():
            self._grown.lost += count
            self._untold += count
            return NO_SEQ
        place = 0
        while place < count:
            here = min(count - place, SEGMENT_RECORDS - self._grown.tail.size)
            end = (place + here) * RECORD_BYTES
            self._append(bytearray(records[place * RECORD_BYTES : end]))
            place += here
        if self._is_due():
            self._mark()
        return first

    def lose(self, count: int, why: str) -> None:
        """Say that records are lost which never came here."""
        self._grown.lost += count
        self.note(LOST, {"records": count, "reason": why})

    def note(
        self, name: str, facts: Mapping[str, object], model: bytes = NO_HASH
    ) -> int:
        """Append an event, and return its number.

        Args:
            name: As in log lines: ``meter.redeemed``.
            facts: Short ones; see ``render_event``.
            model: SHA-256 of the model it is about.
        """
        text = render_event(name, self._place.clock(), facts)
        seq = self._grown.size
        # First: a checkpoint that the record brings about covers what it says.
        self._writer.put(Said(seq, text))
        self._append(bytearray(event_record(text, self._place.monotonic_ns(), model)))
        return seq

    def once_durable(self, call: Callable[[], None]) -> None:
        """Call this once all that there is now is on the medium."""
        self._then = self.size, call

    def miss_moments(self) -> None:
        """Declare that the last moments before this start may be missing."""
        self._grown.gaps += 1
        ahead = AHEAD * self.settings.checkpoint_records
        stops = self.settings.when_full == "stop"
        said = ahead if stops else "unknown"
        self.note(GAP, {"at_most": said, "reason": "a loss of power, or of memory"})

    def follow(self, settings: AuditSettings) -> None:
        """Go on by other limits; keys and modes need another start."""
        self.settings = settings
        self._writer.quota_bytes = int(settings.quota_mb * MB)

    def mark(self) -> None:
        """Sign a checkpoint of all there is, now."""
        self._mark()

    # --- life

    async def run(self) -> None:
        """Sign checkpoints when they are due; ends by cancellation only."""
        while True:
            await asyncio.sleep(min(LOOK_S, self.settings.checkpoint_s / 2))
            self.look()

    def look(self) -> None:
        """Do what is due: say what was lost, and sign a checkpoint."""
        if self._then and self.durable.checkpoint.size >= self._then[0]:
            self._then[1]()
            self._then = None
        if self._untold and not self.durable.trouble and self._room() > 0:
            untold, self._untold = self._untold, 0
            self.note(LOST, {"records": untold, "reason": "no room on the disk"})
            self._mark()
        waited_s = self._place.monotonic_ns() / 1e9 - self._marked_s
        if self.size > self._marked and waited_s >= self.settings.checkpoint_s:
            self._mark()

    async def close(self) -> None:
        """Say that it ends, and bring all of it to the disk, if that plays along."""
        self.note(STOPPED, {})
        self._mark()
        loop, ended = asyncio.get_running_loop(), asyncio.Event()

        def tell() -> None:
            loop.call_soon_threadsafe(ended.set)

        self._writer.finish(tell)
        with suppress(TimeoutError):
            await asyncio.wait_for(ended.wait(), FINISH_S)

    # --- how

    def _room(self) -> int:
        """Return how many records may still wait for the disk."""
        return BACKLOG - self._waiting()

    def _waiting(self) -> int:
        """Return how many records are not on the medium yet."""
        return self._grown.size - self.durable.checkpoint.size

    def _append(self, content: bytearray) -> None:
        """Give records of one segment their numbers and places."""
        grown = self._grown
        head, tail, seq = grown.head, grown.tail, grown.size
        first, events = seq, 0
        for place in range(0, len(content), RECORD_BYTES):
            _SEQ.pack_into(content, place, seq)
            record = bytes(content[place : place + RECORD_BYTES])
            head = sha256(head + record).digest()
            tail.append(sha256(b"\x00" + record).digest())
            events += _FLAGS.unpack_from(record, FLAGS_AT)[0] & EVENT != 0
            seq += 1
        grown.head = head
        grown.inferences += seq - first - events
        orders: list[Order] = [Piece(first, bytes(content))]
        if tail.size == SEGMENT_RECORDS:
            root = tail.root()
            grown.tree.append_subtree(root, SEGMENT_LEVEL)
            grown.tail = Tree()
            orders.append(Full((seq - 1) >> SEGMENT_LEVEL, root, head))
        self._writer.put(*orders)
        if not grown.tail.size:
            self._mark()

    def _is_due(self) -> bool:
        """Whether there are records enough for a checkpoint, and none is under way.

        While one is being written more records come: the next covers all of them, so
        that a slow card signs less often instead of falling behind.
        """
        waits = self._marked > self.durable.checkpoint.size
        return (
            not waits and self.size - self._marked >= self.settings.checkpoint_records
        )

    def _mark(self) -> None:
        """Have a checkpoint of all there is signed."""
        grown, place = self._grown, self._place
        now_ns = place.monotonic_ns()
        self._marked, self._marked_s = grown.size, now_ns / 1e9
        self._writer.put(
            Checkpoint(
                origin=place.origin,
                size=grown.size,
                root=grown.root(),
                head=grown.head,
                inferences=grown.inferences,
                lost=grown.lost,
                starts=grown.starts,
                gaps=grown.gaps,
                boot=place.boot,
                monotonic_ns=now_ns,
                time_s=max(0, int(place.clock())),
                runtime=place.runtime(),
            )
        )
