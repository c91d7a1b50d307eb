"""The tables of a rollout: its waves, its gate, and boards to look at.

The rules this module keeps:
 * Words carry the meaning, colours only repeat it; each fits 80 columns.
"""

from collections import Counter
from collections.abc import Mapping, Sequence

from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from agent.cli.plain_text import plain, span_text
from agent.cli.status_view import columns
from agent.core.gates import Reading, find_fault
from agent.core.waves import BoardCourse, Course, Phase, Plan, Standing, readings
from agent.core.waves_course import is_settled

BAR_WIDTH = 22  # with names, counts and words 80 columns
STYLES = {
    Standing.COMMITTED: "green",
    Standing.RUNS: "green",
    Standing.TOLD: "yellow",
    Standing.UPDATING: "yellow",
    Standing.FAILED: "bold red",
    Standing.OVERRULED: "bold red",
    Standing.BACK: "yellow",
}
WORDS = {Standing.RUNS: "runs it already", Standing.BACK: "rolled back"}
PERCENT = frozenset({"failed", "unreachable", "errors"})


def waves_table(plan: Plan, course: Course, now: float) -> Table:
    """Return the waves with their bars."""
    table = columns("WAVE", "BOARDS", "", "STATE")
    for index, wave in enumerate(plan.waves):
        boards = [course.boards[name] for name in wave.boards]
        settled = sum(is_settled(it, now, plan.patience_s) for it in boards)
        good = all(it.standing is not Standing.FAILED for it in boards)
        bar = ProgressBar(
            total=max(1, len(boards)),
            completed=settled if boards else 1,
            width=BAR_WIDTH,
            complete_style="green" if good else "red",
            finished_style="green" if good else "red",
        )
        table.add_row(
            Text(plain(wave.name, 20)),
            Text(f"{settled} of {len(boards)}"),
            bar,
            _wave_words(plan, course, index, now),
        )
    return table


def gate_table(rows: Sequence[Reading], wave: str) -> Table:
    """Return the figures of a wave's gate beside their limits."""
    table = columns(f"GATE of {wave}", "NOW", "LIMIT", "BOARDS")
    for row in rows:
        style = "bold red" if row.closes else "red" if row.boards else ""
        some = ", ".join(row.boards[:3]) + (", ..." if len(row.boards) > 3 else "")
        limit = figure_text(row.name, row.limit)
        now = "-" if row.figure is None else figure_text(row.name, row.figure)
        cells = [row.name, now, limit, plain(some, 40) or "-"]
        table.add_row(*(Text(cell, style) for cell in cells))
    return table


def boards_table(
    rows: Sequence[tuple[str, BoardCourse]],
    plan: Plan,
    notes: Mapping[str, str],
    now: float,
) -> Table:
    """Return the boards on their way, and those in trouble."""
    table = columns("BOARD", "STATE", "SINCE", "WHY")
    for name, board in rows:
        since_s = now - (board.lost_at or board.settled_at or board.told_at or now)
        lost = "out of reach" if board.lost_at else ""
        fault = find_fault(board, plan.gate)
        why = notes.get(name, "") or _why(board, fault)
        style = "red" if lost or fault else STYLES.get(board.standing, "")
        table.add_row(
            Text(plain(name, 24)),
            Text(lost or word_of(board.standing), style),
            Text(span_text(since_s)),
            Text(plain(why, 120) or "-"),
        )
    return table


def word_of(standing: Standing) -> str:
    """Return a standing for people."""
    return WORDS.get(standing, str(standing))


def figure_text(name: str, figure: float) -> str:
    """Return a gate's figure in its unit.

    >>> figure_text("failed", 0.25), figure_text("latency", 1.5)
    ('25 %', '1.5 x')
    """
    if name in PERCENT:
        return f"{figure * 100:.3g} %"
    return f"{figure:.3g} x" if name == "latency" else f"{figure:.0f}"


def _wave_words(plan: Plan, course: Course, index: int, now: float) -> Text:
    """Say what a wave does."""
    boards = [course.boards[name] for name in plan.waves[index].boards]
    counts = Counter(word_of(it.standing) for it in boards if not it.lost_at)
    counts["out of reach"] = sum(bool(it.lost_at) for it in boards)
    del counts[word_of(Standing.NEW)]
    said = ", ".join(f"{count} {word}" for word, count in counts.items() if count)
    if any(row.closes for row in readings(plan, course, now, index)):
        return Text(f"gate closed: {said}", "bold red")
    if index < course.wave or course.phase is Phase.DONE:
        return Text(f"through: {said}" if said else "through", "green")
    if index > course.wave:
        return Text("-", "dim")
    return Text(said or "begins")


def _why(board: BoardCourse, fault: str) -> str:
    """Return why a board is shown."""
    reason = board.reason or fault
    said = f"{board.detail} [{reason}]" if reason else board.detail
    return said.strip()
