"""Bundles built from what is here and a delta, where that is shorter than fetching.

The rules this module keeps:
 * Nothing of it can refuse an update: whatever goes wrong is told, and the whole bundle
   is fetched as if there were no deltas. Only the end of the daemon passes.
 * A delta that failed is not tried again for the same bundle in this life; one that
   the network cut off is, and goes on where it stopped.
 * The base is hashed again before it is used, and what comes of it has the signed
   length and digest before anybody believes it.
 * What is worth a try is decided before its first byte: the base is here, the delta is
   shorter than what is missing, and there is memory for it.
"""

import asyncio
import logging
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import partial

from agent.core.deltas import SignedDelta, best_delta, fits_memory
from agent.core.reasons import Reason
from agent.core.targets import SignedTarget
from agent.errors import BundleRefusedError, DeviceError
from agent.update.endings import NETWORK
from agent.update.fetching import Fetching
from agent.update.needs import Incoming, Repository, Surroundings
from agent.update.threads import in_thread

log = logging.getLogger(__name__)

# What repositories and the disk may answer; beyond it, memory that is not there, and a
# board without zstd.
REFUSED = (BundleRefusedError, DeviceError)
EXPECTED = (*REFUSED, MemoryError, ImportError)


@dataclass(frozen=True, slots=True)
class Offer:
    """A delta that may be used, and the repositories that have it."""

    delta: SignedDelta
    sources: Sequence[Repository]


class Deltas:
    """Fills bundles from deltas; remembers which of them failed."""

    def __init__(
        self, surroundings: Surroundings, on_bytes: Callable[[int, int], None]
    ) -> None:
        """Take what is around; ``on_bytes`` is told what came in and was resumed."""
        self._store = surroundings.store
        self._board = surroundings.board
        self._on_bytes = on_bytes
        self._failed: set[tuple[str, str]] = set()  # digests: delta, bundle

    async def fill(
        self,
        sources: Sequence[Repository],
        target: SignedTarget,
        fetching: Fetching,
        keep: Collection[str] = (),
    ) -> bool:
        """Bring a bundle here by a delta; return whether all of it is.

        Where it is not, ``fetching`` is ready to fetch the whole bundle. No room is
        made by removing what is in ``keep``.
        """
        if target.fields.sealed is not None:
            return False  # two ciphertexts have nothing in common
        call = partial(self._choose, sources, target, fetching.incoming)
        offer = await in_thread(call)
        if offer is None:
            return False
        try:
            await self._build(offer, target, fetching, keep)
        except asyncio.CancelledError:
            # What was fetched under a tag can be resumed, what was unpacked cannot.
            close, tag = fetching.incoming.close, fetching.incoming.tag
            await in_thread(partial(close, keep=bool(tag)))
            raise
        except EXPECTED as err:
            self._give_up(offer.delta, target, err)
            if not fetching.incoming.tag:  # it was begun, or nothing is here
                await in_thread(fetching.incoming.restart)
                fetching.done_bytes = 0
            return False
        extra = {"model": target.fields.model, "version": target.fields.version}
        extra |= {"bytes": offer.delta.length, "instead_of": target.length}
        log.info("update.delta_applied", extra=extra)
        return True

    def _choose(
        self, sources: Sequence[Repository], target: SignedTarget, incoming: Incoming
    ) -> Offer | None:
        """Return the best delta whose base is here, or None."""
        found: dict[SignedDelta, list[Repository]] = {}
        for source in sources:
            try:
                for delta in source.deltas(target):
                    if self._is_usable(delta, target):
                        found.setdefault(delta, []).append(source)
            except REFUSED as err:
                log.debug("update.no_deltas", extra={"detail": str(err)})
        kept = len(incoming.kept) if incoming.tag else 0
        best = best_delta(found, target, target.length - kept)
        return None if best is None else Offer(best, found[best])

    def _is_usable(self, delta: SignedDelta, target: SignedTarget) -> bool:
        """Return whether a delta did not fail yet, and its base is here."""
        failed = (delta.sha256, target.sha256) in self._failed
        return not failed and self._store.has_object(delta.fields.from_sha256)

    async def _build(
        self,
        offer: Offer,
        target: SignedTarget,
        fetching: Fetching,
        keep: Collection[str],
    ) -> None:
        """Fetch a delta and apply it.

        Raises:
            BundleRefusedError: ``delta``, or why it or its base is not to be had.
            DeviceError: Something on this board is in the way.
            MemoryError: There is not enough of it.
        """
        delta = offer.delta
        base = await in_thread(partial(self._old_bytes, delta, target, keep))
        patch = self._store.stage(delta.sha256, delta.length)
        getting = Fetching(offer.sources, delta, patch, delta.length)
        try:
            await getting.run()
            call = partial(_apply, base, patch.view(), target, fetching)
            await in_thread(call, fetching.incoming.abandon)
        except asyncio.CancelledError:
            await in_thread(partial(patch.close, keep=True))
            raise
        finally:
            self._on_bytes(getting.received, getting.resumed)
            await in_thread(getting.close)

    def _old_bytes(
        self, delta: SignedDelta, target: SignedTarget, keep: Collection[str]
    ) -> memoryview:
        """Return the base, hashed again, where memory allows and room is made.

        Raises:
            BundleRefusedError: ``digest``: it is not whole any more; ``delta``: it
                would take too much memory.
            DeviceError: ``quota``: there is no room for the delta.
        """
        base = self._store.open_object(delta.fields.from_sha256)
        ram_bytes = self._board().ram_bytes
        if not fits_memory(len(base), target.length, ram_bytes):
            what = f"a base of {len(base)} bytes is too much for {ram_bytes} of memory"
            raise BundleRefusedError(what, reason=Reason.DELTA)
        # After the base is open: what removes it as rubbish does not take it away.
        self._store.make_room(delta.length, delta.sha256, keep)
        return base

    def _give_up(
        self, delta: SignedDelta, target: SignedTarget, error: BaseException
    ) -> None:
        """Tell, and remember unless the network is to blame."""
        if not (isinstance(error, REFUSED) and error.reason in NETWORK):
            self._failed.add((delta.sha256, target.sha256))
        extra = {
            "model": target.fields.model,
            "version": target.fields.version,
            "reason": str(Reason.DELTA),
            "detail": str(error) or type(error).__name__,
        }
        log.warning("update.delta", extra=extra)


def _apply(
    base: memoryview, patch: memoryview, target: SignedTarget, fetching: Fetching
) -> None:
    """Write a whole bundle; called in a thread, its progress is read by the loop."""
    from agent.update.delta_apply import apply_delta

    fetching.incoming.restart()
    fetching.done_bytes = 0

    def write(piece: memoryview) -> None:
        fetching.incoming.write(piece)
        fetching.done_bytes += len(piece)

    apply_delta(base, patch, write, target.length, target.sha256)
