"""The desired state that was pushed to this board: kept durably, never replayed.

The rules this module keeps:
 * Generations rise, and no single push can use them up: one that is far above the last
   is a slip (milliseconds, a digit too many). Whoever means harm pushes more than once;
   the way back from that is ``forget``, for an operator.
"""

import logging

from agent.core.manifest import MAX_VERSION
from agent.core.reasons import Reason
from agent.core.targets import GroupFile, parse_group, render_group
from agent.errors import BundleRefusedError, RequestRefusedError
from agent.update.needs import UpdateStore

log = logging.getLogger(__name__)

SOURCE = "push"  # what decisions, reports and holds call it
NOTE = "update.desired"
FORGOTTEN = b""  # nothing was pushed, or an operator took it back
# More than three years of pushes that are numbered by the second.
MAX_STEP = 100_000_000
# Also of the first one, so that a step is left above whatever it says.
MAX_FIRST = MAX_VERSION - MAX_STEP


class PushedState:
    """What was pushed last, as long as push is the orchestrator."""

    def __init__(self, store: UpdateStore) -> None:
        self._store = store

    def load(self) -> GroupFile | None:
        """Return what was pushed last.

        Raises:
            DeviceError: The store cannot be read.
        """
        raw = self._store.load_note(NOTE)
        if raw is None or raw == FORGOTTEN:
            return None
        try:
            return parse_group(raw, SOURCE)
        except BundleRefusedError as err:
            # Of a newer agent, perhaps: the next push replaces it.
            log.warning("desired.unreadable", extra={"detail": str(err)})
            return None

    def take(self, desired: GroupFile) -> None:
        """Keep a desired state, unless it is the one that is kept.

        Raises:
            RequestRefusedError: ``replayed``: older, or other content under the same
                generation; ``request``: its generation is far above the last.
            DeviceError: It cannot be kept.
        """
        kept = self.load()
        if desired == kept:
            return
        last = kept.generation if kept is not None else 0
        highest = last + MAX_STEP if kept is not None else MAX_FIRST
        if desired.generation > highest:
            raise RequestRefusedError(
                f"generation {desired.generation} after {last}: at most {highest} is"
                " taken now",
                reason=Reason.REQUEST,
                todo="Push it under the next generation.",
            )
        if kept is not None and desired.generation <= kept.generation:
            older = desired.generation < kept.generation
            what = "newer" if older else "other content under the same one"
            raise RequestRefusedError(
                f"generation {desired.generation} came after {kept.generation}"
                if older
                else f"generation {desired.generation} is here with {what}",
                reason=Reason.REPLAYED,
                todo="Push it again under a higher generation.",
            )
        self._store.save_note(NOTE, render_group(desired))

    def forget(self) -> None:
        """Forget what was pushed, and its generation.

        Raises:
            DeviceError: The store cannot be written.
        """
        self._store.save_note(NOTE, FORGOTTEN)
