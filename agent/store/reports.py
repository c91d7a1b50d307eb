"""How updates ended: the newest reports, and the numbers of the next ones.

The rules this module keeps:
 * ``KEPT_REPORTS`` stay, the newest ones; a report that is saved again replaces itself.
 * A number is never given twice, also after state.db was lost with its reports: the
   numbers below a bound are set aside in the notes, which have a copy.
"""

import logging

import msgspec

from agent.core.updates import Report
from agent.store.schema import IDS_BELOW, IDS_FROM, Readable, Value, Writable

log = logging.getLogger(__name__)

KEPT_REPORTS = 256  # a year of weekly updates for five pipelines; 80 kB
RESERVED_IDS = 64  # the copy is written once for so many numbers


def put_report(change: Writable, report: Report) -> None:
    """Keep a report, and forget those that are too old."""
    raw = msgspec.json.encode(report)
    change.run("INSERT OR REPLACE INTO reports VALUES (?, ?)", report.id, raw)
    change.run(
        "DELETE FROM reports WHERE id NOT IN"
        " (SELECT id FROM reports ORDER BY id DESC LIMIT ?)",
        KEPT_REPORTS,
    )


def newest_reports(source: Readable, limit: int) -> list[Report]:
    """Return the newest reports, newest first; one that makes no sense is left out."""
    rows = source.rows(
        "SELECT id, report FROM reports ORDER BY id DESC LIMIT ?", max(limit, 0)
    )
    found = (_decode(number, raw) for number, raw in rows)
    return [report for report in found if report is not None]


def next_id(source: Readable, job_id: int) -> int:
    """Return a number above all that were given."""
    ((highest,),) = source.rows("SELECT max(id) FROM reports")
    last = highest if isinstance(highest, int) else 0
    return max(last + 1, job_id + 1, _number(source, IDS_FROM))


def bound_for(source: Readable, number: int) -> int | None:
    """Return the bound to save before this number is given, None where one stands."""
    return None if number < _number(source, IDS_BELOW) else number + RESERVED_IDS


def _number(source: Readable, key: str) -> int:
    """Read a number from the notes, 0 where there is none."""
    rows = source.rows("SELECT value FROM notes WHERE key = ?", key)
    raw = rows[0][0] if rows else None
    return int(raw) if isinstance(raw, bytes) and raw.isdigit() else 0


def _decode(number: Value, raw: Value) -> Report | None:
    """Read a report; history that rotted must not hide the rest of it."""
    try:
        return msgspec.json.decode(raw if isinstance(raw, bytes) else b"", type=Report)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        log.warning("store.report_damaged", extra={"id": number})
        return None
