"""The bundle's container: a ZIP that can be spelled in exactly one way.

The rules this module keeps:
 * Entries are stored, plain files, in ascending order of their names, back to back
   from the first byte to the directory; nothing stands before, between or after them.
 * Reading works by writing: a name, a CRC and a size are taken from the directory,
   and every other byte of structure has to be the one the writer would have written.
   Compression, encryption, zip64, links, comments, extra fields, data descriptors and
   timestamps therefore need no code that could be wrong, only a clear message.
 * ``parse_container`` raises ``BundleRefusedError`` only, for any bytes, and copies no
   content. Nothing is ever extracted to a path that a container names.
 * Law: ``parse_container(render_container(entries)) == entries``, and
   ``render_container(parse_container(content)) == content`` for whatever is accepted.

Why not ``zipfile``: it looks for the directory from the end, forgives what stands
before and after, reads through copies, and writes other bytes in other versions.
Layout: PKWARE APPNOTE 6.3.10, sections 4.3.7 (local header), 4.3.12 (directory) and
4.3.16 (end record).

>>> content = render_container({"manifest.json": b"{}"})
>>> bytes(parse_container(memoryview(content))["manifest.json"])
b'{}'
"""

import re
import struct
import zlib
from collections.abc import Mapping
from typing import NamedTuple

from agent.core.reasons import Reason
from agent.errors import BundleRefusedError

MAX_ENTRIES = 64
MAX_CONTENT_BYTES = 2**32 - 2  # above it a ZIP needs zip64; .tflite itself ends at 2 GB
MAX_NAME_BYTES = 80  # `variants/` and the longest file name the manifest allows
_NAME = re.compile(r"[a-z0-9][a-z0-9_.-]*(/[a-z0-9][a-z0-9_.-]*)?", re.ASCII)

_LOCAL = struct.Struct("<4s5H3L2H")
_DIRECTORY = struct.Struct("<4s6H3L5H2L")
_END = struct.Struct("<4s4H2LH")
_LOCAL_MARK, _DIRECTORY_MARK, _END_MARK = b"PK\x03\x04", b"PK\x01\x02", b"PK\x05\x06"
_MAX_COMMENT_BYTES = 2**16 - 1  # what the end record can announce behind itself

_NEEDED = 20  # version 2.0: what `zipfile`, `zip` and `unzip` all write and read
_MADE_BY = 3 << 8 | _NEEDED  # Unix, so that the file mode below means something
_DATE = 1 << 5 | 1  # 1980-01-01, the first day a ZIP knows
_MODE = 0o100644 << 16  # a plain file


class _Record(NamedTuple):
    """One entry of the directory, with the fields that a well-made one leaves fixed."""

    mark: bytes
    made_by: int
    needed: int
    flags: int
    method: int
    time: int
    date: int
    crc: int
    stored_size: int
    size: int
    name_size: int
    extra_size: int
    comment_size: int
    disk: int
    internal: int
    mode: int
    offset: int


class _End(NamedTuple):
    """The end record: where the directory is, and how much it holds."""

    mark: bytes
    disk: int
    directory_disk: int
    disk_entries: int
    entries: int
    directory_size: int
    offset: int
    comment_size: int


# Field -> (its only value, what another value would mean), most telling first.
_FIXED: tuple[tuple[str, int, str], ...] = (
    ("method", 0, "is compressed"),
    ("flags", 0, "is encrypted, or has a data descriptor or another flag"),
    ("extra_size", 0, "has extra fields (zip64?)"),
    ("comment_size", 0, "has a comment"),
    ("disk", 0, "lies on another disk"),
    ("mode", _MODE, "is a link, or no plain file with mode 644"),
    ("internal", 0, "has unusual attributes"),
    ("made_by", _MADE_BY, "was made by something else than `tinyward pack`"),
    ("needed", _NEEDED, "needs another ZIP version"),
    ("time", 0, "has a timestamp"),
    ("date", _DATE, "has a timestamp"),
)


def render_container(entries: Mapping[str, bytes | memoryview]) -> bytes:
    """Return the one container that holds these entries, the same at any time.

    Raises:
        BundleRefusedError: ``malformed`` (a name, too many entries) or ``too_large``.
    """
    headers = len(entries) * (_LOCAL.size + _DIRECTORY.size + 2 * MAX_NAME_BYTES)
    total = headers + sum(map(len, entries.values()))
    if total > MAX_CONTENT_BYTES:
        raise _too_large(total, MAX_CONTENT_BYTES)
    if not 0 < len(entries) <= MAX_ENTRIES:
        raise _malformed(f"{len(entries)} entries, expected 1 to {MAX_ENTRIES}")
    parts: list[bytes | memoryview] = []
    directory: list[bytes] = []
    offset = 0
    for name, content in sorted(entries.items()):
        _check_name(name)
        crc, size = zlib.crc32(content), len(content)
        parts += [_render_local(name, crc, size), content]
        directory.append(_render_record(name, crc, size, offset))
        offset += _LOCAL.size + len(name) + size
    end = _render_end(len(entries), sum(map(len, directory)), offset)
    return b"".join([*parts, *directory, end])


def parse_container(content: memoryview) -> dict[str, memoryview]:
    """Return name -> content of a container's entries, without copying them.

    Args:
        content: The whole file, as contiguous bytes.

    Raises:
        BundleRefusedError: ``truncated``, ``malformed`` or ``too_large``.
    """
    if len(content) > MAX_CONTENT_BYTES:
        raise _too_large(len(content), MAX_CONTENT_BYTES)
    _check_beginning(content)
    end = _parse_end(content)
    entries: dict[str, memoryview] = {}
    position, last = 0, ""
    for name, record in _parse_directory(content, end):
        if name <= last:
            again = "stands twice" if name in entries else "is out of order"
            raise _malformed(f"entry {name!r} {again}")
        entries[name] = _parse_entry(content, name, record, (position, end.offset))
        position += _LOCAL.size + len(name) + record.size
        last = name
    if position != end.offset:
        raise _malformed("bytes between the last entry and the directory")
    return entries


def entry_offsets(entries: Mapping[str, memoryview]) -> dict[str, int]:
    """Return where the contents of a parsed container's entries begin in its file.

    >>> content = render_container({"a": b"1", "b": b"2"})
    >>> entry_offsets(parse_container(memoryview(content)))
    {'a': 31, 'b': 63}
    """
    offsets: dict[str, int] = {}
    position = 0
    for name, content in entries.items():
        offsets[name] = position + _LOCAL.size + len(name)
        position = offsets[name] + len(content)
    return offsets


def _check_beginning(content: memoryview) -> None:
    """The first entry begins at the first byte."""
    mark = bytes(content[: len(_LOCAL_MARK)])
    if mark == _LOCAL_MARK:
        return
    if _LOCAL_MARK.startswith(mark):
        raise _truncated(content)
    raise _malformed("it does not begin as a bundle does")


def _parse_end(content: memoryview) -> _End:
    """Return the end record, which has to be the last thing in the file."""
    place = len(content) - _END.size
    end = _end_at(content, place)
    if end is None:
        # Tell a file that was cut from one that something was appended to.
        tail = max(0, place - _MAX_COMMENT_BYTES)
        found = bytes(content[tail:]).rfind(_END_MARK)
        if found >= 0 and _end_at(content, tail + found):
            raise _malformed("bytes follow its end")
        raise _truncated(content)
    if end.entries > MAX_ENTRIES:
        raise _malformed(f"{end.entries} entries, at most {MAX_ENTRIES} allowed")
    rendered = _render_end(end.entries, end.directory_size, end.offset)
    if rendered != content[place:]:
        raise _malformed("its end record contradicts itself (a comment? zip64?)")
    return end


def _end_at(content: memoryview, place: int) -> _End | None:
    """Return the end record at ``place`` if it fits the directory before it."""
    if place < _LOCAL.size or place + _END.size > len(content):
        return None
    end = _End(*_END.unpack_from(content, place))
    if end.mark != _END_MARK or end.offset + end.directory_size != place:
        return None
    begins = bytes(content[end.offset : end.offset + len(_DIRECTORY_MARK)])
    return end if begins == _DIRECTORY_MARK else None


def _parse_directory(content: memoryview, end: _End) -> list[tuple[str, _Record]]:
    """Return name and record of every entry, in the order of the directory."""
    directory = content[end.offset : end.offset + end.directory_size]
    records: list[tuple[str, _Record]] = []
    position = 0
    for _ in range(end.entries):
        if position + _DIRECTORY.size > len(directory):
            raise _malformed("its directory holds less than its end record says")
        record = _Record(*_DIRECTORY.unpack_from(directory, position))
        position += _DIRECTORY.size
        name = _parse_name(directory[position : position + record.name_size])
        _check_record(name, record)
        records.append((name, record))
        position += len(name)
    if position != len(directory):
        raise _malformed("its directory holds more than its end record says")
    return records


def _parse_name(raw: memoryview) -> str:
    """Return an entry's name, which is never used as a path."""
    name = bytes(raw[: MAX_NAME_BYTES + 1]).decode("ascii", "backslashreplace")
    _check_name(name)
    return name


def _check_name(name: str) -> None:
    """Names are lower-case words, at most one folder deep."""
    if len(name) > MAX_NAME_BYTES or not _NAME.fullmatch(name):
        raise _malformed(f"entry name {name[:MAX_NAME_BYTES]!r} is not allowed")


def _check_record(name: str, record: _Record) -> None:
    """Every field but name, CRC, size and offset has one value; say which has not."""
    for field, expected, meaning in _FIXED:
        if getattr(record, field) != expected:
            raise _malformed(f"entry {name!r} {meaning}")
    expected_record = _render_record(name, record.crc, record.size, record.offset)
    if expected_record[: _DIRECTORY.size] != _DIRECTORY.pack(*record):
        raise _malformed(f"the directory contradicts itself about entry {name!r}")


def _parse_entry(
    content: memoryview, name: str, record: _Record, room: tuple[int, int]
) -> memoryview:
    """Return an entry's content; it fills ``room`` from its beginning, and fits."""
    begin, limit = room
    start = begin + _LOCAL.size + len(name)
    if record.offset != begin:
        raise _malformed(f"entry {name!r} overlaps another one, or leaves a gap")
    if start + record.size > limit:
        raise _malformed(f"entry {name!r} says it is larger than the file")
    if content[begin:start] != _render_local(name, record.crc, record.size):
        raise _malformed(f"entry {name!r} contradicts the directory")
    entry = content[start : start + record.size]
    if zlib.crc32(entry) != record.crc:
        raise _malformed(f"entry {name!r} is damaged: its CRC is wrong")
    return entry


def _render_local(name: str, crc: int, size: int) -> bytes:
    """Return the header that stands before an entry's content."""
    head = _LOCAL.pack(
        _LOCAL_MARK, _NEEDED, 0, 0, 0, _DATE, crc, size, size, len(name), 0
    )
    return head + name.encode()


def _render_record(name: str, crc: int, size: int, offset: int) -> bytes:
    """Return an entry's record in the directory."""
    record = _Record(
        mark=_DIRECTORY_MARK,
        made_by=_MADE_BY,
        needed=_NEEDED,
        flags=0,
        method=0,
        time=0,
        date=_DATE,
        crc=crc,
        stored_size=size,
        size=size,
        name_size=len(name),
        extra_size=0,
        comment_size=0,
        disk=0,
        internal=0,
        mode=_MODE,
        offset=offset,
    )
    return _DIRECTORY.pack(*record) + name.encode()


def _render_end(entries: int, directory_size: int, offset: int) -> bytes:
    """Return the end record."""
    return _END.pack(_END_MARK, 0, 0, entries, entries, directory_size, offset, 0)


def _malformed(what: str) -> BundleRefusedError:
    """Return the error for a container that breaks a rule."""
    return BundleRefusedError(f"bundle: {what}", reason=Reason.MALFORMED)


def _truncated(content: memoryview) -> BundleRefusedError:
    """Return the error for a container that ends too early."""
    return BundleRefusedError(
        f"bundle: it ends after {len(content)} bytes, before its directory does",
        reason=Reason.TRUNCATED,
    )


def _too_large(size: int, limit: int) -> BundleRefusedError:
    """Return the error for a container above a limit."""
    return BundleRefusedError(
        f"bundle: {size} bytes, at most {limit} allowed", reason=Reason.TOO_LARGE
    )
