"""Calls that block, made in a thread, and ended when nobody waits for them any more."""

import asyncio
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

# A stopped fetch ends at its next block; systemd gives the whole daemon 5 s.
STOP_S = 2.0


def _nothing() -> None:
    """Stop a call that needs no asking: it is short."""


async def in_thread(call: Callable[[], T], stop: Callable[[], None] = _nothing) -> T:
    """Return what ``call`` returns, made in a thread.

    When the waiting task is cancelled, ``stop`` is called and the thread is given
    ``STOP_S`` seconds, so that it does not go on behind everyone's back.
    """
    running = asyncio.get_running_loop().run_in_executor(None, call)
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        stop()
        await asyncio.wait({running}, timeout=STOP_S)
        raise
