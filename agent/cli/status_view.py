"""How ``tinyward status`` looks: the pipelines, what updates do, what was.

The rules this module keeps:
 * It fits 80 columns, and reads the same in a pipe: words carry the meaning, colours
   only repeat it.
 * Ages are told by the board's own clock, where it shows one: ``agent.cli.ages``.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Literal

from rich.console import Console, Group, RenderableType
from rich.table import Column, Table
from rich.text import Text

from agent.cli.ages import Clock, date_text
from agent.cli.board_answers import Refusal, State, Updates, UpdateState
from agent.cli.choice_view import choice_lines
from agent.cli.integrity_view import copy_facts, damaged, integrity_facts
from agent.cli.ladder_view import held_lines
from agent.cli.log_view import log_text
from agent.cli.meter_view import paid_text
from agent.cli.monitor_view import alarm_lines
from agent.cli.outcome import Outcome, describe_pipelines, describe_strangers
from agent.cli.plain_text import plain, span_text
from agent.cli.server_view import server_facts
from agent.core.explanations import EXPLANATIONS
from agent.core.server_words import explain_server
from agent.core.superseded import is_past
from agent.core.updates import Report, SetAside

RECENT = 6  # reports in the table; `tinyward update list` shows all
SOON_S = 3 * 86_400  # metadata that ends sooner needs its owner now
CERTIFICATE_SOON_S = 14 * 86_400
STYLES = {
    **dict.fromkeys(("runs", "committed"), "green"),
    **dict.fromkeys(("ordered", "waits", "interrupted", "no reply"), "yellow"),
    **dict.fromkeys(("refused", "failed", "rolled_back", "silent"), "bold red"),
}
ORDERS = {
    "tuf": "from the signed repository (tuf)",
    "push": "from an operator (push)",
    "ddi": "from a fleet server (ddi)",
}
EARLIEST = "the earliest that it can be"
WITHOUT_REPOSITORY = (
    "where no repository is set, models come by push, import or factory"
)
URGENT = ("phase", "looks", "trouble", "clock")
RANDOM_ID = re.compile(r"[0-9a-f]{32}")  # what a board is called that nobody named
Fact = tuple[str, Text]


@dataclass(frozen=True, slots=True)
class Extent:
    """How much of a status is shown.

    Attributes:
        reports: Updates that ended, at most.
        facts: All, those that change or need somebody at once, or none.
    """

    reports: int = RECENT
    facts: Literal["all", "urgent", "none"] = "all"


def render_status(
    state: State,
    updates: Updates,
    now: float,
    extent: Extent | None = None,
    *,
    variants: bool = False,
    host: str = "",
) -> Group:
    """Return the whole status.

    Args:
        state: What the board says.
        updates: Its reports and its quarantine.
        now: Unix seconds, for boards that do not say what their clock shows.
        extent: How much of it; everything without.
        variants: Say of everything that was tried why it does not run.
        host: What this machine is called, if it is the board.
    """
    clock, extent = clock_of(state, now), extent or Extent()
    parts: list[RenderableType] = [
        Text(_headline(state, host), "bold"),
        Text(),
        pipelines_table([*describe_pipelines(state), *describe_strangers(state)]),
    ]
    # Who looks here looks for trouble: a model that answers may answer nonsense.
    if alarms := alarm_lines(state.pipelines, clock):
        parts += [Text(), *alarms]
    if held := held_lines(state.pipelines, clock):
        parts += [Text(), *held]
    if chosen := [*choice_lines(state.pipelines, everything=variants)]:
        parts += [Text(), *chosen]
    if extent.facts != "none":
        facts = _rows(state, updates, clock)
        urgent = (*URGENT, "memory") if damaged(state.pipelines) else URGENT
        wanted = [it for it in facts if extent.facts == "all" or it[0] in urgent]
        parts += [Text(), _facts_table(wanted)]
    if updates.reports and extent.reports:
        parts += [Text(), reports_table(updates.reports, clock, extent.reports)]
    return Group(*parts)


def clock_of(state: State, now: float) -> Clock:
    """Return a board's clock; ``now`` where it does not show it."""
    return Clock(state.now or now, state.update.clock_floor or 0)


def pipelines_table(rows: Sequence[Outcome]) -> Table | Text:
    """Return the table of what each pipeline does, and why."""
    if not rows:
        return Text("no pipelines: the settings name none")
    table = columns("PIPELINE", "STATE", "RUNS", "WANTED", "WHY")
    for row in rows:
        table.add_row(
            Text(plain(row.pipeline or "(the look)", 24)),
            state_text(row),
            Text(plain(row.runs, 24) or "-"),
            Text(plain(row.wants, 24) or "-"),
            why_text(row),
        )
    return table


def reports_table(reports: Sequence[Report], clock: Clock, limit: int = 0) -> Table:
    """Return the table of updates that ended, newest first.

    What ended the same way several times in a row is one row.

    Args:
        reports: Newest first.
        clock: The board's.
        limit: How many rows at most; 0 for all.
    """
    table = columns("UPDATE", "PIPELINE", "MODEL", "RESULT", "WHY")
    rows = [list(same) for _, same in groupby(reports, _ending)]
    for same in rows[: limit or None]:
        report = same[0]
        why = plain(report.detail or report.reason)
        if report.detail and report.reason:
            why = f"{why} [{plain(report.reason, 32)}]"
        times = f"({len(same)} times) " if len(same) > 1 else ""
        ago = clock.noted(report.ended_at) if report.ended_at else ""
        table.add_row(
            Text(ago or f"#{report.id}"),
            Text(plain(report.pipeline, 24)),
            Text(f"{plain(report.model, 20)} {report.version}"),
            _word(report.result),
            Text(f"{times}{why}" or "-"),
        )
    return table


def _ending(report: Report) -> tuple[object, ...]:
    """Return what makes two reports say the same."""
    what = (report.pipeline, report.model, report.version, report.sha256)
    return (*what, report.result, report.reason, report.detail)


def quarantine_table(quarantine: Sequence[SetAside], clock: Clock) -> Table:
    """Return the table of bundles that are not tried again."""
    table = columns("SET ASIDE", "SINCE", "WHY")
    for each in quarantine:
        since = clock.noted(each.at) if each.at else "-"
        table.add_row(
            Text(plain(each.sha256, 16)), Text(since), Text(plain(each.reason, 32))
        )
    return table


def show_lines(console: Console, part: object) -> None:
    """Print a part without the blanks that tables leave at the ends of lines."""
    if console.is_terminal:
        console.print(part)
        return
    # Copied from a pipe into a ticket, blanks at the ends of lines are noise.
    with console.capture() as captured:
        console.print(part)
    for line in captured.get().splitlines():
        console.print(Text(line.rstrip()), soft_wrap=True)


def _word(word: str) -> Text:
    """Return a state or a result in its colour."""
    return Text(plain(word.replace("_", " "), 16), STYLES.get(word, ""))


def columns(*names: str) -> Table:
    """Return a table without lines, whose last column takes what is left."""
    lead = [Column(name, no_wrap=True) for name in names[:-1]]
    last = Column(names[-1], overflow="fold", ratio=1)
    return Table(
        *lead, last, box=None, pad_edge=False, padding=(0, 2, 0, 0), expand=True
    )


def state_text(row: Outcome) -> Text:
    """Return a state with its colour."""
    return _word(row.state or ("ready" if row.good else "not ready"))


def why_text(row: Outcome) -> Text:
    """Say why, with the reason, and what to do where somebody has to act."""
    # Where a board says no more than the reason, its meaning is said.
    why = row.why if row.why != row.reason else _meaning(row.reason)
    text = Text(plain(why))
    if row.reason:
        text.append(f" [{plain(row.reason, 32)}]" if why else plain(row.reason, 32))
    todo = row.todo or ("" if row.good else _todo(row.reason))
    return text.append(f"\n-> {todo}", "dim") if todo else text


def _meaning(reason: str) -> str:
    """Return what a reason means; empty where it is not known here."""
    known = {str(each): words.what for each, words in EXPLANATIONS.items()}
    return known.get(reason, "")


def _todo(reason: str) -> str:
    """Return what can be done about a reason."""
    known = {str(each): words.todo for each, words in EXPLANATIONS.items()}
    return known.get(reason, "")


def _headline(state: State, host: str) -> str:
    """Return the board in one line."""
    name = plain(state.board or "", 40)
    if host and RANDOM_ID.fullmatch(name):  # one that somebody chose says enough
        name = f"{plain(host, 40)} ({name[:8]}...)"
    board = f"{name}: " if name else ""
    engines = ", ".join(f"{name} {version}" for name, version in state.engines.items())
    ready = "ready" if state.ready else "NOT READY"
    words = [f"{board}tinyward {plain(state.version, 20)}", plain(engines, 40), ready]
    return " - ".join(word for word in words if word)


def _facts_table(facts: Iterable[Fact]) -> Table:
    """Return what is known about updates, one fact in a row."""
    table = Table.grid(
        Column(no_wrap=True), Column(overflow="fold"), padding=(0, 2, 0, 0)
    )
    for name, value in facts:
        table.add_row(Text(name, "bold"), value)
    return table


def _rows(state: State, updates: Updates, clock: Clock) -> Iterator[Fact]:
    """Yield the facts, those that need somebody in red."""
    update = state.update
    yield "orders", Text(ORDERS.get(update.orchestrator or "", "not known"))
    yield "phase", Text(_phase(updates, update.phase, clock))
    yield "looks", Text(_looks(update, clock))
    if update.ddi is not None:
        yield from server_facts(update.ddi, clock)
    yield from _troubles(update, updates)
    issued = update.metadata_issued or 0
    yield from _metadata(update.metadata_expires or {}, issued, clock)
    yield from copy_facts(state.pipelines)
    yield from integrity_facts(state.pipelines, clock)
    if state.audit is not None:
        yield "receipts", log_text(state.audit)
    if state.meter is not None:
        yield "paid", paid_text(state.meter)
    yield "clock", _clock(clock.floor, issued, update.clock_floor_lag_s or 0)
    ends = update.certificate_expires or 0
    if ends:
        yield "certificate", _ends("", ends, clock, CERTIFICATE_SOON_S)
    for each in updates.quarantine:
        since = f", {clock.noted(each.at)}" if each.at else ""
        text = f"{plain(each.sha256, 16)} [{plain(each.reason, 32)}]{since}"
        yield "set aside", Text(text)
    if update.revoked:
        yield "revoked", Text(f"{update.revoked} bundles, by the owner")


def _troubles(update: UpdateState, updates: Updates) -> Iterator[Fact]:
    """Yield what is in the way of updates: the server, the repository, a refusal."""
    if update.ddi is not None and update.ddi.trouble is not None:
        todo = explain_server(update.ddi.trouble.reason)[1]
        yield "trouble", _trouble(update.ddi.trouble, "red", todo)
    if update.trouble is not None:
        yield "trouble", _trouble(update.trouble, "red")
    refusal = update.last_refusal
    if refusal is None or refusal == update.trouble:
        return
    told = refusal.reason, refusal.message
    # Of an order that was taken back, or that another one followed: the table of
    # updates below has it, and nobody has to act on it.
    if not is_past(told, updates.reports, update.decisions or ()):
        yield "last refusal", _trouble(refusal, "")


def _phase(updates: Updates, phase: str, clock: Clock) -> str:
    """Say what goes on."""
    progress = updates.progress
    if progress is None:
        return plain(phase, 20)
    what = f"{progress.pipeline}: {progress.model} {progress.version}"
    lasted_s = clock.now - progress.began_at if progress.began_at else -1.0
    since = f", for {span_text(lasted_s)}" if lasted_s >= 0 else ""
    return f"{plain(progress.phase, 20)} ({plain(what, 60)}{since})"


def _looks(update: UpdateState, clock: Clock) -> str:
    """Say when the repository was looked at, and when it will be."""
    last, following = update.last_look or 0.0, update.next_look or 0.0
    before = f"last success {clock.noted(last)}" if last else "no success yet"
    if not following:
        return f"{before}, looking now"
    ahead = f"next in {span_text(max(0.0, following - clock.now))}"
    # Boards do not say whether they have a repository; one that fails is a trouble.
    if last or update.trouble or update.metadata_expires:
        return f"{before}, {ahead}"
    return f"nothing so far, {ahead}; {WITHOUT_REPOSITORY}"


def _trouble(trouble: Refusal, style: str, todo: str = "") -> Text:
    """Say what went wrong, and what can be done."""
    text = Text(f"{plain(trouble.message)} [{plain(trouble.reason, 32)}]", style)
    todo = todo or _todo(trouble.reason)
    return text.append(f"\n-> {todo}", "dim") if todo else text


def _metadata(expires: dict[str, float], issued: float, clock: Clock) -> Iterator[Fact]:
    """Yield how old the repository's metadata is, and what of it ends when."""
    ends = sorted(expires.items(), key=lambda item: item[1])
    if not ends:
        return
    age = f"issued {clock.signed(issued)}" if issued else "of unknown age"
    yield "metadata", Text(age)
    # The first to expire always; others only where somebody should act soon.
    for index, (role, moment) in enumerate(ends):
        if index == 0 or clock.left_s(moment) < SOON_S:
            yield "", _ends(plain(role, 24), moment, clock, SOON_S)


def _ends(what: str, moment: float, clock: Clock, soon_s: float) -> Text:
    """Say when something ends, in red when it did."""
    left_s = clock.left_s(moment)
    lead, date = f"{what} " if what else "", date_text(moment)
    if left_s <= 0:
        return Text(f"{lead}EXPIRED {span_text(-left_s)} ago ({date})", "bold red")
    style = "yellow" if left_s < soon_s else ""
    return Text(f"{lead}expires in {span_text(left_s)} ({date})", style)


def _clock(floor: float, issued: float, behind_s: float) -> Text:
    """Say whether the clock can be right."""
    # A floor that no metadata says is the day of the release, or signed long ago.
    source = "the newest signed time" if 0 < floor <= issued + 1 else EARLIEST
    known = f"{source} ({date_text(floor)})" if floor else "what was signed"
    if behind_s > 0:
        return Text(f"WRONG: {span_text(behind_s)} behind {known}", "bold red")
    return Text(f"fine: not before {known}")
