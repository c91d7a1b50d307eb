"""From desired states to what this board does about them: one decision a pipeline.

The rules this module keeps:
 * Files come most specific first; the first one that is *in force* for this board and
   names a pipeline decides about it, alone.
 * A file is not in force for boards that its ``percent`` did not draw, nor before its
   ``not_before``: there the next file counts, as if this one did not exist.
 * A file that is in force and ``paused``, or outside its ``window``, holds its
   pipelines as they are: nothing new starts, and no other file may step in.
 * So does a file whose dates cannot be read; the other files are none of its business.
 * So does one that an operator overruled, as long as it says what it said then.
 * What already runs needs no order; what was refused is ordered again, for whoever
   remembers the refusal to see whether its reason has gone.
 * ``refused`` is only what nobody tries again; what may pass by itself ``waits``.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from msgspec.structs import replace

from agent.core.installed import Slots
from agent.core.quarantine import MAX_ATTEMPTS
from agent.core.reasons import Reason
from agent.core.schedule import (
    begins_at,
    check_dates,
    has_begun,
    is_open,
    is_unclear,
    may_start,
    opens_at,
    parse_window,
    render_time,
    takes_part,
)
from agent.core.targets import GroupFile, Wanted
from agent.core.updates import Decision, Hold

__all__ = [
    "Order",
    "Plan",
    "Refusal",
    "Situation",
    "check_dates",
    "has_begun",
    "is_unclear",
    "may_start",
    "plan",
    "runs",
    "takes_part",
]

# Names that one board does not have may be many in a file for a thousand boards.
MAX_UNKNOWN = 64


@dataclass(frozen=True, slots=True)
class Order:
    """One pipeline's wanted model, and the file that says so.

    Attributes:
        source: Path of the desired state; ``generation`` counts its publications.
    """

    pipeline: str
    model: str
    version: int
    source: str
    generation: int


@dataclass(frozen=True, slots=True)
class Refusal:
    """What came of an order the last time; ``detail`` is for people.

    Attributes:
        again: It is tried again without anything new.
        attempts: Trials of its bytes up to now, where that is what failed.
    """

    order: Order
    reason: str
    detail: str
    again: bool = False
    attempts: int = 0


@dataclass(frozen=True, slots=True)
class Situation:
    """What a plan depends on besides files and models.

    Attributes:
        board_id: This board's name in the draw of a staged rollout.
        now: Unix seconds (UTC).
        utc_offset_s: How far local time is ahead of UTC now.
        holds: What operators overruled.
        revoked: Digests of bundles that may run nowhere.
        refusals: Pipeline -> what came of its last order, if it was not committed.
    """

    board_id: str
    now: float
    utc_offset_s: int = 0
    holds: Sequence[Hold] = ()
    revoked: Collection[str] = ()
    refusals: Mapping[str, Refusal] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do now, and why not everything.

    Attributes:
        decisions: One for each pipeline of the settings, in their order, then those
            about pipelines that the settings do not have.
        orders: What is to be carried out now.
        wake: Unix seconds up to which the passing of time alone changes no decision
            (but for a window that closes); 0 where it never does.
    """

    decisions: tuple[Decision, ...] = ()
    orders: tuple[Order, ...] = ()
    wake: float = 0.0


@dataclass(frozen=True, slots=True)
class _Spoken:
    """A desired state as this board hears it now.

    Attributes:
        drawn: This board takes part; ``unclear``: nobody knows since when.
        begins: Unix seconds, 0 for those that always counted.
    """

    path: str
    file: GroupFile
    drawn: bool
    unclear: bool
    begins: float

    def in_force(self, now: float) -> bool:
        """Return whether it may decide."""
        return self.drawn and (self.unclear or self.begins <= now)


def plan(
    files: Sequence[tuple[str, GroupFile]],
    slots: Mapping[str, Slots],
    situation: Situation,
) -> Plan:
    """Return what has to change, and why what should has not.

    Laws: before a decision's ``until`` it stays what it is, at ``until`` it is another;
    up to ``wake`` the same inputs order nothing that was not ordered before.

    Args:
        files: (path, desired state), most specific first.
        slots: The durable models of every pipeline of the settings.
        situation: Everything else.
    """
    spoken = [_hear(path, file, situation.board_id) for path, file in files]
    decisions, orders, times = [], [], []
    for pipeline, installed in slots.items():
        decision, changes_at = _decide(pipeline, installed, spoken, situation)
        if decision.state == "ordered" and decision.desired is not None:
            orders.append(_order(decision, decision.desired))
            decision = _remembered(decision, orders[-1], situation.refusals)
        decisions.append(decision)
        times.append(changes_at)
    return Plan(
        decisions=(*decisions, *_strangers(spoken, slots, situation.now)),
        orders=tuple(orders),
        wake=_earliest(times),
    )


def runs(slots: Slots, wanted: Wanted) -> bool:
    """Return whether a pipeline's active model is the wanted one."""
    active = slots.active
    return active is not None and (active.model, active.version) == (
        wanted.model,
        wanted.version,
    )


def _hear(path: str, file: GroupFile, board_id: str) -> _Spoken:
    """Read what a file says about time and draw, once for all its pipelines."""
    unclear = is_unclear(file)
    begins = 0.0 if unclear else begins_at(file)
    return _Spoken(path, file, takes_part(file, board_id), unclear, begins)


def _decide(
    pipeline: str, installed: Slots, spoken: Sequence[_Spoken], situation: Situation
) -> tuple[Decision, float]:
    """Return the decision about a pipeline and the next time that may change it."""
    now = situation.now
    named = [it for it in spoken if pipeline in it.file.pipelines]
    deciding = next((it for it in named if it.in_force(now)), None)
    # Files that will step in: more specific than the one that decides, and later.
    ahead = named if deciding is None else named[: named.index(deciding)]
    coming = [it for it in ahead if it.drawn and not it.in_force(now)]
    coming_at = _earliest(it.begins for it in coming)
    if deciding is not None:
        decision = _judge(pipeline, installed, deciding, situation)
    else:
        decision = _await(pipeline, installed, named, coming)
        if decision.reason == Reason.PAUSED:
            # Its own start changes nothing: only a more specific file's does.
            paths = [it.path for it in coming]
            coming_at = _earliest(
                it.begins for it in coming[: paths.index(decision.source)]
            )
    changes_at = _earliest([decision.until, coming_at])
    if decision.state == "waits":
        decision = replace(decision, until=changes_at)
        decision = replace(decision, detail=_explain(decision))
    return decision, changes_at


def _judge(
    pipeline: str, installed: Slots, by: _Spoken, situation: Situation
) -> Decision:
    """Decide by the file that is in force."""
    wanted, generation = by.file.pipelines[pipeline], by.file.generation
    says = partial(
        Decision, pipeline, desired=wanted, source=by.path, generation=generation
    )
    active = installed.active
    if runs(installed, wanted):
        if active is None or active.sha256 not in situation.revoked:
            return says(state="runs")
        return says(state="refused", reason=Reason.REVOKED, detail="it was revoked")
    if by.unclear:
        detail = f"{by.path} does not say when it may start"
        return says(state="refused", reason=Reason.METADATA, detail=detail)
    reason, until = _obstacle(pipeline, by, situation)
    if reason:
        return says(state="waits", reason=reason, until=until)
    return says(state="ordered")


def _obstacle(pipeline: str, by: _Spoken, situation: Situation) -> tuple[str, float]:
    """Return why nothing may start, and until when; an empty reason where it may."""
    if _is_held(pipeline, by, situation.holds):
        return Reason.HELD, 0.0
    if by.file.paused:
        return Reason.PAUSED, 0.0
    window = parse_window(by.file.window)
    if not is_open(window, situation.now, situation.utc_offset_s):
        opens = opens_at(window, situation.now, situation.utc_offset_s)
        return Reason.WINDOW, opens
    return Reason.NONE, 0.0


def _await(
    pipeline: str,
    installed: Slots,
    named: Sequence[_Spoken],
    coming: Sequence[_Spoken],
) -> Decision:
    """Decide where no file is in force: somebody may have said something for later."""
    if not named:
        detail = "nobody says what should run"
        active, factory = installed.active, installed.factory
        if active and factory and active.sha256 == factory.sha256:
            detail = "its factory model runs until somebody says what should"
        return Decision(pipeline, "unassigned", detail=detail)
    by = min(coming, key=lambda it: it.begins) if coming else named[0]
    wanted, generation = by.file.pipelines[pipeline], by.file.generation
    says = partial(
        Decision, pipeline, desired=wanted, source=by.path, generation=generation
    )
    if runs(installed, wanted):
        return says(state="runs")
    if not coming:
        return says(state="waits", reason=Reason.PERCENT)
    reason = Reason.PAUSED if by.file.paused else Reason.NOT_BEFORE
    return says(state="waits", reason=reason)


def _remembered(
    ordered: Decision, order: Order, refusals: Mapping[str, Refusal]
) -> Decision:
    """Say of an order what came of it, where nothing about it has changed."""
    refusal = refusals.get(order.pipeline)
    if refusal is None or refusal.order != order:
        return ordered
    says = partial(replace, ordered, reason=refusal.reason)
    if not refusal.again:
        return says(state="refused", detail=refusal.detail)
    tried = f" (attempt {refusal.attempts} of {MAX_ATTEMPTS})"
    again = f"it is tried again{tried if refusal.attempts else ''}"
    return says(state="waits", detail=f"{refusal.detail}; {again}")


def _is_held(pipeline: str, by: _Spoken, holds: Sequence[Hold]) -> bool:
    """Whether an operator overruled this source, and it said nothing else since.

    A lower generation is no replay, which would never have come here: the floor fell
    with the keys that raised it, or an operator took it back. Were it held, whoever
    stole a fleet key once could keep a board from ever listening again.
    """
    return Hold(pipeline, by.path, by.file.generation) in holds


def _strangers(
    spoken: Sequence[_Spoken], slots: Mapping[str, Slots], now: float
) -> Iterator[Decision]:
    """Report pipelines that are wanted here and that the settings do not have."""
    told: set[str] = set()
    for by in spoken:
        for name, wanted in by.file.pipelines.items():
            if name in slots or name in told or len(told) == MAX_UNKNOWN:
                continue
            if by.in_force(now):
                told.add(name)
                yield Decision(
                    pipeline=name,
                    state="refused",
                    desired=wanted,
                    source=by.path,
                    generation=by.file.generation,
                    reason=Reason.UNKNOWN_PIPELINE,
                    detail="the settings have no such pipeline",
                )


def _order(ordered: Decision, wanted: Wanted) -> Order:
    """Return the order that a decision says."""
    return Order(
        pipeline=ordered.pipeline,
        model=wanted.model,
        version=wanted.version,
        source=ordered.source,
        generation=ordered.generation,
    )


def _explain(waiting: Decision) -> str:
    """Return what a decision waits for, in words."""
    source, until = waiting.source, waiting.until
    texts: dict[str, str] = {
        Reason.WINDOW: "waits for window",
        Reason.NOT_BEFORE: "waits for its start",
        Reason.PAUSED: f"{source} is paused",
        Reason.HELD: f"an operator rolled back; {source} has to say something newer",
        Reason.PERCENT: f"{source} did not draw this board",
    }
    text = texts[waiting.reason]
    return f"{text} until {render_time(until)}" if until else text


def _earliest(times: Iterable[float]) -> float:
    """Return the earliest time that is known, 0 where none is."""
    return min((time for time in times if time), default=0.0)
