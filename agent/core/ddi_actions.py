"""What becomes of a DDI server's action: pure transitions of what is kept of it.

The rules this module keeps:
 * One action is open at a time. Each gets one last word: ``closed``, or ``canceled``
   where the server itself replaced it or took it away, or that of its cancellation.
 * What ended is not begun again as long as the server goes on offering it: its last
   word is repeated, because it must have been lost. Offered anew after a pause, it is
   a new order (servers without action ids of their own do that).
 * What an action brought stays wanted; what it failed with is wanted no more.
 * What is being withdrawn is not wanted, from the moment on at which that was saved.

Source: hawkBit, "Direct Device Integration API", state machine mapping.
"""

from dataclasses import dataclass
from typing import Literal

from msgspec.structs import replace

from agent.core.ddi import (
    MAX_ENDED,
    MAX_PIPELINES,
    SOURCE,
    Action,
    Ended,
    Execution,
    Feedback,
    Finished,
    Mode,
    Record,
)
from agent.core.ddi_outbox import ended_as, queue
from agent.core.reasons import Reason
from agent.core.targets import GroupFile, Wanted

__all__ = ["SOURCE", "Offer", "Prefetch", "desired", "prefetch"]

# hawkBit keeps 1,000 entries of an action, and one that comes and goes needs its last.
MAX_TOLD = 500


@dataclass(frozen=True, slots=True)
class Offer:
    """An action as the server offers it, understood.

    Attributes:
        pipelines: What it wants, for the pipelines of this board.
    """

    id: str
    pipelines: dict[str, Wanted]
    download: Mode = "forced"
    update: Mode = "forced"
    window_open: bool = True


@dataclass(frozen=True, slots=True)
class Prefetch:
    """What may be fetched although it may not be tried yet.

    Attributes:
        window: Only in it, ``HH:MM-HH:MM[ local]``; empty: any time.
    """

    generation: int
    pipelines: dict[str, Wanted]
    window: str = ""


def desired(record: Record, window: str = "") -> GroupFile | None:
    """Return the desired state that a record stands for, None where it wants nothing.

    What must not start yet makes it ``paused``.

    Args:
        record: What is kept.
        window: ``fleet.ddi.window``: when what the server calls ``attempt`` may start.
    """
    action = _wanted(record)
    pipelines = _merged(record.runs, action.pipelines if action else {})
    if not pipelines:
        return None
    return GroupFile(
        generation=max(record.generation, 1),
        pipelines=pipelines,
        paused=action is not None and not may_start(action),
        window=window if action and _attempts(action) else "",
    )


def prefetch(record: Record, window: str = "") -> Prefetch | None:
    """Return what may be fetched now although it may not start, or None.

    Args:
        record: What is kept.
        window: ``fleet.ddi.window``.
    """
    action = _wanted(record)
    if action is None or action.download == "skip" or action.held:
        return None
    if may_start(action) and (action.update, action.download) != ("attempt", "forced"):
        return None
    return Prefetch(
        generation=action.generation,
        pipelines=action.pipelines,
        window=window if action.download == "attempt" else "",
    )


def may_start(action: Action) -> bool:
    """Return whether the server, and this board, let it be tried."""
    skipped = "skip" in {action.download, action.update}
    return not skipped and action.window_open and not action.held


def replaces(record: Record, offer: Offer) -> bool:
    """Return whether an offer is another one than the action that is open."""
    action = record.open
    return action is not None and (action.id, action.pipelines) != (
        offer.id,
        offer.pipelines,
    )


def accept(record: Record, offer: Offer, now_ms: int) -> Record:
    """Return a record with an offer taken.

    The same again may have changed in when it may begin; another one needs the open
    one to have left. What ended just now has its last word repeated.
    """
    if replaces(record, offer) or (record.open and record.open.leaving):
        return record
    if record.open is not None:
        may_begin = replace(
            record.open,
            download=offer.download,
            update=offer.update,
            window_open=offer.window_open,
        )
        return replace(record, open=may_begin)
    if ended_as(record, offer.id):
        return repeat(record, offer.id)
    action = Action(
        id=offer.id,
        generation=record.generation + 1,
        pipelines=offer.pipelines,
        download=offer.download,
        update=offer.update,
        window_open=offer.window_open,
    )
    record = replace(record, generation=action.generation, open=action)
    return say(record, "scheduled", now_ms)


def exchange(record: Record, offer: Offer, done: dict[str, Wanted]) -> Record:
    """Return a record whose open action, under the same id, wants something else.

    hawkBit never does that; a server that numbers files instead of orders may.

    Args:
        record: What is kept.
        offer: What it wants now.
        done: What was carried out of what it wanted before, and stays wanted.
    """
    if record.open is None:
        return record
    generation = record.generation + 1
    action = replace(
        record.open,
        generation=generation,
        pipelines=offer.pipelines,
        failures=0,
        leaving="",
        since=0,
    )
    runs = _merged(record.runs, done)
    record = replace(record, generation=generation, runs=runs, open=action)
    return accept(record, offer, 0)


def reopen(record: Record) -> Record:
    """Return a record whose open action goes on under a new generation.

    The machine begins nothing more of one that was withdrawn.
    """
    action = record.open
    if action is None:
        return record
    generation = record.generation + 1
    goes_on = replace(
        action, generation=generation, since=action.since or action.generation
    )
    return replace(record, generation=generation, open=goes_on)


def repeat(record: Record, action: str) -> Record:
    """Return a record in which an ended action's last word waits once more."""
    ended = ended_as(record, action)
    return queue(record, ended.word) if ended else record


def refuse(record: Record, action: str, reason: str, words: str, now_ms: int) -> Record:
    """Return a record with an action failed that never began."""
    if ended_as(record, action):
        return repeat(record, action)
    said = Feedback(
        "deploymentBase", action, "closed", "failure", reason, (words,), now_ms
    )
    return _ended(record, action, said)


def hold(record: Record, reason: str) -> Record:
    """Return a record whose open action this board had better not begin, or may."""
    action = record.open
    if action is None or action.held == reason:
        return record
    return replace(record, open=replace(action, held=reason))


def leave(
    record: Record,
    reason: Literal["canceled", "superseded", "gave_up"],
    cancel: str = "",
    why: tuple[str, ...] = (),
) -> Record:
    """Return a record whose open action is wanted no more.

    Args:
        record: What is kept.
        reason: Why: ``superseded`` also where the server simply took it away.
        cancel: Id of the cancellation that asks for it.
        why: What it failed with, where it is given up.
    """
    if record.open is None:
        return record
    action = replace(record.open, leaving=reason, cancel=cancel, why=why)
    return replace(record, open=action)


def left(record: Record, *, committed: bool, now_ms: int) -> Record:
    """Return a record after what was under way of a leaving action has ended.

    Args:
        record: What is kept.
        committed: Something of it was committed before: it stays, and goes on.
        now_ms: Unix milliseconds.
    """
    action = record.open
    if action is None or not action.leaving:
        return record
    if committed:
        record = replace(record, open=replace(action, leaving="", cancel=""))
        if action.leaving == Reason.CANCELED:
            said = _answer(action.cancel, "rejected", "it was committed", now_ms)
            record = queue(record, said)
        return record
    if action.leaving == Reason.CANCELED:
        said = _answer(action.cancel, "closed", "it was ended", now_ms)
    else:
        words = ("the server replaced it, or took it away",)
        reason = Reason.SUPERSEDED
        said = Feedback(
            "deploymentBase", action.id, "canceled", "none", reason, words, now_ms
        )
    # What it took away it does not offer any more: the id means something new again.
    gone = action.leaving == Reason.SUPERSEDED
    return _ended(record, action.id, said, gone=gone)


def cancel_refused(record: Record, cancel: str, now_ms: int) -> Record:
    """Return a record after a cancellation of what was committed in part."""
    said = _answer(cancel, "rejected", "part of it was committed", now_ms)
    return queue(record, said)


def cancel_ended(record: Record, cancel: str, action: str, now_ms: int) -> Record:
    """Return a record after a cancellation of what is not open.

    What succeeded cannot be taken back; what failed, or was never here, is stopped.
    """
    ended = ended_as(record, action)
    word = ended.word if ended else None
    if word and (word.resource, word.action) == ("cancelAction", cancel):
        return queue(record, word)
    # It has no result but success, and only where the action itself was closed.
    committed = word is not None and (word.resource, word.finished) == (
        "deploymentBase",
        "success",
    )
    execution: Execution = "rejected" if committed else "closed"
    words = "it was committed" if committed else "nothing of it is under way"
    return queue(record, _answer(cancel, execution, words, now_ms))


def end(
    record: Record,
    done: dict[str, Wanted],
    reason: str,
    details: tuple[str, ...],
    now_ms: int,
) -> Record:
    """Return a record with the open action closed.

    Args:
        record: What is kept.
        done: What was committed of it, and stays wanted.
        reason: Why it failed, or empty.
        details: The same for people.
        now_ms: Unix milliseconds.
    """
    action = record.open
    if action is None:
        return record
    finished: Finished = "failure" if reason else "success"
    said = Feedback(
        "deploymentBase", action.id, "closed", finished, reason, details, now_ms
    )
    record = replace(record, runs=_merged(record.runs, done))
    return _ended(record, action.id, said)


def say(
    record: Record, execution: Execution, now_ms: int, reason: str = "", words: str = ""
) -> Record:
    """Return a record in which news of the open action wait to be told."""
    action = record.open
    if action is None or action.told >= MAX_TOLD:
        return record
    details = (words,) if words else ()
    said = Feedback(
        "deploymentBase", action.id, execution, "none", reason, details, now_ms
    )
    told = replace(action, said=execution, told=action.told + 1)
    return queue(replace(record, open=told), said)


def restart(record: Record, now_ms: int) -> Record:
    """Return a record after a start of the daemon: what was begun is resumed."""
    action = record.open
    if action is None or action.said in {"", "scheduled", "rejected", "resumed"}:
        return record
    return say(record, "resumed", now_ms)


def is_new(record: Record) -> bool:
    """Return whether no action was ever heard of."""
    return record.generation == 0 and not record.ended


def adopt(record: Record, installed: dict[str, Wanted]) -> Record:
    """Return the record of a new board, told what it ran in an earlier life."""
    return replace(record, generation=1, runs=installed) if is_new(record) else record


def _ended(
    record: Record, action: str, said: Feedback, *, gone: bool = False
) -> Record:
    """Return a record with an action ended, and its last word waiting."""
    earlier = [it for it in record.ended if it.id != action]
    ended = (*earlier, Ended(action, said, gone))[-MAX_ENDED:]
    still_open = record.open if record.open and record.open.id != action else None
    return queue(replace(record, open=still_open, ended=ended), said)


def _answer(cancel: str, execution: Execution, words: str, now_ms: int) -> Feedback:
    """Return the answer to a cancellation; its success is that it was carried out."""
    finished: Finished = "success" if execution == "closed" else "none"
    reason = Reason.CANCELED if execution == "closed" else Reason.NONE
    return Feedback(
        "cancelAction", cancel, execution, finished, reason, (words,), now_ms
    )


def _merged(earlier: dict[str, Wanted], later: dict[str, Wanted]) -> dict[str, Wanted]:
    """Return both; of too many those that came last.

    Only pipelines that were removed from the settings can make them too many.
    """
    kept = [(name, it) for name, it in earlier.items() if name not in later]
    return dict([*kept, *later.items()][-MAX_PIPELINES:])


def _wanted(record: Record) -> Action | None:
    """Return the open action, unless it is leaving."""
    action = record.open
    return None if action is None or action.leaving else action


def _attempts(action: Action) -> bool:
    """Whether the server leaves the time to this board."""
    return "attempt" in {action.download, action.update}
