"""The usage report that a vendor gets: answers by model and hour, signed.

A report is a signed note (C2SP) over its sums and the hash of its rows, a blank line,
and the rows: ``2026-01-31T09 <sha256 of the model> <answers>``, one for each hour and
model. Nothing else leaves the board by it.

Law: ``open_report(render_report(...))`` returns the same rows and sums.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256

from agent.core.checkpoint import parse_decimal
from agent.core.meter import UsageRow
from agent.core.note import NoteKey, Verify, malformed, open_note

TITLE = "tinyward usage v1"
HOUR_S = 3600
HOUR_FORMAT = "%Y-%m-%dT%H"
UNKNOWN = "-"  # the model of units that have no receipt
MAX_HOUR = 70_000_000  # beyond, datetime has no year for it
NUMBERS = ("answers", "used", "lost")


@dataclass(frozen=True, slots=True)
class Usage:
    """What a report says.

    Attributes:
        board: SHA-256 of the board's public key, hex.
        answers: Sum of the rows.
        used: Units that were charged ever; ``lost`` of them by crashes.
        rows: In order; hours without answers have none.
    """

    board: str
    answers: int
    used: int
    lost: int
    rows: tuple[UsageRow, ...] = ()


def sum_rows(rows: Iterable[UsageRow], from_hour: int = 0) -> tuple[UsageRow, ...]:
    """Return one row for each hour and model, in order."""
    sums: Counter[tuple[int, str]] = Counter()
    for row in rows:
        if row.hour >= from_hour:
            sums[row.hour, row.model] += row.count
    return tuple(UsageRow(*key, count) for key, count in sorted(sums.items()))


def render_report(usage: Usage, sign: Callable[[str], str]) -> str:
    """Return a signed report.

    Args:
        usage: What it says; ``rows`` as ``sum_rows`` returns them.
        sign: Makes a signed note of a text.
    """
    rows = "".join(_render_row(row) for row in usage.rows)
    said = (
        f"{TITLE}\nboard {usage.board}\nanswers {usage.answers}\nused {usage.used}\n"
        f"lost {usage.lost}\nrows {sha256(rows.encode()).hexdigest()}\n"
    )
    return f"{sign(said)}\n{rows}"


def open_report(raw: bytes, key: NoteKey, verify: Verify) -> Usage:
    """Return what a report says that ``key`` signed.

    Raises:
        BundleRefusedError: ``malformed``; ``signature``.
    """
    note, rows = split_report(raw)
    lines = open_note(note, key, verify).splitlines()
    if lines[:1] != [TITLE] or len(lines) != 6:
        raise malformed("no usage report")
    said = dict(line.split(" ", 1) for line in lines[1:] if " " in line)
    if said.get("rows") != sha256(rows).hexdigest():
        raise malformed("rows that are not those that were signed")
    answers, used, lost = (parse_decimal(said.get(word, "")) for word in NUMBERS)
    return Usage(said.get("board", ""), answers, used, lost, parse_rows(rows))


def split_report(raw: bytes) -> tuple[bytes, bytes]:
    """Return a report's note and its rows; nothing is verified.

    Raises:
        BundleRefusedError: ``malformed``.
    """
    # The note has one blank line, before its signatures; the next ends it.
    text, first, rest = raw.partition(b"\n\n")
    signatures, second, rows = rest.partition(b"\n\n")
    if not first or not (second or rest.endswith(b"\n")):
        raise malformed("no usage report")
    end = b"" if not second else b"\n"
    return text + first + signatures + end, rows


def parse_rows(raw: bytes) -> tuple[UsageRow, ...]:
    """Parse the rows of a report.

    Raises:
        BundleRefusedError: ``malformed``.
    """
    try:
        return tuple(_parse_row(line) for line in raw.decode("ascii").splitlines())
    except ValueError as err:
        raise malformed("a row that is none") from err


def total(rows: Sequence[UsageRow]) -> int:
    """Return the sum of all counts."""
    return sum(row.count for row in rows)


def spell_hour(hour: int) -> str:
    """Return an hour as people read it, UTC.

    >>> spell_hour(491_000)
    '2026-01-05T08'
    """
    at = min(max(hour, 0), MAX_HOUR) * HOUR_S
    return f"{datetime.fromtimestamp(at, UTC):{HOUR_FORMAT}}"


def _render_row(row: UsageRow) -> str:
    """Return a row's line."""
    return f"{spell_hour(row.hour)} {row.model or UNKNOWN} {row.count}\n"


def _parse_row(line: str) -> UsageRow:
    """Parse one line.

    Raises:
        ValueError: It is none.
    """
    hour, model, count = line.split(" ")
    at = datetime.strptime(f"{hour}+0000", f"{HOUR_FORMAT}%z")
    known = "" if model == UNKNOWN else bytes.fromhex(model).hex()
    return UsageRow(int(at.timestamp()) // HOUR_S, known, parse_decimal(count))
