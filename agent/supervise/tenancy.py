"""Which committed model a worker runs: loaded when it starts, exchanged when told to.

The rules this module keeps:
 * What was committed is what a new worker loads; a candidate on trial is left alone,
   unless another model is *given*: then the trial is over.
 * A model that is taken away ends its worker, after the sample in flight: nothing of it
   stays in memory. The next worker waits for another model.
"""

import asyncio
import logging

from agent.core.reasons import Reason
from agent.errors import AgentError
from agent.supervise.deaths import Deaths
from agent.supervise.placing import Placed, Placing
from agent.supervise.watching import Watching
from agent.supervise.worker_process import WorkerProcess

log = logging.getLogger(__name__)


class Tenancy:
    """One pipeline's right to run: the committed model and who runs instead.

    Args:
        placing: What the worker of now runs.
        deaths: Forgiven when another model takes over.
        drain_s: How long a worker may take to end its last sample.
        watching: Told what is committed.

    Attributes:
        committed: What the store says; None for nothing.
        withheld: Why nothing is committed.
        unwanted: The worker of now was ended for no fault of its own.
        lock: Held by whoever exchanges models.
    """

    def __init__(
        self, placing: Placing, deaths: Deaths, drain_s: float, watching: Watching
    ) -> None:
        self._placing = placing
        self._deaths = deaths
        self._drain_s = drain_s
        self.watching = watching
        self._changed = asyncio.Event()
        self._given = Reason.NONE
        self.committed: Placed | None = None
        self.withheld = Reason.NO_MODEL
        self.unwanted = False
        self.lock = asyncio.Lock()

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

    async def keep(self, worker: WorkerProcess) -> None:
        """Let a worker answer with what is committed, and what is given later."""
        while True:
            self._changed.clear()
            async with self.lock:
                await self._settle(worker)
            await self._changed.wait()

    async def _settle(self, worker: WorkerProcess) -> None:
        """Bring the worker to what is committed; that may change meanwhile."""
        placed = None
        while self._is_due(placed):
            given, self._given = self._given, Reason.NONE
            placed = self.committed
            if placed is None:
                self.unwanted = True
                await worker.stop(self._drain_s)
                self._placing.count("ok", given)
                return
            try:
                await self._placing.place(worker, placed)
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
            return False
        return bool(self._given) or answering is placed
