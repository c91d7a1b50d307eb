"""The last events of the agent, kept in memory for the page and the command line.

The rules this module keeps:
 * The ring is bounded in number and in length, each field's and all fields' together:
   an event with a page of text in a field keeps the beginning of it.
 * It sees what the log sees, so the level of ``[log]`` decides for both; libraries are
   not heard, they are the journal's matter.
 * Numbers rise by one and never begin anew within a daemon's life: who asks for what
   came ``after`` a number misses nothing that is still kept.
"""

import logging
from bisect import bisect_right
from collections import deque
from collections.abc import Sequence

from agent.core.events import KEPT, Event, Level
from agent.telemetry.logs import OWN

AGENT = "agent"  # the parent of all loggers of ours
MAX_FIELD_CHARS = 300  # a refusal's message takes 120
# Of an event's name and fields together: three long ones and some numbers. 500 events
# with as many and as long fields as may be take 1.5 MB, 3.1 MB if they are all emoji.
MAX_EVENT_CHARS = 1200
MAX_FIELDS = 16  # the most talkative event has nine
LEVELS: dict[str, Level] = {
    "DEBUG": "debug",
    "INFO": "info",
    "WARNING": "warning",
    "ERROR": "error",
    "CRITICAL": "error",
}


class EventRing(logging.Handler):
    """Keeps the last ``capacity`` events.

    Records come from any thread; ``logging.Handler`` serialises ``emit``, and readers
    copy the ring, which is one step for the interpreter.
    """

    def __init__(self, capacity: int = KEPT) -> None:
        super().__init__()
        self._events: deque[Event] = deque(maxlen=capacity)
        self._last = 0

    def install(self) -> None:
        """Listen to the agent's loggers from now on; twice is once."""
        logging.getLogger(AGENT).addHandler(self)

    def remove(self) -> None:
        """Listen no more; what is kept stays."""
        logging.getLogger(AGENT).removeHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        """Keep one event; one that cannot be spelled is no caller's trouble."""
        level = LEVELS.get(record.levelname, "info")
        try:
            name = _cut(record.getMessage())
            fields = _of(record, MAX_EVENT_CHARS - len(name))
        except Exception:  # noqa: BLE001 - as all handlers of logging do: said on stderr
            self.handleError(record)
            return
        self._last += 1
        self._events.append(Event(self._last, record.created, level, name, fields))

    def last(self) -> int:
        """Return the number of the newest event, 0 before the first."""
        return self._last

    def events(self, after: int = 0) -> Sequence[Event]:
        """Return the events that are kept with an id above ``after``, oldest first."""
        kept = self._events.copy()
        return list(kept)[bisect_right(kept, after, key=lambda event: event.id) :]


def _of(record: logging.LogRecord, room: int) -> dict[str, str]:
    """Return an event's fields as text; a trace as the error that it ends with.

    Args:
        record: The event.
        room: Characters that all of them may have together.
    """
    own = [(key, value) for key, value in record.__dict__.items() if key not in OWN]
    said: dict[str, str] = {}
    if record.exc_info:
        error = record.exc_info[1]
        # The lines of the trace are for the journal; who looks at a page needs the end.
        said["error"] = _cut(f"{type(error).__name__}: {error}")
        room -= len(said["error"])
    fields: dict[str, str] = {}
    for key, value in own[:MAX_FIELDS]:
        fields[key] = _cut(str(value), room)
        room -= len(fields[key])
    return fields | said


def _cut(text: str, room: int = MAX_FIELD_CHARS) -> str:
    """Return the beginning of a long text."""
    most = min(room, MAX_FIELD_CHARS)
    if len(text) <= most:
        return text
    return text[: most - 1] + "\u2026" if most > 0 else ""
