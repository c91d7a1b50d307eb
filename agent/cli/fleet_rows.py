"""What one look at a board says about it, and many looks about the fleet.

The rules this module keeps:
 * Nothing here asks or waits: answers in, rows out.
 * A row has one health, that of its worst finding; who sorts by it sees trouble first.
 * ``warned`` and what is worse needs a person; ``updating`` and ``well`` do not.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from agent.cli.ages import Clock
from agent.cli.board_answers import IDLE, AlarmAnswer, PipelineState, State, UpdateState
from agent.cli.outcome import Outcome, describe_pipelines, version_text
from agent.cli.plain_text import plain, span_text
from agent.core.degradation import Level
from agent.core.inventory import BoardTable
from agent.core.reasons import Reason
from agent.errors import AgentError

Health = Literal["unreachable", "failing", "warned", "updating", "well"]
# The worst first: so rows are sorted, and so the summary counts.
HEALTHS: tuple[Health, ...] = ("unreachable", "failing", "warned", "updating", "well")
CALM: tuple[Health, ...] = ("updating", "well")
# Signed every 6 hours: a day without anything newer is four times missed (alerts.yml).
STALE_S = 86_400.0
# Less is a clock that NTP has not put right yet (alerts.yml).
BEHIND_S = 300.0
HELD = "held by an operator's rollback"


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that a person should know, how bad it is, and its reason."""

    health: Health
    reason: str
    what: str


@dataclass(frozen=True, slots=True)
class Running:
    """What answers in one pipeline, and what should; empty for nothing.

    Attributes:
        waits: What that waits for; empty where it does not wait.
    """

    pipeline: str
    runs: str
    wants: str = ""
    waits: str = ""


@dataclass(frozen=True, slots=True)
class BoardRow:
    """One board as the table shows it.

    Attributes:
        board: Its row in the inventory.
        findings: The worst first.
        phase: Of the update machine, empty where the board was not reached.
        drift: The scopes that drift now; None where nothing is watched.
        metadata_age_s: Since the newest metadata was signed; None if it has none.
    """

    board: BoardTable
    findings: tuple[Finding, ...] = ()
    running: tuple[Running, ...] = ()
    phase: str = ""
    drift: tuple[str, ...] | None = None
    metadata_age_s: float | None = None

    @property
    def health(self) -> Health:
        """The worst of its findings; what is under way is no finding."""
        if self.findings:
            return self.findings[0].health
        return "well" if self.phase == IDLE else "updating"

    @property
    def reason(self) -> str:
        """The worst finding's reason, empty without one."""
        return self.findings[0].reason if self.findings else ""


def unreachable_row(board: BoardTable, error: AgentError) -> BoardRow:
    """Return the row of a board that could not be asked, with why."""
    what = plain(error).removeprefix(f"{board.id}: ")
    return BoardRow(board, (Finding("unreachable", plain(error.reason, 64), what),))


def describe_row(board: BoardTable, state: State, now: float) -> BoardRow:
    """Return the row of a board that answered.

    Args:
        board: Its row in the inventory.
        state: What it says.
        now: Unix seconds, for boards that do not say what their clock shows.
    """
    clock = Clock(state.now or now, state.update.clock_floor or 0)
    issued = state.update.metadata_issued or 0
    outcomes = describe_pipelines(state)
    found = [*_of_pipelines(state, outcomes), *_of_updates(state.update, clock)]
    ordered = any(row.state == "ordered" for row in outcomes)
    phase = state.update.phase
    return BoardRow(
        board,
        tuple(sorted(found, key=lambda finding: HEALTHS.index(finding.health))),
        tuple(Running(it.pipeline, it.runs, it.wants, _waits(it)) for it in outcomes),
        # What begins with the next look is on its way as well.
        plain("ORDERED" if ordered and phase == IDLE else phase, 20),
        _drift(state),
        max(0.0, clock.judged - issued) if issued else None,
    )


def sort_rows(rows: Iterable[BoardRow]) -> list[BoardRow]:
    """Return the rows with trouble first, then by their ids."""
    return sorted(rows, key=lambda row: (HEALTHS.index(row.health), row.board.id))


def count_healths(rows: Sequence[BoardRow]) -> dict[Health, int]:
    """Return how many boards are how, the worst first; what none is, is left out."""
    counts = Counter(row.health for row in rows)
    return {health: counts[health] for health in HEALTHS if counts[health]}


def count_versions(rows: Iterable[BoardRow]) -> dict[str, int]:
    """Return what runs -> on how many boards, sorted; a board counts once for each."""
    counts = Counter(
        version
        for row in rows
        for version in {running.runs for running in row.running if running.runs}
    )
    return dict(sorted(counts.items(), key=lambda item: _by_number(item[0])))


def _by_number(version: str) -> tuple[str, int]:
    """Return a key that puts ``kws 10`` behind ``kws 9``."""
    model, _, number = version.rpartition(" ")
    return model, int(number) if number.isdigit() else 0


def _of_pipelines(state: State, outcomes: Sequence[Outcome]) -> Iterator[Finding]:
    """Yield what is wrong with what answers."""
    for row in outcomes:
        pipeline = state.pipelines[row.pipeline]
        if not row.good and row.state != "ordered":
            # What is tried again by itself may still pass; what runs is not harmed.
            health: Health = "warned" if row.state == "waits" else "failing"
            yield Finding(health, row.reason, f"{row.pipeline}: {row.why}")
        elif not pipeline.ready:
            why = f"{row.pipeline}: not ready"
            yield Finding("failing", pipeline.reason, why)
        yield from _of_ladder(row.pipeline, pipeline)
        for alarm in _alarms(pipeline):
            health = "failing" if alarm.severity == "critical" else "warned"
            what = f"{row.pipeline}: {alarm.scope} drifts from {alarm.anchor}"
            yield Finding(health, Reason.DRIFT, plain(what))


def _of_ladder(name: str, pipeline: PipelineState) -> Iterator[Finding]:
    """Yield that a pipeline is held back, if it is."""
    ladder = pipeline.ladder
    if ladder is None or ladder.level not in {Level.DEGRADED, Level.SAFE}:
        return
    # A pipeline that is safe gives no answers; one that is degraded gives fewer.
    health: Health = "failing" if ladder.level == Level.SAFE else "warned"
    reason = ladder.reasons[0] if ladder.reasons else ""
    yield Finding(health, reason, plain(f"{name}: {ladder.level}: {ladder.detail}"))


def _waits(row: Outcome) -> str:
    """Say what a pipeline's update waits for, if it does."""
    if row.state != "waits":
        return ""
    # Asked for by an operator, who looks here whether it came to pass.
    return HELD if row.reason == Reason.HELD else row.why


def _of_updates(update: UpdateState, clock: Clock) -> Iterator[Finding]:
    """Yield what keeps a board from updating; its models run on."""
    server = update.ddi
    if server is not None and server.trouble is not None:
        yield Finding("warned", server.trouble.reason, server.trouble.message)
    if update.trouble is not None:
        yield Finding("warned", update.trouble.reason, update.trouble.message)
    for role, ends in (update.metadata_expires or {}).items():
        if clock.left_s(ends) <= 0:
            what = f"{role} expired {clock.signed(ends)}"
            yield Finding("warned", Reason.EXPIRED, plain(what))
    age_s = clock.judged - update.metadata_issued if update.metadata_issued else 0.0
    if age_s > STALE_S:
        what = f"no newer metadata for {span_text(age_s)}"
        yield Finding("warned", Reason.REPLAYED, what)
    if update.certificate_expires and clock.left_s(update.certificate_expires) <= 0:
        what = "the board's own certificate has ended"
        yield Finding("warned", Reason.CERTIFICATE, what)
    if (update.clock_floor_lag_s or 0) > BEHIND_S:
        behind = span_text(update.clock_floor_lag_s or 0)
        yield Finding("warned", Reason.EXPIRED, f"its clock is {behind} behind")


def _drift(state: State) -> tuple[str, ...] | None:
    """Return the scopes that drift in any pipeline; None where none is watched."""
    if not any(pipeline.watch for pipeline in state.pipelines.values()):
        return None
    alarms = [it for pipeline in state.pipelines.values() for it in _alarms(pipeline)]
    return tuple(dict.fromkeys(plain(alarm.scope, 16) for alarm in alarms))


def _alarms(pipeline: PipelineState) -> list[AlarmAnswer]:
    """Return the alarms that are raised about the model that answers."""
    runs = version_text(pipeline.active)
    return [
        alarm
        for watch in pipeline.watch or ()
        if f"{watch.model} {watch.version}" == runs
        for alarm in watch.alarms
        if alarm.active
    ]
