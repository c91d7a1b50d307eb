"""The tap: a turn that also leaves copies of samples for a shadow.

It is another turn for the same model and section of the block, which the slot hands out
while somebody listens; the turn that samples take otherwise knows nothing of it.

The rules this module keeps:
 * The copy is made after the sample was answered and counted: it delays the next
   sample, and is no part of any duration.
 * Whatever fails here costs the sample nothing: it is logged once, and no more copies
   are made.
"""

import logging
import mmap
import os
import time

import numpy as np
from msgspec.structs import replace

from agent.core.reasons import Reason
from agent.core.shadow_ring import RING_BYTES, RingWriter
from agent.core.statistics_block import NEXT_SEQ
from agent.worker.model import LoadedModel
from agent.worker.opinion import FormOpinion, Opinion, build_opinion
from agent.worker.samples import Arrays, Sample
from agent.worker.shedding import thin_turn
from agent.worker.statistics import StatisticsWriter
from agent.worker.tapped import Tapped, render_record
from agent.worker.turn import Emit, Turn, build_turn
from agent.worker.watch import Watcher

log = logging.getLogger(__name__)
_Answer = tuple[Arrays, Arrays, int, float]  # inputs, outputs, label index, score


class Tap:
    """One ring, mapped, and how often something goes in."""

    def __init__(self, descriptor: int, every: int) -> None:
        try:
            self._memory = mmap.mmap(descriptor, RING_BYTES)
        finally:
            os.close(descriptor)
        self._ring = RingWriter(memoryview(self._memory))
        self._every = max(1, every)
        self._works = True

    def build_turn(
        self,
        model: LoadedModel,
        statistics: StatisticsWriter,
        start: int,
        emit: Emit | None,
        watcher: Watcher | None = None,
        every: int = 1,
    ) -> Turn:
        """Return the turn of a model with a copy of one in so many samples.

        Where only one in ``every`` is answered, a shadow that remembers is given the
        others, too: as the model it shadows is.
        """
        words, clock, copied = statistics.words, time.perf_counter_ns, self._every
        remembers = model.manifest.remembers
        heard: list[_Answer] = []
        answered = 0

        def keep(
            seq: int, index: int, score: float, inputs: Arrays, outputs: Arrays
        ) -> None:
            if emit is not None:
                emit(seq, index, score, inputs, outputs)
            heard.append((inputs, outputs, index, score))

        answer = build_turn(model, statistics, start, keep, watcher)
        answer = thin_turn(answer, every, model, statistics, start)
        form = build_opinion(model)

        def turn(sample: Sample) -> int:
            nonlocal answered
            place = seq = words[NEXT_SEQ]
            began = clock()
            heard.clear()
            ended = answer(sample)
            if every > 1 and heard:
                # Of numbers, those that are answered could all be the odd ones.
                place = answered = answered + 1
            if not place % copied and (heard or remembers):
                said = heard[0] if heard else None
                self._copy(Tapped(seq, sample, None, ended - began), said, form)
            return ended

        return turn

    def close(self) -> None:
        """Let the ring go; no turn of this tap may be used any more."""
        self._works = False
        self._ring.close()
        self._memory.close()

    def _copy(self, tapped: Tapped, said: _Answer | None, form: FormOpinion) -> None:
        """Leave a copy, as long as that works."""
        if not self._works or not self._ring.has_room():
            return
        try:
            opinion = _believable(form(*said)) if said else None
            self._ring.write(render_record(replace(tapped, opinion=opinion)))
        except Exception as err:  # noqa: BLE001 - a shadow is worth no sample: it ends, logged
            self._works = False
            facts = {"reason": Reason.INTERNAL}
            log.warning("samples cannot be shadowed: %s", err, extra=facts)


def _believable(opinion: Opinion) -> Opinion | None:
    """Return an opinion with which another one could agree: none of NaN."""
    finite = all(np.isfinite(values).all() for values in opinion.outputs)
    return opinion if finite else None
