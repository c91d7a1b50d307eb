"""From an order to its ending: find, admit, carry out, conclude.

The rules this module keeps:
 * Nothing is fetched of a target that admission refuses.
 * Of an order that was withdrawn nothing begins, whenever that was: what looked for
   its target meanwhile finds out before the job does begin.
 * One job at a time; an operator's rollback is one like any other, whose bytes are
   here already and were admitted when they came.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Hashable, Sequence
from dataclasses import dataclass
from functools import partial

from msgspec.structs import replace

from agent.core.admission import Standing, check_admission
from agent.core.desired import Order
from agent.core.installed import Installed
from agent.core.quarantine import MAX_ATTEMPTS
from agent.core.reasons import Reason
from agent.core.targets import BundleFields, SignedTarget, bundle_path
from agent.core.update_machine import Job, Phase
from agent.core.updates import Progress
from agent.errors import AgentError, BundleRefusedError, DeviceError
from agent.update.deltas import Deltas
from agent.update.endings import Ending, result_of
from agent.update.ledger import Ledger, Outcome
from agent.update.needs import Repository, Surroundings
from agent.update.runner import UpdateRunner
from agent.update.threads import in_thread
from agent.update.work import UpdateWork

# What a repository or the disk may answer; anything else is a bug.
EXPECTED = (BundleRefusedError, DeviceError)
# An order is looked for when it is withdrawn, or never begins: one would do.
KEPT_WITHDRAWN = 16
Bring = Callable[[Sequence[Repository], SignedTarget], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Origin:
    """Where what an order names may come from.

    Attributes:
        sources: Repositories in the order in which they are asked.
        last_resort: It is the factory slice of a pipeline without any model: the
            version floor does not bind it.
    """

    sources: Sequence[Repository]
    last_resort: bool = False


class Intake:
    """Takes orders, one at a time.

    Attributes:
        ledger: What came of them.
    """

    def __init__(
        self, models: dict[str, str], max_bytes: int, surroundings: Surroundings
    ) -> None:
        """Take the settings' pipelines (name -> model) and the largest bundle.

        Pipelines may come and go in ``models``; ``limit`` changes the other.
        """
        self.ledger = Ledger(surroundings.store, surroundings.clock)
        self._models = models
        self._max_bytes = max_bytes
        self._clock = surroundings.clock
        self._board = surroundings.board
        self._store = surroundings.store
        self._work = UpdateWork(
            surroundings, max_bytes, self.count_bytes, self._count_delta_bytes
        )
        self._runner = UpdateRunner(surroundings.store, self._work, surroundings.clock)
        self._withdrawn: deque[tuple[str, int]] = deque(maxlen=KEPT_WITHDRAWN)
        self._ended = asyncio.Event()

    @property
    def revoked(self) -> Collection[str]:
        """Digests of bundles that are not admitted, and do not begin to answer."""
        return self._work.revoked

    @revoked.setter
    def revoked(self, digests: Collection[str]) -> None:
        """Learn what was revoked; what is under way learns it, too."""
        self._work.revoked = digests

    def limit(self, max_bytes: int) -> None:
        """Refuse larger bundles from now on."""
        self._max_bytes = self._work.max_bytes = max_bytes

    def keep(self, digests: Callable[[], Collection[str]]) -> None:
        """Remove no object as rubbish whose digest is among these."""
        self._work.keep = digests

    @property
    def max_bytes(self) -> int:
        """Larger bundles are refused."""
        return self._max_bytes

    @property
    def deltas(self) -> Deltas:
        """What spares fetching whole bundles; what failed once is remembered here."""
        return self._work.deltas

    @property
    def phase(self) -> Phase:
        """Where the machine is now."""
        return self._runner.phase

    @property
    def job(self) -> Job | None:
        """What is under way."""
        return self._runner.job if self.phase is not Phase.IDLE else None

    def progress(self) -> Progress | None:
        """Return how far what is under way has come."""
        job = self.job
        if job is None:
            return None
        done, total = self._work.fetched_bytes
        return Progress(
            id=job.id,
            pipeline=job.pipeline,
            model=job.model,
            version=job.version,
            sha256=job.sha256,
            phase=str(self.phase),
            done_bytes=done,
            total_bytes=total,
            began_at=job.began_at,
        )

    async def recover(self) -> None:
        """Tidy up after the last life, before the first worker starts.

        Raises:
            DeviceError: The store cannot be read.
        """
        ending = await self._runner.recover()
        if ending is not None:
            self.ledger.tally.count_result(ending.result, ending.error)
        self.ledger.count_set_aside()

    def abort(self, error: AgentError) -> bool:
        """End what is under way before its commit; return whether it ends so."""
        return self._runner.abort(error)

    async def withdraw(self, source: str, generation: int) -> None:
        """Let nothing more of an order begin, and return when nothing of it goes on."""
        self._withdrawn.append((source, generation))
        job = self.job
        if job is None or job.rollback:
            return
        if (job.source, job.generation) == (source, generation):
            what = f"{source} took its order back"
            self.abort(DeviceError(what, reason=Reason.CANCELED))
            await self._ended.wait()

    async def consider(self, origin: Origin, order: Order) -> bool:
        """Carry out an order, unless it was refused before and nothing changed.

        Returns:
            Whether it was committed.
        """
        subject = f"factory/{order.pipeline}" if origin.last_resort else order.pipeline
        found = await self._find(origin, order, subject)
        if found is None:
            return False
        origin, target, signed = found
        job, ending, begun = await self._carry_out(origin, order, target)
        self.ledger.conclude(Outcome(subject, signed, order, job, ending, begun))
        return ending.error is None

    async def bring(self, origin: Origin, order: Order, bring: Bring) -> None:
        """Have what an order wants brought here, if it is admitted; try it not yet.

        What is refused is remembered and reported like an order that is.
        """
        found = await self._find(origin, order, order.pipeline)
        if found is None:
            return
        origin, target, signed = found
        try:
            check_admission(target, self._standing(origin, order, target))
            await bring(origin.sources, target)
            self.ledger.memory.forget(order.pipeline)
        except EXPECTED as err:
            job = self._begun(_job(order, target.sha256))
            ending = Ending(result_of(err), err)
            outcome = Outcome(order.pipeline, signed, order, job, ending, begun=False)
            self.ledger.conclude(outcome)

    async def check(self, sources: Sequence[Repository], order: Order) -> None:
        """Find out whether an order would be admitted; nothing is fetched.

        Raises:
            BundleRefusedError: Why it would not.
            DeviceError: What is in the way on this board.
        """
        sources, target = await in_thread(partial(_find, sources, order))
        check_admission(target, self._standing(Origin(sources), order, target))

    async def roll_back(self, pipeline: str, source: str, generation: int) -> bool:
        """Go back to the previous model, and hold it against a desired state.

        Returns:
            Whether it was committed.
        """
        previous = self._store.slots(pipeline).previous
        if previous is None:
            return False  # it rotted, or was revoked, since somebody looked
        order = Order(pipeline, previous.model, previous.version, source, generation)
        job = self._begun(replace(_job(order, previous.sha256), rollback=True))
        self._work.begin((), _as_signed(previous))
        ending = await self._run(job)
        self.ledger.conclude_rollback(self._runner.job, ending)
        return ending.error is None

    async def _carry_out(
        self, origin: Origin, order: Order, target: SignedTarget
    ) -> tuple[Job, Ending, bool]:
        """Admit a target and take it through the machine."""
        job = self._begun(_job(order, target.sha256))
        try:
            attempts = self._attempts(target.sha256)
            check_admission(target, self._standing(origin, order, target))
        except EXPECTED as err:
            return job, Ending(result_of(err), err), False
        self._work.begin(origin.sources, target)
        job = replace(job, attempts=attempts, factory=origin.last_resort)
        ending = await self._run(job)
        return self._runner.job, ending, True

    async def _run(self, job: Job) -> Ending:
        """Let the machine carry a job out, and tell who waits for its end."""
        self._ended = asyncio.Event()
        try:
            return await self._runner.carry_out(job)
        finally:
            self._ended.set()

    async def _find(
        self, origin: Origin, order: Order, subject: str
    ) -> tuple[Origin, SignedTarget, Hashable] | None:
        """Return where a target is, what was signed, and what a verdict goes by.

        None where it is not there, was refused and nothing changed, or was withdrawn.
        """
        key = (order.source, order.generation, order.version)
        memory = self.ledger.memory
        try:
            sources, target = await in_thread(partial(_find, origin.sources, order))
        except EXPECTED as err:
            if not self._is_withdrawn(order) and memory.may_try(subject, key):
                job = replace(_job(order, ""), id=self._store.next_update_id())
                ending = Ending(result_of(err), err)
                outcome = Outcome(subject, key, order, job, ending, begun=False)
                self.ledger.conclude(outcome)
            return None
        # All that was signed: the same bytes may be signed anew for other boards.
        signed = (*key, target)
        if self._is_withdrawn(order) or not memory.may_try(subject, signed):
            return None
        return Origin(sources, origin.last_resort), target, signed

    def _is_withdrawn(self, order: Order) -> bool:
        """Whether whoever gave an order took it back."""
        return (order.source, order.generation) in self._withdrawn

    def _begun(self, job: Job) -> Job:
        """Give a job its number and its beginning."""
        return replace(job, id=self._store.next_update_id(), began_at=self._clock())

    def _attempts(self, sha256: str) -> int:
        """Return how many trials of these bytes were cut short; set repeaters aside."""
        attempts = self._store.attempts(sha256)
        if attempts >= MAX_ATTEMPTS and not self._store.is_set_aside(sha256):
            self.ledger.set_bytes_aside(sha256, Reason.CRASH)
        return attempts

    def _standing(self, origin: Origin, order: Order, target: SignedTarget) -> Standing:
        """Gather what admission asks for.

        Raises:
            DeviceError: ``unknown_pipeline``: it was removed a moment ago.
        """
        if order.pipeline not in self._models:
            what = f"there is no pipeline {order.pipeline!r} any more"
            raise DeviceError(what, reason=Reason.UNKNOWN_PIPELINE)
        store = self._store
        floor = 0 if origin.last_resort else store.version_floor(target.fields.model)
        return Standing(
            board=self._board(),
            model=self._models[order.pipeline],
            slots=store.slots(order.pipeline),
            max_bundle_bytes=self._max_bytes,
            floor=floor,
            set_aside=store.is_set_aside(target.sha256),
            revoked=self.revoked,
            stored=store.has_object(target.sha256),
        )

    def count_bytes(self, received: int, resumed: int) -> None:
        """Count what came in, and what did not have to."""
        self.ledger.tally.bytes["full"] += received
        self.ledger.tally.bytes["resumed"] += resumed

    def _count_delta_bytes(self, received: int, resumed: int) -> None:
        """Count what came in of deltas, and what did not have to."""
        self.ledger.tally.bytes["delta"] += received
        self.ledger.tally.bytes["resumed"] += resumed


def _find(
    sources: Sequence[Repository], order: Order
) -> tuple[Sequence[Repository], SignedTarget]:
    """Return what was signed about a bundle, and everyone who says the same.

    Raises:
        BundleRefusedError: Nobody knows it; the last one's words.
        DeviceError: Something on this board is in the way.
    """
    found: list[tuple[Repository, SignedTarget]] = []
    *others, last = sources
    for source in others:
        try:
            found.append((source, source.find(order.model, order.version)))
        except BundleRefusedError:
            continue
    try:
        found.append((last, last.find(order.model, order.version)))
    except BundleRefusedError:
        if not found:
            raise
    target = found[0][1]
    return [source for source, said in found if said == target], target


def _job(order: Order, sha256: str) -> Job:
    """Return the job that an order is."""
    return Job(
        pipeline=order.pipeline,
        model=order.model,
        version=order.version,
        sha256=sha256,
        source=order.source,
        generation=order.generation,
    )


def _as_signed(kept: Installed) -> SignedTarget:
    """Return what was signed about a model that was committed here.

    It is not checked again what hardware and agent it is for: it ran here.
    """
    sealed = kept.sealed
    fields = BundleFields(
        model=kept.model,
        version=kept.version,
        plain_sha256=kept.sha256 if sealed is None else sealed.plain_sha256,
        plain_bytes=kept.size if sealed is None else sealed.plain_bytes,
        sealed=None if sealed is None else sealed.sealing,
    )
    path = bundle_path(kept.model, kept.version)
    return SignedTarget(path, kept.size, kept.sha256, fields)
