"""How an update ended for each pipeline, from what the board says before and after.

The rules this module keeps:
 * Nothing here asks or waits: states and reports in, rows for people out.
 * Good is what runs as desired, and what waits for a time or a person; everything
   else, what waits to be tried again included, has a reason, and a script sees it by
   the exit code.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from agent.cli.board_answers import (
    IDLE,
    Active,
    MeterAnswer,
    PipelineState,
    Refusal,
    State,
)
from agent.core.explanations import EXPLANATIONS
from agent.core.meter_status import say_thinned
from agent.core.reasons import Reason
from agent.core.server_words import explain_server
from agent.core.superseded import is_past
from agent.core.updates import Decision, Report

FINE = ("runs", "unassigned")
SILENT = "silent"  # orders are followed, and nothing is answered
# Beginning is over within a moment; and whoever was given no model has none.
PASSES = {Reason.STARTING, Reason.NO_MODEL}
# It ran here once: the board's key is another one now, or the envelope is damaged.
NO_ENVELOPE = (
    "Put the board's own key back if it was replaced; else seal the model for the key "
    "it has: `tinyward identity seal`, `tinyward seal --to BOARD.pub`, and publish."
)
CALM = {
    *(Reason.WINDOW, Reason.NOT_BEFORE, Reason.PERCENT),
    *(Reason.PAUSED, Reason.HELD),
}
UNDONE = ("refused", "failed", "rolled_back", "interrupted")


@dataclass(frozen=True, slots=True)
class Outcome:
    """One pipeline, or with an empty name the look itself.

    Attributes:
        good: Nobody has to act.
        state: ``runs``, ``silent``, ``waits``, ``refused``, ``rolled_back``...
        runs: What answers now, ``kws 8``; ``wants`` what should, empty for nothing.
        why: For people; ``reason`` for scripts.
        todo: What can be done, where the reason's usual words say something else.
    """

    pipeline: str
    good: bool
    state: str
    runs: str = ""
    wants: str = ""
    why: str = ""
    reason: str = ""
    todo: str = ""


def describe_pipelines(state: State) -> list[Outcome]:
    """Return what each pipeline does, and why it does not do what is wanted."""
    decisions = state.decisions()
    rows = [
        _with_silence(_describe(name, pipeline, decisions.get(name)), pipeline)
        for name, pipeline in state.pipelines.items()
    ]
    return [_with_thinning(row, state.meter) for row in rows]


def describe_strangers(state: State) -> list[Outcome]:
    """Return what is wanted of pipelines that this board does not have.

    That alone is no mistake: one group may speak to boards of several kinds.
    """
    return [
        Outcome(
            name,
            good=True,
            state=decision.state,
            wants=_wants(decision),
            why=decision.detail,
            reason=decision.reason,
        )
        for name, decision in state.decisions().items()
        if name not in state.pipelines
    ]


def judge(
    before: State,
    after: State,
    reports: Sequence[Report],
    known: Sequence[Report] = (),
) -> list[Outcome]:
    """Return how it ended for each pipeline.

    Args:
        before: The board before it was asked to do something.
        after: The board when nothing was under way any more.
        reports: The updates that ended between the two, newest first.
        known: All that the board remembers, newest first: what was refused before
            something else was wanted is no news of this look.
    """
    newest: dict[str, Report] = {}
    for report in reports:
        newest.setdefault(report.pipeline, report)
    rows = [
        _with_report(row, newest.get(row.pipeline)) for row in describe_pipelines(after)
    ]
    # A pipeline that is refused for reasons of its own hides nothing of the look.
    failed = [
        it
        for it in _troubles(before, after, known)
        if not any(_says_the_same(row, it) for row in rows)
    ]
    return failed + rows + describe_strangers(after)


def is_settled(before: State, now: State) -> bool:
    """Return whether a look ended since ``before``, and nothing is under way.

    >>> is_settled(State(), State())
    False
    """
    update = now.update
    busy = not is_idle(now)
    ordered = any(each.state == "ordered" for each in update.decisions or ())
    return not busy and not ordered and update.next_look != before.update.next_look


def is_idle(now: State) -> bool:
    """Return whether neither an update nor a look is under way.

    A look is at the fleet's server as well, where one orders: what it says is waited
    for, a minute at most.
    """
    update = now.update
    asking = update.ddi is not None and not update.ddi.next_poll
    idle = update.phase == IDLE and update.progress is None
    return idle and bool(update.next_look) and not asking


def _describe(name: str, pipeline: PipelineState, decision: Decision | None) -> Outcome:
    """Say one pipeline's state."""
    runs = version_text(pipeline.active)
    if decision is None:
        why = "" if pipeline.ready else pipeline.reason
        return Outcome(name, pipeline.ready, "", runs, why=why, reason=pipeline.reason)
    wants = _wants(decision)
    source = f"{decision.source}, generation {decision.generation}"
    why = decision.detail or (decision.reason or "")
    if decision.state == "runs":
        why = f"as wanted by {source}" if decision.source else why
    elif decision.state == "ordered":
        why = why or f"begins now; wanted by {source}"
    elif decision.state == "unassigned":
        why = why or "nobody says what should run"
    waits = decision.state == "waits" and decision.reason in CALM
    good = waits or decision.state in FINE
    return Outcome(name, good, decision.state, runs, wants, why, decision.reason)


def _with_silence(row: Outcome, pipeline: PipelineState) -> Outcome:
    """Say why nothing is answered, where orders give nobody anything to do."""
    if not row.good or not row.state or pipeline.ready or pipeline.reason in PASSES:
        return row
    known = {str(each): words.what for each, words in EXPLANATIONS.items()}
    what = known.get(pipeline.reason, "It is not ready.").rstrip(".")
    why = f"answers nothing: {what[:1].lower()}{what[1:]}"
    if row.state == "waits":
        why = f"{why}; {row.why}"
    todo = NO_ENVELOPE if pipeline.reason == Reason.ENVELOPE else ""
    reason = pipeline.reason
    return replace(row, good=False, state=SILENT, why=why, reason=reason, todo=todo)


def _with_thinning(row: Outcome, meter: MeterAnswer | None) -> Outcome:
    """Say that only some samples are answered, where units are used up.

    Nobody has to act: it is what the settings order.
    """
    paid = meter.pipelines.get(row.pipeline) if meter else None
    if not row.good or paid is None or not paid.is_thinned:
        return row
    why = "; ".join(it for it in (say_thinned(paid.every), row.why) if it)
    todo = EXPLANATIONS[Reason.UNPAID].todo
    return replace(row, why=why, reason=Reason.UNPAID, todo=todo)


def _wants(decision: Decision) -> str:
    """Return what a decision wants, for people."""
    wanted = decision.desired
    return f"{wanted.model} {wanted.version}" if wanted else ""


def _with_report(row: Outcome, report: Report | None) -> Outcome:
    """Say how the update of a pipeline ended, where one did."""
    if report is None or report.result not in UNDONE:
        return row
    # What was meant, and done: an operator ended the trial.
    good = report.reason in {Reason.REQUESTED, Reason.SUPERSEDED} and row.good
    wants = f"{report.model} {report.version}"
    why = report.detail or report.reason
    return Outcome(
        row.pipeline, good, report.result, row.runs, wants, why, report.reason
    )


def _troubles(
    before: State, after: State, known: Sequence[Report]
) -> Iterator[Outcome]:
    """Yield what the look stumbled over: the fleet's server, then the repository."""
    update = after.update
    # Who gives no orders says nothing of what it wants: that is the graver one.
    if update.ddi is not None and update.ddi.trouble is not None:
        todo = explain_server(update.ddi.trouble.reason)[1]
        yield replace(_failed(update.ddi.trouble), todo=todo)
    trouble = update.trouble or _fresh_refusal(before, after, known)
    if trouble is not None:
        yield _failed(trouble)
    elif (blind := _unverifiable(after)) is not None:
        yield blind


def _fresh_refusal(
    before: State, after: State, known: Sequence[Report]
) -> Refusal | None:
    """Return what did not verify in this look, unless its order is of the past."""
    refusal, counted = after.update.last_refusal, before.update.verify_failures
    failures = after.update.verify_failures
    fresh = any(count > counted.get(reason, 0) for reason, count in failures.items())
    if refusal is None or not fresh:
        return None
    told = refusal.reason, refusal.message
    return None if is_past(told, known, after.update.decisions or ()) else refusal


def _failed(trouble: Refusal) -> Outcome:
    """Return the row of a look that stumbled."""
    return Outcome("", False, "failed", why=trouble.message, reason=trouble.reason)


def _unverifiable(after: State) -> Outcome | None:
    """Return why nothing became of an order on a board that has seen no metadata."""
    ordered = any(each.state == "ordered" for each in after.decisions().values())
    if not ordered or after.update.metadata_issued or after.update.metadata_expires:
        return None
    why = "nothing can be verified: the board has seen no signed metadata"
    return Outcome("", False, "failed", why=why, reason=Reason.SIGNATURE)


def _says_the_same(row: Outcome, trouble: Outcome) -> bool:
    """Return whether a pipeline's row has the look's trouble, word for word.

    What it is going to do about it may follow.
    """
    same = (row.good, row.reason) == (False, trouble.reason)
    return same and row.why.startswith(trouble.why)


def version_text(active: Active | None) -> str:
    """Return a model and its version for people."""
    return f"{active.model} {active.version}" if active else ""
