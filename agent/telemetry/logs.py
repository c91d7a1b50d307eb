"""Log lines: an event name and its fields, on stderr, where journald picks them up.

``log.info("update.refused", extra={"reason": "expired", "pipeline": "kws"})`` becomes
``2025-01-31T12:00:00.123Z info update.refused reason=expired pipeline=kws``; under
journald, which keeps the time itself, ``<6>update.refused reason=expired ...``.

The rules this module keeps:
 * One event is one line, whatever its fields hold: values with spaces, quotes or
   control characters are written as JSON strings, long ones are cut.
"""

import json
import logging
import os
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import TextIO

MAX_VALUE_CHARS = 2000  # journald cuts lines at 48 kB; a trace needs a few hundred
PLAIN = re.compile(r"[^\s\"'=\\\x00-\x20\x7f-\x9f]+")
PRIORITIES = {"error": 3, "critical": 2, "warning": 4, "info": 6, "debug": 7}
# What every record has, so that what is left are the fields of the event.
OWN = frozenset(logging.LogRecord("", 0, "", 0, "", (), None).__dict__) | {
    "message",
    "taskName",
}


class EventFormatter(logging.Formatter):
    """Writes an event and its fields as ``key=value``.

    Attributes:
        journal: Write journald's priority prefix and leave the time to it.
    """

    def __init__(self, *, journal: bool) -> None:
        super().__init__()
        self._journal = journal

    def format(self, record: logging.LogRecord) -> str:
        """Return the one line of this event."""
        level = record.levelname.lower()
        words = [_one_line(record.getMessage())]
        for key, value in record.__dict__.items():
            if key not in OWN:
                words.append(f"{key}={render_value(value)}")
        if record.exc_info:
            words.append(f"trace={render_value(self.formatException(record.exc_info))}")
        line = " ".join(words)
        if self._journal:
            return f"<{PRIORITIES.get(level, 6)}>{line}"
        at = datetime.fromtimestamp(record.created, UTC)
        return f"{at:%Y-%m-%dT%H:%M:%S}.{int(record.msecs):03}Z {level} {line}"


def start_logging(
    level: str,
    stream: TextIO,
    *,
    journal: bool = False,
    through: Callable[[logging.Handler], logging.Handler] | None = None,
) -> None:
    """Send the agent's events of at least ``level`` to ``stream``, and no others.

    Libraries are heard from ``warning`` on. Calling it again replaces the first call.

    Args:
        level: Of our own events.
        stream: Where lines go.
        journal: Write them as journald reads them.
        through: Makes what events go through first, given what writes to ``stream``:
            ``agent.telemetry.journal.JournalOutput``.
    """
    output: logging.Handler = logging.StreamHandler(stream)
    output.setFormatter(EventFormatter(journal=journal))
    root = logging.getLogger()
    root.handlers[:] = [through(output) if through else output]
    root.setLevel(logging.WARNING)
    change_level(level)


def change_level(level: str) -> None:
    """Write the agent's events of at least ``level`` from now on.

    Who listens beside the output, as the log of receipts does, hears ``info`` all the
    same: how much a journal holds is no reason to prove less.
    """
    number = logging.getLevelNamesMapping()[level.upper()]
    logging.getLogger("agent").setLevel(min(number, logging.INFO))
    for output in logging.getLogger().handlers:
        output.setLevel(number)
    logging.captureWarnings(capture=True)


def is_journal(stream: TextIO, environment: Mapping[str, str]) -> bool:
    """Return whether ``stream`` goes to journald, as systemd.exec(5) says to find out.

    ``JOURNAL_STREAM`` holds the device and inode of the journal's socket; it is also
    inherited by programs whose output goes elsewhere.
    """
    try:
        status = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False
    return environment.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


def render_value(value: object) -> str:
    """Return one field's value: bare where that is clear, else a JSON string."""
    text = str(value)
    if len(text) > MAX_VALUE_CHARS:
        text = text[: MAX_VALUE_CHARS - 3] + "..."
    return text if PLAIN.fullmatch(text) else json.dumps(text)


def _one_line(text: str) -> str:
    """Keep an event name to one line."""
    return text if text.isprintable() else json.dumps(text)
