"""Rollbacks that operators asked for, until the poller carries them out.

The rules this module keeps:
 * One at a time, and none while an update is under way: whoever comes second is told.
 * The turn is taken when a wish is accepted, so that nothing changes what ``previous``
   is before it is carried out.
 * What was decided before a wish is decided anew with what came of it.
"""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import NoReturn

from agent.errors import BundleRefusedError, DeviceError
from agent.update.intake import Intake
from agent.update.ledger import cause_of
from agent.update.turn import Turn

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Wish:
    """An operator's rollback.

    Attributes:
        source: Whose desired state it overrules; ``generation`` up to which.
    """

    pipeline: str
    source: str
    generation: int


class Wishes:
    """Takes wishes from operators' requests, fulfils them in the poller's task."""

    def __init__(self, turn: Turn, intake: Intake, decide: Callable[[], None]) -> None:
        self._turn = turn
        self._intake = intake
        self._decide = decide
        self._accepted: asyncio.Queue[Wish] = asyncio.Queue(maxsize=1)

    def accept(self, wish: Wish) -> bool:
        """Accept a wish, where no update is under way and no other wish waits."""
        if not self._turn.take():
            return False
        self._accepted.put_nowait(wish)
        return True

    async def fulfil(self) -> NoReturn:
        """Carry out one wish after the other; ends by cancellation only."""
        while True:
            wish = await self._accepted.get()
            try:
                await self._intake.roll_back(
                    wish.pipeline, wish.source, wish.generation
                )
                self._decide()
            except (BundleRefusedError, DeviceError) as err:
                facts = {"pipeline": wish.pipeline} | cause_of(err)
                log.warning("operator.rollback_failed", extra=facts)
            finally:
                self._turn.give_back()
