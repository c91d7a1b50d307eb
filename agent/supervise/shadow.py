"""Shadowing: a candidate answers copies of live samples in a child of its own.

The rules this module keeps:
 * The active model pays for the copies and nothing else: the child stands back behind
   it, the ring between them is never waited for, and what becomes of the child is the
   candidate's affair alone.
 * Whatever ends it, cancellation included: no child, no ring and no tap is left.
 * A worker that dies meanwhile is tapped again when the next one answers.
 * Where nothing could answer, because the active model itself is broken, a candidate
   is not kept out: it may be the repair.
 * A hot board is no candidate's fault, nor is it that another variant than the active
   one answered because of it: it is tried again later.
"""

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from agent.core.degradation import LadderState
from agent.core.executors import DelegateFile
from agent.core.messages import Refused, Shadow, Shadowed
from agent.core.readings import BoardReadings
from agent.core.reasons import Reason
from agent.core.shadow_ring import RING_BYTES
from agent.core.shadow_verdict import Spells, Verdict, judge_shadow
from agent.core.slowness import HOT_C
from agent.errors import AgentError, DeviceError, TrialFailedError
from agent.supervise.allowance import Allowance
from agent.supervise.child import PROGRAM, Child, spawn_child
from agent.supervise.conditions import Conditions, ReadBoard, ReadLadder
from agent.supervise.listening import Tapped
from agent.supervise.memfd import sealed_memfd, shared_memory
from agent.supervise.pipeline import Pipeline
from agent.supervise.placing import Placed
from agent.supervise.trial_child import (
    START_S,
    cause_of_death,
    limit_child_memory,
    next_message,
    ready_child,
)

log = logging.getLogger(__name__)
# A shadow stands back: beside a worker that never rests it gets a tenth of a core.
PATIENCE = 10.0
REPORT_S = 1.0  # it reports ten times a second; numpy may be late once
REPORTS, REPORTS_S = 500, 5.0
# Why an active model answers nothing, for which the candidate may be the repair.
BROKEN = frozenset(
    {
        *(Reason.NO_MODEL, Reason.REVOKED, Reason.CRASH, Reason.CRASH_LOOP),
        *(Reason.HANG, Reason.OOM, Reason.INVOKE, Reason.OUTPUT),
    }
)
AGAIN = "It is tried again; see what `tinyward status` says of it."
Tell = Callable[[int, int], None]
Excuse = Callable[[DeviceError], AgentError]


@dataclass(slots=True)
class Shadowing:
    """One candidate beside one pipeline.

    Attributes:
        pipeline: Whose samples are copied.
        candidate: What answers the copies.
        delegates: Libraries it may load.
        tell: Told how many samples were compared, of how many.
        program: What is started as the child; only tests start anything else.
        read_board: The board's newest readings.
        read_ladder: How much the pipeline is held back.
        read_hot_c: From where on heat slows the board down.
        excuse: Told why the candidate is excused for being slow; returns what to say.
    """

    pipeline: Pipeline
    candidate: Placed
    delegates: Sequence[DelegateFile]
    tell: Tell
    program: Sequence[str] = PROGRAM
    read_board: ReadBoard = BoardReadings
    read_ladder: ReadLadder = LadderState
    read_hot_c: Callable[[], float] = lambda: HOT_C
    excuse: Excuse = lambda error: error
    _conditions: Conditions = field(init=False)

    def __post_init__(self) -> None:
        """Begin to look at what the candidate goes through."""
        self._conditions = Conditions(
            self.read_board, self.read_ladder, self.read_hot_c
        )

    async def run(self) -> None:
        """Return when the candidate has shadowed well enough.

        Raises:
            TrialFailedError: It differs, fails, is slow, crashed or hung.
            DeviceError: ``source_silent``: there were too few samples to judge it by;
                ``memory``: there was no process or memory left; ``heat``,
                ``throttled``, ``under_voltage``: it was slow, and so was the board.
        """
        if self._says_why_not():
            return
        with _ring() as ring:
            async with self._child(ring) as child:
                seen = await self._observe(child, ring)
        facts = {"compared": seen.compared, "agreed": seen.agreed}
        log.info("shadow.passed", extra={**self._whose, **facts})

    @property
    def _whose(self) -> dict[str, object]:
        """The fields that every log line carries."""
        installed = self.candidate.installed
        return {
            "pipeline": self.pipeline.settings.name,
            "model": installed.model,
            "version": installed.version,
        }

    def _says_why_not(self) -> bool:
        """Whether nothing answers that it could be compared with; that is logged."""
        reason = self.pipeline.snapshot().reason
        if self.pipeline.committed is not None and reason not in BROKEN:
            return False
        log.info("shadow.alone", extra={**self._whose, "reason": reason})
        return True

    @contextlib.asynccontextmanager
    async def _child(self, ring: int) -> AsyncIterator[Child]:
        """Give a child that has loaded the candidate; it is gone in the end.

        Raises:
            TrialFailedError: It could not load it.
            DeviceError: ``memory``: there is no process left.
        """
        readable = [Path(delegate.path) for delegate in self.delegates]
        try:
            child = await spawn_child(
                "shadow", name="shadow", readable=readable, program=self.program
            )
        except OSError as err:
            raise _no_memory(err) from err
        try:
            async with _ends_by(
                START_S + self.candidate.bundle.manifest.trial.preflight_s
            ):
                await ready_child(child)
                await self._order(child, ring)
                await _next_report(child)
            yield child
        finally:
            await child.close()

    async def _order(self, child: Child, ring: int) -> None:
        """Tell a child what to load, and where samples come from."""
        bundle, installed = self.candidate.bundle, self.candidate.installed
        limit_child_memory(child.pid, bundle.manifest)
        variant = bundle.manifest.variant(installed.variant)
        order = Shadow(
            bundle.raw_manifest,
            variant.name,
            installed.executor,
            tolerance=bundle.manifest.trial.tolerance or variant.tolerance,
            remembers=bundle.manifest.remembers,
            sha256=bundle.variant_sha256(variant.name),
        )
        try:
            model = sealed_memfd("shadow-model", bundle.variant_bytes(variant.name))
        except OSError as err:
            raise _no_memory(err) from err
        try:
            await child.send(order, [model, ring])
        finally:
            os.close(model)

    async def _observe(self, child: Child, ring: int) -> Shadowed:
        """Feed the child and read its reports until there is a verdict.

        Raises:
            AgentError: As in ``run``.
        """
        manifest = self.candidate.bundle.manifest
        ends_s = time.monotonic() + manifest.trial.wait_s
        reports = Allowance(REPORTS, REPORTS_S)
        tapped: Tapped | None = None
        try:
            while True:
                tapped = await self._tap(ring, tapped)
                seen = await self._report(child)
                if not reports.take():
                    raise TrialFailedError("it floods the daemon", reason=Reason.CRASH)
                self.tell(seen.compared, manifest.trial.shadow_samples)
                if self._settled(seen, ended=time.monotonic() >= ends_s):
                    return seen
        finally:
            if tapped is not None:
                await self.pipeline.untap(tapped)

    def _settled(self, seen: Shadowed, *, ended: bool) -> bool:
        """Whether it has passed.

        Raises:
            TrialFailedError: It failed.
            DeviceError: ``source_silent``, or what holds the pipeline back.
        """
        manifest, conditions = self.candidate.bundle.manifest, self._conditions
        rules = manifest.trial
        conditions.look()
        timed, late = conditions.count_calm((seen.timed, seen.late))
        spells = Spells(conditions.slowed, timed, late)
        verdict = judge_shadow(
            seen, rules, manifest.budgets, ended=ended, spells=spells
        )
        if verdict.state == "failed":
            raise self._blame(verdict)
        if verdict.state == "unseen" and not self._says_why_not():
            error = DeviceError(
                f"{verdict.detail} within {rules.wait_s:.0f} s",
                reason=conditions.withheld or verdict.reason,
                todo=AGAIN,
            )
            raise self.excuse(error) if verdict.excused else error
        if verdict.state == "passed" and seen.compared < rules.shadow_samples:
            facts = {"compared": seen.compared, "wanted": rules.shadow_samples}
            log.warning("shadow.few", extra={**self._whose, **facts})
        return verdict.state != "undecided"

    def _blame(self, verdict: Verdict) -> AgentError:
        """Return the error for a candidate that did not pass.

        Beside a smaller variant of the active model nobody has to agree, or to be as
        fast.
        """
        altered, said = self._conditions.altered, f"in shadow: {verdict.detail}"
        compared = verdict.reason in (Reason.AGREEMENT, Reason.LATENCY)
        if compared and altered:
            what = f"{said}; but the active model was held back ({altered})"
            return DeviceError(what, reason=altered, todo=AGAIN)
        return TrialFailedError(said, reason=verdict.reason)

    async def _tap(self, ring: int, tapped: Tapped | None) -> Tapped | None:
        """Have the worker of now copy samples, if it does not yet."""
        active = self.pipeline.answering
        manifest = self.candidate.bundle.manifest
        # All of them where one of the two needs a sequence.
        sequence = manifest.remembers or (
            active is not None and active.bundle.manifest.remembers
        )
        every = 1 if sequence else manifest.trial.shadow_every
        try:
            return await self.pipeline.tap(ring, every, tapped)
        except AgentError as err:
            # The worker's trouble, which its supervisor sees to.
            log.info("shadow.no_tap", extra={**self._whose, "reason": err.reason})
            return None

    async def _report(self, child: Child) -> Shadowed:
        """Wait for the child's next report.

        Raises:
            TrialFailedError: It died, hung, or refused.
        """
        hang_s = self.pipeline.settings.deadline_ms / 1e3 * PATIENCE + REPORT_S
        async with _ends_by(hang_s):
            return await _next_report(child)


async def _next_report(child: Child) -> Shadowed:
    """Wait for a child's next report.

    Raises:
        TrialFailedError: It died or refused, or what it sent is no report (``crash``).
    """
    message = await next_message(child)
    if message is None:
        reason = await cause_of_death(child)
        words = child.last_words or "no word"
        raise TrialFailedError(f"the shadow died: {words}", reason=reason)
    if isinstance(message, Shadowed):
        return message
    if isinstance(message, Refused):
        raise TrialFailedError(message.detail, reason=message.reason)
    raise TrialFailedError(f"the shadow sent {message!r:.80}", reason=Reason.CRASH)


@contextlib.contextmanager
def _ring() -> Iterator[int]:
    """Give the descriptor of an empty ring; memory is taken as it is used.

    Raises:
        DeviceError: ``memory``.
    """
    try:
        ring = shared_memory("shadow-ring", RING_BYTES)
    except OSError as err:
        raise _no_memory(err) from err
    try:
        yield ring
    finally:
        os.close(ring)


@contextlib.asynccontextmanager
async def _ends_by(seconds: float) -> AsyncIterator[None]:
    """Translate a missed deadline."""
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError as err:
        raise TrialFailedError(
            f"no word from the shadow in {seconds:.0f} s", reason=Reason.HANG
        ) from err


def _no_memory(err: OSError) -> DeviceError:
    """Return the error for a board that has no room for a shadow."""
    return DeviceError(f"no room for a shadow: {err}", reason=Reason.MEMORY)
