"""The checks of one loaded model: what they cover, and one turn of them.

The rules this module keeps:
 * A turn hashes some slices and does one piece of an audit's work; it holds the GIL for
   none of either.
 * Everything that was taken for granted when the model was loaded is noted then; what
   could not be noted is skipped, and said.
"""

import logging
import os
import time
from collections import Counter

from agent.core.integrity import Check, Checked, Evidence
from agent.core.messages import Inspect
from agent.errors import AgentError
from agent.worker.audited import Audited
from agent.worker.content import content_path
from agent.worker.engines import build_engine
from agent.worker.engines.build import InterpreterEngine
from agent.worker.engines.constants import Constant, read_constants
from agent.worker.integrity_answers import KnownAnswers
from agent.worker.integrity_audit import Audit, other_executor
from agent.worker.integrity_memory import Blocks, Copy, mapped_file, packed_copies
from agent.worker.integrity_rehash import Rehash
from agent.worker.model import LoadedModel
from agent.worker.watch import Watcher

log = logging.getLogger(__name__)
MB = 1_000_000
MEMORY: tuple[Check, ...] = ("source", "packed")
AUDIT_S = 0.5  # between two looks at whether a sample waits for its audit
# The audit's interpreter holds the GIL for 1 ms while it is built: not in the first
# moments of a model, when its samples are timed by a trial.
AUDIT_AFTER_S = 5.0


class Inspection:
    """Checks one model.

    Args:
        order: What to check, and how fast.
        model: What is checked.
        before: What memory there was before it was built, if its own is hashed.
        answers: Its known answers, if it is asked for them.
        descriptor: Of its file, for the audit's interpreter; it is closed here.

    Attributes:
        held_back: The board does less: no sample is audited.
        fresh: Something is to be told that was not: it began, or a pass ended.
    """

    def __init__(
        self,
        order: Inspect,
        model: LoadedModel,
        before: Blocks | None,
        answers: KnownAnswers | None,
        descriptor: int,
    ) -> None:
        self._order = order
        self._model = model  # held: its memory is read
        self._before = before
        # Asked now: later its interpreter belongs to the loop alone.
        self._constants = _constants(model, descriptor) if before else []
        self._rehash: Rehash | None = None
        self.answers = answers
        self._descriptor = descriptor
        self._audit: Audit | None = None
        self._audit_due_s = time.monotonic() + AUDIT_AFTER_S
        self._at = 0
        self._told: set[int] = set()  # slices that differ
        self._passed = 0
        self._passed_s: float | None = None
        self._counts: Counter[Check] = Counter()
        self._mismatches: Counter[Check] = Counter()
        self.skipped: dict[Check, str] = {}
        self.held_back = False
        self.fresh = True
        self.generation = model.generation
        if answers is not None and answers.skipped and order.known_answers:
            self.skip("answers", answers.skipped)
        if not self._auditable():
            self.skip("audit", "its answers depend on earlier samples")

    def __del__(self) -> None:
        """Let the file go with the last who could read it."""
        os.close(self._descriptor)

    def skip(self, check: Check, why: str) -> None:
        """Make a check no more, and say why."""
        self.skipped[check] = why[:300]

    def watcher(self, watcher: Watcher | None) -> Watcher | None:
        """Return what the turn calls: the watcher, and samples for the audit."""
        one_in = self._order.audit_one_in
        if not one_in or "audit" in self.skipped:
            return watcher
        return Audited(watcher, one_in, self._offer)

    def turn(self, most_bytes: int) -> tuple[float, list[Evidence]]:
        """Check a little; return how long to wait before more, and what differs."""
        found: list[Evidence] = []
        pause_s = AUDIT_S
        if self._before is not None:
            before, self._before = self._before, None
            self._rehash = self._open_rehash(before)
        if self._rehash is not None and self._rehash.slices:
            pause_s = self._hash(self._rehash, most_bytes, found)
        now_s = time.monotonic()
        if now_s >= self._audit_due_s:
            self._audit_due_s = now_s + AUDIT_S
            self._work(found)
        for evidence in found:
            self._mismatches[evidence.check] += 1
        return pause_s, found

    def say(self, *, os_thread: int) -> Checked:
        """Return what was done so far; ``os_thread`` is who does it."""
        counts = Counter(self._counts)
        if self.answers is not None:
            counts["answers"] = self.answers.asked
        if self._audit is not None:
            counts["audit"] = self._audit.audited
            self._mismatches["audit"] = self._audit.differed
        passed_s = self._passed_s
        return Checked(
            checks=dict(counts),
            mismatches=dict(self._mismatches),
            bytes=self._rehash.bytes if self._rehash else {},
            pass_s=None if passed_s is None else time.monotonic() - passed_s,
            passed=self._passed,
            tolerance=self._audit.tolerance if self._audit else 0.0,
            skipped=dict(self.skipped),
            thread=os_thread,
        )

    def _hash(self, rehash: Rehash, most_bytes: int, found: list[Evidence]) -> float:
        """Hash the next slices; return how long to wait, by the rate ordered."""
        if rehash.wrong is not None:
            found.append(rehash.wrong)
            rehash.wrong = None
        hashed = 0
        while hashed < most_bytes and rehash.slices:
            it, known = rehash.slices[self._at], self._at in self._told
            evidence = it.look(rehash.peek)
            if evidence is None:
                self._told.discard(self._at)
            elif it.copy is not None and not it.copy.is_one():
                self._leave_out(rehash, it.copy)
                break
            elif not known:  # said once, however often it is passed
                self._told.add(self._at)
                found.append(evidence)
            hashed += it.block.size
            self._at = (self._at + 1) % len(rehash.slices)
            if not self._at:
                self._end_pass(rehash)
                break
        return hashed / (self._order.rehash_mbps * MB)

    def _open_rehash(self, before: Blocks) -> Rehash:
        """Find the model's memory and note what it holds, moments after its load.

        Not while it is loaded: it takes longer than that, and a start waits for it.
        """
        source = mapped_file(self._descriptor)
        packed: list[Copy] = []
        if self._constants:
            packed = packed_copies(self._constants, before, Blocks(before.heap))
        size = os.fstat(self._descriptor).st_size
        rehash = Rehash(source, size, self._model.digest, packed)
        for check in MEMORY:
            if check not in rehash.bytes:
                self.skip(check, "it was not found in memory")
        return rehash

    def _leave_out(self, rehash: Rehash, copy: Copy) -> None:
        """What was taken for a copy is used for something else: it never was one."""
        rehash.leave_out({copy})
        self._told.clear()
        self._at = 0
        log.info("a packed copy is not found any more: %s", copy.block.what)

    def _end_pass(self, rehash: Rehash) -> None:
        """Count a pass; the first is told at once, the others now and then."""
        self._passed += 1
        self.fresh |= self._passed == 1
        self._passed_s = time.monotonic()
        for check in rehash.bytes:
            self._counts[check] += 1

    def _auditable(self) -> bool:
        """Whether a second interpreter would give the same answers."""
        remembers = self.answers is not None and bool(self.answers.skipped)
        return not (self._model.manifest.state or remembers)

    def _offer(self, seq: int, *answer: object) -> None:
        """Take a sample for the audit, once it can be answered; by the loop."""
        audit = self._audit
        if audit is not None and not self.held_back:
            inputs, outputs = answer
            audit.offer(seq, inputs, outputs)  # type: ignore[arg-type] # as Audited gives them

    def _work(self, found: list[Evidence]) -> None:
        """Do a piece of the audit's work, building what answers first."""
        if not self._order.audit_one_in or "audit" in self.skipped:
            return
        if self._audit is None:
            self._audit = self._build_audit()
        elif (evidence := self._audit.work()) is not None:
            found.append(evidence)

    def _build_audit(self) -> Audit | None:
        """Build the other kernels' interpreter; without it there is no audit."""
        model = self._model
        shapes = {spec.name: spec.shape for spec in model.variant.inputs}
        other = other_executor(model.executor)
        try:
            engine = build_engine(other, content_path(self._descriptor), shapes)
        except (AgentError, MemoryError) as err:
            self.skip("audit", str(err))
            return None
        known = self.answers.known if self.answers else []
        return Audit(engine, model.variant, known)


def open_inspection(
    order: Inspect, model: LoadedModel, descriptor: int, before: Blocks | None
) -> Inspection:
    """Note what a model is, right after it was verified and built.

    Args:
        order: What to check.
        model: What was built; it answers nothing yet.
        descriptor: Of its file; it stays the caller's.
        before: What memory there was before it was built.
    """
    answers = None
    if order.known_answers:
        answers = KnownAnswers(model.engine, model.variant)
    return Inspection(order, model, before, answers, os.dup(descriptor))


def _constants(model: LoadedModel, descriptor: int) -> list[Constant]:
    """Return the weights that kernels have packed; none where they pack nothing."""
    engine = model.engine
    # Elsewhere what looks like a packed copy is none.
    if not isinstance(engine, InterpreterEngine) or model.executor.kernels != "xnnpack":
        return []
    ranges = [(it.address, it.size) for it in mapped_file(descriptor)]
    return read_constants(engine.interpreter, ranges)
