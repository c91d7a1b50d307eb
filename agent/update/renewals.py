"""Envelopes of committed models that none opens here any more: asked for anew.

A board gets another key (its card was replaced, the key was renewed), or an envelope
rots: its owner publishes another one, under the same signed version. Nothing signed
changes by that, so it is looked for after each look at a repository.

The rules this module keeps:
 * Only where a committed model does not open; a board that is well asks nothing.
 * What is kept is replaced by an envelope that opens the object, and by no other: the
   old key may come back.
"""

import logging
from collections.abc import Sequence
from functools import partial

from agent.core.installed import Installed
from agent.errors import BundleRefusedError, DeviceError
from agent.update.needs import Repository, Surroundings
from agent.update.threads import in_thread

log = logging.getLogger(__name__)

EXPECTED = (BundleRefusedError, DeviceError)


class Renewals:
    """Looks for envelopes of what does not open."""

    def __init__(self, surroundings: Surroundings) -> None:
        self._around = surroundings

    async def look(self, sources: Sequence[Repository]) -> None:
        """Ask these for an envelope of each model that lacks one, and let it run."""
        for pipeline, installed in tuple(self._around.unopened().items()):
            if await in_thread(partial(self._renew, sources, installed)):
                self._around.give_model(pipeline)

    def _renew(self, sources: Sequence[Repository], installed: Installed) -> bool:
        """Keep an envelope that opens a model; return whether there is one."""
        sealed, store = installed.sealed, self._around.store
        if sealed is None:
            return False
        for source in sources:
            facts = {"model": installed.model, "version": installed.version}
            try:
                board = self._around.board().id
                found = source.envelope(sealed.model, sealed.version, board)
                if not found or found == store.load_envelope(installed.sha256):
                    continue
                self._around.unsealer.check(sealed, found)
                content = store.open_object(installed.sha256)
                self._around.unsealer.open(content, installed.sha256, sealed, found)
                store.save_envelope(installed.sha256, found)
            except EXPECTED as err:
                facts |= {"reason": str(err.reason), "detail": str(err)}
                log.debug("update.no_envelope", extra=facts)
                continue
            log.info("update.envelope", extra=facts)
            return True
        return False
