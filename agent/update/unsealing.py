"""What came, opened: as it is, or unsealed with an envelope that is for this board.

The rules this module keeps:
 * An envelope is unsigned: one that does not open the signed bytes says nothing about
   them, and the next is tried. The kept one comes first, which needs no network.
 * Whether there is one for this board is found out before the first byte of the
   bundle is fetched: without it they would be of no use.
 * What opened a bundle is kept durably before that bundle is.
 * Plain bytes lie in memory alone; unsealing runs in a thread.
"""

import logging
from collections.abc import Iterator, Sequence
from functools import partial

from agent.core.explanations import EXPLANATIONS
from agent.core.opened_bundle import OpenedBundle
from agent.core.reasons import Reason
from agent.core.sealing import Sealed
from agent.core.targets import SignedTarget, sealed_of
from agent.errors import AgentError, BundleRefusedError, DeviceError
from agent.update.needs import Repository, Surroundings
from agent.update.threads import in_thread

log = logging.getLogger(__name__)

EXPECTED = (BundleRefusedError, DeviceError)
# Another envelope may open the same bytes.
OF_THE_ENVELOPE = frozenset({Reason.ENVELOPE, Reason.UNSEAL, Reason.WATERMARK})


class Unsealing:
    """One bundle's way from the bytes that came to what can be examined.

    Attributes:
        sealed: How it is opened; None where it is not sealed, and all this is nothing.
    """

    def __init__(
        self,
        surroundings: Surroundings,
        sources: Sequence[Repository],
        target: SignedTarget,
    ) -> None:
        """Remember where envelopes may come from, in this order."""
        self.sealed = sealed_of(target)
        self._around = surroundings
        self._store = surroundings.store
        self._sources = sources
        self._target = target
        self._others = self._find_others()
        self._envelope = b""
        self._refusal: AgentError | None = None  # of the envelope that was tried last
        self._trouble: AgentError | None = None  # of a source that could not be asked

    async def prepare(self) -> None:
        """Find an envelope for this board, where one is needed.

        Raises:
            BundleRefusedError: ``envelope``: there is none; or why it cannot be had.
            DeviceError: ``seal_key``: this board cannot open any.
        """
        if self.sealed is not None:
            await in_thread(partial(self._choose, self.sealed))

    async def open(self, content: memoryview, *, max_bytes: int) -> OpenedBundle:
        """Open the bytes that came.

        Raises:
            BundleRefusedError: They are no bundle, or no envelope opens them.
            DeviceError: ``seal_key``.
        """
        opener, sealed = self._around.opener, self.sealed
        if sealed is None:
            return await in_thread(partial(opener, content, max_bytes=max_bytes))
        return await in_thread(partial(self._unseal, content, sealed))

    async def keep(self) -> None:
        """Make the envelope that opened the bundle durable.

        Raises:
            DeviceError: It cannot be written.
        """
        if self.sealed is not None:
            save = self._store.save_envelope
            await in_thread(partial(save, self._target.sha256, self._envelope))

    def _choose(self, sealed: Sealed) -> None:
        """Take the next envelope that is for this board."""
        for envelope in self._others:
            try:
                self._around.unsealer.check(sealed, envelope)
            except BundleRefusedError as err:
                self._note(err)
            else:
                self._envelope = envelope
                return
        raise self._refusal or self._trouble or self._none()

    def _unseal(self, content: memoryview, sealed: Sealed) -> OpenedBundle:
        """Unseal with one envelope after the other."""
        while True:
            sha256, unsealer = self._target.sha256, self._around.unsealer
            try:
                return unsealer.open(content, sha256, sealed, self._envelope)
            except BundleRefusedError as err:
                if err.reason not in OF_THE_ENVELOPE:
                    raise
                self._note(err)
            self._choose(sealed)

    def _find_others(self) -> Iterator[bytes]:
        """Yield the kept envelope, then what each source has; asked as late as that."""
        kept = self._store.load_envelope(self._target.sha256)
        tried = {kept} if kept else set()
        yield from tuple(tried)
        board = self._around.board().id
        for source in self._sources:
            fields = self._target.fields
            try:
                found = source.envelope(fields.model, fields.version, board)
            except EXPECTED as err:
                self._trouble = err
                continue
            if found and found not in tried:
                tried.add(found)
                yield found

    def _note(self, error: BundleRefusedError) -> None:
        """Take note of an envelope that does not open what was signed."""
        self._refusal = error
        facts = {"target": self._target.path, "reason": error.reason}
        log.debug("update.envelope_refused", extra=facts | {"detail": str(error)})

    def _none(self) -> BundleRefusedError:
        """Return the error for a bundle that was not sealed for this board."""
        return BundleRefusedError(
            f"{self._target.path} has no envelope for {self._around.board().id}",
            reason=Reason.ENVELOPE,
            todo=EXPLANATIONS[Reason.ENVELOPE].todo,
        )
