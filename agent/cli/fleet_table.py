"""How ``tinyward fleet status`` looks: one row for each board, counts, and bars.

The rules this module keeps:
 * Trouble stands first, so that what does not fit on the screen is what is well.
 * It reads the same in a pipe: words carry the meaning, colours only repeat it.
"""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import asdict

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from agent.cli.board_answers import IDLE
from agent.cli.fleet_rows import (
    CALM,
    BoardRow,
    Running,
    count_healths,
    count_versions,
    sort_rows,
)
from agent.cli.plain_text import plain, span_text
from agent.cli.status_view import columns

STYLES = {
    "unreachable": "bold red",
    "failing": "bold red",
    "warned": "yellow",
    "updating": "cyan",
    "well": "green",
}
BAR = 24  # cells: a fleet of a thousand shows steps of 4 %
FULL, EMPTY = "\u2588", "\u2591"
# The table's head, and the blank line between it and the summary.
TABLE_LINES = 2
Json = dict[str, object]


def render_fleet(
    rows: Sequence[BoardRow], asked: int | None = None, console: Console | None = None
) -> Group:
    """Return the table and its summary; as much of it as fits the console if given.

    Args:
        rows: The boards that were looked at so far, in any order.
        asked: How many boards there are, if more.
        console: Where it has to fit.
    """
    summary = summary_lines(rows, len(rows) if asked is None else asked)
    shown = sort_rows(rows)
    rest: list[RenderableType] = []
    if console is not None:
        shown = _fitting(shown, console, len(summary))
    if left := len(rows) - len(shown):
        rest = [Text(f"and {left} more, none of them worse", "dim")]
    return Group(boards_table(shown), *rest, Text(), *summary)


def _fitting(
    rows: Sequence[BoardRow], console: Console, summary: int
) -> list[BoardRow]:
    """Return the first rows that fit the screen with everything below them."""
    room = console.height - summary - TABLE_LINES - 1

    def lines(count: int) -> int:
        # Rows take several lines, and how many depends on the others' widths.
        return len(console.render_lines(boards_table(rows[:count]), pad=False)) - 1

    possible = range(1, min(len(rows), max(1, room)) + 1)
    return list(rows[: bisect_right(possible, room, key=lines) or 1])


def boards_table(rows: Sequence[BoardRow]) -> Table:
    """Return the table of boards, in their order."""
    table = columns("BOARD", "HEALTH", "PHASE", "RUNS", "DRIFT", "METADATA", "WHY")
    for row in rows:
        runs = "\n".join(plain(_named(it, it.runs), 28) for it in row.running)
        table.add_row(
            Text(plain(row.board.id, 20)),
            Text(row.health, STYLES[row.health]),
            Text("-" if row.phase in {"", IDLE} else row.phase.lower()),
            Text(runs or "-"),
            _drift_text(row.drift),
            Text(_age(row.metadata_age_s)),
            _why_text(row),
        )
    return table


def summary_lines(rows: Sequence[BoardRow], asked: int) -> list[RenderableType]:
    """Return how many boards are how, and a bar for each version that runs."""
    counts = count_healths(rows)
    words = Text(f"{asked} boards: ")
    for index, (health, count) in enumerate(counts.items()):
        words.append(", " if index else "")
        words.append(f"{count} {health}", STYLES[health])
    if waiting := asked - len(rows):
        words.append(f"{', ' if counts else ''}{waiting} being asked", "dim")
    versions = count_versions(rows)
    width = max(map(len, versions), default=0)
    return [
        words,
        *(
            Text(f"{plain(version, 40):<{min(width, 40)}}  ")
            .append(bar(count / asked), "cyan")
            .append(f"  {count} of {asked}")
            for version, count in versions.items()
        ),
    ]


def bar(share: float) -> str:
    """Return a share as a bar; what is not nothing shows at least one cell.

    >>> bar(0.5).count(FULL), bar(0.001).count(FULL), bar(0).count(FULL)
    (12, 1, 0)
    """
    cells = min(BAR, max(round(share * BAR), int(share > 0)))
    return FULL * cells + EMPTY * (BAR - cells)


def is_well(rows: Sequence[BoardRow]) -> bool:
    """Return whether every board was reached and needs nobody."""
    return all(row.health in CALM for row in rows)


def describe_fleet(rows: Sequence[BoardRow]) -> Json:
    """Return the same as JSON."""
    return {
        "well": is_well(rows),
        "boards": [_describe(row) for row in sort_rows(rows)],
        "healths": dict(count_healths(rows)),
        "versions": count_versions(rows),
    }


def _describe(row: BoardRow) -> Json:
    """Return one board."""
    return {
        "id": row.board.id,
        "address": str(row.board.place),
        "groups": row.board.groups,
        "labels": row.board.labels,
        "health": row.health,
        "reason": row.reason,
        "findings": [asdict(finding) for finding in row.findings],
        "phase": row.phase,
        "pipelines": [asdict(running) for running in row.running],
        "drift": row.drift,
        "metadata_age_s": row.metadata_age_s,
    }


def _drift_text(drift: tuple[str, ...] | None) -> Text:
    """Say which scopes drift."""
    if drift is None:
        return Text("-")
    return Text("\n".join(drift), "bold red") if drift else Text("none")


def _age(seconds: float | None) -> str:
    """Say how old the metadata is, in its largest unit: a column has no more room."""
    if seconds is None:
        return "-"
    return " ".join(span_text(seconds).split()[:2])


def _why_text(row: BoardRow) -> Text:
    """Say the worst that was found, and how much more there is."""
    if not row.findings:
        wants = [it for it in row.running if it.wants and it.wants != it.runs]
        return Text(plain(", ".join(map(_under_way, wants))) or "-")
    worst = row.findings[0]
    reason = f" [{plain(worst.reason, 32)}]" if worst.reason else ""
    more = f" (and {len(row.findings) - 1} more)" if len(row.findings) > 1 else ""
    return Text(f"{plain(worst.what, 200)}{reason}{more}")


def _named(running: Running, version: str) -> str:
    """Return a version behind its pipeline, unless that is called as its model is.

    >>> _named(Running("door", "kws 7"), "kws 7"), _named(Running("kws", ""), "kws 7")
    ('door kws 7', 'kws 7')
    """
    if version.rpartition(" ")[0] == running.pipeline:
        return version
    return f"{running.pipeline} {version or '-'}"


def _under_way(running: Running) -> str:
    """Say of a pipeline that something else is wanted, and what that waits for.

    >>> _under_way(Running("door", "kws 7", "kws 8"))
    'door to kws 8'
    >>> _under_way(Running("kws", "kws 7", "kws 8", "held by an operator's rollback"))
    "wants kws 8, held by an operator's rollback"
    """
    same = _named(running, running.wants) == running.wants
    lead = "" if same else f"{running.pipeline} "
    if running.waits:
        return f"{lead}wants {running.wants}, {running.waits}"
    return f"{lead}to {running.wants}"
