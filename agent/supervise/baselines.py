"""One pipeline's baselines: in memory at once, on disk soon after.

The rules this module keeps:
 * Losing one is not worth a sample: a disk that is full or broken is warned of, and
   the pipeline goes on with what is in memory.
 * A baseline that an operator had removed is gone from the disk before they are told,
   and does not come back: one that a worker sent before it heard of that has a number
   below ``number``.
"""

import asyncio
import logging
from collections.abc import Collection, Mapping
from contextlib import suppress
from typing import NoReturn, Protocol

from agent.core.watching import KeptAlarm
from agent.errors import DeviceError

log = logging.getLogger(__name__)
RETRY_S = 600.0  # of a disk that did not take it: full ones stay so for a while


class BaselineStore(Protocol):
    """Where baselines last; satisfied by ``agent.store.anchors.Anchors``.

    Both block, and are called in a thread.
    """

    def load(self, pipeline: str) -> dict[str, bytes]:
        """Return variant's SHA-256 -> baseline; whatever is wrong, it is left out."""
        ...

    def save(self, pipeline: str, baselines: Mapping[str, bytes]) -> None:
        """Keep these, and no others.

        Raises:
            DeviceError: What was there is there still.
        """
        ...


class NoStore:
    """Keeps nothing: every daemon collects its baselines anew."""

    def load(self, pipeline: str) -> dict[str, bytes]:
        """Return nothing."""
        del pipeline
        return {}

    def save(self, pipeline: str, baselines: Mapping[str, bytes]) -> None:
        """Forget them."""

    def load_alarms(self, pipeline: str) -> tuple[str, tuple[KeptAlarm, ...]]:
        """Return none."""
        del pipeline
        return "", ()

    def save_alarms(
        self, pipeline: str, variant: str, alarms: tuple[KeptAlarm, ...]
    ) -> None:
        """Forget them."""


class KeptBaselines:
    """The baselines of one pipeline, by the SHA-256 of the variant they are of.

    Args:
        pipeline: Its name.
        store: Where they last.

    Attributes:
        number: Of the collection that goes on: how often an operator began anew in
            this daemon's life, which no worker outlives.
    """

    def __init__(self, pipeline: str, store: BaselineStore) -> None:
        self.number = 0
        self._pipeline = pipeline
        self._store = store
        self._known: dict[str, bytes] = {}
        self._loaded = False
        self._changed = asyncio.Event()
        self._disk = asyncio.Lock()  # two writers would rename each other's file away

    async def find(self, variant: str) -> bytes:
        """Return a variant's baseline, empty if it has none."""
        async with self._disk:
            if not self._loaded:
                found = await asyncio.to_thread(self._store.load, self._pipeline)
                self._known = found | self._known
                self._loaded = True
        return self._known.get(variant, b"")

    def put(self, variant: str, site: bytes) -> None:
        """Keep a variant's baseline from now on; who calls has compared ``number``."""
        self._known.pop(variant, None)  # the newest stands last
        self._known[variant] = site
        self._changed.set()

    def retain(self, variants: Collection[str]) -> None:
        """Keep the baselines of these variants, and no others."""
        if self._known.keys() - set(variants):
            self._known = {it: self._known[it] for it in self._known if it in variants}
            self._changed.set()

    async def clear(self) -> None:
        """Forget all of them, durably.

        Raises:
            DeviceError: The disk does not let them be removed: all are there still.
        """
        async with self._disk:
            await asyncio.to_thread(self._store.save, self._pipeline, {})
            self._known, self._loaded = {}, True
            # In one step with the removal: until here what comes is removed as well.
            self.number += 1

    async def run(self) -> NoReturn:
        """Write what has changed, again and again, until cancelled."""
        failed = False
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(RETRY_S if failed else None):
                    await self._changed.wait()
            self._changed.clear()
            failed = not await self._save()

    async def _save(self) -> bool:
        """Write all; return whether the disk took it."""
        async with self._disk:
            known = dict(self._known)
            try:
                await asyncio.to_thread(self._store.save, self._pipeline, known)
            except DeviceError as err:
                said = {"pipeline": self._pipeline, "reason": err.reason}
                log.warning("monitor.not_kept", extra={**said, "detail": str(err)})
                return False
        return True
