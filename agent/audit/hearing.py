"""Takes what the agent logs into the log of receipts: model changes, refusals, orders.

The rules this module keeps:
 * It hears what the journal hears, and keeps the events of ``KEPT_EVENTS``.
 * It may be called by any thread; the log is the loop's.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping
from contextlib import suppress

from agent.core.audit_events import MAX_FACTS, is_kept

AGENT = "agent"  # the parent of all loggers of ours
# What a record of logging has without ``extra``.
OWN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
Note = Callable[[str, Mapping[str, object]], object]


class Hearing(logging.Handler):
    """Hands events on.

    Args:
        note: Takes an event's name and fields; called in the loop.
    """

    def __init__(self, note: Note) -> None:
        super().__init__()
        self._note = note
        self._loop = asyncio.get_running_loop()

    def install(self) -> None:
        """Listen to the agent's loggers from now on."""
        logging.getLogger(AGENT).addHandler(self)

    def remove(self) -> None:
        """Listen no more."""
        logging.getLogger(AGENT).removeHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        """Hand one event on; one that cannot be spelled is no caller's trouble."""
        try:
            name = record.getMessage()
        except (TypeError, ValueError):
            self.handleError(record)
            return
        if not is_kept(name):
            return
        fields = [(key, it) for key, it in vars(record).items() if key not in OWN]
        with suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(self._note, name, dict(fields[:MAX_FACTS]))
