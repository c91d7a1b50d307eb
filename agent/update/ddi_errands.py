"""What a DDI client may ask of this board: facts, a look, an end, an opinion.

Satisfies ``agent.update.ddi_needs.Errands``.

The rules this module keeps:
 * A server's orders go the way of all desired states: plan, admission, trial. Nothing
   here begins an update.
 * Facts are of one moment: they are gathered without waiting, from what is saved.
 * What a server may know of this board is short, and no secret.
"""

import platform
from collections.abc import Callable, Iterator, Mapping

from msgspec.structs import replace

from agent.core.ddi import SOURCE
from agent.core.desired import Order
from agent.core.installed import Board
from agent.core.reasons import Reason
from agent.core.targets import Wanted
from agent.core.under_way import with_job
from agent.core.updates import Decision
from agent.errors import BundleRefusedError, DeviceError
from agent.update.ddi_needs import Facts
from agent.update.endings import COMMITTED
from agent.update.needs import UpdateStore
from agent.update.planning import NOT_YET
from agent.update.poller import UpdatePoller

MAX_VALUE = 128  # characters; what hawkBit keeps of an attribute
MAX_MODELS = 64  # of 100 attributes that hawkBit takes


def _fit() -> str:
    """Nothing speaks against an update."""
    return ""


class BoardErrands:
    """Runs a DDI client's errands at the poller.

    Args:
        poller: Who follows the orders.
        store: What is committed and reported.
        board: What this board is now.
        unfit: Says why an update had better wait (``heat``), or nothing.
        traits: What else the server may know: names and values.
    """

    def __init__(
        self,
        poller: UpdatePoller,
        store: UpdateStore,
        board: Callable[[], Board],
        unfit: Callable[[], str] = _fit,
        traits: Callable[[], Mapping[str, str]] = dict,
    ) -> None:
        self._poller = poller
        self._store = store
        self._board = board
        self._unfit = unfit
        self._traits = traits

    def facts(self) -> Facts:
        """Return what is known about the server's orders, as of now.

        Raises:
            DeviceError: The store cannot be read.
        """
        poller = self._poller
        poller.decide()
        decisions = tuple(self._with_trouble(it) for it in poller.plan.decisions)
        return Facts(
            models=dict(poller.models),
            decisions=with_job(decisions, poller.intake.job),
            progress=poller.intake.progress(),
            reports=[it for it in self._store.reports() if it.source == SOURCE],
            fetched=frozenset(self._fetched(decisions)),
            battery_or_heat=self._unfit(),
        )

    def look(self) -> None:
        """Plan again with what is saved now, and try what may be."""
        self._poller.hear()

    async def withdraw(self, generation: int) -> bool:
        """End what is under way of an order; return whether nothing was committed.

        Raises:
            DeviceError: The store cannot be read.
        """
        await self._poller.withdraw(SOURCE, generation)
        return not any(
            (it.source, it.generation, it.result) == (SOURCE, generation, COMMITTED)
            for it in self._store.reports()
        )

    async def admissible(self, wanted: Wanted) -> None:
        """Check that a version is signed and admissible here; nothing is fetched.

        Raises:
            BundleRefusedError: Why it is not.
            DeviceError: Why this cannot be said now: nothing was verified in the last
                look.
        """
        poller, sources = self._poller, self._poller.sources
        names = [it for it, model in poller.models.items() if model == wanted.model]
        if not names:
            what = f"no pipeline of this board runs {wanted.model}"
            raise BundleRefusedError(what, reason=Reason.MISMATCH)
        if not sources.believed:
            reason, why = sources.trouble or (Reason.STARTING, "not looked at yet")
            what = f"the repository: {why}"
            raise DeviceError(what, reason=reason)
        for name in names:
            order = Order(name, wanted.model, wanted.version, SOURCE, 0)
            await poller.intake.check(sources.believed, order)

    def identify(self) -> Mapping[str, str]:
        """Return what the server may know: hardware, agent, kernel, model versions.

        Raises:
            DeviceError: The store cannot be read.
        """
        board = self._board()
        known = {
            "id": board.id,
            "hardware": ", ".join(board.hardware),
            "agent": board.agent,
            "kernel": f"{platform.system()} {platform.release()}",
            "machine": platform.machine(),
            **self._traits(),
            **dict(self._versions()),
        }
        return {name: value[:MAX_VALUE] for name, value in known.items() if value}

    def _versions(self) -> Iterator[tuple[str, str]]:
        """Yield what runs in each pipeline."""
        for pipeline in list(self._poller.models)[:MAX_MODELS]:
            active = self._store.slots(pipeline).active
            runs = f"{active.model} {active.version}" if active else "none"
            yield f"model.{pipeline}", runs

    def _fetched(self, decisions: tuple[Decision, ...]) -> Iterator[str]:
        """Yield the pipelines whose bundle lies here and must not be tried yet."""
        for it in decisions:
            waits = (it.source, it.state) == (SOURCE, "waits") and it.reason in NOT_YET
            if waits and it.desired and self._poller.early.has(it.desired):
                yield it.pipeline

    def _with_trouble(self, decision: Decision) -> Decision:
        """Say of an order that is not tried, as its repository is out of reach, why."""
        trouble, ours = self._poller.sources.trouble, decision.source == SOURCE
        stuck = ours and decision.state == "ordered" and not decision.reason
        if trouble is None or not stuck or self._poller.sources.believed:
            return decision
        reason, detail = trouble
        return replace(decision, state="waits", reason=reason, detail=detail)
