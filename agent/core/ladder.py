"""The degradation ladder: one look after the other decides where a pipeline stands.

The rules this module keeps:
 * Up as soon as signals said so for ``CONFIRM_S`` without a break, over levels if need
   be; down one level at a time, each after ``calm_s`` in which every signal was below
   its relaxed threshold.
 * ``safe`` is reached from ``degraded`` only, when a signal still says so after
   ``patience_s``; it is left when no such signal holds any more.
 * Time in which nobody looked proves nothing: of a gap between two looks ``GAP_S`` at
   most counts, of a clock that goes backwards nothing.
 * Nor does a sensor that is not read: what it said last neither breaks nor lengthens
   what speaks for going up (for ``RECENT_S``), and while that was too hot for the
   level below, the level is kept.
 * Frozen values in, frozen values out: no clock, no state of its own.

Laws: a level is never skipped downwards; in ``T`` seconds there are at most
``3 + 2 * T / calm_s`` transitions, whatever sensors say; worse signals never lead to a
lower level.

>>> from agent.core.signals import Signals
>>> from agent.settings import DegradeSettings
>>> stands = Standing()
>>> for second in range(4):
...     hot = Signals(second, celsius=81.0, sensor="soc")
...     stands = climb(stands, hot, DegradeSettings())
>>> stands.level, stands.reason, stands.detail
(<Level.SUSPECT: 'suspect'>, <Reason.HEAT: 'heat'>, 'soc 81 C, 80 C allowed')
"""

from dataclasses import dataclass, replace
from math import isfinite

from agent.core.degradation import DegradeSteps, Level, Measure
from agent.core.reasons import Reason
from agent.core.signals import Limits, Opinion, Signals, judge_signals, worst

# At a look a second that takes three looks in a row: one reading of nonsense, or two,
# move nothing, and a board's heat takes longer than that to do harm. The late answers,
# the stalls and the deaths are counted over windows of their own.
CONFIRM_S = 1.8
GAP_S = 1.5  # a loop that was late by half a second still counts in full
# Readings further apart than this are not of one heat: a board at full load warms and
# cools by several K in that time.
RECENT_S = 10.0
_LEVELS = tuple(Level)
_WITHOUT_MODEL = (Measure.ABSTAIN, Measure.SAFE_OUTPUT)


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a pipeline stands, and what speaks for going up or down.

    Attributes:
        level: Where.
        reason: What the last transition was for; ``calm`` on the way down.
        detail: What holds it there, in words.
        reasons: The same as words, worst first.
        seen_s: When the last look was; None before the first.
        suspect_s: How long signals have said at least ``suspect``, ``degraded_s``
            ``degraded``, without a break; None if they don't.
        stuck_s: How long ``degraded`` has not helped; None if it does.
        calm_s: How long nothing has held it where it is; None if something does.
    """

    level: Level = Level.NORMAL
    reason: Reason = Reason.CALM
    detail: str = ""
    reasons: tuple[Reason, ...] = ()
    seen_s: float | None = None
    suspect_s: float | None = None
    degraded_s: float | None = None
    stuck_s: float | None = None
    calm_s: float | None = None


def climb(before: Standing, signals: Signals, limits: Limits) -> Standing:
    """Return where a pipeline stands after one more look."""
    now_s, passed_s = _pass(before.seen_s, signals.now_s)
    level, last = before.level, _as_last_read(signals)
    surely, raised = judge_signals(signals, limits), judge_signals(last, limits)
    recent = signals.lost is None or signals.lost.age_s <= RECENT_S
    maybe = raised if recent else ()
    calm = not _is_held(judge_signals(signals, limits, relaxed=True), level)
    held = judge_signals(last, limits, relaxed=True)
    stuck_s = _said(before.stuck_s, passed_s, surely, maybe, Level.SAFE)
    looked = replace(
        before,
        seen_s=now_s,
        suspect_s=_said(before.suspect_s, passed_s, surely, maybe, Level.SUSPECT),
        degraded_s=_said(before.degraded_s, passed_s, surely, maybe, Level.DEGRADED),
        stuck_s=stuck_s if level is Level.DEGRADED else None,
        calm_s=before.calm_s
        if calm and _is_held(held, level)
        else _lasting(before.calm_s, passed_s, holds=calm),
    )
    moved = _move(looked, (*surely, *raised), limits)
    if moved.level is Level.NORMAL:
        return replace(moved, detail="", reasons=())
    shown = _shown(raised, held, moved.level)
    if not shown:  # it calms down: what brought it there is still the best answer
        return moved
    return replace(
        moved, detail=shown[0].detail, reasons=tuple(it.reason for it in shown)
    )


def measures_at(level: Level, steps: DegradeSteps) -> tuple[Measure, ...]:
    """Return what is done at a level: its own measures and those of the levels below.

    Nobody can both abstain and give a constant answer: of the two that of the highest
    level holds, and within one level the answer.

    >>> steps = DegradeSteps(degraded=(Measure.ABSTAIN,), safe=(Measure.SAFE_OUTPUT,))
    >>> measures_at(Level.SAFE, steps)
    (<Measure.SAFE_OUTPUT: 'safe_output'>,)
    """
    asked: list[Measure] = []
    for at, own in enumerate((steps.suspect, steps.degraded, steps.safe), start=1):
        if at > level.rank:
            break
        if any(it in _WITHOUT_MODEL for it in own):
            asked = [it for it in asked if it not in _WITHOUT_MODEL]
        asked += own
    if Measure.SAFE_OUTPUT in asked and Measure.ABSTAIN in asked:
        asked = [it for it in asked if it is not Measure.ABSTAIN]
    return tuple(dict.fromkeys(asked))


def _pass(seen_s: float | None, now_s: float) -> tuple[float, float]:
    """Return what the clock says, and how much time since the last look counts."""
    if seen_s is None or not isfinite(now_s):
        return (now_s if isfinite(now_s) else seen_s or 0.0), 0.0
    return now_s, max(0.0, min(now_s - seen_s, GAP_S))


def _lasting(before_s: float | None, passed_s: float, *, holds: bool) -> float | None:
    """Return how long something has held, None where it does not."""
    if not holds:
        return None
    return 0.0 if before_s is None else before_s + passed_s


def _said(
    before_s: float | None,
    passed_s: float,
    surely: tuple[Opinion, ...],
    maybe: tuple[Opinion, ...],
    level: Level,
) -> float | None:
    """Return how long a level was asked for, as it was where that is not known."""
    holds = _is_held(surely, level)
    if not holds and _is_held(maybe, level):
        return before_s
    return _lasting(before_s, passed_s, holds=holds)


def _as_last_read(signals: Signals) -> Signals:
    """Return signals as if the sensor that is not read still said the same."""
    lost = signals.lost
    if lost is None or lost.celsius <= signals.celsius:
        return signals
    name = f"{lost.sensor}, {lost.age_s:.0f} s ago:"
    return replace(signals, celsius=lost.celsius, sensor=name)


def _is_held(opinions: tuple[Opinion, ...], level: Level) -> bool:
    """Whether something asks for a level: ``safe`` is asked for by way of patience."""
    if level is Level.SAFE:
        return any(
            it.level is Level.DEGRADED and it.highest is Level.SAFE for it in opinions
        )
    return worst(opinions).rank >= level.rank


def _move(looked: Standing, raised: tuple[Opinion, ...], limits: Limits) -> Standing:
    """Take the step that this look earns, if it earns one."""
    level = looked.level
    if looked.stuck_s is not None and looked.stuck_s >= limits.patience_s:
        blamed = next(it for it in raised if it.highest is Level.SAFE)
        return _stand(looked, Level.SAFE, blamed.reason)
    for up, said_s in (
        (Level.DEGRADED, looked.degraded_s),
        (Level.SUSPECT, looked.suspect_s),
    ):
        if up.rank > level.rank and said_s is not None and said_s >= CONFIRM_S:
            return _stand(looked, up, raised[0].reason)
    calm = looked.calm_s is not None and looked.calm_s >= limits.calm_s
    if calm and level is not Level.NORMAL:
        return _stand(looked, _LEVELS[level.rank - 1], Reason.CALM)
    return looked


def _stand(looked: Standing, level: Level, reason: Reason) -> Standing:
    """Return the standing at another level: patience and calm begin anew."""
    return replace(looked, level=level, reason=reason, stuck_s=None, calm_s=None)


def _shown(
    raised: tuple[Opinion, ...], held: tuple[Opinion, ...], level: Level
) -> tuple[Opinion, ...]:
    """Return what holds a level, as it was raised where that explains it already."""
    said = {it.reason: it for it in raised}
    best = [said.get(it.reason, it) for it in held]
    return tuple(
        new if new.level.rank >= min(old.level.rank, level.rank) else old
        for new, old in zip(best, held, strict=True)
    )
