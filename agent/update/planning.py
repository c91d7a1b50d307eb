"""The plan as of now: what is wanted, why not yet, and what has lost its purpose.

The rules this module keeps:
 * It reads what was verified or said before, and waits for nobody.
 * Why something of a DDI server's waits is said in that server's words, not in those
   of the paused desired state that stands for it.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace as changed

from msgspec.structs import replace

from agent.core.ddi import SOURCE, Record
from agent.core.desired import Order, Plan, Refusal, Situation, plan
from agent.core.reasons import Reason
from agent.core.schedule import is_open, parse_window
from agent.core.under_way import overtaken
from agent.core.update_machine import Job
from agent.core.updates import Decision
from agent.errors import AgentError, BundleRefusedError, DeviceError
from agent.update.ledger import Ledger
from agent.update.needs import Surroundings
from agent.update.sources import Sources

# Obstacles to a trial that are none to fetching.
NOT_YET = frozenset({Reason.PAUSED, Reason.WINDOW, Reason.SKIPPED})


class Planning:
    """Decides with everything as it is now.

    Attributes:
        plan: What was decided last.
    """

    def __init__(
        self,
        models: Mapping[str, str],
        sources: Sources,
        surroundings: Surroundings,
        ledger: Ledger,
    ) -> None:
        """Take the settings' pipelines (name -> model), which may come and go."""
        self.plan = Plan()
        self._models = models
        self._sources = sources
        self._around = surroundings
        self._ledger = ledger

    def decide(self) -> None:
        """Plan anew.

        Raises:
            DeviceError: The store cannot be read.
        """
        now = self._sources.now()
        refusals = self._ledger.memory.refusals()
        situation = Situation(
            board_id=self._sources.board_id(),
            now=now,
            utc_offset_s=self._around.utc_offset(now),
            holds=self._around.store.holds(),
            revoked=self._sources.revoked,
            refusals=refusals,
        )
        slots = {name: self._around.store.slots(name) for name in self._models}
        decided = plan(self._sources.files, slots, situation)
        if self._sources.ddi is not None:
            record = self._sources.ddi.load()
            words = (_in_its_words(it, record, refusals) for it in decided.decisions)
            decided = changed(decided, decisions=tuple(words))
        self.plan = decided

    def early(self) -> Iterator[Order]:
        """Yield what may be fetched now, though it may not be tried.

        Raises:
            DeviceError: The store cannot be read.
        """
        ddi = self._sources.ddi
        said = ddi.early() if ddi is not None else None
        if said is None:
            return
        now = self._sources.now()
        window = parse_window(said.window)
        if not is_open(window, now, self._around.utc_offset(now)):
            return
        for it in self.plan.decisions:
            wanted = said.pipelines.get(it.pipeline)
            waits = (it.source, it.state) == (SOURCE, "waits")
            if waits and it.reason in NOT_YET and wanted and wanted == it.desired:
                model, version = wanted.model, wanted.version
                yield Order(it.pipeline, model, version, SOURCE, it.generation)

    def against(self, job: Job | None) -> AgentError | None:
        """Return why what is under way has lost its purpose, if it has."""
        revoked = self._sources.revoked
        reason = job and overtaken(job, self.plan.decisions, revoked)
        if not reason:
            return None
        if reason == Reason.REVOKED:
            what = "it was revoked while on trial"
            return BundleRefusedError(what, reason=reason)
        return DeviceError("something else is wanted by now", reason=reason)


def _in_its_words(
    decision: Decision, record: Record, refusals: Mapping[str, Refusal]
) -> Decision:
    """Say of what a DDI server wants why it waits, or that it was refused already."""
    ours, wanted = (decision.source, decision.state) == (SOURCE, "waits"), record.open
    if not ours or decision.reason not in NOT_YET or decision.desired is None:
        return decision
    refusal = refusals.get(decision.pipeline)
    desired = decision.desired
    order = Order(
        decision.pipeline, desired.model, desired.version, SOURCE, decision.generation
    )
    if refusal is not None and refusal.order == order:
        state = "waits" if refusal.again else "refused"
        return replace(
            decision, state=state, reason=refusal.reason, detail=refusal.detail
        )
    if decision.reason == Reason.PAUSED and wanted is not None:
        if wanted.update == "skip":
            what = "the fleet's server wants it fetched, and not yet installed"
            return replace(decision, reason=Reason.SKIPPED, detail=what)
        if not wanted.window_open:
            what = "waits for the fleet server's maintenance window"
            return replace(decision, reason=Reason.WINDOW, detail=what)
    return decision
