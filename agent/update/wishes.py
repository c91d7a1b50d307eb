"""Rollbacks that operators asked for, until the poller carries them out.

The rules this module keeps:
 * One at a time, and none while an update is under way: whoever comes second is told.
 * The turn is taken when a wish is accepted, so that nothing changes what ``previous``
   is before it is carried out.
 * However a wish ended, its end is told: decisions are made anew, and what was
   revoked meanwhile is seen to.
"""

import asyncio
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
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

    def __init__(
        self, turn: Turn, intake: Intake, conclude: Callable[[str, bool], None]
    ) -> None:
        """Take whose turn it is, who carries out, and who is told of each end.

        ``conclude`` is called with the pipeline and whether the rollback was committed.
        """
        self._turn = turn
        self._intake = intake
        self._conclude = conclude
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
            committed = False
            try:
                with _logged(wish):
                    committed = await self._intake.roll_back(
                        wish.pipeline, wish.source, wish.generation
                    )
                with _logged(wish):
                    self._conclude(wish.pipeline, committed)
            finally:
                self._turn.give_back()


@contextmanager
def _logged(wish: Wish) -> Iterator[None]:
    """Let what a disk or a bundle is in the way of be a line in the log."""
    try:
        yield
    except (BundleRefusedError, DeviceError) as err:
        facts = {"pipeline": wish.pipeline} | cause_of(err)
        log.warning("operator.rollback_failed", extra=facts)
