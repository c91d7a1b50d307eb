"""What is kept of a DDI server's orders, and what they make of the desired state.

Satisfies ``agent.update.ddi_needs.Kept``.

The rules this module keeps:
 * One note holds all of it: an order and what the server has to be told of it change
   in one transaction.
 * A note that cannot be read counts as empty. What runs goes on; the server names what
   it wants again, under the next generation, and an end that it was not told of is
   found among the reports.
"""

import logging

import msgspec

from agent.core.ddi import Record
from agent.core.ddi_actions import Prefetch, desired, prefetch
from agent.core.targets import GroupFile
from agent.settings import Settings
from agent.update.needs import UpdateStore

log = logging.getLogger(__name__)

NOTE = "update.ddi"
NEVER = b""  # no server ever wanted anything


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
        self._parsed = (NEVER, Record())

    @property
    def at_hand(self) -> Record:
        """What was loaded last: for those who only look, and touch no disk."""
        return self._parsed[1]

    def load(self) -> Record:
        """Return what was saved last; an empty record where there is none.

        Raises:
            DeviceError: The store cannot be read.
        """
        raw = self._store.load_note(NOTE) or NEVER
        if raw != self._parsed[0]:
            self._parsed = (raw, _parse(raw))
        return self._parsed[1]

    def save(self, record: Record) -> None:
        """Keep a record, durably.

        Raises:
            DeviceError: The store cannot be written.
        """
        raw = msgspec.json.encode(record)
        self._store.save_note(NOTE, raw)
        self._parsed = (raw, record)

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


def ddi_state(settings: Settings, store: UpdateStore) -> DdiState | None:
    """Return what a DDI server ordered, where the settings let one decide."""
    if settings.update.orchestrator != "ddi":
        return None
    return DdiState(store, settings.fleet.ddi.window)


def _parse(raw: bytes) -> Record:
    """Return what a note says; nothing where it makes no sense."""
    try:
        return msgspec.json.decode(raw, type=Record)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as err:
        # Of a newer agent, perhaps.
        log.warning("ddi.unreadable", extra={"detail": str(err)})
        return Record()
