"""From an order to its ending: find, admit, carry out, count, remember.

The rules this module keeps:
 * Nothing is fetched of a target that admission refuses.
 * Every refusal is logged and counted once, and remembered until something changes.
"""

import logging
from collections.abc import Hashable
from dataclasses import dataclass
from functools import partial

from agent.core.admission import Standing, check_admission
from agent.core.desired import Order
from agent.core.reasons import Reason
from agent.core.targets import SignedTarget
from agent.core.update_machine import Job, Phase
from agent.errors import AgentError, BundleRefusedError, DeviceError
from agent.update.memory import RefusalMemory
from agent.update.needs import Repository, Surroundings
from agent.update.runner import COMMITTED, Ending, UpdateRunner
from agent.update.tally import Tally, result_of
from agent.update.threads import in_thread
from agent.update.work import UpdateWork

log = logging.getLogger(__name__)

# Trials of the same bytes that a death of the agent or the board may cut short.
MAX_ATTEMPTS = 3
# What a repository or the disk may answer; anything else is a bug.
EXPECTED = (BundleRefusedError, DeviceError)


@dataclass(frozen=True, slots=True)
class Origin:
    """Which repository an order came from.

    Attributes:
        last_resort: It is the factory slice of a pipeline without any model: the
            version floor does not bind it.
    """

    repository: Repository
    last_resort: bool = False


class Intake:
    """Takes orders, one at a time.

    Attributes:
        memory: What was refused; ``tally`` counts it.
    """

    def __init__(
        self, models: dict[str, str], max_bytes: int, surroundings: Surroundings
    ) -> None:
        """Take the settings' pipelines (name -> model) and the largest bundle."""
        self.memory = RefusalMemory()
        self.tally = Tally()
        self._models = models
        self._max_bytes = max_bytes
        self._board = surroundings.board
        self._store = surroundings.store
        self._work = UpdateWork(surroundings, max_bytes, self._count_bytes)
        self._runner = UpdateRunner(surroundings.store, self._work)

    @property
    def phase(self) -> Phase:
        """Where the machine is now."""
        return self._runner.phase

    async def recover(self) -> None:
        """Tidy up after the last life, before the first worker starts.

        Raises:
            DeviceError: The store cannot be read.
        """
        ending = await self._runner.recover()
        if ending is not None:
            self.tally.count_result(ending.result, ending.error)

    async def consider(self, origin: Origin, order: Order) -> None:
        """Carry out an order, unless it was refused before and nothing changed."""
        subject = f"factory/{order.pipeline}" if origin.last_resort else order.pipeline
        key = (order.source, order.generation, order.version)
        try:
            find = partial(origin.repository.find, order.model, order.version)
            target = await in_thread(find)
        except EXPECTED as err:
            if self.memory.may_try(subject, key):
                self._count(subject, key, order, Ending(result_of(err), err))
            return
        # All that was signed: the same bytes may be signed anew for other boards.
        signed = (*key, target)
        if self.memory.may_try(subject, signed):
            ending = await self._carry_out(origin, order, target)
            self._count(subject, signed, order, ending)

    def count_trouble(self, subject: str, error: AgentError) -> None:
        """Count, log and remember a repository that cannot be followed."""
        self.tally.count_verification(error)
        if self.memory.remember(subject, (), error):
            self.tally.count_result(result_of(error), error)
            facts = {"subject": subject} | _cause(error)
            log.warning("repository.%s", result_of(error), extra=facts)

    async def _carry_out(
        self, origin: Origin, order: Order, target: SignedTarget
    ) -> Ending:
        """Admit a target and take it through the machine."""
        try:
            attempts = self._attempts(target.sha256)
            check_admission(target, self._standing(origin, order, target))
        except EXPECTED as err:
            return Ending(result_of(err), err)
        self._work.begin(origin.repository, target)
        return await self._runner.carry_out(
            Job(
                pipeline=order.pipeline,
                model=order.model,
                version=order.version,
                sha256=target.sha256,
                attempts=attempts,
            )
        )

    def _attempts(self, sha256: str) -> int:
        """Return how many trials of these bytes were cut short; set repeaters aside."""
        last = self._store.load_job()
        attempts = last.attempts if last is not None and last.sha256 == sha256 else 0
        if attempts >= MAX_ATTEMPTS:
            self._store.set_aside(sha256, Reason.CRASH)
        return attempts

    def _standing(self, origin: Origin, order: Order, target: SignedTarget) -> Standing:
        """Gather what admission asks for."""
        store = self._store
        floor = 0 if origin.last_resort else store.version_floor(target.fields.model)
        return Standing(
            board=self._board(),
            model=self._models[order.pipeline],
            slots=store.slots(order.pipeline),
            max_bundle_bytes=self._max_bytes,
            floor=floor,
            set_aside=store.is_set_aside(target.sha256),
            stored=store.has_object(target.sha256),
        )

    def _count(self, subject: str, key: Hashable, order: Order, ending: Ending) -> None:
        """Count, log and remember how an order ended."""
        if ending.error is None:
            self.memory.forget(subject)
            self.tally.count_result(COMMITTED, None)
            log.info("update.committed", extra=_facts(order))
            return
        self.tally.count_verification(ending.error)
        if self.memory.remember(subject, key, ending.error):
            self.tally.count_result(ending.result, ending.error)
            facts = _facts(order) | _cause(ending.error)
            log.warning("update.%s", ending.result, extra=facts)

    def _count_bytes(self, count: int) -> None:
        """Count what came in."""
        self.tally.fetched_bytes += count


def _facts(order: Order) -> dict[str, object]:
    """Return the log fields of an order."""
    return {
        "pipeline": order.pipeline,
        "model": order.model,
        "version": order.version,
        "generation": order.generation,
    }


def _cause(error: AgentError) -> dict[str, object]:
    """Return the log fields of an error."""
    return {"reason": str(error.reason), "detail": str(error)}
