"""Putting a model into a worker that runs: limits, load, activate, fold.

The rules this module keeps:
 * Load and Activate go together; the caller lets one pair run at a time.
 * A worker that did not answer in time is killed: nothing else ends a constructor that
   is stuck, and whether the loop took the candidate would be anyone's guess.
 * What the model before it counted is folded before another one can clear it.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from agent.core.installed import Installed
from agent.core.messages import Inspect, Load, Swapped, Watch
from agent.core.opened_bundle import OpenedBundle
from agent.core.reasons import Reason
from agent.errors import DeviceError, TrialFailedError
from agent.supervise.totals import Identity, Totals
from agent.supervise.worker_process import WorkerProcess

log = logging.getLogger(__name__)
FOLD_TRIES = 100  # looks at a block, 1 ms apart, until it shows the swap


@dataclass(frozen=True, slots=True)
class Placed:
    """A verified bundle and what of it runs.

    Attributes:
        stands_in: It runs instead of what was committed of the same bundle, and is
            never committed itself.
    """

    bundle: OpenedBundle
    installed: Installed
    stands_in: bool = False


OrderWatch = Callable[[int, Placed], Awaitable[Watch]]
OrderChecks = Callable[[int, Placed], Inspect | None]


class Placing:
    """What one pipeline's worker runs.

    Args:
        pipeline: Its name, for log lines.
        totals: Where finished sections are folded.
        deadline_s: For each of load and activate; may be changed.
        order_watch: Says how the model of a generation is to be watched.

    Attributes:
        answering: What answers now, by the load number ``generation``.
        runs: The same, or what stands in for it.
        tried: What was placed last: what a worker that dies now died of.
        gap_s: The longest pause of the loop around the last swap.
        order_checks: Says how the integrity of a generation's model is checked.
        swaps: (result, reason) -> swaps that were asked for.
        budgets_ms: Version -> the p95 budget of its manifest, of those that answered.
    """

    def __init__(
        self,
        pipeline: str,
        totals: Totals,
        deadline_s: float,
        order_watch: OrderWatch,
    ) -> None:
        self._pipeline = pipeline
        self._totals = totals
        self.deadline_s = deadline_s
        self._order_watch = order_watch
        self.order_checks: OrderChecks | None = None
        self._generation = 0
        self.generation = 0
        self.answering: Placed | None = None
        self.runs: Placed | None = None
        self.tried: Placed | None = None
        self.gap_s = 0.0
        self.swaps: dict[tuple[str, str], int] = {}
        self.budgets_ms: dict[int, float] = {}

    async def place(
        self, worker: WorkerProcess, placed: Placed, instead: Placed | None = None
    ) -> None:
        """Let a model answer in a worker.

        Args:
            worker: Where.
            placed: Who answers.
            instead: What stands in for it: it is the one that runs.

        Raises:
            TrialFailedError: It was refused and the worker goes on as before; or the
                worker hung or died, and is gone.
            DeviceError: The worker is gone already: nobody has seen this model.
        """
        if worker.gone:
            raise DeviceError("the worker has just ended", reason=Reason.STARTING)
        runs = instead or placed
        before, self.tried = self.runs, runs
        _limit_memory(worker, runs, before)
        try:
            swapped = await self._exchange(worker, runs)
        except TrialFailedError as err:
            if err.reason == Reason.HANG:
                worker.kill()
            elif before is not None and not worker.gone:
                self.tried = before
                _limit_memory(worker, before)
            raise
        self.answering, self.generation = placed, swapped.generation
        self.runs, self.gap_s = runs, swapped.gap_ns / 1e9
        _limit_memory(worker, runs)
        installed = runs.installed
        self.budgets_ms[installed.version] = placed.bundle.manifest.budgets.p95_ms
        log.info(
            "model.answers",
            extra={
                "pipeline": self._pipeline,
                "model": installed.model,
                "version": installed.version,
                "variant": installed.variant,
                "executor": installed.executor.describe(),
                "gap_ms": round(swapped.gap_ns / 1e6, 3),
            },
        )

    def vacate(self) -> None:
        """The worker is gone: nothing answers."""
        self.answering = self.runs = None

    def next_generation(self) -> int:
        """Return a number for an order that no order had before."""
        self._generation += 1
        return self._generation

    def has_model(self) -> bool:
        """Whether anything answers."""
        return self.answering is not None

    def state(self, committed: Placed | None) -> str:
        """What answers: the committed model, a candidate, or nothing."""
        if self.answering is None:
            return "none"
        return "active" if self.answering is committed else "candidate"

    def count(self, result: str, reason: str = "") -> None:
        """Count one swap by its result."""
        key = (result, reason)
        self.swaps[key] = self.swaps.get(key, 0) + 1

    async def _exchange(self, worker: WorkerProcess, placed: Placed) -> Swapped:
        """Load, activate, and fold what the model before it counted.

        Raises:
            TrialFailedError: Any of it failed.
        """
        generation = self.next_generation()
        bundle, installed = placed.bundle, placed.installed
        manifest = bundle.manifest
        self._totals.names[generation] = Identity(
            manifest.model, manifest.version, manifest.labels, placed.stands_in
        )
        order = Load(
            generation,
            bundle.raw_manifest,
            installed.variant,
            installed.executor,
            bundle.variant_sha256(installed.variant),
        )
        content = bundle.variant_bytes(installed.variant)
        watch = await self._order_watch(generation, placed)
        await worker.tell(watch, self.deadline_s)
        checks = self.order_checks and self.order_checks(generation, placed)
        if checks:  # a worker that checks nothing is told nothing
            await worker.tell(checks, self.deadline_s)
        await worker.load(order, content, self.deadline_s)
        swapped = await worker.activate(generation, self.deadline_s)
        await self._fold_retired(worker, generation)
        return swapped

    async def _fold_retired(self, worker: WorkerProcess, generation: int) -> None:
        """Fold the section that no longer counts, from a copy made after the swap.

        Raises:
            TrialFailedError: The worker died meanwhile (``crash``), or its block stayed
                torn (``hang``).
        """
        for _ in range(FOLD_TRIES):
            if worker.gone:  # its block is folded as a whole, and closed
                raise TrialFailedError("the worker died", reason=Reason.CRASH)
            block = worker.block.read()
            if block and block.sections[block.active].generation == generation:
                self._totals.fold_retired(block)
                return
            await asyncio.sleep(0.001)
        raise TrialFailedError("the block was never consistent", reason=Reason.HANG)


def _limit_memory(
    worker: WorkerProcess, placed: Placed, beside: Placed | None = None
) -> None:
    """Allow what one model declares, and what the one beside it does during a swap."""
    content = placed.bundle.variant_bytes(placed.installed.variant)
    declared_mb = placed.bundle.manifest.budgets.ram_mb
    if beside is None:
        worker.limit_memory(declared_mb, len(content))
    else:
        declared_mb += beside.bundle.manifest.budgets.ram_mb
        worker.limit_memory(declared_mb, 2 * len(content))
