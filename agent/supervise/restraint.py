"""How much one pipeline is held back: what its workers are told, and what runs instead.

The rules this module keeps:
 * Nothing here is durable, and nothing is sent: what is asked for is turned into an
   order for any worker, and into a stand-in for any committed model.
 * A stand-in is another pair of the same bundle that passed its preflight here. One
   that was refused, or ended its worker, is not tried again in this daemon's life.
 * Law: a measure that cannot be had changes nothing.
"""

from collections.abc import Sequence

from msgspec.structs import replace

from agent.core.degradation import Measure, SafeOutput
from agent.core.executors import Executor
from agent.core.installed import Installed
from agent.core.messages import Shed
from agent.core.stand_ins import choose_stand_in
from agent.supervise.placing import Placed

HALF = 2  # one in so many samples is answered at half the rate
_Pair = tuple[str, str, Executor]  # bundle, variant, executor


class Restraint:
    """What one pipeline is asked to do less.

    Attributes:
        measures: What is asked for.
        order: The same as an order for a worker.
    """

    def __init__(self) -> None:
        self.measures: frozenset[Measure] = frozenset()
        self.order = Shed()
        self._unfit: set[_Pair] = set()

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
        """Return what is to run instead of a committed model, None for itself."""
        unfit = {
            (variant, executor)
            for sha256, variant, executor in self._unfit
            if sha256 == placed.installed.sha256
        }
        chosen = choose_stand_in(placed.installed, self.measures, unfit)
        if chosen is None:
            return None
        variant, executor = chosen
        installed = replace(placed.installed, variant=variant, executor=executor)
        return Placed(placed.bundle, installed, stands_in=True)

    def spoil(self, stand_in: Placed) -> None:
        """Do not try this stand-in again."""
        installed = stand_in.installed
        pair = (installed.sha256, installed.variant, installed.executor)
        self._unfit.add(pair)

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


def _pair(installed: Installed) -> tuple[str, Executor]:
    """Return what runs of a bundle."""
    return installed.variant, installed.executor
