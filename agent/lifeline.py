"""The daemon's line to the service manager: its heartbeat, and how it is.

The rules this module keeps:
 * The beat comes from the daemon's own loop and from nothing else: a loop that is stuck
   stops it, a worker that is stuck never does.
 * Where nobody listens nothing runs.
"""

import asyncio
from collections.abc import Callable
from typing import Protocol

from agent.core.status_lines import NOT_READY

STATUS_S = 5.0  # a line for people; each change wakes whoever follows D-Bus
SOON_S = 0.5  # whoever reads that nothing answers yet looks again at once
BEATS = 3  # in a watchdog's period; sd_watchdog_enabled(3) asks for two


class Notify(Protocol):
    """Who starts, watches and stops the daemon; no call waits or raises."""

    @property
    def listened(self) -> bool:
        """Whether anybody asked to be told."""

    @property
    def watchdog_s(self) -> float:
        """In what time ``beat`` has to come again; 0 where it need not."""

    def ready(self) -> None:
        """Settings, store and listeners are up, or a reload has ended."""

    def reloading(self) -> None:
        """A reload has begun."""

    def stopping(self) -> None:
        """The end has begun."""

    def extend(self, seconds: float) -> None:
        """The start may take so much longer."""

    def status(self, text: str) -> None:
        """Say in one line how things are."""

    def beat(self) -> None:
        """The loop turns."""


class Lifeline:
    """Tells the service manager what the daemon does.

    Args:
        notify: The service manager.
        describe: Returns the line for people, as of now.
    """

    def __init__(self, notify: Notify, describe: Callable[[], str]) -> None:
        self._notify = notify
        self._describe = describe
        self._said = ""
        self._ready = False

    async def run(self) -> None:
        """Beat, and say how things are; ends at once where nobody listens."""
        async with asyncio.TaskGroup() as group:
            if self._notify.watchdog_s:
                group.create_task(self._beat(self._notify.watchdog_s / BEATS))
            if self._notify.listened:
                group.create_task(self._tell())

    def starts(self, what: str, seconds: float) -> None:
        """Say what of the start comes next, and how long it may take."""
        if not self._ready:
            self._notify.extend(seconds)
            self._say(what)

    def ready(self) -> None:
        """Say that the start has ended, and how things are."""
        self._ready = True
        self._notify.ready()
        self.tell()

    def reloading(self) -> None:
        """Say that new settings are being applied, until ``ready``."""
        self._notify.reloading()

    def stopping(self) -> None:
        """Say that the end has begun."""
        self._notify.stopping()
        self._say("stopping")

    def tell(self) -> None:
        """Say how things are, unless that has been said."""
        if self._notify.listened:
            self._say(self._describe())

    def _say(self, line: str) -> None:
        """Say one line once."""
        if line != self._said:
            self._said = line
            self._notify.status(line)

    async def _beat(self, period_s: float) -> None:
        """Beat at once, and ever after."""
        while True:
            self._notify.beat()
            await asyncio.sleep(period_s)

    async def _tell(self) -> None:
        """Say how things are, now and then; of what is not ready yet, soon."""
        while True:
            await asyncio.sleep(SOON_S if NOT_READY in self._said else STATUS_S)
            self.tell()
