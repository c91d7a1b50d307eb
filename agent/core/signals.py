"""Signals: what a look at a board and a pipeline says about doing less.

The rules this module keeps:
 * Each signal says a level, a reason and a sentence; the worst counts.
 * What is absent or cannot be (NaN, 2,000 C, a share above 1) says nothing.
 * A signal is let go later than it is raised: *relaxed* thresholds are lower, so that a
   reading that sits on one does not go up and down with its last digit.
 * No signal leads to ``safe`` by itself: only a ``degraded`` that does not help does
   (``agent.core.ladder``). ``highest`` says how far a signal may lead.

Laws: relaxed thresholds never say less than the others; a worse value of any signal
never says less.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import nan
from typing import Literal, NamedTuple, Protocol

from agent.core.degradation import Level
from agent.core.figures import tell_apart
from agent.core.reasons import Reason

MB = 1_000_000
# What the kernel's own trip points of boards use as hysteresis: 5 K for the fan steps
# of a Pi 5 (bcm2712-rpi-5-b.dts), 2 to 5 K for others.
COOLER_C = 5.0
ROOMIER = 1.25  # so much more memory than the threshold, and the pressure is over
HALVED = 0.5  # stalls and late answers: of the threshold
COLDEST_C, HOTTEST_C = -60.0, 200.0  # outside lies a broken sensor, not a board
# A 95th percentile of fewer durations is the largest of them.
FEWEST_ANSWERS = 20
STALLED_TIMES, MISSED_TIMES = 5.0, 2.0  # as [degrade] promises: degraded

Drift = Literal["none", "warning", "confirmed", "critical"]
_DRIFT: dict[Drift, Level] = {
    "none": Level.NORMAL,
    "warning": Level.SUSPECT,
    "confirmed": Level.DEGRADED,
    "critical": Level.DEGRADED,
}


class Limits(Protocol):
    """The thresholds: the settings' table ``[degrade]``, which explains them."""

    @property
    def hot_c(self) -> float:
        """Suspect from here."""

    @property
    def very_hot_c(self) -> float:
        """Degraded from here."""

    @property
    def low_memory_mb(self) -> float:
        """Suspect below, degraded below half of it."""

    @property
    def stalled_percent(self) -> float:
        """Suspect from here."""

    @property
    def missed_share(self) -> float:
        """Suspect from here."""

    @property
    def crashes(self) -> int:
        """Suspect from here, degraded from one more."""

    @property
    def drift(self) -> str:
        """The highest level that drift leads to."""

    @property
    def patience_s(self) -> float:
        """How long degraded may fail to help."""

    @property
    def calm_s(self) -> float:
        """How long all has to be well before the next lower level."""


class LastRead(NamedTuple):
    """What a sensor said when it was read last.

    Attributes:
        age_s: How long ago that was.
    """

    celsius: float
    sensor: str
    age_s: float


@dataclass(frozen=True, slots=True)
class Signals:
    """One look; what is not known stands at its default.

    Attributes:
        now_s: When it was taken, by a monotonic clock.
        celsius: The hottest sensor, and ``sensor`` its name.
        lost: The hottest sensor that was read lately and is not now, if there is one;
            not judged here, see ``agent.core.ladder``.
        throttled: Kinds of throttling that hold now.
        memory_available_bytes: What can be had without swapping.
        memory_stalled_percent: Share of time in which something waited for memory.
        answers: Answers in the last window, ``late`` those over the p95 budget.
        crashes: Deaths of the worker within ten minutes that were its own.
        drift: What the monitor of the active model says.
    """

    now_s: float
    celsius: float = nan
    sensor: str = ""
    lost: LastRead | None = None
    throttled: tuple[str, ...] = ()
    memory_available_bytes: float = nan
    memory_stalled_percent: float = nan
    answers: int = 0
    late: int = 0
    crashes: int = 0
    drift: Drift = "none"


class Opinion(NamedTuple):
    """What one signal says.

    Attributes:
        level: Where the pipeline should stand for it.
        reason: Why, as a ``Reason``; ``detail`` the same for people.
        highest: How far it may lead where ``degraded`` does not help.
    """

    level: Level
    reason: Reason
    detail: str
    highest: Level = Level.SAFE


_SILENT = Opinion(Level.NORMAL, Reason.CALM, "")


def judge_signals(
    signals: Signals, limits: Limits, *, relaxed: bool = False
) -> tuple[Opinion, ...]:
    """Return what signals say against a pipeline, the worst first.

    Args:
        signals: One look.
        limits: The settings' thresholds.
        relaxed: By the lower thresholds, below which a signal is let go.
    """
    found = (
        _judge_heat(signals, limits, relaxed=relaxed),
        _judge_memory(signals, limits, relaxed=relaxed),
        _judge_crashes(signals, limits),
        _judge_deadline(signals, limits, relaxed=relaxed),
        _judge_drift(signals, limits),
        _judge_throttling(signals),
    )
    against = [it for it in found if it.level is not Level.NORMAL]
    # Stable: among equals the board's own troubles come first, they explain the others.
    return tuple(sorted(against, key=lambda it: -it.level.rank))


def worst(opinions: Sequence[Opinion]) -> Level:
    """Return the highest level that is said."""
    return opinions[0].level if opinions else Level.NORMAL


def _grade(value: float, suspect: float, degraded: float) -> Level:
    """Return the level of a value; NaN reaches no threshold."""
    if value >= degraded:
        return Level.DEGRADED
    return Level.SUSPECT if value >= suspect else Level.NORMAL


def _judge_heat(signals: Signals, limits: Limits, *, relaxed: bool) -> Opinion:
    """The hottest sensor."""
    celsius = signals.celsius
    if not COLDEST_C < celsius < HOTTEST_C:  # also for NaN
        return _SILENT
    less = COOLER_C if relaxed else 0.0
    level = _grade(celsius, limits.hot_c - less, limits.very_hot_c - less)
    very = level is Level.DEGRADED
    limit = (limits.very_hot_c if very else limits.hot_c) - less
    is_c, limit_c = tell_apart(celsius, limit, 0)
    asked = "wanted for a while" if relaxed else "allowed"
    return Opinion(
        level, Reason.HEAT, f"{signals.sensor} {is_c} C, {limit_c} C {asked}"
    )


def _judge_memory(signals: Signals, limits: Limits, *, relaxed: bool) -> Opinion:
    """Memory that is left, and time spent waiting for it; the worse of both."""
    wanted = limits.low_memory_mb * (ROOMIER if relaxed else 1.0)
    left = signals.memory_available_bytes / MB
    # Negated: less is worse. Where nothing is wanted, even no memory at all is enough.
    known = left >= 0 and wanted > 0
    short = _grade(-left, -wanted, -wanted / 2) if known else Level.NORMAL
    waits = signals.memory_stalled_percent
    allowed = limits.stalled_percent * (HALVED if relaxed else 1.0)
    most = min(100.0, allowed * STALLED_TIMES)
    stalled = _grade(waits, allowed, most) if 0 <= waits <= 100 else Level.NORMAL
    if stalled.rank > short.rank:
        limit = most if stalled is Level.DEGRADED else allowed
        text = f"{waits:.0f} % of time spent waiting for memory, {limit:.0f} % allowed"
        return Opinion(stalled, Reason.MEMORY_PRESSURE, text)
    asked = f"{wanted:.0f} MB wanted"
    if short is Level.DEGRADED:
        asked = f"less than half of {asked}"
    text = f"{left:.0f} MB of memory left, {asked}"
    return Opinion(short, Reason.MEMORY_PRESSURE, text)


def _judge_deadline(signals: Signals, limits: Limits, *, relaxed: bool) -> Opinion:
    """Answers over the model's p95 budget, once there are enough for a share."""
    answers, late = signals.answers, signals.late
    if answers < FEWEST_ANSWERS or not 0 <= late <= answers:
        return _SILENT
    allowed = limits.missed_share * (HALVED if relaxed else 1.0)
    most = min(1.0, allowed * MISSED_TIMES)
    level = _grade(late / answers, allowed, most)
    limit = most if level is Level.DEGRADED else allowed
    text = f"{late / answers:.0%} of {answers} answers late, {limit:.0%} allowed"
    return Opinion(level, Reason.DEADLINE, text)


def _judge_crashes(signals: Signals, limits: Limits) -> Opinion:
    """Deaths of the worker: they are let go as they leave the ten minutes.

    They stay there for longer than any patience, so that they lead to ``safe`` only if
    one more came while the pipeline was degraded: then it did not help.
    """
    count = signals.crashes
    level = _grade(count, limits.crashes, limits.crashes + 1)
    again = count > limits.crashes + 1
    times = "once" if count == 1 else f"{count} times"
    text = f"the worker died {times} within ten minutes"
    highest = Level.SAFE if again else Level.DEGRADED
    return Opinion(level, Reason.CRASHES, text, highest)


def _judge_drift(signals: Signals, limits: Limits) -> Opinion:
    """The monitor's alarms, as far as the settings let them; they have hysteresis."""
    highest = Level(limits.drift)
    level = min(_DRIFT[signals.drift], highest, key=lambda it: it.rank)
    words = "is confirmed" if signals.drift == "confirmed" else f"is {signals.drift}"
    text = "drift: a warning" if signals.drift == "warning" else f"drift {words}"
    return Opinion(level, Reason.DRIFT, text, highest)


def _judge_throttling(signals: Signals) -> Opinion:
    """What slows the board down: a fact, whose price the late answers tell."""
    kinds = signals.throttled
    if not kinds:
        return _SILENT
    weak = "under_voltage" in kinds
    reason = Reason.UNDER_VOLTAGE if weak else Reason.THROTTLED
    said = ", ".join(kind.replace("_", " ") for kind in kinds)
    return Opinion(Level.SUSPECT, reason, f"the board says: {said}", Level.SUSPECT)
