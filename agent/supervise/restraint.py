"""How much one pipeline is held back: what its workers are told, and what runs instead.

The rules this module keeps:
 * Nothing here is durable, and nothing is sent: what is asked for is turned into an
   order for any worker, and into a stand-in for any committed model.
 * A stand-in is another pair of the same bundle that passed its preflight here. One
   that was refused, or ended young workers, is not tried again in this daemon's life.
 * Law: a measure that cannot be had changes nothing.
"""

from collections.abc import Sequence

from msgspec.structs import replace

from agent.core.degradation import Measure, SafeOutput
from agent.core.executors import Executor
from agent.core.installed import Installed, PassedOver
from agent.core.messages import Shed
from agent.core.stand_ins import choose_stand_in
from agent.supervise.placing import Placed

HALF = 2  # one in so many samples is answered at half the rate
# Fewer than a committed model is forgiven, for there is something else that works...
DEATHS = 2
HEALTHY_S = 60.0  # ...within the time in which a worker is still thought to start


class Restraint:
    """What one pipeline is asked to do less.

    Attributes:
        measures: What is asked for.
        order: The same as an order for a worker.
    """

    def __init__(self) -> None:
        self.measures: frozenset[Measure] = frozenset()
        self.order = Shed()
        self._unfit: set[str] = set()
        self._deaths: dict[str, int] = {}

    @property
    def silent(self) -> bool:
        """Whether the model is not asked at all."""
        return self.order.answer != "model"

    def ask(self, measures: Sequence[Measure], safe_output: SafeOutput) -> None:
        """Ask for these measures from now on, and no others.

        Where both are asked for, a constant answer is given: who declared one for the
        worst case wants it said.
        """
        self.measures = frozenset(measures)
        every = HALF if Measure.HALF_RATE in self.measures else 1
        if Measure.SAFE_OUTPUT in self.measures:
            self.order = Shed(every, "safe_output", safe_output)
        elif Measure.ABSTAIN in self.measures:
            self.order = Shed(every, "abstain")
        else:
            self.order = Shed(every)

    def stand_in(self, placed: Placed) -> Placed | None:
        """Return what is to run instead of a committed model, None for itself.

        Where the choice itself was spoiled, that is the best of what else passed.
        """
        installed = placed.installed
        rows = installed.passed_over
        fit = tuple(row for row in rows if self._is_fit(installed, row))
        fitting = replace(installed, passed_over=fit)
        chosen = choose_stand_in(fitting, self.measures)
        if chosen is None and _key(placed) in self._unfit:
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

    def blame(self, stand_in: Placed, *, lived_s: float) -> None:
        """Note that a worker died of a stand-in; the last of several spoils it.

        Args:
            stand_in: What ran.
            lived_s: How long that worker lived: after a good while, as with what is
                committed, it was no fault of the model's.
        """
        pair = _key(stand_in)
        self._deaths[pair] = self._deaths.get(pair, 0) + 1 if lived_s < HEALTHY_S else 0
        if self._deaths[pair] >= DEATHS:
            self.spoil(stand_in)

    def spoil(self, stand_in: Placed) -> None:
        """Do not try this pair again, a stand-in or the choice itself."""
        self._unfit.add(_key(stand_in))

    def _is_fit(self, installed: Installed, row: PassedOver) -> bool:
        """Whether a pair was not tried in vain already."""
        return _name(installed.sha256, row.variant, row.executor) not in self._unfit

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
