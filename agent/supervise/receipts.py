"""One pipeline's receipts: a ring for each worker's life, emptied ten times a second.

The rules this module keeps:
 * What a worker has written is handed over once, in order, however its life ends; a
   record that was not whole when it died is not counted.
 * A worker may answer what the recorder allows, and no more than its ring has room for.
 * A ring that says what cannot be ends its worker: what was taken before stays, what it
   counts beyond that is lost, and the log says so.
 * A recorder that does not take records is offered them again; meanwhile no more may be
   answered than was allowed already.
"""

import asyncio
import contextlib
import logging
import mmap
import os
from collections.abc import Callable, Container, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from agent.core.reasons import Reason
from agent.core.receipt_bounds import Bounds, flags_of
from agent.core.receipts import (
    NO_SEQ,
    RECORD_BYTES,
    RING_BYTES,
    ReceiptOrder,
    RingReader,
    kept_numbers,
    name_word,
)
from agent.errors import AgentError, DeviceError
from agent.supervise.memfd import shared_memory

if TYPE_CHECKING:
    from agent.core.shadow_ring import RingReader as KeptReader

log = logging.getLogger(__name__)
DRAIN_S = 0.1  # a look costs some 5 us, 0.05 ms a second
OPENING_S = 0.01  # while the log is being opened: the first answer waits for it
BATCH = 2048  # records that are handed over at once: some 10 ms of the daemon's loop
# Kept inputs whose receipt was not taken yet, and receipts whose input did not come:
# both come within a look of each other, and at most one in some samples is kept.
MAX_UNPAIRED = 256


class Recorder(Protocol):
    """Takes receipts, and says how many more there may be."""

    def take(self, pipeline: str, records: memoryview) -> int:
        """Take some records of ``RECORD_BYTES``, in order, at once.

        Returns:
            What the log calls the first of them (``seq``); the others follow it.
            ``NO_SEQ`` where they are counted as lost.

        Raises:
            AgentError: They were not taken, none of them; they are offered again.
        """

    def lose(self, pipeline: str, count: int) -> None:
        """Count records that a worker wrote, and that can never be taken."""

    def allowance(self, pipeline: str) -> tuple[int, Reason]:
        """Return how many more samples may be answered beyond those taken, and why.

        It takes the place of what was returned before for this pipeline; a worker that
        was allowed more meanwhile may use that up. The reason is why there are no more,
        for people; it is looked at where the number is 0.
        """


class Keeper(Protocol):
    """Takes inputs that are kept for audits."""

    def keep(self, pipeline: str, seq: int, content: bytes) -> None:
        """Take one kept sample (``agent.core.kept``) of a receipt; never waits."""

    def miss(self, count: int) -> None:
        """Count samples that were to be kept and found no room in a ring."""


class RingKeeper(Protocol):
    """Makes rings that outlive this process: the next start takes what they hold."""

    def make(self, pipeline: str) -> int | None:
        """Return the descriptor of ``RING_BYTES``, zeroed; None where there is none."""

    def told(self) -> tuple[int, int, int]:
        """Return what a ring notes of its time: see ``RingReader.note``."""


@dataclass(frozen=True, slots=True)
class Receipting:
    """How pipelines give receipts.

    Attributes:
        recorder: Takes them.
        order: What workers are told.
        keeper: Takes kept inputs; without one the order keeps none.
        rings: Makes the rings; without it they end with this process.
    """

    recorder: Recorder
    order: ReceiptOrder
    keeper: Keeper | None = None
    rings: RingKeeper | None = None


class Receipts:
    """What one pipeline's workers write, one after the other.

    Args:
        pipeline: Its name.
        receipting: How; None where no receipts are given.

    Attributes:
        closed: Why nothing may be answered now; empty where it may.
        taken: Records that were handed over so far.
        not_kept: Inputs that were to be kept and found no room.
    """

    def __init__(self, pipeline: str, receipting: Receipting | None) -> None:
        self._pipeline = pipeline
        self._how = receipting
        self._memory: list[mmap.mmap] = []
        self._ring: RingReader | None = None
        self._kept: KeptReader | None = None
        self._bounds = Bounds(0, 0, ())
        self._seqs: dict[int, int] = {}  # of receipts whose input was kept, by number
        self._inputs: dict[int, bytes] = {}  # kept inputs whose receipt is to come
        self._refused = Reason.NONE
        self._not_kept = self._missed = 0
        self.closed = Reason.NONE
        self.taken = 0

    @property
    def order(self) -> ReceiptOrder | None:
        """What a worker is told."""
        return self._how.order if self._how else None

    @property
    def not_kept(self) -> int:
        """Inputs that were to be kept, and found no room, over all workers."""
        return self._not_kept + (self._kept.dropped if self._kept else 0)

    def is_closed(self) -> bool:
        """Whether nothing may be answered now."""
        return self.closed is not Reason.NONE

    @contextlib.contextmanager
    def rings(self, loaded: Container[bytes]) -> Iterator[list[int]]:
        """Make the rings of a new worker; their descriptors are closed in the end.

        Args:
            loaded: Digests of the models that it is given; it may grow.

        Raises:
            DeviceError: ``descriptors``: no memory or descriptor is left.
        """
        descriptors: list[int] = []
        try:
            if self._how is not None:
                flags, word = flags_of(self._how.order), name_word(self._pipeline)
                self._bounds = Bounds(flags, word, loaded)
                self._open(self._how, descriptors)
            yield descriptors
        finally:
            for descriptor in descriptors:
                os.close(descriptor)

    def _open(self, how: Receipting, descriptors: list[int]) -> None:
        """Make rings, and let the worker begin at once."""
        kept = how.rings.make(self._pipeline) if how.rings else None
        ring = memoryview(self._map(RING_BYTES, descriptors, kept))
        self._ring = RingReader(ring)
        if how.rings is not None:
            self._ring.note(*how.rings.told())
        if how.order.keep_one_in:
            # Here, so that a daemon that keeps nothing does not even import it.
            from agent.core.kept import KEPT_BYTES
            from agent.core.shadow_ring import RingReader as KeptReader

            self._kept = KeptReader(memoryview(self._map(KEPT_BYTES, descriptors)))
        self._allow(self._ring, how.recorder)

    def _map(
        self, size: int, descriptors: list[int], kept: int | None = None
    ) -> mmap.mmap:
        """Make memory for a worker and this process, or map what was made.

        Raises:
            DeviceError: ``descriptors``.
        """
        try:
            if kept is None:
                kept = shared_memory(f"receipts-{self._pipeline}", size)
            descriptors.append(kept)
            self._memory.append(mmap.mmap(descriptors[-1], size))
        except OSError as err:
            raise DeviceError(
                f"no ring for receipts: {err}", reason=Reason.DESCRIPTORS
            ) from err
        return self._memory[-1]

    async def run(self, end_worker: Callable[[], None]) -> None:
        """Empty the ring again and again; end a worker whose ring cannot be right."""
        if self._how is None or self._ring is None:
            return
        ring, recorder = self._ring, self._how.recorder
        try:
            while True:
                ready = ring.look()
                while ready > 0 and (took := self._take(ring, recorder, ready)):
                    ready -= took
                    await asyncio.sleep(0)
                self._pair()
                self._allow(ring, recorder)
                opens = self.closed is Reason.STARTING
                await asyncio.sleep(OPENING_S if opens else DRAIN_S)
        except ValueError as err:
            facts = {"pipeline": self._pipeline, "detail": str(err)}
            log.warning("receipts.broken", extra=facts)
            end_worker()

    def finish(self) -> None:
        """Take what a worker that is dead has left, and let its rings go."""
        if self._how is None or self._ring is None:
            self._let_go()
            return
        ring, recorder = self._ring, self._how.recorder
        left, wrong = ring.look_finally(), ""
        try:
            while left > 0 and (took := self._take(ring, recorder, left)):
                left -= took
        except ValueError as err:
            wrong = str(err)
        self._pair()
        if left > 0:
            # Not taken, or counted and not whole, or not what a worker may write.
            reason = self._refused or Reason.MALFORMED
            said = {"pipeline": self._pipeline, "reason": reason}
            log.error("receipts.lost", extra={**said, "records": left, "detail": wrong})
            recorder.lose(self._pipeline, left)
            ring.take(left)  # said once: a start after a kill has not to say it again
            if self._how.rings is not None:
                ring.note(*self._how.rings.told())
        self._let_go()

    def _take(self, ring: RingReader, recorder: Recorder, ready: int) -> int:
        """Hand some records over; return how many were taken.

        Raises:
            ValueError: The ring cannot be right.
        """
        records = ring.copy(min(ready, BATCH))
        good, wrong = self._bounds.judge(records)
        if wrong and not good:
            raise ValueError(wrong)
        records = records[: good * RECORD_BYTES]
        if not records:
            return 0
        try:
            first = recorder.take(self._pipeline, memoryview(records))
        except AgentError as err:
            self._note_refusal(err)
            return 0
        self._refused = Reason.NONE
        count = len(records) // RECORD_BYTES
        if self._kept is not None and first < NO_SEQ:
            for at in kept_numbers(records):
                self._seqs[ring.taken + at + 1] = first + at
        ring.take(count)
        if self._how is not None and self._how.rings is not None:
            ring.note(*self._how.rings.told())
        self.taken += count
        return count

    def _note_refusal(self, err: AgentError) -> None:
        """Say once that records are not taken."""
        if not self._refused:
            said = {"pipeline": self._pipeline, "reason": err.reason}
            log.warning("receipts.refused", extra={**said, "detail": str(err)})
        self._refused = Reason(err.reason) or Reason.LOG

    def _allow(self, ring: RingReader, recorder: Recorder) -> None:
        """Let more be answered, as far as the recorder says."""
        if self._refused:
            self.closed = self._refused if ring.closed else Reason.NONE
            return
        more, reason = recorder.allowance(self._pipeline)
        if more > 0 and self._how is not None and self._how.rings is not None:
            # Whose log it is, before its first record: it may have opened meanwhile.
            ring.note(*self._how.rings.told())
        ring.allow(more)
        # The writer is at the limit, and there is no more: it stands, or will do so.
        self.closed = reason if ring.closed and more <= 0 else Reason.NONE

    def _pair(self) -> None:
        """Pass on kept inputs whose receipts have a number in the log now."""
        keeper = self._how.keeper if self._how else None
        if self._kept is None or keeper is None:
            return
        from agent.core.kept import parse_kept

        # What finds no place here waits in its ring: the worker keeps no more then, and
        # no receipt says that it did.
        self._match(keeper)
        while len(self._inputs) < MAX_UNPAIRED:
            if (content := self._kept.read()) is None:
                break
            try:
                self._inputs[parse_kept(content).number] = content
            except ValueError as err:
                facts = {"pipeline": self._pipeline, "detail": str(err)}
                log.warning("receipts.kept_broken", extra=facts)
            if len(self._inputs) == MAX_UNPAIRED:
                self._match(keeper)
        self._match(keeper)
        if (missed := self.not_kept - self._missed) > 0:
            keeper.miss(missed)
            self._missed += missed
        while len(self._seqs) > MAX_UNPAIRED:
            del self._seqs[next(iter(self._seqs))]

    def _match(self, keeper: Keeper) -> None:
        """Pass on inputs whose receipts were taken, in order; drop those without."""
        taken = self._ring.taken if self._ring else 0
        for number in sorted(it for it in self._inputs if it <= taken):
            content, seq = self._inputs.pop(number), self._seqs.pop(number, NO_SEQ)
            if seq != NO_SEQ:
                keeper.keep(self._pipeline, seq, content)

    def _let_go(self) -> None:
        """Unmap the rings."""
        self._not_kept = self.not_kept
        for ring in (self._ring, self._kept):
            if ring is not None:
                ring.close()
        self._ring = self._kept = None
        self._seqs.clear()
        self._inputs.clear()
        while self._memory:
            self._memory.pop().close()
        self.closed = self._refused = Reason.NONE
