"""Listening in on a worker: its samples and answers, copied into a shadow's ring.

The rules this module keeps:
 * The caller holds the lock under which models are exchanged: what is tapped is what
   answers.
"""

import logging

from agent.core.messages import Tap, Untap
from agent.errors import TrialFailedError
from agent.supervise.placing import Placed, Placing
from agent.supervise.worker_process import WorkerProcess

log = logging.getLogger(__name__)
Tapped = tuple[WorkerProcess, Placed]  # whose samples are copied, and whose answers


class Listening:
    """Gives the orders.

    Args:
        placing: What the worker runs.
        deadline_s: For each order; may be changed.
    """

    def __init__(self, placing: Placing, deadline_s: float) -> None:
        self._placing = placing
        self.deadline_s = deadline_s

    async def tap(
        self,
        worker: WorkerProcess | None,
        ring: int,
        every: int,
        before: Tapped | None = None,
    ) -> Tapped | None:
        """Have samples and answers copied; see ``Pipeline.tap``.

        Raises:
            TrialFailedError: The worker did not take the order.
        """
        answering = self._placing.answering
        if worker is None or answering is None or worker.gone:
            return None
        if before and before[0] is worker and before[1] is answering:
            return before
        taken = False
        try:
            order = Tap(self._placing.next_generation(), every)
            await worker.tap(order, self.deadline_s, ring)
            taken = True
        finally:
            if not taken:  # or was it? The answer was not waited for
                await self._untap(worker)
        return worker, answering

    async def untap(self, tapped: Tapped) -> None:
        """Have nothing copied any more; a swap or a death has done so already."""
        worker, answering = tapped
        if worker.gone or self._placing.answering is not answering:
            return
        await self._untap(worker)

    async def _untap(self, worker: WorkerProcess) -> None:
        """Send the order; a worker that does not hear it has other troubles."""
        order = Untap(self._placing.next_generation())
        try:
            await worker.tap(order, self.deadline_s)
        except TrialFailedError as err:
            said = {"reason": err.reason, "detail": str(err)}
            log.info("worker.no_untap", extra=said)
