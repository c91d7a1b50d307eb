"""One pipeline's active alarms: in memory at once, on disk soon after.

A daemon that is killed, or a board that loses power, would otherwise forget what was
found: the next worker needs hundreds of samples to find it again, hours for a slow one.

The rules this module keeps:
 * Written when an alarm comes or goes, never for a report; ``WRITES`` times at once,
   then once in ``PAUSE_S``: a worker that lies wears out no flash.
 * They are of one variant, that of the committed model; another is innocent.
 * What cannot be written is tried again with the next change, and stops nothing.
"""

import asyncio
import logging
from collections.abc import Iterable, Mapping
from typing import NoReturn, Protocol

from agent.core.watching import Alarm, KeptAlarm
from agent.errors import DeviceError
from agent.supervise.allowance import Allowance

log = logging.getLogger(__name__)
WRITES, WRITES_S = 12, 3600.0  # an alarm a scope and anchor, which all come and go
PAUSE_S = 600.0  # beyond those: six more an hour, of what is true by then


class AlarmStore(Protocol):
    """Where alarms last; satisfied by ``agent.store.anchors.Anchors``.

    Both block, and are called in a thread.
    """

    def load_alarms(self, pipeline: str) -> tuple[str, tuple[KeptAlarm, ...]]:
        """Return a variant's SHA-256 and its alarms; whatever is wrong, none."""
        ...

    def save_alarms(
        self, pipeline: str, variant: str, alarms: tuple[KeptAlarm, ...]
    ) -> None:
        """Keep these, and no others.

        Raises:
            DeviceError: What was there is there still.
        """
        ...


def active(
    alarms: Iterable[Alarm], raised_at: Mapping[tuple[str, str], float]
) -> tuple[KeptAlarm, ...]:
    """Return what is to be kept of alarms: those that are active, and since when."""
    return tuple(
        KeptAlarm(
            it.anchor,
            it.scope,
            raised_at.get((it.anchor, it.scope), 0.0),
            it.confirmed,
        )
        for it in alarms
        if it.active
    )


class KeptAlarms:
    """The active alarms of one pipeline's committed model.

    Args:
        pipeline: Its name.
        store: Where they last.
    """

    def __init__(self, pipeline: str, store: AlarmStore) -> None:
        self._pipeline = pipeline
        self._store = store
        self._known: tuple[str, tuple[KeptAlarm, ...]] = ("", ())
        self._found: tuple[str, tuple[KeptAlarm, ...]] = ("", ())
        self._loaded = False
        self._changed = asyncio.Event()
        self._writes = Allowance(WRITES, WRITES_S)

    async def load(self) -> None:
        """Look what the last daemon left; once."""
        if not self._loaded:
            found = await asyncio.to_thread(self._store.load_alarms, self._pipeline)
            self._known = self._found = found
            self._loaded = True

    def take(self, variant: str) -> tuple[KeptAlarm, ...]:
        """Return what was active as the last daemon ended; once, and of this variant.

        A worker of this life knows better than what was before it.
        """
        whose, alarms = self._found
        self._found = ("", ())
        return alarms if whose == variant else ()

    def put(self, variant: str, alarms: tuple[KeptAlarm, ...]) -> None:
        """Note what is active now; what is on disk is not overwritten before a look."""
        # None of one model is none of another: nothing is written for it.
        same = not alarms and not self._known[1]
        if self._loaded and not same and (variant, alarms) != self._known:
            self._known = (variant, alarms)
            self._changed.set()

    async def run(self) -> NoReturn:
        """Write what has changed, again and again, until cancelled."""
        while True:
            await self._changed.wait()
            if not self._writes.take():
                await asyncio.sleep(PAUSE_S)
            self._changed.clear()
            await self._save(*self._known)

    async def _save(self, variant: str, alarms: tuple[KeptAlarm, ...]) -> None:
        """Write all."""
        save, name = self._store.save_alarms, self._pipeline
        try:
            await asyncio.to_thread(save, name, variant, alarms)
        except DeviceError as err:
            said = {"pipeline": name, "reason": err.reason}
            log.warning("monitor.not_kept", extra={**said, "detail": str(err)})
