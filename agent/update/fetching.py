"""One bundle on its way in: from one source after the other, resumed where it can be.

The rules this module keeps:
 * Sources are asked in their order; all of them owe the same signed bytes.
 * What a network cut off is kept for the next time, what was refused is not; and a
   refusal before the first byte says nothing about what was kept (a captive portal, a
   mirror that lacks the file for now).
"""

import asyncio
import logging
from collections.abc import Sequence
from functools import partial

from agent.core.reasons import Reason
from agent.core.targets import SignedFile
from agent.errors import BundleRefusedError, DeviceError
from agent.update.endings import NETWORK
from agent.update.needs import Incoming, Repository
from agent.update.threads import in_thread

log = logging.getLogger(__name__)

# What came until then is good: the rest of it is fetched later.
RESUMED_AFTER = NETWORK | {Reason.STOPPING}
# Of another file than the one that is kept, unless bytes of it came.
NOT_ABOUT_KEPT = frozenset({Reason.LENGTH, Reason.MISSING_TARGET})


class Fetching:
    """Fetches one bundle, or one delta.

    Attributes:
        incoming: Where its bytes go.
        received: Bytes that came in; ``resumed`` were here and did not have to.
        done_bytes: How much of the bundle is here.
        resumable: What is here is worth keeping.
    """

    def __init__(
        self,
        sources: Sequence[Repository],
        target: SignedFile,
        incoming: Incoming,
        max_bytes: int,
    ) -> None:
        self.incoming = incoming
        self.received = self.resumed = 0
        self.done_bytes = len(incoming.kept)
        self.resumable = False
        self._sources = sources
        self._target = target
        self._max_bytes = max_bytes

    async def run(self) -> None:
        """Ask one source after the other until one delivered the signed bytes.

        Raises:
            BundleRefusedError: The last of them refused.
            DeviceError: Something on this board is in the way.
        """
        *others, last = self._sources
        for source in others:
            before = self.received
            try:
                return await self._fetch_from(source)
            except BundleRefusedError as err:
                log.debug("update.elsewhere", extra={"detail": str(err)})
            if self.received > before:
                # What the next one adds to these bytes would not be theirs.
                self.incoming.restart()
                self.done_bytes = 0
        return await self._fetch_from(last)

    def close(self) -> None:
        """Let go of the bytes that were not committed."""
        self.incoming.close(keep=self.resumable)

    async def _fetch_from(self, source: Repository) -> None:
        """Fetch a bundle, or the rest of it."""
        self.resumable = False
        before = self.received
        call = partial(
            source.fetch, self._target, self._write, self._max_bytes, self.incoming
        )
        try:
            self.resumed += await in_thread(call, self.incoming.abandon)
        except asyncio.CancelledError:
            # The daemon stops, and nobody comes to discard. It syncs what came: not in
            # the way of what else the loop has to do.
            await in_thread(partial(self.incoming.close, keep=True))
            raise
        except (BundleRefusedError, DeviceError) as err:
            untouched = self.received == before and err.reason in NOT_ABOUT_KEPT
            self.resumable = untouched or err.reason in RESUMED_AFTER
            raise

    def _write(self, content: memoryview) -> None:
        """Pass bytes on to the disk; called in a thread, read by the loop."""
        self.incoming.write(content)
        self.received += len(content)
        # Where the server began anew, this is too much for a moment.
        self.done_bytes = min(self.done_bytes + len(content), self._target.length)
