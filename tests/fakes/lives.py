"""A bench whose poller runs, and gates at which its trials wait for the test."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from tests.fakes.update_bench import Bench

PATIENCE_S = 20.0  # a slow machine is no reason to fail
STEP_S = 0.005


class Gate:
    """A trial comes, and waits until it is let through or ended.

    Attributes:
        reached: Set while a trial waits; ``opened`` lets it, and all later ones, pass.
    """

    def __init__(self) -> None:
        self.reached = asyncio.Event()
        self.opened = asyncio.Event()

    async def __call__(self) -> None:
        """Wait here."""
        self.reached.set()
        try:
            await self.opened.wait()
        finally:
            self.reached.clear()


@asynccontextmanager
async def running(bench: Bench) -> AsyncIterator[None]:
    """Let the poller run while the body does, as the daemon would."""
    async with asyncio.timeout(PATIENCE_S), asyncio.TaskGroup() as group:
        task = group.create_task(bench.poller.run())
        yield
        task.cancel()


async def until(condition: Callable[[], bool]) -> None:
    """Wait until something is so; ``running`` ends what never is."""
    while not condition():  # noqa: ASYNC110 - nothing tells of what others observe
        await asyncio.sleep(STEP_S)
