"""A ZIP writer that can break every rule, one at a time."""

import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

_DATE = 1 << 5 | 1  # 1980-01-01


@dataclass(frozen=True)
class RawEntry:
    """One entry, every field as it will stand in the file; None means the honest one.

    Attributes:
        name: Entry name, any bytes.
        content: What follows the local header.
        local_name: Name in the local header, if it differs from the directory's.
        gap: Bytes before the local header that belong to no entry.
        descriptor: Bytes after the content (a data descriptor).
    """

    name: bytes
    content: bytes
    made_by: int = 3 << 8 | 20
    needed: int = 20
    flags: int = 0
    method: int = 0
    time: int = 0
    date: int = _DATE
    crc: int | None = None
    stored_size: int | None = None
    size: int | None = None
    extra: bytes = b""
    comment: bytes = b""
    disk: int = 0
    internal: int = 0
    mode: int = 0o100644 << 16
    offset: int | None = None
    local_name: bytes | None = None
    gap: bytes = b""
    descriptor: bytes = b""

    def sums(self) -> tuple[int, int, int]:
        """Return CRC, stored size and size, as claimed."""
        crc = zlib.crc32(self.content) if self.crc is None else self.crc
        size = len(self.content) if self.size is None else self.size
        stored = len(self.content) if self.stored_size is None else self.stored_size
        return crc, stored, size

    def local(self) -> bytes:
        """Return the local header."""
        name = self.name if self.local_name is None else self.local_name
        head = struct.pack(
            "<4s5H3L2H",
            b"PK\x03\x04",
            *(self.needed, self.flags, self.method, self.time, self.date),
            *self.sums(),
            *(len(name), len(self.extra)),
        )
        return head + name + self.extra

    def record(self, offset: int) -> bytes:
        """Return the directory's record; ``offset`` is the honest one."""
        claimed = offset if self.offset is None else self.offset
        head = struct.pack(
            "<4s6H3L5H2L",
            b"PK\x01\x02",
            *(self.made_by, self.needed, self.flags, self.method),
            *(self.time, self.date),
            *self.sums(),
            *(len(self.name), len(self.extra), len(self.comment)),
            *(self.disk, self.internal, self.mode, claimed),
        )
        return head + self.name + self.extra + self.comment


@dataclass(frozen=True)
class RawEnd:
    """What the end record says, and what surrounds it; None means the honest value."""

    entries: int | None = None
    disk_entries: int | None = None
    directory_size: int | None = None
    offset: int | None = None
    disk: int = 0
    comment: bytes = b""
    before: bytes = b""


def raw_zip(entries: Sequence[RawEntry], end: RawEnd | None = None) -> bytes:
    """Write a ZIP exactly as told."""
    end = end or RawEnd()
    body, directory = b"", b""
    for entry in entries:
        body += entry.gap
        directory += entry.record(len(body))
        body += entry.local() + entry.content + entry.descriptor
    count = len(entries) if end.entries is None else end.entries
    on_disk = count if end.disk_entries is None else end.disk_entries
    size = len(directory) if end.directory_size is None else end.directory_size
    offset = len(body) if end.offset is None else end.offset
    tail = struct.pack(
        "<4s4H2LH",
        b"PK\x05\x06",
        *(end.disk, end.disk, on_disk, count, size, offset, len(end.comment)),
    )
    return body + directory + end.before + tail + end.comment
