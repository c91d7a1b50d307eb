"""Usage of hours that are over: one line for each hour and model, and no more.

The rules this module keeps:
 * A line has a number; the last one with a number counts. So one that was written
   before a loss of power, and once more after it, counts once.
 * A line that is not whole, or whose check is wrong, is passed over.
 * Past ``MAX_BYTES`` the older half goes: reports are to be fetched before that, which
   is after a year and a half of one model that always answers.
"""

import zlib
from collections.abc import Sequence
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from agent.audit.files import Folder
from agent.core.disk_reasons import disk_error
from agent.core.meter import Count, UsageRow

NAME = "meter.usage"
MAX_BYTES = 2_000_000


class _Line(Struct, frozen=True, array_like=True):
    """One row and its number; ``check`` is over the others."""

    number: Count
    row: UsageRow
    check: Annotated[int, Meta(ge=0, lt=2**32)]


class UsageFile:
    """The rows of past hours in a folder."""

    def __init__(self, folder: Folder) -> None:
        self._folder = folder

    def add(self, first: int, rows: Sequence[UsageRow]) -> None:
        """Keep rows durably, under the numbers from ``first`` on.

        Raises:
            DeviceError: They may be kept or not; adding them again is harmless.
        """
        lines = b"".join(_render(first + at, row) for at, row in enumerate(rows))
        try:
            size = self._folder.size(NAME)
            if size + len(lines) > MAX_BYTES:
                self._folder.replace(NAME, self._newer_half())
                size = self._folder.size(NAME)
            # A line that was torn ends here; what follows it is whole.
            self._folder.write(NAME, size, b"\n" + lines)
            self._folder.sync([NAME])
        except OSError as err:
            raise disk_error(err, {}) from err

    def rows(self) -> list[UsageRow]:
        """Return all rows, in the order of their numbers.

        Raises:
            DeviceError: The file cannot be read.
        """
        try:
            raw = self._folder.read(NAME, 0, MAX_BYTES * 2)
        except OSError as err:
            raise disk_error(err, {}) from err
        found: dict[int, UsageRow] = {}
        for line in raw.split(b"\n"):
            parsed = _parse(line)
            if parsed is not None:
                found[parsed.number] = parsed.row
        return [row for _, row in sorted(found.items())]

    def _newer_half(self) -> bytes:
        """Return the lines of the newer half."""
        raw = self._folder.read(NAME, 0, MAX_BYTES * 2)
        return raw[raw.find(b"\n", len(raw) // 2) :]


def _render(number: int, row: UsageRow) -> bytes:
    """Return a row's line."""
    return msgspec.json.encode(_Line(number, row, _check(number, row))) + b"\n"


def _parse(line: bytes) -> _Line | None:
    """Return a line, or None for what is none."""
    try:
        parsed = msgspec.json.decode(line, type=_Line)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    return parsed if parsed.check == _check(parsed.number, parsed.row) else None


def _check(number: int, row: UsageRow) -> int:
    """Return what a line is checked by."""
    return zlib.crc32(msgspec.json.encode((number, row)))
