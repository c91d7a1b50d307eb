"""Probation: a candidate answers live samples, and is watched while it does.

The rules this module keeps:
 * Looking is all it does: the pipeline's snapshots, ten times a second.
 * A worker that does not survive the probation ends it at once, as failed; a worker
   that left for its source is nobody's fault.
 * Only what was counted since ``before``, a snapshot from before the swap, is judged;
   of what was counted while the ladder kept the model from answering, nothing is.
 * Its durations are compared with what the committed pair answered itself; where only
   stand-ins did, they are not compared.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from agent.core.counts import EMPTY
from agent.core.degradation import LadderState
from agent.core.installed import Installed
from agent.core.probation import (
    Evidence,
    count_failed,
    durations_among,
    durations_of,
    failed_share,
    judge_probation,
    output_drift,
    section_since,
)
from agent.core.reasons import Reason
from agent.core.slowness import HOT_C
from agent.core.snapshot import ModelCounts, PipelineSnapshot
from agent.core.statistics_block import OK, Section
from agent.core.watching import ModelWatch
from agent.errors import AgentError, DeviceError, TrialFailedError
from agent.supervise.conditions import Conditions, ReadBoard, ReadLadder
from agent.supervise.pipeline import Pipeline
from agent.supervise.placing import Placed

log = logging.getLogger(__name__)
LOOK_S = 0.1
DEATH_S = 5.0  # until a worker that is gone was buried, and its death has a reason
# What a death during probation says about the candidate; others are the source's.
BLAMED = {
    Reason.CRASH: Reason.CRASH,
    Reason.HANG: Reason.HANG,
    Reason.OOM: Reason.MEMORY,
}
Tell = Callable[[int, int], None]
Excuse = Callable[[DeviceError], AgentError]


@dataclass(slots=True)
class Probation:
    """One candidate that answers.

    Attributes:
        pipeline: Where.
        candidate: What answers.
        before: The pipeline just before the candidate was swapped in.
        read_board: The board's readings, to tell a slow model from a hot board.
        tell: Told how many samples were answered, of how many.
        read_ladder: How much the pipeline is held back.
        read_hot_c: From where on heat slows the board down.
        excuse: Told why the candidate is excused for being slow; returns what to say.
    """

    pipeline: Pipeline
    candidate: Placed
    before: PipelineSnapshot
    read_board: ReadBoard
    tell: Tell
    read_ladder: ReadLadder = LadderState
    read_hot_c: Callable[[], float] = lambda: HOT_C
    excuse: Excuse = lambda error: error
    _began_s: float = field(default_factory=time.monotonic)
    _gone_s: float = 0.0
    _ignored: Section | None = None  # counted until the model was let answer again
    _conditions: Conditions = field(init=False)

    def __post_init__(self) -> None:
        """Begin to look at what the candidate goes through."""
        self._conditions = Conditions(
            self.read_board, self.read_ladder, self.read_hot_c
        )

    async def run(self) -> None:
        """Return when the candidate has passed.

        Raises:
            TrialFailedError: ``failures``, ``latency``, ``drift``, or what ended its
                worker; or it was excused too often.
            DeviceError: Nobody can tell: its source went away or gave too little
                (``source_...``), it was slow and so was the board (``heat``,
                ``throttled``, ``under_voltage``), or another model was given
                (``superseded``).
        """
        manifest = self.candidate.bundle.manifest
        while True:
            evidence = self._look()
            self.tell(evidence.answered, manifest.trial.probation_samples)
            verdict = judge_probation(evidence, manifest.trial, manifest.budgets)
            said = f"on probation: {verdict.detail}"
            if verdict.state == "failed":
                raise TrialFailedError(said, reason=verdict.reason)
            if verdict.state == "unseen":
                error = DeviceError(said, reason=verdict.reason)
                raise self.excuse(error) if verdict.excused else error
            if verdict.state == "passed":
                self._log_passed(evidence)
                return
            await asyncio.sleep(LOOK_S)

    def _look(self) -> Evidence:
        """Return what is known now.

        Raises:
            DeviceError: The candidate does not answer any more, for no fault of its.
        """
        now, at_s = self.pipeline.snapshot(), time.monotonic()
        conditions, installed = self._conditions, self.candidate.installed
        conditions.look()
        counted, withheld = _of(now, installed), conditions.withheld
        calm = conditions.count_calm(counted.stages[-1].buckets)
        if withheld:
            self._ignored = counted
        since = section_since(counted, self._ignored or _of(self.before, installed))
        active = self.pipeline.committed
        old = _of(now, active.installed) if active else EMPTY
        own = _own(now, active.installed) if active else EMPTY
        durations = durations_of(since, own)
        return Evidence(
            seconds=at_s - self._began_s,
            answered=since.outcomes[OK],
            failed=count_failed(since),
            durations=durations,
            failed_before=failed_share(old),
            ended_by=self._ended_by(now, at_s),
            drift=output_drift(
                _watch_of(now, installed),
                _watch_of(self.before, installed),
                _watch_of(self.before, active.installed) if active else None,
            ),
            withheld=withheld,
            slowed=conditions.slowed,
            calm=durations_among(calm, durations),
        )

    def _ended_by(self, now: PipelineSnapshot, at_s: float) -> Reason:
        """Return what ended the candidate's worker, or nothing while it lives.

        Raises:
            DeviceError: Nothing that a candidate can be blamed for.
        """
        deaths = _since(now.restarts, self.before.restarts)
        blamed = next((BLAMED[it] for it in BLAMED if it in deaths), Reason.NONE)
        if blamed:
            return blamed
        if self.pipeline.answering is self.candidate:
            return Reason.NONE
        if left := deaths.keys() - {Reason.REQUESTED}:
            raise DeviceError("its worker left", reason=min(left))
        self._gone_s = self._gone_s or at_s
        # Between a worker's end and its burial nobody knows yet what it died of.
        if now.state == "none" and not deaths and at_s - self._gone_s < DEATH_S:
            return Reason.NONE
        raise DeviceError("another model was given", reason=Reason.SUPERSEDED)

    def _log_passed(self, evidence: Evidence) -> None:
        """Say what it was judged by."""
        installed = self.candidate.installed
        facts = {
            "pipeline": self.pipeline.settings.name,
            "model": installed.model,
            "version": installed.version,
            "answered": evidence.answered,
            "failed": evidence.failed,
            "p95_ms": round(evidence.durations.p95_ms, 3),
        }
        wanted = self.candidate.bundle.manifest.trial.probation_samples
        few = evidence.answered < wanted
        level = logging.WARNING if few else logging.INFO
        log.log(level, "probation.few" if few else "probation.passed", extra=facts)


def _counts_of(snapshot: PipelineSnapshot, installed: Installed) -> ModelCounts | None:
    """Return the row of one model in a pipeline, if it has one."""
    key = (installed.model, installed.version)
    found = (it for it in snapshot.counts if (it.model, it.version) == key)
    return next(found, None)


def _of(snapshot: PipelineSnapshot, installed: Installed) -> Section:
    """Return what one model has counted in a pipeline so far."""
    counts = _counts_of(snapshot, installed)
    return counts.section if counts else EMPTY


def _own(snapshot: PipelineSnapshot, installed: Installed) -> Section:
    """Return what of that no stand-in has answered."""
    counts = _counts_of(snapshot, installed)
    return section_since(counts.section, counts.stand_ins) if counts else EMPTY


def _watch_of(snapshot: PipelineSnapshot, installed: Installed) -> ModelWatch | None:
    """Return what one model's monitor has said so far, if it has one."""
    key = (installed.model, installed.version)
    found = (it for it in snapshot.watch if (it.model, it.version) == key)
    return next(found, None)


def _since(now: Mapping[str, int], before: Mapping[str, int]) -> dict[str, int]:
    """Return the deaths that came in between."""
    return {why: n for why, n in now.items() if n > before.get(why, 0)}
