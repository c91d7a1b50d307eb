"""Active models that the owner revoked: set aside, and their pipelines told.

The rules this module keeps:
 * A revoked model answers nothing: the previous one takes over, unless it is revoked,
   too, else the factory's, else none.
 * Only the owner's list says what is revoked: nothing else is written down about it,
   so that what is taken off the list may run again.
 * A disk that takes nothing saves no model: the pipeline is told all the same, once,
   and whoever tells it what to run knows what was revoked.
 * A pipeline whose candidate is on probation is told only if that is not committed:
   until then the revoked model is not the one that answers.
"""

import logging
from collections.abc import Collection
from contextlib import suppress

from agent.core.reasons import Reason
from agent.core.update_machine import Job
from agent.errors import DeviceError
from agent.update.needs import Surroundings

log = logging.getLogger(__name__)


class Fallen:
    """Lets pipelines fall back from what was revoked."""

    def __init__(self, pipelines: Collection[str], surroundings: Surroundings) -> None:
        self._pipelines = pipelines
        self._store = surroundings.store
        self._give_model = surroundings.give_model
        self._untold: set[str] = set()
        self._unwritten: dict[str, str] = {}  # pipeline -> what could not be set aside
        self._tidied = False

    def set_revoked_aside(self, revoked: Collection[str]) -> bool:
        """Set every revoked active model aside; return whether anything changed.

        Raises:
            DeviceError: The store cannot be written, for one pipeline at least; the
                others were seen to.
        """
        fell, failed = self._forgive_revoked(), None
        for pipeline in self._pipelines:
            try:
                fell |= self._falls(pipeline, revoked)
            except DeviceError as err:
                failed = failed or err
        if failed is not None:
            raise failed
        return fell

    def tell(self, job: Job | None = None) -> None:
        """Tell pipelines to run what the store says now, but for that of ``job``."""
        spared = {job.pipeline} if job is not None else set()
        for pipeline in sorted(self._untold - spared):
            self._untold.discard(pipeline)
            self._give_model(pipeline)

    def forget(self, pipelines: Collection[str] | None = None) -> None:
        """Let pipelines (None: all) be told nothing: they run what they should."""
        self._untold -= set(self._pipelines if pipelines is None else pipelines)

    def _falls(self, pipeline: str, revoked: Collection[str]) -> bool:
        """Let one pipeline fall back if it has to; return whether it did."""
        active = self._store.slots(pipeline).active
        if active is None or active.sha256 not in revoked:
            return False
        try:
            now = self._store.fall_back(pipeline, Reason.REVOKED, revoked)
        except DeviceError:
            if self._unwritten.get(pipeline) != active.sha256:
                self._untold.add(pipeline)
            self._unwritten[pipeline] = active.sha256
            raise
        self._unwritten.pop(pipeline, None)
        self._untold.add(pipeline)
        facts = {
            "pipeline": pipeline,
            "version": active.version,
            "reason": Reason.REVOKED,
            "now": f"{now.model} {now.version}" if now is not None else "-",
        }
        log.warning("model.set_aside", extra=facts)
        return True

    def _forgive_revoked(self) -> bool:
        """Forget what older agents set aside because it was revoked, once a life."""
        kept = () if self._tidied else self._store.all_set_aside()
        old = [it.sha256 for it in kept if it.reason == Reason.REVOKED]
        for sha256 in old:
            with suppress(DeviceError):  # a full disk: the next life tries again
                self._store.forgive(sha256)
        self._tidied = True
        return bool(old)
