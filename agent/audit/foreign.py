"""A log's folder that anybody may have brought: a card, a copy, an attachment.

The rules this module keeps:
 * No file is read that is not a plain one, or is longer than the format lets it be: a
   pipe would hold its reader for ever, and a file of holes would fill its memory.
"""

import os
import stat

from agent.audit.files import Folder
from agent.audit.log_files import LogFaultError
from agent.core.audit_layout import (
    IDENTITY,
    MAX_EVENT_BYTES,
    ROOTS,
    SEALED_KEYS,
    SEGMENT_BYTES,
    SEGMENT_RECORDS,
    parse_file_name,
)
from agent.core.disk_reasons import disk_error
from agent.core.note import MAX_NOTE_BYTES

MB = 1 << 20
# Of one segment: a note has some 500 bytes, and there may be one for each record; an
# event's line has its number, too.
MAX_NOTES_BYTES = SEGMENT_RECORDS * (MAX_NOTE_BYTES // 4)
MAX_EVENTS_BYTES = SEGMENT_RECORDS * (MAX_EVENT_BYTES + 21)
MAX_BYTES = {
    "records": SEGMENT_BYTES,
    "notes": MAX_NOTES_BYTES,
    "events": MAX_EVENTS_BYTES,
    ROOTS: 1024 * MB,  # 34 billion records: a hundred a second for ten years
    IDENTITY: 4096,
    SEALED_KEYS: 64 * MB,  # a line of 150 bytes a start
}
FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class ForeignFolder(Folder):
    """Reads such a folder; faults are ``LogFaultError``."""

    def read(self, name: str, place: int = 0, length: int = -1) -> bytes:
        """Return what a file holds, or as much of it as there is; b"" without one.

        Raises:
            LogFaultError: ``log``: it is no plain file, or longer than one may be.
            DeviceError: It cannot be read.
        """
        path = self.path / name
        try:
            if not stat.S_ISREG(path.lstat().st_mode):
                raise LogFaultError(f"{path} is no plain file")
            # Not waiting: it may have become a pipe since.
            with os.fdopen(os.open(path, FLAGS), "rb") as file:
                size = os.fstat(file.fileno()).st_size
                if size > _most(name):
                    raise LogFaultError(f"{path} has {size} bytes, too many for a log")
                file.seek(place)
                return file.read(min(size, length) if length >= 0 else size)
        except FileNotFoundError:
            return b""
        except OSError as err:
            raise disk_error(err, {}) from err

    def strangers(self, first: int) -> list[str]:
        """Return the names of what is no part of a log that begins with a segment."""
        found = []
        for name in self.names():
            part = parse_file_name(name)
            if part is None and name not in MAX_BYTES:
                found.append(name)
            elif part is not None and part[0] < first:
                found.append(name)  # left by a quota that was interrupted
        return found


def _most(name: str) -> int:
    """Return how long a file may be."""
    part = parse_file_name(name)
    return MAX_BYTES.get(part[1] if part else name, 0)
