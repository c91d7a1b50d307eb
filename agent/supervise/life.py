"""One worker's life: what it is given, and what goes on beside it until its end."""

import asyncio
import logging
from collections.abc import Coroutine

from agent.core.messages import Configure
from agent.errors import DeviceError
from agent.settings import PipelineSettings
from agent.supervise.plumbing import Plumbing
from agent.supervise.receipts import Receipts
from agent.supervise.worker_process import WorkerProcess

log = logging.getLogger(__name__)


async def configure(
    worker: WorkerProcess,
    flow: PipelineSettings,
    first_seq: int,
    plumbing: Plumbing,
    receipts: Receipts,
) -> None:
    """Give a worker its first order, its pipes, and rings for its receipts.

    Raises:
        DeviceError: It cannot be sent, or no descriptor is left.
    """
    with receipts.rings(worker.loaded) as rings:
        pipes = [*plumbing.descriptors(), *rings]
        named = (flow.name, flow.source, flow.sinks, first_seq)
        await worker.configure(Configure(*named, receipts.order), pipes)


async def live(worker: WorkerProcess, *beside: Coroutine[object, object, None]) -> None:
    """Listen to a worker until it ends; what goes on beside it ends with it."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(it) for it in beside]
        try:
            await worker.listen()
        except DeviceError as err:
            log.warning("worker.broken", extra={"detail": str(err)})
        for task in tasks:
            task.cancel()
        worker.kill()
