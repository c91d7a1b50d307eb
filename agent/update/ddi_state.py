"""What is kept of a DDI server's orders, and what they make of the desired state.

Satisfies ``agent.update.ddi_needs.Kept``.

The rules this module keeps:
 * One note holds all of it: an order and what the server has to be told of it change
   in one transaction.
 * A note that cannot be read, or is gone, counts as empty. What runs goes on; the
   server names what it wants again. That gets a generation above all that this board
   remembers otherwise (reports, holds, the job): no old end answers for a new order.
 * What another orchestrator put in the place of what a server had brought stays: it is
   wanted no more, until the server says so again.
"""

import logging

import msgspec
from msgspec.structs import replace

from agent.core.ddi import SOURCE, Record
from agent.core.ddi_actions import Prefetch, desired, prefetch
from agent.core.targets import GroupFile, Wanted
from agent.update.endings import COMMITTED
from agent.update.needs import UpdateStore

log = logging.getLogger(__name__)

NOTE = "update.ddi"
ALL_REPORTS = 256  # as many as are kept


class DdiState:
    """The client's memory, as long as a DDI server is the orchestrator.

    Args:
        store: Where the note is.
        window: ``fleet.ddi.window``.
    """

    def __init__(self, store: UpdateStore, window: str = "") -> None:
        self._store = store
        self._window = window
        # Read at each look and each poll, and written seldom: it is parsed once.
        self._parsed: tuple[bytes | None, Record] | None = None

    @property
    def at_hand(self) -> Record:
        """What was loaded last: for those who only look, and touch no disk."""
        return self._parsed[1] if self._parsed is not None else Record()

    def load(self) -> Record:
        """Return what was saved last; where there is nothing, only a generation.

        Raises:
            DeviceError: The store cannot be read.
        """
        raw = self._store.load_note(NOTE)
        if self._parsed is None or raw != self._parsed[0]:
            self._parsed = (raw, self._read(raw))
        return self._parsed[1]

    def save(self, record: Record) -> None:
        """Keep a record, durably.

        Raises:
            DeviceError: The store cannot be written.
        """
        raw = msgspec.json.encode(record)
        self._store.save_note(NOTE, raw)
        self._parsed = (raw, record)

    def _read(self, raw: bytes | None) -> Record:
        """Return what a note says, and what else is known makes of it.

        Raises:
            DeviceError: The store cannot be read.
        """
        record = _parse(raw) if raw else None
        if record is None:
            return Record(generation=self._last_generation())
        runs = {name: it for name, it in record.runs.items() if self._is_ours(name, it)}
        return record if runs == record.runs else replace(record, runs=runs)

    def _last_generation(self) -> int:
        """Return the highest generation of ours that anything here remembers."""
        job = self._store.load_job()
        known = (
            *self._store.reports(ALL_REPORTS),
            *self._store.holds(),
            *((job,) if job is not None else ()),
        )
        return max((it.generation for it in known if it.source == SOURCE), default=0)

    def _is_ours(self, pipeline: str, wanted: Wanted) -> bool:
        """Whether nobody else's order has replaced what a server brought.

        A factory model did not: it came because what was brought had been lost.
        """
        factory = self._store.slots(pipeline).factory
        for it in self._store.reports(ALL_REPORTS):
            if (it.pipeline, it.result) == (pipeline, COMMITTED):
                same = Wanted(it.model, it.version) == wanted
                shipped = factory is not None and factory.sha256 == it.sha256
                return same or shipped or it.source == SOURCE
        return True

    def desired(self) -> GroupFile | None:
        """Return the desired state that the server's orders stand for, if any do.

        Raises:
            DeviceError: The store cannot be read.
        """
        return desired(self.load(), self._window)

    def early(self) -> Prefetch | None:
        """Return what may be fetched though it may not be tried yet, if anything.

        Raises:
            DeviceError: The store cannot be read.
        """
        return prefetch(self.load(), self._window)


def _parse(raw: bytes) -> Record | None:
    """Return what a note says; None where it makes no sense."""
    try:
        return msgspec.json.decode(raw, type=Record)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as err:
        # Of a newer agent, perhaps.
        log.warning("ddi.unreadable", extra={"detail": str(err)})
        return None
