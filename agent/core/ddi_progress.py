"""What the machine's facts mean for a DDI server's open action.

State mapping: fetching is ``download``; verified on disk ``downloaded``; on trial
``proceeding``; committed ``closed``/``success``; refused ``closed``/``failure``. What
cannot be now, and may later, is ``rejected``: a warning, with words, and no end.

The rules this module keeps:
 * States are told in their order, and none is left out where it was passed between two
   looks; a state is told again only after a restart or a warning.
 * The same look twice is no news.
 * An action ends when each of its pipelines has: with success if all run what it wants.
 * A refusal ends it; a failure that may pass by itself is counted once it was tried
   again, and the last one that counts has the rest withdrawn, and then ends it, too.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from msgspec.structs import replace

from agent.core.ddi import SOURCE, Action, Execution, Record
from agent.core.ddi_actions import end, leave, say
from agent.core.reasons import Reason
from agent.core.targets import Wanted
from agent.core.updates import Decision, Progress, Report

LADDER: tuple[Execution, ...] = ("scheduled", "download", "downloaded", "proceeding")
# Phases of the update machine, as far as a server knows them.
STATES: dict[str, Execution] = {
    "FETCHING": "download",
    "VERIFYING": "download",
    "STAGING": "downloaded",
    "PREFLIGHT": "proceeding",
    "SHADOWING": "proceeding",
    "PROBATION": "proceeding",
    "COMMITTING": "proceeding",
    "ROLLING_BACK": "proceeding",
}
# Waiting that is as it should be: nothing failed.
PATIENT = frozenset(
    {
        Reason.PAUSED,
        Reason.WINDOW,
        Reason.NOT_BEFORE,
        Reason.PERCENT,
        Reason.HELD,
        Reason.NONE,
    }
)
OPERATOR = "an operator of this board overruled it"
# What the plan adds to the words of what may pass: here it is said what becomes of it.
TRIED_AGAIN = "; it is tried again"


@dataclass(frozen=True, slots=True)
class Seen:
    """What the machine says about an action, all of one moment.

    Attributes:
        fetched: Pipelines whose bundle lies here, verified and not tried.
    """

    decisions: tuple[Decision, ...] = ()
    progress: Progress | None = None
    reports: tuple[Report, ...] = ()
    fetched: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class _Stand:
    """How far one pipeline has come.

    Attributes:
        how: ``done``, ``failed``, ``again``, ``late`` (a window), or ``busy``.
        state: What of the ladder was reached.
    """

    pipeline: str
    how: Literal["done", "failed", "again", "late", "busy"]
    state: Execution = "scheduled"
    reason: str = ""
    detail: str = ""

    @property
    def words(self) -> str:
        """What a person reads."""
        return f"{self.pipeline}: {self.detail or self.reason}"


def observe(record: Record, seen: Seen, now_ms: int) -> Record:
    """Return a record with what has happened waiting to be told."""
    action = record.open
    if action is None or action.leaving:
        return record
    stands = _stands(action, seen)
    if all(it.how in {"done", "failed"} for it in stands):
        return _conclude(record, action, stands, now_ms)
    reached = max((it.state for it in stands if it.how != "done"), key=LADDER.index)
    # After a warning only what moves is news: it would be warned of again at once.
    if action.said != "rejected" or _moves(stands):
        record = _climb(record, reached, now_ms)
    return _warn(record, action, stands, now_ms)


def failing(record: Record, seen: Seen) -> bool:
    """Return whether something of the open action failed, and can be tried again.

    It cannot while the machine is at something else, or about to begin it: whatever
    time goes by then, no attempt is made.
    """
    action = record.open
    if action is None or action.leaving or seen.progress is not None:
        return False
    if any(
        it.state == "ordered" and _is_about(it, action, it.pipeline)
        for it in seen.decisions
        if it.pipeline in action.pipelines
    ):
        return False
    return any(it.how == "again" for it in _stands(action, seen))


def strike(record: Record, seen: Seen, attempts: int) -> Record:
    """Return a record with one more failure counted; with the last one it leaves.

    Args:
        record: What is kept.
        seen: What the machine says.
        attempts: After so many failures it is given up.
    """
    action = record.open
    if action is None or not failing(record, seen):
        return record
    action = replace(action, failures=action.failures + 1)
    record = replace(record, open=action)
    if action.failures < attempts:
        return record
    stuck = [it for it in _stands(action, seen) if it.how != "done"]
    details = (
        f"gave up after {action.failures} attempts",
        *(f"{it.reason}: {it.words}" if it.reason else it.words for it in stuck),
    )
    return leave(record, "gave_up", why=details)


def gave_up(record: Record, seen: Seen, now_ms: int) -> Record:
    """Return a record after all has ended of an action that was given up.

    What was committed of it stays; where all of it was at last, it succeeded.
    """
    action = record.open
    if action is None or action.leaving != Reason.GAVE_UP:
        return record
    stands = _stands(action, seen)
    if all(it.how == "done" for it in stands):
        return _conclude(record, action, stands, now_ms)
    return end(record, done_part(record, seen), Reason.GAVE_UP, action.why, now_ms)


def done_part(record: Record, seen: Seen) -> dict[str, Wanted]:
    """Return what was carried out of the open action, or ran already."""
    action = record.open
    if action is None:
        return {}
    stands = _stands(action, seen)
    return _part(action, {it.pipeline for it in stands if it.how == "done"})


def is_partly_committed(record: Record, seen: Seen) -> bool:
    """Return whether something was committed for the sake of the open action."""
    action = record.open
    return action is not None and any(
        _is_committed(action, name, wanted, seen.reports)
        for name, wanted in action.pipelines.items()
    )


def cut_short(record: Record, seen: Seen, now_ms: int) -> Record:
    """Return a record whose open action ended where it was: another replaces it."""
    action = record.open
    if action is None:
        return record
    done = done_part(record, seen)
    words = tuple(
        f"{name}: it was replaced" for name in sorted({*action.pipelines} - {*done})
    )
    return end(record, done, Reason.SUPERSEDED, words, now_ms)


def _conclude(
    record: Record, action: Action, stands: list[_Stand], now_ms: int
) -> Record:
    """Close an action whose pipelines have all come to an end."""
    failed = [it for it in stands if it.how == "failed"]
    done = _part(action, {it.pipeline for it in stands if it.how == "done"})
    if not failed:
        # Only what really was carried out has passed the states between.
        if any(it.state == "proceeding" for it in stands) and action.said in LADDER:
            record = _climb(record, "proceeding", now_ms)
        words = tuple(it.words for it in stands)
        return end(record, done, "", words, now_ms)
    details = tuple(it.words for it in failed)
    return end(record, done, failed[0].reason, details, now_ms)


def _climb(record: Record, to: Execution, now_ms: int) -> Record:
    """Tell each state between the one told last and the one reached."""
    action = record.open
    if action is None or to == "scheduled":
        return record
    rank = LADDER.index(to)
    if action.said in LADDER:
        between: Iterable[Execution] = LADDER[_rank(action.said) + 1 : rank + 1]
    else:
        between = (to,)  # after a restart or a warning: where it is now
    for state in between:
        record = say(record, state, now_ms)
    return record


def _warn(record: Record, action: Action, stands: list[_Stand], now_ms: int) -> Record:
    """Tell why nothing goes on, once; what goes on needs no warning."""
    if _moves(stands):
        return record
    obstacles = [it for it in stands if it.how in {"again", "late"}]
    if action.held:
        obstacles = [_Stand("board", "late", reason=action.held)]
    if not obstacles or action.said == "rejected":
        return record
    first = obstacles[0]
    return say(record, "rejected", now_ms, first.reason, f"{first.words}; tried later")


def _moves(stands: Iterable[_Stand]) -> bool:
    """Whether something of an action goes on."""
    return any(it.how == "busy" and it.state != "scheduled" for it in stands)


def _stands(action: Action, seen: Seen) -> list[_Stand]:
    """Return how far an action has come in each pipeline."""
    return [_stand(action, name, seen) for name in action.pipelines]


def _stand(action: Action, pipeline: str, seen: Seen) -> _Stand:
    """Return how far an action has come in one pipeline."""
    wanted = action.pipelines[pipeline]
    if _is_committed(action, pipeline, wanted, seen.reports):
        detail = f"{wanted.model} {wanted.version} was committed"
        return _Stand(pipeline, "done", "proceeding", detail=detail)
    decision = next(
        (it for it in seen.decisions if _is_about(it, action, pipeline)), None
    )
    if decision is not None and decision.state == "runs":
        detail = f"{wanted.model} {wanted.version} runs"
        return _Stand(pipeline, "done", detail=detail)
    under_way = seen.progress
    if under_way is not None and _is_of(under_way, pipeline, wanted):
        state = STATES.get(under_way.phase, "scheduled")
        return _Stand(pipeline, "busy", state)
    state = "downloaded" if pipeline in seen.fetched else "scheduled"
    return _judge(pipeline, state, decision)


def _judge(pipeline: str, state: Execution, decision: Decision | None) -> _Stand:
    """Return what a decision about what does not run yet means."""
    if decision is None or decision.state in {"ordered", "unassigned", "runs"}:
        return _Stand(pipeline, "busy", state)
    reason, detail = decision.reason, decision.detail
    if decision.state == "refused":
        return _Stand(pipeline, "failed", state, reason or Reason.INTERNAL, detail)
    if reason == Reason.HELD:
        return _Stand(pipeline, "failed", state, reason, OPERATOR)
    if reason == Reason.WINDOW:
        return _Stand(pipeline, "late", state, reason, detail)
    if reason in PATIENT:
        return _Stand(pipeline, "busy", state)
    detail = detail.partition(TRIED_AGAIN)[0]
    return _Stand(pipeline, "again", state, reason, detail)


def _is_committed(
    action: Action, pipeline: str, wanted: Wanted, reports: Iterable[Report]
) -> bool:
    """Whether this order was carried out, whatever runs by now."""
    ours = (SOURCE, pipeline, wanted.model, wanted.version)
    return any(
        it.result == "committed"
        and it.generation in action.generations
        and (it.source, it.pipeline, it.model, it.version) == ours
        for it in reports
    )


def _is_about(decision: Decision, action: Action, pipeline: str) -> bool:
    """Whether a decision was made about this order, and not an earlier one."""
    return (
        decision.pipeline,
        decision.source,
        decision.generation,
        decision.desired,
    ) == (pipeline, SOURCE, action.generation, action.pipelines[pipeline])


def _is_of(under_way: Progress, pipeline: str, wanted: Wanted) -> bool:
    """Whether what is under way is what is wanted."""
    return (under_way.pipeline, under_way.model, under_way.version) == (
        pipeline,
        wanted.model,
        wanted.version,
    )


def _part(action: Action, pipelines: Iterable[str]) -> dict[str, Wanted]:
    """Return what an action wants of some pipelines."""
    return {name: action.pipelines[name] for name in sorted(pipelines)}


def _rank(said: str) -> int:
    """Return how far up the ladder a state is."""
    return next((at for at, state in enumerate(LADDER) if state == said), -1)
