"""The hands of the update machine: each action performed through a Protocol.

The rules this module keeps:
 * Nothing is decided here but what an action found: it returns its event or raises.
 * What blocks (fetching, hashing, parsing, fsync of a whole bundle) runs in a thread;
   the journal's short transactions do not.
 * Bytes are opened only after their digest was verified, and staged only after what
   they say about themselves agrees with what was signed.
"""

import logging
from collections.abc import Awaitable, Callable, Collection, Sequence
from functools import partial
from typing import TypeVar

from msgspec.structs import replace

from agent.core.admission import check_contents
from agent.core.installed import Installed
from agent.core.opened_bundle import OpenedBundle
from agent.core.reasons import Reason
from agent.core.targets import SignedTarget, sealed_of
from agent.core.update_machine import Action, Event, Job
from agent.core.updates import Hold
from agent.errors import (
    AgentError,
    BundleRefusedError,
    DeviceError,
    IllegalTransitionError,
)
from agent.update.deltas import Deltas
from agent.update.endings import COMMITTED, Ending, report_of
from agent.update.fetching import Fetching
from agent.update.needs import Repository, Surroundings
from agent.update.threads import in_thread
from agent.update.unsealing import Unsealing

log = logging.getLogger(__name__)

T = TypeVar("T")
# After these a model answers samples: what was revoked since it was admitted must not.
ANSWERING = frozenset({Action.SWAP_IN, Action.COMMIT})
_Perform = Callable[[Job], Awaitable[Event | Job | None]]


class UpdateWork:
    """Performs the actions of one job at a time.

    Attributes:
        max_bytes: Larger bundles are refused.
        revoked: Digests of bundles that must not answer.
        on_bytes: Told how many bytes came in, and how many were here already.
        keep: Says which objects are no rubbish, though no pipeline refers to them.
        deltas: What spares fetching whole bundles, and told the same of its bytes.
    """

    def __init__(
        self,
        surroundings: Surroundings,
        max_bytes: int,
        on_bytes: Callable[[int, int], None],
        on_delta_bytes: Callable[[int, int], None],
    ) -> None:
        self.max_bytes = max_bytes
        self.revoked: Collection[str] = frozenset()
        self.on_bytes = on_bytes
        self.keep: Callable[[], Collection[str]] = frozenset
        self.deltas = Deltas(surroundings, on_delta_bytes)
        self._around = surroundings
        self._store = surroundings.store
        self._trials = surroundings.trials
        self._sources: Sequence[Repository] = ()
        self._target: SignedTarget | None = None
        self._fetching: Fetching | None = None
        self._unsealing: Unsealing | None = None
        self._content: memoryview | None = None
        self._bundle: OpenedBundle | None = None
        self._on_trial = False
        self._actions: dict[Action, _Perform] = {
            Action.FETCH: self._fetch,
            Action.VERIFY: self._verify,
            Action.STAGE: self._stage,
            Action.EXAMINE: self._examine,
            Action.SHADOW: self._shadow,
            Action.SWAP_IN: self._swap_in,
            Action.WATCH: self._watch,
            Action.COMMIT: self._commit,
            Action.ADOPT: self._adopt,
            Action.SWAP_BACK: self._swap_back,
            Action.DISCARD: self._discard,
        }

    @property
    def fetched_bytes(self) -> tuple[int, int]:
        """How much of the bundle under way is here, and its whole length."""
        total = self._target.length if self._target is not None else 0
        done = self._fetching.done_bytes if self._fetching is not None else 0
        return (total if self._content is not None else done), total

    def begin(self, sources: Sequence[Repository], target: SignedTarget) -> None:
        """Say where the next job's bytes come from, in this order."""
        self._sources = sources
        self._target = target

    async def perform(self, action: Action, job: Job) -> tuple[Event | None, Job]:
        """Perform one action (see ``agent.update.runner.Work``).

        Raises:
            AgentError: It did not work.
        """
        if action in ANSWERING and job.sha256 in self.revoked:
            what = f"{job.model} {job.version} was revoked meanwhile"
            raise BundleRefusedError(what, reason=Reason.REVOKED)
        outcome = await self._actions[action](job)
        if isinstance(outcome, Job):
            return Event.EXAMINED, outcome
        return outcome, job

    async def _fetch(self, job: Job) -> Event:
        """Bring the bytes here, unless they lie here unchanged already."""
        unsealing = Unsealing(self._around, self._sources, _known(self._target))
        self._unsealing = unsealing
        await unsealing.prepare()
        self._content = await in_thread(partial(self._stored, job.sha256))
        if self._content is not None:
            return Event.FETCHED
        target = _known(self._target)
        if not self._sources:
            raise BundleRefusedError(
                f"{target.path} is not whole on this board any more",
                reason=Reason.DIGEST,
            )
        await in_thread(partial(self._store.make_room, target.length, job.sha256))
        incoming = self._store.stage(job.sha256, target.length)
        fetching = Fetching(self._sources, target, incoming, self.max_bytes)
        self._fetching = fetching
        try:
            if not await self.deltas.fill(self._sources, target, fetching):
                await fetching.run()
        finally:
            self.on_bytes(fetching.received, fetching.resumed)
        return Event.FETCHED

    def _stored(self, sha256: str) -> memoryview | None:
        """Return an object that lies in the store; a damaged one is fetched anew."""
        if not self._store.has_object(sha256):
            return None
        try:
            return self._store.open_object(sha256)
        except AgentError as err:
            log.warning("store.damaged", extra={"sha256": sha256, "detail": str(err)})
            return None

    async def _verify(self, job: Job) -> Event:
        """Open the bytes and compare what they say with what was signed."""
        content = self._content or _known(self._fetching).incoming.view()
        unsealing, limit = _known(self._unsealing), self.max_bytes
        bundle = await unsealing.open(content, max_bytes=limit)
        if bundle.sha256 != job.sha256:
            raise BundleRefusedError(
                f"bundle {bundle.sha256} came for {job.sha256}", reason=Reason.DIGEST
            )
        check_contents(_known(self._target), bundle.manifest, self._around.board())
        self._bundle = bundle
        return Event.VERIFIED

    async def _stage(self, job: Job) -> Event:
        """Make what came durable, what opens it first; what was in the store is."""
        del job
        await _known(self._unsealing).keep()
        if self._fetching is not None:
            await in_thread(self._fetching.incoming.commit)
        return Event.STAGED

    async def _examine(self, job: Job) -> Job:
        """Let preflight choose; the choice is what COMMIT will write."""
        chosen = await self._trials.examine(job.pipeline, _known(self._bundle))
        target = _known(self._target)
        installed = Installed(
            model=job.model,
            version=job.version,
            sha256=job.sha256,
            size=target.length,
            variant=chosen.variant,
            executor=chosen.executor,
            verified_at=self._around.clock(),
            why=chosen.why,
            passed_over=chosen.passed_over,
            p50_ms=chosen.p50_ms,
            ram_bytes=chosen.ram_bytes,
            sealed=sealed_of(target),
        )
        return replace(job, installed=installed)

    async def _shadow(self, job: Job) -> Event:
        """Let the candidate see what the active one sees; not what was active once."""
        if not job.rollback:
            bundle = _known(self._bundle)
            await self._trials.shadow(job.pipeline, bundle, _installed(job))
        return Event.SHADOWED

    async def _swap_in(self, job: Job) -> None:
        """Let the candidate answer."""
        self._on_trial = True
        await self._trials.swap_in(job.pipeline, _known(self._bundle), _installed(job))

    async def _watch(self, job: Job) -> Event:
        """Let it answer on probation; what was active once has passed it."""
        if not job.rollback:
            bundle = _known(self._bundle)
            await self._trials.watch(job.pipeline, bundle, _installed(job))
        return Event.TRIAL_PASSED

    async def _commit(self, job: Job) -> Event:
        """Move the durable pointer; after a restart only to bytes that are whole."""
        if self._bundle is None:
            await in_thread(partial(self._check_whole, job))
        report = report_of(job, Ending(COMMITTED), self._around.clock())
        hold = Hold(job.pipeline, job.source, job.generation) if job.rollback else None
        self._store.commit(
            job.pipeline,
            _installed(job),
            report if job.id else None,  # jobs of older agents have no number
            factory=job.factory,
            hold=hold,
        )
        return Event.COMMITTED

    def _check_whole(self, job: Job) -> None:
        """Look at what a COMMIT that was interrupted goes on with."""
        self._store.open_object(job.sha256)
        sealed = _installed(job).sealed is not None
        if sealed and self._store.load_envelope(job.sha256) is None:
            what = f"the envelope of {job.model} {job.version} is gone"
            raise BundleRefusedError(what, reason=Reason.ENVELOPE)

    async def _adopt(self, job: Job) -> None:
        """Tell the supervisor, which after a restart reads it from the store."""
        if self._on_trial:
            await self._trials.commit(job.pipeline, _installed(job))

    async def _swap_back(self, job: Job) -> Event:
        """Let the active model answer again."""
        if self._on_trial:
            await self._trials.swap_back(job.pipeline)
        return Event.RESTORED

    async def _discard(self, job: Job) -> None:
        """Let go of the job's bytes and remove what nothing refers to."""
        del job
        if self._fetching is not None:
            self._fetching.close()
        self._fetching = self._content = self._bundle = self._target = None
        self._unsealing = None
        self._sources = ()
        self._on_trial = False
        try:
            self._store.collect(self.keep())
        except DeviceError as err:
            # Rubbish takes room and nothing else; the next DISCARD tries again.
            log.warning("store.not_collected", extra={"detail": str(err)})


def _installed(job: Job) -> Installed:
    """Return what EXAMINE decided.

    Raises:
        DeviceError: ``state``: the saved job has no such thing.
    """
    if job.installed is None:
        raise DeviceError("the saved job was never examined", reason=Reason.STATE)
    return job.installed


def _known(value: T | None) -> T:
    """Return what an earlier action of the same job left, as the table promises.

    Raises:
        IllegalTransitionError: ``internal``: the actions came in another order.
    """
    if value is None:
        raise IllegalTransitionError("too early", reason=Reason.INTERNAL)
    return value
