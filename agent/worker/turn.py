"""One turn of the loop: a sample becomes an answer, and everything is counted.

This is the sample path. ``build_turn`` binds all it needs as local variables of one
closure, because at 26 us a keyword model leaves 2.6 us for everything around it.

The rules this module keeps:
 * No lock, no log line, no allocation that can be hoisted; sinks write without waiting.
 * ``received`` rises before anything can fail, exactly one outcome after it.
 * A watcher comes after all that: a sample it does not look at costs a comparison.
"""

import logging
import time
from collections.abc import Callable, Sequence
from typing import Protocol

from agent.core.histogram import SHORT, UNIT_NS
from agent.core.histogram import bucket_index as index_of
from agent.core.reasons import Reason
from agent.core.statistics_block import (
    BUSY_SINCE_NS,
    FIRST_LABEL,
    FIRST_OUTCOME,
    FIRST_STAGE,
    MAX_LABELS,
    NEXT_SEQ,
    OK,
    OUTCOME_INDEX,
    RECEIVED,
    SEQUENCE,
    SINK_DROPPED,
    STAGE_WORDS,
    STAGES,
)
from agent.worker.model import LoadedModel
from agent.worker.samples import Arrays, InputError, Sample
from agent.worker.statistics import StatisticsWriter
from agent.worker.watch import Watcher
from agent.worker.watch_pace import NEVER

log = logging.getLogger(__name__)
Turn = Callable[[Sample], int]


class Sink(Protocol):
    """Where predictions go: one write that never waits; False means dropped."""

    def write(self, record: dict[str, object]) -> bool:
        """Take one prediction, or say that it was dropped."""


Emit = Callable[[int, int, float, Arrays, Arrays], None]


def build_turn(
    model: LoadedModel,
    statistics: StatisticsWriter,
    start: int,
    emit: Emit | None,
    watcher: Watcher | None = None,
) -> Turn:
    """Return the turn of one model: sample in, time of its end out.

    Args:
        model: What answers.
        statistics: The block; ``start`` is the first word of this model's section.
        start: See above.
        emit: Passes predictions to the sinks; None if they are only counted.
        watcher: Looks at one in so many samples after they were counted, if anyone
            does.

    Returns:
        A function from a sample to the ``perf_counter_ns`` at which it was answered.
    """
    words = statistics.words
    clock = time.perf_counter_ns
    preprocess, infer, judge = model.preprocess, model.infer, model.judge
    prepares, received = model.prepares, start + RECEIVED
    busy = start + FIRST_STAGE + (len(STAGES) - 1) * STAGE_WORDS  # sum of all turns
    record = _build_record(words, start, prepares=prepares)
    failed = _build_failed(model, statistics, start, watcher)
    due, look = (watcher.due, watcher.look) if watcher else ([NEVER], None)

    def turn(sample: Sample) -> int:
        words[received] += 1
        seq = words[NEXT_SEQ]
        words[NEXT_SEQ] = seq + 1
        prepared = inferred = 0
        words[BUSY_SINCE_NS] = started = clock()
        try:
            inputs = preprocess(sample)
            prepared = clock() if prepares else started
            if inputs is None:
                statistics.end(start, OUTCOME_INDEX[Reason.WARMING])
                return prepared
            outputs = infer(inputs)
            inferred = clock()
            index, score = judge(inputs, outputs)
            if emit is not None:
                emit(seq, index, score, inputs, outputs)
            ended = clock()
        except Exception as err:  # noqa: BLE001 - one bad sample ends as failed, counted
            return failed(seq, err, prepared, inferred)
        record(started, prepared, inferred, ended, index)
        if seq >= due[0] and look is not None:
            look(seq, words[busy], inputs, outputs, index, score)
        return ended

    return turn


def _build_record(
    words: memoryview, start: int, *, prepares: bool
) -> Callable[..., None]:
    """Return what counts an answered sample: its durations, ok, and its label.

    A model whose samples are tensors already has no preprocess stage to count.

    Durations below 10 us, as those of no preprocess are, find their bucket by a
    division here, and sums are kept beside the block they are stored in: a call costs
    100 ns, adding in place 43, storing 16. They go on from what the section holds, so
    that one turn of a model can follow another.
    """
    sums = [start + FIRST_STAGE + stage * STAGE_WORDS for stage in range(len(STAGES))]
    pre_sum, infer_sum, post_sum, total_sum = sums
    pre_first, infer_first, post_first, total_first = (first + 1 for first in sums)
    ok, labels = start + FIRST_OUTCOME + OK, start + FIRST_LABEL
    pre_ns, infer_ns, post_ns = words[pre_sum], words[infer_sum], words[post_sum]
    answered = words[ok]

    def record(
        started: int, prepared: int, inferred: int, ended: int, index: int
    ) -> None:
        nonlocal pre_ns, infer_ns, post_ns, answered
        sequence = words[SEQUENCE]
        words[SEQUENCE] = sequence + 1
        if prepares:
            spent = prepared - started
            at = (spent - 1) // UNIT_NS if 0 < spent <= SHORT else index_of(spent)
            words[pre_first + at] += 1
            words[pre_sum] = pre_ns = pre_ns + spent
        spent = inferred - prepared
        words[infer_first + index_of(spent)] += 1
        words[infer_sum] = infer_ns = infer_ns + spent
        spent = ended - inferred
        at = (spent - 1) // UNIT_NS if 0 < spent <= SHORT else index_of(spent)
        words[post_first + at] += 1
        words[post_sum] = post_ns = post_ns + spent
        words[total_first + index_of(ended - started)] += 1
        words[total_sum] = pre_ns + infer_ns + post_ns
        words[ok] = answered = answered + 1
        if index >= 0:
            words[labels + (index if index < MAX_LABELS else MAX_LABELS)] += 1  # noqa: FURB136 - min() costs 80 ns here
        words[BUSY_SINCE_NS] = 0
        words[SEQUENCE] = sequence + 2

    return record


def build_emit(
    model: LoadedModel,
    pipeline: str,
    sinks: Sequence[tuple[int, Sink]],
    statistics: StatisticsWriter,
    wall_clock: Callable[[], float],
) -> Emit | None:
    """Return what writes a prediction line to every sink, or None if there is none."""
    if not sinks:
        return None
    words = statistics.words
    describe = model.describe
    fixed: dict[str, object] = {
        "pipeline": pipeline,
        "model": model.manifest.model,
        "version": model.manifest.version,
    }

    def emit(
        seq: int, index: int, score: float, inputs: Arrays, outputs: Arrays
    ) -> None:
        record: dict[str, object] = {"seq": seq, "t": wall_clock(), **fixed}
        record.update(describe(inputs, outputs, index, score))
        for number, sink in sinks:
            if not sink.write(record):
                words[SINK_DROPPED + number] += 1

    return emit


def _build_failed(
    model: LoadedModel,
    statistics: StatisticsWriter,
    start: int,
    watcher: Watcher | None,
) -> Callable[[int, Exception, int, int], int]:
    """Return what ends a failed sample; it logs the first of each reason only."""
    said: set[Reason] = set()

    def failed(seq: int, err: Exception, prepared: int, inferred: int) -> int:
        reason = Reason.INVOKE if prepared else Reason.INPUT
        if inferred:
            reason = Reason.OUTPUT
        if isinstance(err, InputError):
            reason = Reason.INPUT
        statistics.end(start, OUTCOME_INDEX[reason])
        if reason not in said:
            said.add(reason)
            name = f"{model.manifest.model} {model.manifest.version}"
            facts = {"reason": reason}
            log.warning("%s: samples fail: %s", name, err, extra=facts)
        ended = time.perf_counter_ns()
        if watcher is not None:
            watcher.fail(seq, err)
        return ended

    return failed
