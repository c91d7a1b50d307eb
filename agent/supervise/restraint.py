"""How much one pipeline is held back: what its workers are told, and what runs instead.

The rules this module keeps:
 * Nothing here is durable, and nothing is sent: what is asked for is turned into an
   order for any worker, and into a stand-in for any committed model.
 * A stand-in is another pair of the same bundle that passed its preflight here. What
   was refused for what it is, or ended ``DEATHS`` workers within ``DEATHS_S``, is not
   tried again in this daemon's life; what failed for what the board lacked just then,
   not before ``PUT_OFF_S``.
 * Law: a measure that cannot be had changes nothing.
"""

import time
from collections.abc import Callable, Sequence
from math import inf

from msgspec.structs import replace

from agent.core.degradation import Measure, SafeOutput
from agent.core.executors import Executor
from agent.core.installed import Installed, PassedOver
from agent.core.messages import Shed
from agent.core.reasons import Reason
from agent.core.stand_ins import choose_stand_in
from agent.supervise.placing import Placed

HALF = 2  # one in so many samples is answered at half the rate
# Fewer than a committed model is forgiven, for there is something else that works...
DEATHS = 2
DEATHS_S = 600.0  # ...within the time in which [degrade] counts deaths
# Long enough for memory to be found or a library to be mounted, and for a load that
# fails again (a second of a core) to cost next to nothing.
PUT_OFF_S = 300.0
# What a pair fails with for want of something; the rest is in its bytes.
PASSING = (
    Reason.MEMORY,
    Reason.OOM,
    Reason.HANG,
    Reason.CRASH,  # counted as a death as well
    Reason.DELEGATE,
    Reason.NO_EXECUTOR,
    Reason.DESCRIPTORS,
    Reason.INTERNAL,
)


class Restraint:
    """What one pipeline is asked to do less.

    Args:
        clock: Seconds, monotonic.

    Attributes:
        measures: What is asked for.
        thin: One in so many samples is answered at most: nothing is paid for more.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self.measures: frozenset[Measure] = frozenset()
        self.thin = 1
        self._order = Shed()
        self._unfit: dict[str, float] = {}  # until when
        self._deaths: dict[str, list[float]] = {}

    def ask(self, measures: Sequence[Measure], safe_output: SafeOutput) -> None:
        """Ask for these measures from now on, and no others.

        Where both are asked for, a constant answer is given: who declared one for the
        worst case wants it said.
        """
        self.measures = frozenset(measures)
        every = HALF if Measure.HALF_RATE in self.measures else 1
        if Measure.SAFE_OUTPUT in self.measures:
            self._order = Shed(every, "safe_output", safe_output)
        elif Measure.ABSTAIN in self.measures:
            self._order = Shed(every, "abstain")
        else:
            self._order = Shed(every)

    @property
    def order(self) -> Shed:
        """What is asked for, as an order for a worker; a constant costs nobody."""
        order = self._order
        return replace(order, every=self.thin) if self._thins(order) else order

    def _thins(self, order: Shed) -> bool:
        """Whether less is to be answered than the measures leave."""
        return order.answer == "model" and self.thin > order.every

    def stand_in(self, placed: Placed) -> Placed | None:
        """Return what is to run instead of a committed model, None for itself.

        Where the choice itself was spoiled, that is the best of what else passed.
        """
        installed = placed.installed
        rows = installed.passed_over
        fit = tuple(row for row in rows if self._is_fit(installed, row))
        fitting = replace(installed, passed_over=fit)
        chosen = choose_stand_in(fitting, self.measures)
        if chosen is None and self._is_unfit(_key(placed)):
            passed = (row for row in fit if not row.reason)
            chosen = next(((row.variant, row.executor) for row in passed), None)
        if chosen is None:
            return None
        variant, executor = chosen
        other = replace(installed, variant=variant, executor=executor)
        return Placed(placed.bundle, other, stands_in=True)

    def has_other(self, placed: Placed) -> bool:
        """Whether anything else of a bundle could run if its choice could not."""
        return any(
            not row.reason and self._is_fit(placed.installed, row)
            for row in placed.installed.passed_over
        )

    def blame(self, stand_in: Placed) -> None:
        """Note that a worker died of a stand-in; the last of several spoils it."""
        pair, now_s = _key(stand_in), self._clock()
        recent = [it for it in self._deaths.get(pair, []) if now_s - it < DEATHS_S]
        self._deaths[pair] = [*recent, now_s]
        if len(self._deaths[pair]) >= DEATHS:
            self._unfit[pair] = inf

    def spoil(self, pair: Placed, reason: str) -> None:
        """Do not try a pair again, a stand-in or the choice itself, or not soon.

        Args:
            pair: What could not be placed.
            reason: Why: for some it is put off, for the others that is for good.
        """
        key = _key(pair)
        until_s = self._clock() + PUT_OFF_S if reason in PASSING else inf
        self._unfit[key] = max(until_s, self._unfit.get(key, 0.0))

    def due_s(self) -> float | None:
        """Return in how long something may be tried again, None for never."""
        now_s = self._clock()
        left = [it - now_s for it in self._unfit.values() if now_s < it < inf]
        return min(left, default=None)

    def _is_fit(self, installed: Installed, row: PassedOver) -> bool:
        """Whether a pair was not tried in vain already."""
        return not self._is_unfit(_name(installed.sha256, row.variant, row.executor))

    def _is_unfit(self, pair: str) -> bool:
        """Whether a pair is not to be tried, for good or for now."""
        return self._clock() < self._unfit.get(pair, -inf)

    def holding(self, committed: Placed | None, runs: Placed | None) -> list[Measure]:
        """Return the measures that hold, in the order of ``Measure``.

        Args:
            committed: What the store says, if anything.
            runs: What runs: the same, a stand-in, or a candidate.
        """
        return [
            measure
            for measure in Measure
            if measure in self.measures and _holds(measure, committed, runs)
        ]


def runs_alike(one: Placed, other: Placed) -> bool:
    """Whether the same variant runs on the same executor."""
    return _pair(one.installed) == _pair(other.installed)


def _holds(measure: Measure, committed: Placed | None, runs: Placed | None) -> bool:
    """Whether one measure that is asked for holds."""
    if runs is None:
        return measure not in (Measure.SMALL_VARIANT, Measure.ONE_THREAD)
    match measure:
        case Measure.HALF_RATE:  # see agent.worker.shedding
            return not runs.bundle.manifest.state
        case Measure.ONE_THREAD:
            return runs.installed.executor.threads == 1
        case Measure.SMALL_VARIANT:
            before = committed.installed.variant if committed else ""
            return runs.stands_in and runs.installed.variant != before
        case _:
            return True


def _key(stand_in: Placed) -> str:
    """Return what a stand-in is known by."""
    installed = stand_in.installed
    return _name(installed.sha256, installed.variant, installed.executor)


def _name(sha256: str, variant: str, executor: Executor) -> str:
    """Return what a pair of a bundle is known by."""
    return f"{sha256} {variant} {executor.describe()}"


def _pair(installed: Installed) -> tuple[str, Executor]:
    """Return what runs of a bundle."""
    return installed.variant, installed.executor
