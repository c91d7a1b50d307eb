"""Calls in threads: what comes of them, and that none holds back the end."""

import asyncio
import gc
import threading

import pytest

from agent.update.threads import in_thread

PATIENCE_S = 30.0


def test_results_and_errors_arrive() -> None:
    """Whoever waits gets what the call returned or raised."""

    def fail() -> None:
        raise LookupError("not there")

    async def both() -> int:
        with pytest.raises(LookupError, match="not there"):
            await in_thread(fail)
        return await in_thread(lambda: 7)

    assert asyncio.run(both()) == 7


def test_a_stuck_call_does_not_hold_back_the_end() -> None:
    """A repository on a dead file system: the loop ends, and so can the process."""
    begun, release = asyncio.Event(), threading.Event()
    loops: list[asyncio.AbstractEventLoop] = []
    threads: list[threading.Thread] = []
    stopped: list[bool] = []
    told: list[dict[str, object]] = []

    def stuck() -> bool:
        threads.append(threading.current_thread())
        loops[0].call_soon_threadsafe(begun.set)
        return release.wait(PATIENCE_S)

    async def give_up() -> None:
        loop = asyncio.get_running_loop()
        loops.append(loop)
        loop.set_exception_handler(lambda _, context: told.append(context))
        async with asyncio.TaskGroup() as group:
            waiting = group.create_task(in_thread(stuck, lambda: stopped.append(True)))
            await begun.wait()
            waiting.cancel()

    asyncio.run(give_up())
    (thread,) = threads
    assert thread.is_alive()
    assert thread.daemon
    release.set()
    thread.join(PATIENCE_S)  # what it returns to is closed
    assert (stopped, told, thread.is_alive()) == ([True], [], False)


def test_an_error_that_nobody_waits_for_is_not_a_scandal() -> None:
    """A call that ends by the very stop that was asked for leaves no trace."""
    begun, stop = threading.Event(), threading.Event()
    told: list[dict[str, object]] = []

    def interrupted() -> None:
        begun.set()
        stop.wait(PATIENCE_S)
        raise LookupError("no longer wanted")

    async def give_up() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: told.append(context))
        async with asyncio.TaskGroup() as group:
            waiting = group.create_task(in_thread(interrupted, stop.set))
            await asyncio.to_thread(begun.wait, PATIENCE_S)
            waiting.cancel()
        del waiting
        gc.collect()

    asyncio.run(give_up())
    assert told == []
