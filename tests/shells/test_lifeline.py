"""The daemon's line to its service manager: what is said, in what order, how often."""

import asyncio
from contextlib import suppress

from agent.board.notify import Notifier
from agent.lifeline import Lifeline, Notify
from tests.fakes.digits import in_loop, until

QUICK_S = 0.03


class Told:
    """A service manager that writes down what it is told."""

    def __init__(self, *, listened: bool = True, watchdog_s: float = 0.0) -> None:
        self.listened = listened
        self.watchdog_s = watchdog_s
        self.said: list[str] = []

    def ready(self) -> None:
        """Write it down, as do the others."""
        self.said.append("ready")

    def reloading(self) -> None:
        self.said.append("reloading")

    def stopping(self) -> None:
        self.said.append("stopping")

    def extend(self, seconds: float) -> None:
        self.said.append(f"extend {seconds:.0f}")

    def status(self, text: str) -> None:
        self.said.append(f"status {text}")

    def beat(self) -> None:
        self.said.append("beat")


def test_the_notifier_is_one() -> None:
    """The board's own fits what the daemon asks for."""
    notify: Notify = Notifier()
    assert notify.listened is False


def test_a_start_reload_and_stop() -> None:
    """Each step asks for its time; after the start none does."""
    told = Told()
    line = Lifeline(told, lambda: "kws 8, 312/s")
    line.starts("reading the model of kws", 60.0)
    line.ready()
    line.starts("reading the model of kws", 60.0)
    line.reloading()
    line.ready()
    line.stopping()
    assert told.said == [
        "extend 60",
        "status reading the model of kws",
        "ready",
        "status kws 8, 312/s",
        "reloading",
        "ready",
        "stopping",
        "status stopping",
    ]


def test_a_line_is_said_once() -> None:
    """Until it is another one."""
    told, lines = Told(), iter(["a", "a", "b", "a"])
    line = Lifeline(told, lambda: next(lines))
    for _ in range(4):
        line.tell()
    assert told.said == ["status a", "status b", "status a"]


def test_nobody_is_described_to_nobody() -> None:
    """Without a listener the line is not even made."""
    line = Lifeline(Told(listened=False), lambda: 1 // 0 * "")
    line.tell()
    line.ready()


@in_loop
async def test_it_ends_at_once_where_nobody_listens() -> None:
    """A daemon on a terminal has no task for it."""
    async with asyncio.timeout(10):
        await Lifeline(Told(listened=False), str).run()


@in_loop
async def test_beats_come_from_the_loop() -> None:
    """The first at once, the others as long as it turns."""
    told = Told(watchdog_s=QUICK_S)
    task = asyncio.get_running_loop().create_task(Lifeline(told, str).run())
    await until(lambda: told.said.count("beat") >= 4, "beats")
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


@in_loop
async def test_without_a_watchdog_there_is_no_beat() -> None:
    """Whoever did not ask for it is not told."""
    told = Told()
    task = asyncio.get_running_loop().create_task(Lifeline(told, str).run())
    await asyncio.sleep(3 * QUICK_S)
    assert told.said == []
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
