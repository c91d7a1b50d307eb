"""How a rollout looks: a table that moves on a terminal, lines everywhere else.

The rules this module keeps:
 * On a terminal the waves, the gate and the boards in trouble are redrawn in place;
   what was decided scrolls by above them and stays.
 * Elsewhere there are only the lines: a log tells the same story.
 * Words carry the meaning, colours only repeat it; it fits 80 columns.
 * All of it goes to standard error; what a script reads is elsewhere.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from agent.cli.fleet_tables import (
    STYLES,
    boards_table,
    figure_text,
    gate_table,
    waves_table,
    word_of,
)
from agent.cli.plain_text import plain, span_text
from agent.core.gates import COUNTED, find_fault
from agent.core.reasons import Reason
from agent.core.waves import (
    Act,
    BoardCourse,
    Course,
    Decision,
    Phase,
    Plan,
    Standing,
    readings,
)
from agent.core.waves_course import FLYING, is_settled

SHOWN = 8  # boards in trouble or on their way; a report has all
ADVICE_PAUSED = (
    "Run the same command again to go on, or `tinyward fleet abort [--back]`."
)
ADVICE_GATE = (
    "Mend these boards and run it again with --retry, allow more in [rollout.gate], or "
    "`tinyward fleet abort [--back]`."
)

# Whose order was overruled is told with the reason of the pause what to do.
ADVICE: Mapping[str, str] = {Reason.GATE: ADVICE_GATE, Reason.ROLLOUT: ""}


class RolloutView:
    """Shows one rollout.

    Args:
        console: Where to; ``stderr=True``.
        title: What is rolled out.
        plan: The waves.
        notes: What deliveries say just now, by board.
        began_at: Unix seconds at which this process began.
    """

    def __init__(
        self,
        console: Console,
        title: str,
        plan: Plan,
        notes: Mapping[str, str],
        began_at: float,
    ) -> None:
        self._console = console
        self._title = title
        self._plan = plan
        self._notes = notes
        self._began_at = began_at
        self._live = Live(console=console, auto_refresh=False, transient=True)

    def __enter__(self) -> Self:
        """Begin to draw."""
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *details: object) -> None:
        """Take the table away; the lines stay."""
        if self._console.is_terminal:
            self._live.stop()

    def decided(self, course: Course, decision: Decision, now: float) -> None:
        """Print a decision."""
        for line in decision_lines(self._plan, course, decision):
            self._line(line, now, STYLES_OF.get(decision.act, ""))

    def changed(self, name: str, board: BoardCourse, now: float) -> None:
        """Print where a board stands; on a terminal only what stays."""
        if self._console.is_terminal and board.standing in FLYING and not board.lost_at:
            return
        if board.standing is not Standing.NEW or board.lost_at:
            style = "red" if board.lost_at else STYLES.get(board.standing, "")
            self._line(f"{plain(name, 30)}  {board_words(board)}", now, style)

    def draw(self, course: Course, decision: Decision, now: float) -> None:
        """Draw the table anew."""
        if self._console.is_terminal:
            shown = render(self._plan, course, decision, now, self._notes)
            run = sum(it.standing in COUNTED for it in course.boards.values())
            words = f"{self._title}: {run} of {len(course.boards)} boards run it"
            title = Text(words, "bold")
            self._live.update(Group(title, Text(), shown), refresh=True)

    def _line(self, text: str, now: float, style: str = "") -> None:
        """Print a line that stays."""
        at = (f"{max(0.0, now - self._began_at):7.1f} s  ", "dim")
        self._console.print(Text.assemble(at, (text, style)))


STYLES_OF = {
    Act.PASS: "green",
    Act.DONE: "bold green",
    Act.PAUSE: "bold red",
    Act.ABORT: "bold red",
}


def render(
    plan: Plan,
    course: Course,
    decision: Decision,
    now: float,
    notes: Mapping[str, str],
) -> Group:
    """Return the whole picture: waves, gate, boards to look at, what comes next."""
    parts: list[RenderableType] = [waves_table(plan, course, now), Text()]
    parts += [gate_table(readings(plan, course, now), _name(plan, course))]
    rows = _worth_showing(plan, course)
    if rows:
        parts += [Text(), boards_table(rows[:SHOWN], plan, notes, now)]
    if len(rows) > SHOWN:
        parts.append(Text(f"and {len(rows) - SHOWN} more", "dim"))
    return Group(
        *parts, Text(), Text(f"next: {next_words(plan, course, decision, now)}")
    )


def final_view(plan: Plan, course: Course, now: float, left_out: int = 0) -> Group:
    """Return how it ended: waves, gate, and every board that needs somebody.

    Args:
        plan: The waves.
        course: How far they came.
        now: Unix seconds.
        left_out: Boards of the inventory that are in no wave.
    """
    rest = Decision(Act.REST, reason=course.reason, why=course.why)
    parts: list[RenderableType] = [waves_table(plan, course, now), Text()]
    parts += [gate_table(readings(plan, course, now), _name(plan, course))]
    rows = _worth_showing(plan, course)
    if rows:
        parts += [Text(), boards_table(rows, plan, {}, now)]
    last = next_words(plan, course, rest, now).removeprefix("nothing: ")
    words = f"{course.phase}: {course.why}" if course.why else last
    if left_out:
        words += f"; {_boards(left_out)} of the inventory in no wave"
    parts += [Text(), Text(words, "bold")]
    advice = ADVICE.get(course.reason, ADVICE_PAUSED)
    if course.phase is Phase.PAUSED and advice:
        parts.append(Text(advice))
    return Group(*parts)


def plan_lines(
    title: str, plan: Plan, course: Course, notes: Sequence[str] = ()
) -> list[str]:
    """Return what a rollout would do, line by line; ``notes`` before the end."""
    gate = plan.gate
    lines = [f"{title}, {_boards(len(course.boards))}, {plan.at_once} at once"]
    for index, wave in enumerate(plan.waves):
        done = [it for it in wave.boards if course.boards[it].standing != Standing.NEW]
        note = f", {len(done)} begun already" if done else ""
        lines.append(f"{index + 1}. {_wave_title(plan, index)}{note}")
        lines += [f"     {plain(name, 64)}" for name in wave.boards]
    lines.append(
        f"each wave is watched for {span_text(gate.soak_s)} after its last commit, and "
        f"may take {span_text(gate.deadline_s)}"
    )
    limits = [
        f"failed {figure_text('failed', gate.failed_share)}",
        f"unreachable {figure_text('unreachable', gate.unreachable_share)}",
        f"a board's errors {figure_text('errors', gate.errors_share)}",
        f"its p95 {figure_text('latency', gate.latency_ratio)} of before",
    ]
    lines.append(f"it pauses above: {', '.join(limits)}")
    lines += [f"note: {plain(note, 200)}" for note in notes]
    return [*lines, "nobody was told anything (--dry-run)"]


def next_words(plan: Plan, course: Course, decision: Decision, now: float) -> str:
    """Say what happens next."""
    if decision.act is Act.REST or course.phase is not Phase.RUNNING:
        return f"nothing: {course.phase}: {course.why}" if course.why else "nothing"
    last = course.wave + 1 == len(plan.waves)
    after = "it is done" if last else _wave_title(plan, course.wave + 1)
    if decision.act is Act.WAIT and not decision.boards:
        # Rounded up: whoever reads "0 s" waits for something that should be over.
        left = span_text(max(1, math.ceil(decision.until - now)))
        return f"watches this wave for {left} more, then {after}"
    soak = span_text(plan.gate.soak_s)
    count = sum(
        not is_settled(course.boards[name], now, plan.patience_s)
        for name in plan.waves[course.wave].boards
    )
    return f"waits for {count} of this wave, watches it for {soak}, then {after}"


def decision_lines(plan: Plan, course: Course, decision: Decision) -> list[str]:
    """Return what a decision is, in words."""
    match decision.act:
        case Act.TELL:
            some = ", ".join(decision.boards[:6])
            more = len(decision.boards) - 6
            return [f"telling {some}{f' and {more} more' if more > 0 else ''}"]
        case Act.PASS:
            return [f"{decision.why}; now {_wave_title(plan, course.wave)}"]
        case Act.DONE:
            return [f"done: {decision.why}"]
        case Act.PAUSE:
            return [f"PAUSED: {decision.why} [{decision.reason}]"]
        case Act.ABORT:
            return [f"ABORTED: {decision.why} [{decision.reason}]"]
        case _:
            return []


def board_words(board: BoardCourse) -> str:
    """Say where a board stands, and why."""
    word = "out of reach" if board.lost_at else word_of(board.standing)
    return plain(f"{word}: {board.detail}" if board.detail else word, 200) + (
        f" [{board.reason}]" if board.reason else ""
    )


def _name(plan: Plan, course: Course) -> str:
    """Return the name of the wave that is under way."""
    return plain(plan.waves[course.wave].name, 20)


def _wave_title(plan: Plan, index: int) -> str:
    """Return a wave's name and size."""
    wave = plan.waves[index]
    return f"{wave.name} ({_boards(len(wave.boards))})"


def _boards(count: int) -> str:
    """Return a number of boards."""
    return f"{count} {'board' if count == 1 else 'boards'}"


def _worth_showing(plan: Plan, course: Course) -> list[tuple[str, BoardCourse]]:
    """Return the boards in trouble, then those on their way."""
    reached = [
        (name, course.boards[name])
        for wave in plan.waves[: course.wave + 1]
        for name in wave.boards
    ]
    bad = [it for it in reached if it[1].lost_at or find_fault(it[1], plan.gate)]
    names = {name for name, _ in bad}
    flying = [it for it in reached if it[1].standing in FLYING and it[0] not in names]
    return bad + flying
