"""The task that follows a DDI server: polls it, takes its orders, tells it the ends."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import NoReturn

from agent.core.ddi import Record
from agent.core.fleet_settings import DdiSettings
from agent.update.ddi_needs import Errands, Kept, Wire


@dataclass(frozen=True, slots=True)
class DdiSnapshot:
    """The client as others see it.

    Attributes:
        last_poll: Unix seconds of the last poll that was answered, 0 before the first.
        next_poll: Unix seconds of the next one, 0 while one is under way.
        trouble: (reason, message) of what the last round stumbled over, or None.
        action: Id of the open action, or empty; ``said`` is what was said of it last.
        outbox: How much the server has not been told yet.
    """

    last_poll: float = 0.0
    next_poll: float = 0.0
    trouble: tuple[str, str] | None = None
    action: str = ""
    said: str = ""
    outbox: int = 0


class DdiClient:
    """Follows one server."""

    def __init__(  # noqa: PLR0913, PLR0917 - what it touches, each exactly once
        self,
        settings: DdiSettings,
        board_id: str,
        wire: Wire,
        kept: Kept,
        errands: Errands,
        clock: Callable[[], float],
        draw: Callable[[], float],
    ) -> None:
        self._settings = settings
        self._board_id = board_id
        self._wire = wire
        self._kept = kept
        self._errands = errands
        self._clock = clock
        self._draw = draw
        self._stir = asyncio.Event()
        self._record = Record()

    async def run(self) -> NoReturn:
        """Poll, wait, poll again; ends by cancellation only.

        Raises:
            ExceptionGroup: A bug.
        """
        while True:
            async with asyncio.timeout(await self.poll()):
                await self._stir.wait()

    async def poll(self) -> float:
        """Poll once, do what the answer says, return the seconds to the next poll."""
        return 300.0

    def poke(self) -> None:
        """Look now: the machine's side has moved, or somebody asks for it."""
        self._stir.set()

    def snapshot(self) -> DdiSnapshot:
        """Return the state as it is now."""
        return DdiSnapshot(outbox=len(self._record.outbox))
