"""One worker's life: what goes on beside it until it has said its last word."""

import asyncio
import logging
from collections.abc import Coroutine

from agent.errors import DeviceError
from agent.supervise.worker_process import WorkerProcess

log = logging.getLogger(__name__)


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
