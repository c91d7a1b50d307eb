"""The last barriers of a reload: whatever is raised, and whatever never returns."""

import asyncio
import logging
import threading
from collections.abc import Callable
from typing import cast

import pytest

from agent.board.notify import Notifier
from agent.errors import SettingsError
from agent.lifeline import Lifeline
from agent.reload import Reload, Running, _aside
from agent.settings import Settings
from tests.fakes.digits import in_loop, until


async def look(read: Callable[[], bytes]) -> Reload:
    """Reload once by a way to read; nothing that runs is touched by a refusal."""
    line = Lifeline(Notifier(), lambda: "")
    reloads = Reload(Settings(), read, cast("Running", None), line)
    async with asyncio.TaskGroup() as group:
        running = group.create_task(reloads.run(group))
        reloads.ask()
        await until(lambda: bool(reloads.note), "the outcome")
        running.cancel()
    return reloads


@pytest.mark.parametrize("error", [ValueError, ZeroDivisionError, MemoryError])
def test_whatever_is_raised_is_a_refusal(
    error: type[Exception], caplog: pytest.LogCaptureFixture
) -> None:
    """It is told with its kind and its traceback, and the daemon goes on."""

    def read() -> bytes:
        raise error("beyond us")

    reloads = asyncio.run(look(read))
    assert f"in force: {error.__name__}: beyond us" in reloads.note
    (record,) = (it for it in caplog.records if it.message == "settings.refused")
    assert (record.levelno, record.__dict__["reason"]) == (logging.WARNING, "internal")
    assert record.exc_info is not None


@in_loop
async def test_a_disk_that_never_answers_is_a_refusal() -> None:
    """The loop turns meanwhile: it is the loop that ends the wait."""
    never = threading.Event()
    with pytest.raises(SettingsError, match="no answer within"):
        await _aside(never.wait, 0.05)
    never.set()
