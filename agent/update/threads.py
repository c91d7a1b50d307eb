"""Calls that block, made in a thread, and ended when nobody waits for them any more.

The rules this module keeps:
 * Each call has a thread of its own that holds back no end of the process: asyncio's
   own executor waits for a file system that has gone away as long as that takes.
"""

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")

# A stopped fetch ends at its next block; systemd gives the whole daemon 5 s.
STOP_S = 2.0


def _nothing() -> None:
    """Stop a call that needs no asking: it is short."""


def _let_go(ended: asyncio.Future[Any]) -> None:
    """Take note of an error that nobody waits for any more."""
    if not ended.cancelled():
        ended.exception()


async def in_thread(call: Callable[[], T], stop: Callable[[], None] = _nothing) -> T:
    """Return what ``call`` returns, made in a thread.

    When the waiting task is cancelled, ``stop`` is called and the thread is given
    ``STOP_S`` seconds, so that it does not go on behind everyone's back.
    """
    loop = asyncio.get_running_loop()
    running: asyncio.Future[T] = loop.create_future()

    def tell(setter: Callable[[Any], None], value: object) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits
            loop.call_soon_threadsafe(setter, value)

    def work() -> None:
        try:
            result = call()
        except BaseException as err:  # noqa: BLE001 - raised where it is waited for
            tell(running.set_exception, err)
        else:
            tell(running.set_result, result)

    threading.Thread(target=work, name="update", daemon=True).start()
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        running.add_done_callback(_let_go)
        stop()
        await asyncio.wait({running}, timeout=STOP_S)
        raise
