"""Which committed model a worker runs: loaded when it starts, exchanged when told to.

The rules this module keeps:
 * What was committed is what a new worker loads; a candidate on trial is left alone,
   unless another model is *given*: then the trial is over.
 * A model that is taken away ends its worker, after the sample in flight: nothing of it
   stays in memory. The next worker waits for another model.
 * Where the pipeline is held back, a stand-in runs for what was committed, never for a
   candidate, and is not exchanged while somebody compares with its answers.
 * What a worker did not take is told again, and who asked for it learns that.
"""

import asyncio
import logging
from collections.abc import Iterable, Sequence
from contextlib import suppress

from agent.core.degradation import Measure, SafeOutput
from agent.core.messages import Shed
from agent.core.reasons import Reason
from agent.errors import AgentError, TrialFailedError
from agent.supervise.deaths import Deaths
from agent.supervise.placing import Placed, Placing
from agent.supervise.restraint import Restraint, runs_alike
from agent.supervise.watching import Watching
from agent.supervise.worker_process import WorkerProcess

log = logging.getLogger(__name__)
# Deaths that a stand-in is blamed for.
BLAMED = (Reason.CRASH, Reason.HANG)
ORDER_S = 5.0  # a worker's second thread takes an order at once, or never...
AGAIN_S = 10.0  # ...unless it was loading a model just then, which takes seconds


class Tenancy:
    """One pipeline's right to run: the committed model and who runs instead.

    Args:
        placing: What the worker of now runs.
        deaths: Forgiven when another model takes over.
        drain_s: How long a worker may take to end its last sample; may be changed.
        watching: Told what is committed.

    Attributes:
        committed: What the store says; None for nothing.
        withheld: Why nothing is committed.
        unwanted: The worker of now was ended for no fault of its own.
        lock: Held by whoever exchanges models.
        restraint: How much the pipeline is held back.
        ordered: What the worker took last, which may be less than that.
        stand_in_deaths: Workers that died of a stand-in.
    """

    def __init__(
        self, placing: Placing, deaths: Deaths, drain_s: float, watching: Watching
    ) -> None:
        self._placing = placing
        self._deaths = deaths
        self.drain_s = drain_s
        self.watching = watching
        self._changed = asyncio.Event()
        self._given = Reason.NONE
        self.committed: Placed | None = None
        self.withheld = Reason.NO_MODEL
        self.unwanted = False
        self.lock = asyncio.Lock()
        self.restraint = Restraint()
        self._worker: WorkerProcess | None = None  # the one that takes orders
        self.ordered = Shed()
        self._missed: AgentError | None = None  # why it did not take what is asked for
        self.stand_in_deaths = 0
        self._compared = False  # a shadow listens to what runs
        self._asked: list[asyncio.Future[None]] = []  # who waits for a measure

    def commit(self, placed: Placed | None, why: Reason = Reason.NO_MODEL) -> None:
        """Blame another model for nothing; the same one goes on as it was.

        Args:
            placed: What new workers load.
            why: What is said where that is nothing.
        """
        before, self.committed = self.committed, placed
        self.withheld = why
        self.watching.commit(placed)
        if before is None or placed is None or placed.installed != before.installed:
            self._deaths.forgive()
        self._changed.set()

    def adopt(self, placed: Placed) -> None:
        """Commit a candidate; a worker that runs something else is replaced."""
        self.commit(placed)
        answering, worker = self._placing.answering, self._worker
        if worker is not None and answering is not None and answering is not placed:
            self.replace(worker)

    def give(self, placed: Placed | None, why: Reason) -> None:
        """Let a worker that runs have this model, or none, from now on."""
        answering = self._placing.answering
        if answering and placed and answering.installed == placed.installed:
            placed = answering  # it runs already
        self._given = why
        self.commit(placed, why)

    def replace(self, worker: WorkerProcess) -> None:
        """End a worker that does nothing wrong; the next loads what is committed."""
        self.unwanted = True
        worker.kill()

    async def swap_in(self, worker: WorkerProcess, placed: Placed) -> None:
        """Let a candidate answer in a worker; see ``Pipeline.swap_in``.

        Raises:
            TrialFailedError: It was refused, hung or killed the worker.
            DeviceError: The worker ended, and not for the candidate.
        """
        async with self.lock:
            try:
                await self._placing.place(worker, placed)
            except TrialFailedError as err:
                blamed = worker.blame(err)
                self._placing.count("failed", blamed.reason)
                raise blamed from err
        self._placing.count("ok", "")

    async def swap_back(self) -> None:
        """Let what is committed answer again, where a candidate does."""
        async with self.lock:
            worker, committed = self._worker, self.committed
            answering = self._placing.answering
            if worker is None or answering is None or answering is committed:
                return
            if committed is None:
                self.replace(worker)  # what was never committed stops answering
            else:
                try:
                    await self.place_committed(worker, committed)
                except AgentError as err:
                    log.warning("swap.back_failed", extra={"reason": err.reason})
                    self.replace(worker)
        self._placing.count("rolled_back", "")

    async def renew(self) -> None:
        """Load what answers anew, without a pause: how it is watched has changed.

        A candidate, and what a shadow compares with, is left alone: it is watched as
        the settings say from its next load on.
        """
        async with self.lock:
            worker, runs = self._worker, self._placing.runs
            committed = self.committed
            answers = self._placing.answering is committed is not None
            if worker is None or runs is None or self._compared or not answers:
                return
            assert committed is not None  # noqa: S101 - typing
            try:
                instead = runs if runs.stands_in else None
                await self._placing.place(worker, committed, instead)
            except AgentError as err:
                said = {"reason": err.reason, "detail": str(err)}
                log.warning("worker.load_failed", extra=said)
                self.replace(worker)

    async def drain(self, worker: WorkerProcess) -> None:
        """End a worker that does nothing wrong after its sample; nobody swaps now."""
        async with self.lock:
            self.unwanted = True
            await worker.stop(self.drain_s)
            worker.gone = True  # or who swaps next would blame the candidate for it

    async def keep(self, worker: WorkerProcess) -> None:
        """Let a worker answer with what is committed, and what is given later."""
        self._worker, self.ordered, self._missed = worker, Shed(), None
        asked: list[asyncio.Future[None]] = []
        try:
            while True:
                self._changed.clear()
                asked, self._asked = self._asked, []
                async with self.lock:
                    missed = await self._hold_back(worker)
                    await self._settle(worker)
                _release(asked, missed)
                pause_s = AGAIN_S if missed else self.restraint.due_s()
                with suppress(TimeoutError):
                    async with asyncio.timeout(pause_s):
                        await self._changed.wait()
        finally:
            self._worker = None
            _release([*asked, *self._asked])

    # --- held back

    async def restrain(
        self, measures: Sequence[Measure], safe_output: SafeOutput
    ) -> tuple[Measure, ...]:
        """Ask for these measures; return those that hold, see ``Pipeline.shed``.

        Who asks may be cancelled at any time: it is ``keep`` that exchanges models.

        Raises:
            TrialFailedError: The worker did not take the order; it is told again.
        """
        self.restraint.ask(measures, safe_output)
        self._changed.set()
        if self._worker is not None:
            done = asyncio.get_running_loop().create_future()
            self._asked.append(done)
            await done
        return tuple(self.holding())

    def thin(self, every: int) -> None:
        """Let the model answer one sample in so many at most; 1 for all again."""
        self.restraint.thin = every
        self._changed.set()

    def holding(self) -> list[Measure]:
        """Return the measures that hold now.

        Without a worker nothing is answered; the next one begins with the order.
        """
        held = self.restraint.holding(self.committed, self._placing.runs)
        if self._worker is None or self._knows():
            return held
        placed = (Measure.ONE_THREAD, Measure.SMALL_VARIANT)
        return [measure for measure in held if measure in placed]

    def compare(self, *, begins: bool) -> None:
        """Note that somebody compares with what runs, or does so no more."""
        self._compared = begins
        if not begins:
            self._changed.set()

    def blame_stand_in(self, reason: Reason) -> None:
        """A worker has died: of the stand-in, if that was placed last."""
        tried = self._placing.tried
        if tried is not None and tried.stands_in and reason in BLAMED:
            self.restraint.blame(tried)
            self.stand_in_deaths += 1

    async def place_committed(self, worker: WorkerProcess, placed: Placed) -> None:
        """Let a committed model answer, or what stands in for it.

        What is refused (a delegate's library that is gone, memory that is missing) is
        followed by what else of the bundle passed its preflight here: better another
        variant than another model, or none.

        Raises:
            TrialFailedError: See ``Placing.place``: nothing of it can be placed.
            DeviceError: The worker is gone already.
        """
        while True:
            instead = self.restraint.stand_in(placed)
            try:
                await self._placing.place(worker, placed, instead)
            except TrialFailedError as err:
                if not self._goes_on(worker, placed, instead, err):
                    raise
                if self._placing.answering is placed and self._runs_right(placed):
                    return  # it answered before, and still does
            else:
                return

    def _goes_on(
        self,
        worker: WorkerProcess,
        placed: Placed,
        instead: Placed | None,
        err: TrialFailedError,
    ) -> bool:
        """Whether there is something else to place after a failure, which is noted."""
        dead = worker.gone or err.reason in BLAMED
        if instead is None and (dead or not self.restraint.has_other(placed)):
            return False
        self.restraint.spoil(instead or placed, err.reason)
        facts = {"reason": err.reason, "detail": str(err)}
        log.warning("measure.failed" if instead else "model.other_pair", extra=facts)
        return not dead

    async def _hold_back(self, worker: WorkerProcess) -> AgentError | None:
        """Tell a worker how much to answer, if it does not know.

        Returns:
            Why it was not taken, or nothing.
        """
        order = self.restraint.order
        if self._knows():
            return None
        try:
            await worker.tell(order, ORDER_S)
        except TrialFailedError as err:
            said = {"reason": err.reason, "detail": str(err)}
            log.warning("measure.failed", extra=said)
            self._missed = err  # whether it was sent is not known
        else:
            self.ordered, self._missed = order, None
        return self._missed

    def _knows(self) -> bool:
        """Whether the worker was told how much to answer."""
        return self._missed is None and self.ordered == self.restraint.order

    async def _settle(self, worker: WorkerProcess) -> None:
        """Bring the worker to what is committed; that may change meanwhile."""
        placed = None
        while self._is_due(placed):
            given, self._given = self._given, Reason.NONE
            placed = self.committed
            if placed is None:
                self.unwanted = True
                await worker.stop(self.drain_s)
                self._placing.count("ok", given)
                return
            try:
                await self.place_committed(worker, placed)
            except AgentError as err:
                said = {"reason": err.reason, "detail": str(err)}
                log.warning("worker.load_failed", extra=said)
                worker.kill()
                return
            if given:
                self._placing.count("ok", given)
        self._given = Reason.NONE

    def _is_due(self, placed: Placed | None) -> bool:
        """Whether the worker should run something else than it does.

        Args:
            placed: What was placed here just now: no candidate, so not left alone.
        """
        answering = self._placing.answering
        if answering is self.committed:
            return answering is not None and not (
                self._compared or self._runs_right(answering)
            )
        return bool(self._given) or answering is placed

    def _runs_right(self, committed: Placed) -> bool:
        """Whether of a model that answers the right pair runs."""
        runs = self._placing.runs
        wanted = self.restraint.stand_in(committed) or committed
        return runs is None or runs_alike(runs, wanted)


def _release(
    waiting: Iterable[asyncio.Future[None]], missed: AgentError | None = None
) -> None:
    """Let those go on who waited; some have not waited so long."""
    for future in waiting:
        if future.done():
            continue
        if missed is None:
            future.set_result(None)
        else:
            future.set_exception(missed)
