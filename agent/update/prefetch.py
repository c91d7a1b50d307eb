"""Bundles that are fetched before they may be tried.

A server wants the download alone, or the window for the rest of it is closed.

The rules this module keeps:
 * What is fetched early was admitted, verified and opened like what is tried, and is
   not tried. The job that comes later finds the object, and fetches nothing.
 * Its digest is noted before its first byte comes: between its rename and a note about
   it, an object would be rubbish. Only what is wanted now stays noted: a server that
   changes its mind again and again fills no disk.
 * It gives way: whoever wants something else stops it. What came stays, to be resumed.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Annotated

import msgspec
from msgspec import Meta

from agent.core.admission import check_contents
from agent.core.desired import Order
from agent.core.manifest import Digest
from agent.core.reasons import Reason
from agent.core.targets import SignedTarget, Strict, Wanted
from agent.errors import BundleRefusedError
from agent.update.ddi_state import DdiState
from agent.update.fetching import Fetching
from agent.update.intake import Intake, Origin
from agent.update.needs import Incoming, Repository, Surroundings
from agent.update.threads import in_thread

log = logging.getLogger(__name__)

NOTE = "update.prefetched"
NOTHING = b"[]"


class _Early(Strict, frozen=True):
    """A bundle that is here, or on its way, for later."""

    wanted: Wanted
    sha256: Digest


_Noted = Annotated[tuple[_Early, ...], Meta(max_length=64)]


class Prefetching:
    """Fetches one bundle at a time, ahead of its trial."""

    def __init__(
        self, intake: Intake, surroundings: Surroundings, ddi: DdiState | None
    ) -> None:
        self._intake = intake
        self._around = surroundings
        self._ddi = ddi
        self._store = surroundings.store
        self._patience: asyncio.Timeout | None = None
        self._order: Order | None = None
        self._ended = asyncio.Event()
        intake.keep(self.keep)

    @property
    def order(self) -> Order | None:
        """What is being fetched now."""
        return self._order

    def keep(self) -> frozenset[str]:
        """Return the digests of what is here, or comes, for later.

        Raises:
            DeviceError: The store cannot be read.
        """
        return frozenset(it.sha256 for it in self._noted())

    def has(self, wanted: Wanted) -> bool:
        """Return whether a bundle lies here, verified.

        Raises:
            DeviceError: The store cannot be read.
        """
        noted = (it.sha256 for it in self._noted() if it.wanted == wanted)
        return any(self._store.has_object(it) for it in noted)

    async def fetch(self, ahead: Callable[[], Iterable[tuple[Origin, Order]]]) -> None:
        """Bring what may come early here, each once; asked again after each.

        Raises:
            DeviceError: The store cannot be read or written.
        """
        await self._tidy()
        considered: set[Order] = set()
        while True:
            left = [it for it in ahead() if it[1] not in considered]
            if not left:
                return
            considered.add(left[0][1])
            await self._run(*left[0])

    async def _run(self, origin: Origin, order: Order) -> None:
        """Bring what an order wants here, unless it is stopped.

        A refusal is remembered and reported as that of an order that is carried out.
        """
        self._order, self._ended = order, asyncio.Event()
        try:
            async with asyncio.timeout(None) as self._patience:
                await self._intake.bring(origin, order, partial(self._bring, order))
        except TimeoutError:
            if self._patience is None or not self._patience.expired():
                raise  # somebody else's
            log.info("update.early_stopped", extra=_facts(order))
        finally:
            self._order = self._patience = None
            self._ended.set()

    def stop(self) -> None:
        """End what is being fetched; the bytes that came stay."""
        if self._patience is not None:
            self._patience.reschedule(asyncio.get_running_loop().time())

    async def stopped(self) -> None:
        """End what is being fetched, and return when it has ended."""
        if self._order is not None:
            self.stop()
            await self._ended.wait()

    async def _tidy(self) -> None:
        """Let what was fetched early and is wanted no more be rubbish; remove it."""
        wanted = self._ddi.load().open if self._ddi is not None else None
        versions = wanted.pipelines.values() if wanted is not None else ()
        noted = self._noted()
        stay = tuple(it for it in noted if it.wanted in versions)
        if stay != noted:
            self._store.save_note(NOTE, msgspec.json.encode(stay))
            await in_thread(partial(self._store.collect, self.keep()))

    async def _bring(
        self, order: Order, sources: Sequence[Repository], target: SignedTarget
    ) -> None:
        """Fetch, verify and keep an admitted target."""
        wanted = Wanted(order.model, order.version)
        self._note(_Early(wanted, target.sha256))
        if self._store.has_object(target.sha256):
            return
        await in_thread(partial(self._store.make_room, target.length, target.sha256))
        incoming = self._store.stage(target.sha256, target.length)
        fetching = Fetching(sources, target, incoming, self._intake.max_bytes)
        try:
            if not await self._intake.deltas.fill(sources, target, fetching):
                await fetching.run()
            await self._verify(target, incoming)
            # A file that a thread syncs is not closed under it: this ends by itself.
            self._patience = None
            await in_thread(incoming.commit)
        finally:
            self._intake.count_bytes(fetching.received, fetching.resumed)
            fetching.close()
        log.info("update.early", extra=_facts(order))

    async def _verify(self, target: SignedTarget, incoming: Incoming) -> None:
        """Open what came and compare what it says with what was signed."""
        opener, limit = self._around.opener, self._intake.max_bytes
        bundle = await in_thread(partial(opener, incoming.view(), max_bytes=limit))
        if bundle.sha256 != target.sha256:
            what = f"bundle {bundle.sha256} came for {target.sha256}"
            raise BundleRefusedError(what, reason=Reason.DIGEST)
        check_contents(target, bundle.manifest, self._around.board())

    def _note(self, early: _Early) -> None:
        """Note a digest, in the place of another one of the same version."""
        others = (it for it in self._noted() if it.wanted != early.wanted)
        noted = (*others, early)
        self._store.save_note(NOTE, msgspec.json.encode(noted))

    def _noted(self) -> tuple[_Early, ...]:
        """Return what is noted; nothing where that makes no sense."""
        raw = self._store.load_note(NOTE) or NOTHING
        try:
            return msgspec.json.decode(raw, type=_Noted)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return ()  # of a newer agent: it is fetched again


def _facts(order: Order) -> dict[str, object]:
    """Return the log fields of an order."""
    return {
        "pipeline": order.pipeline,
        "model": order.model,
        "version": order.version,
        "generation": order.generation,
    }
