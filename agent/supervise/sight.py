"""One pipeline as others see it: its snapshot, and why it is not ready."""

import time
from dataclasses import dataclass

from agent.core.reasons import Reason
from agent.core.snapshot import CopyState, PipelineSnapshot
from agent.core.statistics_block import Block
from agent.settings import PipelineSettings
from agent.supervise.deaths import Deaths, most_telling
from agent.supervise.integrity import Integrity
from agent.supervise.own_copy import describe_copy
from agent.supervise.placing import Placed, Placing
from agent.supervise.plumbing import Plumbing
from agent.supervise.receipts import Receipts
from agent.supervise.tenancy import Tenancy
from agent.supervise.totals import Totals
from agent.supervise.watch import abstained, answered, failing
from agent.supervise.worker_process import WorkerProcess


@dataclass(slots=True)
class Sight:
    """Looks at the parts of one pipeline; cheap, no waiting.

    Attributes:
        has_answered: The worker of now has answered at least once.
    """

    totals: Totals
    placing: Placing
    deaths: Deaths
    plumbing: Plumbing
    tenancy: Tenancy
    receipts: Receipts
    integrity: Integrity
    has_answered: bool = False

    def take(
        self,
        settings: PipelineSettings,
        worker: WorkerProcess | None,
        block: Block | None,
    ) -> PipelineSnapshot:
        """Return the pipeline at this moment."""
        self.has_answered = self.has_answered or answered(block) > 0
        reason = self._reason(worker, block)
        placed = self.placing.answering or self.tenancy.committed
        runs = self.placing.runs
        active = placed.installed if placed else None
        return PipelineSnapshot(
            name=settings.name,
            model=settings.model,
            active=active,
            state=self.placing.state(self.tenancy.committed),
            ready=reason is Reason.NONE,
            reason=reason,
            counts=self.totals.counts(block),
            restarts=self.deaths.counts(),
            swaps=dict(self.placing.swaps),
            gap_s=self.placing.gap_s,
            lag_s=(block.lag_ns if block else 0) / 1e9,
            sink_dropped=self.plumbing.dropped(block),
            worker_pid=worker.pid if worker else 0,
            worker_rss_bytes=worker.resident_bytes() if worker else 0,
            worker_locks=worker.locks if worker else {},
            in_flight=sum(s.in_flight for s in block.sections) if block else 0,
            seq=block.next_seq if block else self.totals.next_seq,
            watch=self.tenancy.watching.snapshot(active),
            busy_s=_busy_s(block),
            budgets_ms=dict(self.placing.budgets_ms),
            runs=_describe(runs) if runs and runs.stands_in else "",
            stand_in=runs.installed if runs and runs.stands_in else None,
            stand_in_deaths=self.tenancy.stand_in_deaths,
            copy=_copy(runs),
            integrity=self.integrity.view(),
        )

    def _reason(self, worker: WorkerProcess | None, block: Block | None) -> Reason:
        """Why the pipeline is not ready, or nothing."""
        if self.receipts.closed:
            return self.receipts.closed
        answering = self.placing.answering
        if self._gives_answers(block) and answering is not None:
            # A constant is an answer that somebody has declared; who abstains has none.
            abstains = self.tenancy.ordered.answer == "abstain"
            return Reason.ABSTAINED if abstains else Reason.NONE
        source = worker.source.reason if worker else Reason.NONE
        told = most_telling(source, self.plumbing.reason)
        if told is Reason.STARTING and answering is self.tenancy.committed is None:
            return self.tenancy.withheld
        return most_telling(told, failing(block), self.deaths.last)

    def _gives_answers(self, block: Block | None) -> bool:
        """Whether samples end as they are to end: the model is not always asked."""
        silent = self.tenancy.ordered.answer != "model"
        return self.has_answered or (silent and abstained(block) > 0)


def _copy(placed: Placed | None) -> CopyState:
    """Return whose copy runs, as far as that is known."""
    if placed is None:
        return ""
    variant, asked = placed.installed.variant, not placed.stands_in
    return describe_copy(placed.bundle, variant, asked=asked)


def _describe(placed: Placed) -> str:
    """Return which variant runs on what."""
    installed = placed.installed
    return f"{installed.variant} on {installed.executor.describe()}"


def _busy_s(block: Block | None) -> float:
    """Return how long the sample in hand has taken so far (CLOCK_MONOTONIC)."""
    if block is None or not block.busy_since_ns:
        return 0.0
    return max(0, time.monotonic_ns() - block.busy_since_ns) / 1e9
