"""Events as entries of the journal, each field of its own: journald's native protocol.

``journalctl -u tinyward TINYWARD_PIPELINE=kws`` finds what concerns one pipeline, and
``-o json`` shows every field by its name. Source: "Native Journal Protocol",
systemd.io/JOURNAL_NATIVE_PROTOCOL, which is stable and meant to be written anew;
systemd.journal-fields(7).

The rules this module keeps:
 * Fields of ours begin with ``TINYWARD_``: none can pass for one of journald's.
 * Nothing is lost to a journal that takes no more: the line goes to the stream instead.
"""

import logging
import re
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

from agent.telemetry.logs import MAX_VALUE_CHARS, OWN, PRIORITIES

SOCKET = Path("/run/systemd/journal/socket")
IDENTIFIER = "tinyward"
PREFIX = "TINYWARD_"
MAX_NAME_CHARS = 64  # what journald takes
_NO_NAME = re.compile(r"[^A-Z0-9_]")


class JournalOutput(logging.Handler):
    """Sends each event to journald; what it does not take goes to ``otherwise``.

    Args:
        otherwise: Where lines go while the journal takes none.
        path: The journal's socket.
    """

    def __init__(self, otherwise: logging.Handler, path: Path = SOCKET) -> None:
        super().__init__()
        self._otherwise = otherwise
        self._path = str(path)
        # Never waits: a journal that is full must not stop the daemon's loop.
        self._socket = socket.socket(
            socket.AF_UNIX,
            socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK,
        )

    def emit(self, record: logging.LogRecord) -> None:
        """Send one event."""
        line = self._otherwise.format(record)
        # The stream's lines begin with syslog's priority, which has a field here.
        message = re.sub(r"\A<\d>", "", line)
        try:
            self._socket.sendto(render_entry(record, message), self._path)
        except OSError:
            self._otherwise.handle(record)

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()
        super().close()


def render_entry(record: logging.LogRecord, message: str) -> bytes:
    """Return the datagram of one event.

    Args:
        record: The event and its fields.
        message: The line that people read.
    """
    return b"".join(_spell(name, value) for name, value in _fields(record, message))


def field_name(key: str) -> str:
    """Return the journal's name of an event's field.

    >>> field_name("pipeline"), field_name("p95-ms")
    ('TINYWARD_PIPELINE', 'TINYWARD_P95_MS')
    """
    return (PREFIX + _NO_NAME.sub("_", key.upper()))[:MAX_NAME_CHARS]


def _fields(record: logging.LogRecord, message: str) -> Iterator[tuple[str, str]]:
    """Yield the fields of one entry, journald's own first."""
    yield "MESSAGE", message
    yield "PRIORITY", str(PRIORITIES.get(record.levelname.lower(), 6))
    yield "SYSLOG_IDENTIFIER", IDENTIFIER
    yield field_name("event"), record.getMessage()
    for key, value in record.__dict__.items():
        if key not in OWN:
            yield field_name(key), str(value)[:MAX_VALUE_CHARS]


def _spell(name: str, value: str) -> bytes:
    """Return one field: a length stands ahead of values that have lines."""
    raw = value.encode("utf-8", "backslashreplace")
    if b"\n" not in raw:
        return b"%s=%s\n" % (name.encode("ascii"), raw)
    return b"%s\n%s%s\n" % (name.encode("ascii"), struct.pack("<Q", len(raw)), raw)
