"""Bundles that are fetched before they may be tried.

A server wants the download alone, or the window for the rest of it is closed.

The rules this module keeps:
 * What is fetched early was admitted, verified and opened like what is tried, and is
   not tried. The job that comes later finds the object, and fetches nothing.
 * Its digest is noted before its first byte comes: between its rename and a note about
   it, an object would be rubbish. Only what is wanted now stays noted: a server that
   changes its mind again and again fills no disk.
 * It gives way: whoever wants something else stops it. What came stays, to be resumed.
   Once its file is being synced it is too late for that: it ends by itself.
 * It takes no room from what else is wanted early: there it waits until there is some.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Annotated

import msgspec
from msgspec import Meta

from agent.core.admission import check_contents
from agent.core.desired import Order
from agent.core.manifest import Digest
from agent.core.reasons import Reason
from agent.core.targets import SignedTarget, Strict, Wanted
from agent.errors import BundleRefusedError
from agent.update.fetching import Fetching
from agent.update.intake import Intake, Origin
from agent.update.needs import Incoming, Repository, Surroundings
from agent.update.threads import in_thread
from agent.update.unsealing import Unsealing

if TYPE_CHECKING:
    from agent.update.ddi_state import DdiState

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
        self, intake: Intake, surroundings: Surroundings, ddi: "DdiState | None"
    ) -> None:
        self._intake = intake
        self._around = surroundings
        self._ddi = ddi
        self._store = surroundings.store
        self._patience: asyncio.Timeout | None = None
        self._committing = False
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

    async def fetch(
        self, ahead: Callable[[], Iterable[tuple[Origin, Order]]], pause_s: float
    ) -> float:
        """Bring what may come early here, each once, until stopped; asked after each.

        Args:
            ahead: What may come, as of now.
            pause_s: It may take so many seconds.

        Returns:
            What is left of them.

        Raises:
            DeviceError: The store cannot be read or written.
        """
        await self._tidy()
        loop = asyncio.get_running_loop()
        end = loop.time() + pause_s
        timer = loop.call_at(end, self.stop)
        considered: set[Order] = set()
        try:
            while left := [it for it in ahead() if it[1] not in considered]:
                considered.add(left[0][1])
                if not await self._run(*left[0]) or loop.time() >= end:
                    break
        finally:
            timer.cancel()
        return max(end - loop.time(), 0.0) if considered else pause_s

    async def _run(self, origin: Origin, order: Order) -> bool:
        """Bring what an order wants here; return whether it was let go on.

        A refusal is remembered and reported as that of an order that is carried out.
        """
        self._order, self._ended = order, asyncio.Event()
        # It stays ours to judge by, whatever the attribute is by the time this ends.
        patience = self._patience = asyncio.timeout(None)
        try:
            async with patience:
                bring = partial(self._bring, order, patience)
                await self._intake.bring(origin, order, bring)
        except TimeoutError:
            if not _is_stopped(patience):
                raise  # somebody else's
            log.info("update.early_stopped", extra=_facts(order))
            return False
        else:
            return not _is_stopped(patience)
        finally:
            self._order = self._patience = None
            self._committing = False
            self._ended.set()

    def stop(self) -> None:
        """End what is being fetched; the bytes that came stay."""
        patience = self._patience
        if patience is None or self._committing or _is_stopped(patience):
            return
        patience.reschedule(asyncio.get_running_loop().time())

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
        self,
        order: Order,
        patience: asyncio.Timeout,
        sources: Sequence[Repository],
        target: SignedTarget,
    ) -> None:
        """Fetch, verify and keep an admitted target.

        Raises:
            TimeoutError: It was stopped in the moment in which it was verified.
        """
        wanted = Wanted(order.model, order.version)
        self._note(_Early(wanted, target.sha256))
        if self._store.has_object(target.sha256):
            return
        unsealing = Unsealing(self._around, sources, target)
        await unsealing.prepare()
        keep, sha256 = self.keep(), target.sha256
        await in_thread(partial(self._store.make_room, target.length, sha256, keep))
        incoming = self._store.stage(target.sha256, target.length)
        fetching = Fetching(sources, target, incoming, self._intake.max_bytes)
        try:
            if not await self._intake.deltas.fill(sources, target, fetching, keep):
                await fetching.run()
            await self._verify(target, incoming, unsealing)
            await unsealing.keep()
            # A file that a thread syncs is not closed under it: either it was stopped
            # before, though nobody told this task yet, or it cannot be any more.
            _go_on(patience)
            self._committing = True
            await in_thread(incoming.commit)
        except (asyncio.CancelledError, TimeoutError):
            fetching.resumable = True  # all that came was what was signed
            raise
        finally:
            self._intake.count_bytes(fetching.received, fetching.resumed)
            await in_thread(fetching.close)
        log.info("update.early", extra=_facts(order))

    async def _verify(
        self, target: SignedTarget, incoming: Incoming, unsealing: Unsealing
    ) -> None:
        """Open what came and compare what it says with what was signed."""
        limit = self._intake.max_bytes
        bundle = await unsealing.open(incoming.view(), max_bytes=limit)
        if bundle.sha256 != target.sha256:
            what = f"bundle {bundle.sha256} came for {target.sha256}"
            raise BundleRefusedError(what, reason=Reason.DIGEST)
        check_contents(target, bundle.manifest, self._around.board())

    def _note(self, early: _Early) -> None:
        """Note a digest, in the place of another one of the same version.

        The order stays: where nothing is new, nothing is written.
        """
        noted = {it.wanted: it for it in self._noted()}
        noted[early.wanted] = early
        self._store.save_note(NOTE, msgspec.json.encode(tuple(noted.values())))

    def _noted(self) -> tuple[_Early, ...]:
        """Return what is noted; nothing where that makes no sense."""
        raw = self._store.load_note(NOTE) or NOTHING
        try:
            return msgspec.json.decode(raw, type=_Noted)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return ()  # of a newer agent: it is fetched again


def _is_stopped(patience: asyncio.Timeout) -> bool:
    """Whether ``stop`` was called; the task may not have been told so yet."""
    return patience.when() is not None


def _go_on(patience: asyncio.Timeout) -> None:
    """Go on, unless somebody wants something else.

    Raises:
        TimeoutError: ``stop`` was called.
    """
    if _is_stopped(patience):
        raise TimeoutError


def _facts(order: Order) -> dict[str, object]:
    """Return the log fields of an order."""
    return {
        "pipeline": order.pipeline,
        "model": order.model,
        "version": order.version,
        "generation": order.generation,
    }
