"""The shadow child's side: answers copies of live samples and compares.

The rules this module keeps:
 * It reads a ring that nobody waits for; what it misses is missed, and counted.
 * A report is sent all the time, also while no sample comes: silence means a hang.
 * A duration counts only if the kernel did not take the CPU away meanwhile: a shadow
   stands back behind everyone, and that is not the model's doing.
 * Only samples that the active model answered are compared.
"""

import logging
import mmap
import os
import resource
import time
from collections.abc import Callable, Sequence

import numpy as np

from agent.core.histogram import BUCKETS, bucket_index, quantile
from agent.core.manifest import parse_manifest
from agent.core.messages import Message, Refused, Shadow, Shadowed
from agent.core.reasons import Reason
from agent.core.shadow_ring import RING_BYTES, RingReader
from agent.errors import AgentError
from agent.worker.golden import real_outputs
from agent.worker.model import LoadedModel, load_model
from agent.worker.opinion import Opinion, agree, build_opinion
from agent.worker.recollection import Recollection
from agent.worker.samples import Arrays
from agent.worker.tapped import Tapped, parse_record

log = logging.getLogger(__name__)
REPORT_S = 0.1
# A fast source fills 64 slots in 2 ms; a shadow need not see every sample, and an idle
# one must not keep a small board awake.
SHORTEST_SLEEP_S, LONGEST_SLEEP_S = 0.0005, 0.02
TAIL = 0.95
NS_PER_MS = 1e6

Send = Callable[[Message], None]


class Comparison:
    """What a candidate says beside what the active model said.

    Args:
        model: The candidate.
        order: How it is compared.
    """

    def __init__(self, model: LoadedModel, order: Shadow) -> None:
        self._model = model
        self._tolerance = order.tolerance
        self._form = build_opinion(model)
        self._recollection = Recollection(model, remembers=order.remembers)
        self._budget_ns = model.manifest.budgets.p95_ms * NS_PER_MS
        self._compared = self._agreed = self._failed = self._not_finite = 0
        self._late = 0
        self._buckets, self._active_buckets = [0] * BUCKETS, [0] * BUCKETS
        self._detail = ""

    def take(self, tapped: Tapped) -> None:
        """Let the candidate answer one sample, and compare."""
        said = tapped.opinion
        disturbed, began = _disturbances(), time.perf_counter_ns()
        try:
            answer = self._answer(tapped)
        except Exception as err:  # noqa: BLE001 - as in the worker: it ends as failed, counted
            if said is not None and self._recollection.settled:
                self._compared += 1
                self._failed += 1
                self._note(tapped, f"{type(err).__name__}: {err}")
            return
        spent = time.perf_counter_ns() - began
        if said is None or answer is None or not self._recollection.settled:
            return
        self._compared += 1
        self._active_buckets[bucket_index(tapped.total_ns)] += 1
        if _disturbances() == disturbed:
            self._buckets[bucket_index(spent)] += 1
            self._late += spent > self._budget_ns
        self._compare(tapped, said, *answer)

    def report(self, dropped: int) -> Shadowed:
        """Return what was seen so far."""
        timed = sum(self._buckets)
        known = sum(self._active_buckets)
        return Shadowed(
            compared=self._compared,
            agreed=self._agreed,
            failed=self._failed,
            not_finite=self._not_finite,
            timed=timed,
            p95_ms=quantile(self._buckets, TAIL) / NS_PER_MS if timed else 0.0,
            active_p95_ms=(
                quantile(self._active_buckets, TAIL) / NS_PER_MS if known else 0.0
            ),
            dropped=dropped,
            detail=self._detail,
            late=self._late,
        )

    def _answer(self, tapped: Tapped) -> tuple[Arrays, Arrays, int, float] | None:
        """Return (inputs, outputs, label index, score); None without an answer."""
        inputs = self._recollection.follow(
            tapped.seq, tapped.sample, answered=tapped.opinion is not None
        )
        if inputs is None:
            return None
        outputs = self._model.infer(inputs)
        index, score = self._model.judge(inputs, outputs)
        return inputs, outputs, index, score

    def _compare(
        self,
        tapped: Tapped,
        said: Opinion,
        inputs: Arrays,
        outputs: Arrays,
        *judged: float,
    ) -> None:
        """Count one answer as not finite, agreed or different."""
        real = real_outputs(self._model.variant, outputs)
        if not all(np.isfinite(values).all() for values in real):
            self._not_finite += 1
            self._note(tapped, "an output is not finite")
            return
        index, score = int(judged[0]), judged[1]
        own = self._form(inputs, outputs, index, score)
        if agree(said, own, self._tolerance):
            self._agreed += 1
        else:
            self._note(tapped, f"{_words(own)} instead of {_words(said)}")

    def _note(self, tapped: Tapped, what: str) -> None:
        """Keep the first thing that went wrong, for people."""
        if not self._detail:
            self._detail = f"sample {tapped.seq}: {what}"[:300]


def shadow(order: Shadow, descriptors: Sequence[int], send: Send) -> None:
    """Answer what comes through the ring, for ever; the daemon ends this process.

    Args:
        order: What to load.
        descriptors: The model's sealed memfd, then the ring.
        send: Takes one message to the daemon.
    """
    try:
        manifest = parse_manifest(order.manifest)
        wanted = (order.variant, order.executor, descriptors[0], order.sha256)
        model = load_model(0, manifest, *wanted)
    except AgentError as err:
        send(Refused(0, Reason(err.reason), str(err)))
        return
    except MemoryError as err:
        send(Refused(0, Reason.MEMORY, f"no memory: {err}"))
        return
    os.close(descriptors[0])
    ring = RingReader(memoryview(mmap.mmap(descriptors[1], RING_BYTES)))
    os.close(descriptors[1])
    comparison = Comparison(model, order)
    send(comparison.report(0))
    while True:
        _until_report(ring, comparison)
        send(comparison.report(ring.dropped))


def _until_report(ring: RingReader, comparison: Comparison) -> None:
    """Take samples until it is time to report."""
    until, sleep_s = time.monotonic() + REPORT_S, SHORTEST_SLEEP_S
    while time.monotonic() < until:
        record = ring.read()
        if record is None:
            time.sleep(sleep_s)
            sleep_s = min(2 * sleep_s, LONGEST_SLEEP_S)
            continue
        sleep_s = SHORTEST_SLEEP_S
        comparison.take(parse_record(record))


def _disturbances() -> int:
    """Return how often the kernel took the CPU away from this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw


def _words(opinion: Opinion) -> str:
    """Return an opinion for people."""
    if opinion.task == "raw":
        return "other outputs"
    return ", ".join(opinion.labels) or f"{opinion.score:.4g}"
