"""The shadow audit: a few samples are answered again by other kernels of the runtime.

A second interpreter of the same mapped file computes with plain kernels, which pack no
weights, in the thread of the integrity checks. It shares the file's pages and costs an
arena: 10 to 500 KB on the MLPerf-Tiny models, where a process would cost 30 MB for the
imports alone. Two kernels round differently, so answers agree within a tolerance.

The rules this module keeps:
 * The loop hands over copies and never waits: one sample at most is on its way.
 * The tolerance is 1.5 times the largest difference that the known inputs and the first
   ``LEARNED`` samples showed, and at least two steps of a quantised output.
 * One answer beyond it is counted; ``IN_A_ROW`` of them are a mismatch: a single odd
   sample must not cost a restart, a driver that went wrong is wrong all the time.
 * A model that remembers is not audited: two interpreters remember different things.
"""

from collections.abc import Sequence
from queue import Empty, SimpleQueue

import numpy as np

from agent.core.executors import Executor, Kernels
from agent.core.integrity import Evidence
from agent.core.manifest import Variant
from agent.worker.engines import Engine
from agent.worker.golden import compare_outputs, real_outputs
from agent.worker.integrity_answers import Known, answer_digest
from agent.worker.samples import Arrays

MARGIN = 1.5  # protection.md 8.3: no false rejection on six models
LEARNED = 16
IN_A_ROW = 3
STEPS = 2.0  # one of rounding on each side
RELATIVE = 1e-4  # of the largest known answer: float sums in another order
# Which kernels check which: never the same, plain ones before the slow reference.
OTHERS: dict[Kernels, Kernels] = {
    "xnnpack": "plain",
    "delegate": "plain",
    "reference": "plain",
    "plain": "reference",
}


class Audit:
    """Answers samples again.

    Args:
        engine: The other kernels.
        variant: What both run.
        known: Inputs and answers of the kernels that are audited.

    Attributes:
        audited: Samples that were compared; ``differed`` those beyond the tolerance.
        tolerance: In real units.
    """

    def __init__(
        self, engine: Engine, variant: Variant, known: Sequence[Known]
    ) -> None:
        self._engine = engine
        self._variant = variant
        self._waiting: SimpleQueue[tuple[int, Arrays, Arrays]] = SimpleQueue()
        self._row = 0
        self._unlearned = list(known)  # asked in the thread: a start waits for none
        self.audited = self.differed = 0
        steps = (spec.scale for spec in variant.outputs)
        largest = max((_magnitude(variant, it.outputs) for it in known), default=0.0)
        self.tolerance = max(STEPS * max(steps, default=0.0), RELATIVE * largest)

    def offer(self, seq: int, inputs: Arrays, outputs: Arrays) -> None:
        """Take a copy of an answered sample, unless one waits; called by the loop."""
        if self._waiting.empty():
            copies = [np.array(it) for it in inputs]
            self._waiting.put((seq, copies, list(outputs)))

    def work(self) -> Evidence | None:
        """Answer what waits; return what differed too often."""
        if self._unlearned:
            each = self._unlearned.pop()
            self._learn(self.distance(each.inputs, each.outputs))
            return None
        try:
            seq, inputs, outputs = self._waiting.get_nowait()
        except Empty:
            return None
        apart = self.distance(inputs, outputs)
        self.audited += 1
        if self.audited <= LEARNED:
            self._learn(apart)
            return None
        if apart <= self.tolerance:
            self._row = 0
            return None
        self.differed += 1
        self._row += 1
        if self._row != IN_A_ROW:
            return None
        return Evidence(
            "audit",
            seq,
            "sample",
            answer_digest(self._engine.infer(inputs)),
            answer_digest(outputs),
            difference=min(apart, float(np.finfo(np.float32).max)),
        )

    def _learn(self, apart: float) -> None:
        """Take a difference as one that these kernels have, if it is finite."""
        if np.isfinite(apart):
            self.tolerance = max(self.tolerance, MARGIN * apart)

    def distance(self, inputs: Arrays, outputs: Arrays) -> float:
        """Return how far the other kernels' answer is from this one, in real units."""
        other = self._engine.infer(inputs)
        mine = real_outputs(self._variant, outputs)
        return compare_outputs(mine, real_outputs(self._variant, other))


def _magnitude(variant: Variant, outputs: Arrays) -> float:
    """Return the largest finite value of an answer, in real units."""
    values = [np.abs(it[np.isfinite(it)]) for it in real_outputs(variant, outputs)]
    return max((float(it.max()) for it in values if it.size), default=0.0)


def other_executor(executor: Executor) -> Executor:
    """Return what audits an executor: other kernels of the same runtime, one thread."""
    kernels = OTHERS[executor.kernels]
    return Executor(
        engine=executor.engine, engine_version=executor.engine_version, kernels=kernels
    )
