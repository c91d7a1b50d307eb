"""Adding up what monitors say, over the workers that one model version had.

A monitor counts since its worker loaded the model. What is shown has to survive that
worker: counters are summed, and gauges (scores, alarms, shifts) are the last worker's.

The rules this module keeps:
 * Reports come from a worker, which is not trusted: a number that falls stays where it
   was, sums stop at ``LIMIT``, and one (anchor, scope) is one alarm.
 * An alarm that was active when a worker ended is no new one in the next.

Laws: counters of ``rise(before, now)`` are at least those of ``before``; ``add`` is
associative, and ``Monitored()`` before anything leaves it as it is.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from operator import add as plus
from typing import Literal, TypeVar

from msgspec.structs import replace

from agent.core.reasons import Reason
from agent.core.watching import (
    ANCHORS,
    Alarm,
    Anchor,
    AnchorState,
    Monitored,
    Scope,
)

LIMIT = 2**62 - 1  # what a Count may say: no sum of lies gets beyond it
Scoped = tuple[str, str]  # (anchor, scope)
Event = Literal["drift.alarm", "drift.confirmed", "drift.cleared"]
Key = TypeVar("Key", bound=str)


@dataclass(frozen=True, slots=True)
class Transition:
    """One alarm that was raised, confirmed or cleared between two reports."""

    event: Event
    alarm: Alarm


def rise(before: Monitored, now: Monitored) -> Monitored:
    """Return a worker's next report with no counter below that of the one before."""
    raised = {key: alarm.raised for key, alarm in _by_scope(before.alarms).items()}
    alarms = tuple(
        replace(alarm, raised=max(alarm.raised, raised.get(key, 0)))
        for key, alarm in _by_scope(now.alarms).items()
    )
    return replace(
        now,
        samples=max(before.samples, now.samples),
        spent_ns=max(before.spent_ns, now.spent_ns),
        windows=max(before.windows, now.windows),
        repeated=max(before.repeated, now.repeated),
        confidence=_highest(before.confidence, now.confidence),
        confidence_sum=max(before.confidence_sum, now.confidence_sum),
        predictions=_highest(before.predictions, now.predictions),
        invalid={
            why: max(before.invalid.get(why, 0), now.invalid.get(why, 0))
            for why in _either(before.invalid, now.invalid)
        },
        alarms=(*alarms, *_ended(before.alarms, now.alarms)),
    )


def add(before: Monitored, after: Monitored) -> Monitored:
    """Return two workers' reports as one: counters of both, gauges of ``after``."""
    known = _by_scope(before.alarms)
    alarms = tuple(
        _go_on(known[key], alarm) if key in known else alarm
        for key, alarm in _by_scope(after.alarms).items()
    )
    return replace(
        after,
        samples=_sum(before.samples, after.samples),
        spent_ns=_sum(before.spent_ns, after.spent_ns),
        windows=_sum(before.windows, after.windows),
        repeated=_sum(before.repeated, after.repeated),
        confidence=_sums(before.confidence, after.confidence),
        # Of floats: associative as far as their 53 bits go.
        confidence_sum=plus(before.confidence_sum, after.confidence_sum),
        predictions=_sums(before.predictions, after.predictions),
        invalid={
            why: _sum(before.invalid.get(why, 0), after.invalid.get(why, 0))
            for why in _either(before.invalid, after.invalid)
        },
        alarms=(*alarms, *_ended(before.alarms, after.alarms)),
    )


def rest(monitored: Monitored) -> Monitored:
    """Return what is left of a model's monitor once another model answers.

    Its counters stay. Nothing compares its input any more, so no alarm is active and
    no score is shown: what nobody renews would alarm for ever.
    """
    return Monitored(
        samples=monitored.samples,
        spent_ns=monitored.spent_ns,
        windows=monitored.windows,
        window_samples=monitored.window_samples,
        confidence=monitored.confidence,
        confidence_sum=monitored.confidence_sum,
        repeated=monitored.repeated,
        invalid=monitored.invalid,
        predictions=monitored.predictions,
        alarms=_ended(monitored.alarms, ()),
    )


def transitions(before: Monitored, now: Monitored) -> tuple[Transition, ...]:
    """Return what became of the alarms between two sums of the same model.

    An alarm that was cleared and raised again in between is raised once more.

    >>> quiet = Monitored()
    >>> loud = Monitored(alarms=(Alarm("site", "input", active=True, raised=1),))
    >>> [it.event for it in transitions(quiet, loud)]
    ['drift.alarm']
    >>> [it.event for it in transitions(loud, quiet)]
    ['drift.cleared']
    """
    known = _by_scope(before.alarms)
    found: list[Transition] = []
    for key, alarm in _by_scope(now.alarms).items():
        old = known.get(key, Alarm(alarm.anchor, alarm.scope, active=False))
        again = alarm.active and alarm.raised > old.raised
        if again or (alarm.active and not old.active):
            found.append(Transition("drift.alarm", alarm))
        if alarm.active and alarm.confirmed and (again or not old.confirmed):
            found.append(Transition("drift.confirmed", alarm))
        if old.active and not alarm.active:
            found.append(Transition("drift.cleared", alarm))
    gone = _ended(before.alarms, now.alarms)
    cleared = [alarm for alarm in gone if known[alarm.anchor, alarm.scope].active]
    return (*found, *(Transition("drift.cleared", alarm) for alarm in cleared))


def active_alarms(monitored: Monitored) -> tuple[tuple[Anchor, Scope], ...]:
    """Return (anchor, scope) of the alarms that are active, each once."""
    alarms = _by_scope(monitored.alarms).values()
    return tuple((it.anchor, it.scope) for it in alarms if it.active)


def confirmed_alarms(monitored: Monitored) -> tuple[tuple[Anchor, Scope], ...]:
    """Return (anchor, scope) of those that are active and confirmed, each once."""
    alarms = _by_scope(monitored.alarms).values()
    return tuple((it.anchor, it.scope) for it in alarms if it.active and it.confirmed)


def with_anchor(monitored: Monitored, state: AnchorState) -> Monitored:
    """Return what a monitor says with one anchor's state replaced."""
    others = [it for it in monitored.anchors if it.anchor != state.anchor]
    # There are two anchors, and a worker may have said three times the other.
    return replace(monitored, anchors=(state, *others[:1]))


def _by_scope(alarms: Iterable[Alarm]) -> dict[Scoped, Alarm]:
    """Index alarms by what they are about; of two about the same the last counts."""
    return {(alarm.anchor, alarm.scope): alarm for alarm in alarms}


def _go_on(before: Alarm, after: Alarm) -> Alarm:
    """Return an alarm over two workers: what raised it stays known in the next."""
    return replace(
        after,
        raised=_sum(before.raised, after.raised),
        score=after.score or before.score,
        evidence=after.evidence or before.evidence,
    )


def _ended(before: Sequence[Alarm], now: Sequence[Alarm]) -> tuple[Alarm, ...]:
    """Return the alarms that are not spoken of any more, as inactive ones."""
    left = _by_scope(before)
    for alarm in now:
        left.pop((alarm.anchor, alarm.scope), None)
    return tuple(
        replace(alarm, active=False, confirmed=False) for alarm in left.values()
    )


def _either(left: Mapping[Key, int], right: Mapping[Key, int]) -> list[Key]:
    """Return the keys of both, each once, in a fixed order."""
    return sorted(left.keys() | right.keys())


def _sum(left: int, right: int) -> int:
    """Return a sum that stays within a Count."""
    return min(LIMIT, left + right)


def _sums(left: Sequence[int], right: Sequence[int]) -> tuple[int, ...]:
    """Add counts by position; the shorter has zeros behind it."""
    return tuple(_sum(a, b) for a, b in zip_longest(left, right, fillvalue=0))


def _highest(left: Sequence[int], right: Sequence[int]) -> tuple[int, ...]:
    """Return the higher count at each position."""
    return tuple(max(a, b) for a, b in zip_longest(left, right, fillvalue=0))


def unwatched_states(why: str) -> tuple[AnchorState, ...]:
    """Return what is said of the anchors of a model that is not watched."""
    return tuple(
        AnchorState(anchor, valid=False, reason=Reason.UNWATCHED, detail=why)
        for anchor in ANCHORS
    )
