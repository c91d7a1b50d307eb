"""The plan as of now: what is wanted, why not yet, and what has lost its purpose.

The rules this module keeps:
 * It reads what was verified or said before, and waits for nobody.
 * What was refused when it was fetched early is told as refused, whatever else keeps
   it from beginning.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace as changed

from msgspec.structs import replace

from agent.core.ddi import SOURCE, Record
from agent.core.desired import Order, Plan, Refusal, Situation, plan
from agent.core.reasons import Reason
from agent.core.schedule import is_open, parse_window
from agent.core.under_way import overtaken
from agent.core.update_machine import Job
from agent.core.updates import Decision, State
from agent.errors import AgentError, BundleRefusedError, DeviceError
from agent.update.ledger import Ledger
from agent.update.needs import Surroundings
from agent.update.sources import Sources

# Obstacles to a trial that are none to fetching.
NOT_YET = frozenset({Reason.PAUSED, Reason.WINDOW})


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
        # Without what is remembered of it: what may pass by itself is fetched again.
        self._decided: Sequence[Decision] = ()
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
        self._decided = decided.decisions
        known = (_remembered(it, refusals) for it in decided.decisions)
        self.plan = changed(decided, decisions=tuple(known))

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
        for it in self._decided:
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


def _remembered(decision: Decision, refusals: Mapping[str, Refusal]) -> Decision:
    """Say of what must not begin yet that it was refused already, if it was."""
    refusal, desired = refusals.get(decision.pipeline), decision.desired
    waits = decision.state == "waits" and decision.reason in NOT_YET
    if refusal is None or desired is None or not waits:
        return decision
    order = Order(
        decision.pipeline,
        desired.model,
        desired.version,
        decision.source,
        decision.generation,
    )
    if refusal.order != order:
        return decision
    state: State = "waits" if refusal.again else "refused"
    return replace(decision, state=state, reason=refusal.reason, detail=refusal.detail)


def in_servers_words(decision: Decision, record: Record) -> Decision:
    """Say of what a DDI server wants, and paused, what it said about that."""
    wanted = record.open
    paused = decision.state == "waits" and decision.reason == Reason.PAUSED
    if wanted is None or decision.source != SOURCE or not paused:
        return decision
    if wanted.held:
        what = "waits until this board is fit for it"
        return replace(decision, reason=wanted.held, detail=what)
    if not wanted.window_open:
        what = "waits for the maintenance window of the fleet's server"
        return replace(decision, reason=Reason.WINDOW, detail=what)
    if "skip" in {wanted.update, wanted.download}:
        what = "the fleet's server does not want it installed yet"
        return replace(decision, reason=Reason.SKIPPED, detail=what)
    return decision
