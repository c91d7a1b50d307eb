"""Answering less than every sample: the turns that a Shed order asks for.

They take the place of the usual turn when the loop takes a model, and are left when it
takes it again: a turn that nothing is shed of knows nothing of this module.

The rules this module keeps:
 * Every sample was received and ends once: answered, or as dropped (``shed``,
   ``abstained``). What the model did not answer is in no duration, no monitor's look
   and no copy for a shadow.
 * Samples are counted here, not looked up by their numbers: those that a live source
   drops have numbers, too, and could leave all the odd ones.
 * A model with a window is given the samples that are shed, too: their preprocess fills
   the window, only the inference is saved. Every other sample alone would be a signal
   played at double speed, which no model was trained on. For the same reason a model
   that carries state from inference to inference sheds nothing.
 * Who abstains says nothing: a line without a label would break every reader of lines.
   Whoever needs a word for each sample declares a safe output.
"""

import logging
import time
from collections.abc import Callable
from dataclasses import replace

from agent.core.degradation import SafeOutput
from agent.core.messages import Shed
from agent.core.reasons import Reason
from agent.core.statistics_block import (
    BUSY_SINCE_NS,
    NEXT_SEQ,
    OUTCOME_INDEX,
    RECEIVED,
)
from agent.worker.model import LoadedModel
from agent.worker.samples import Arrays, InputError, Sample
from agent.worker.statistics import StatisticsWriter
from agent.worker.turn import Emit, Turn

log = logging.getLogger(__name__)
NOTHING: Arrays = []
Act = Callable[[int, Sample], object]  # what is done with a sample that is not answered


def answers(order: Shed) -> bool:
    """Whether the model answers at all."""
    return order.answer == "model"


def thin_turn(
    turn: Turn, every: int, model: LoadedModel, statistics: StatisticsWriter, start: int
) -> Turn:
    """Return a turn that answers one in so many samples, the first one included.

    Args:
        turn: What answers.
        every: One in so many; with 1 ``turn`` is returned as it is.
        model: Whose turn it is.
        statistics: Where the others are counted, in the section at word ``start``.
        start: See above.
    """
    if every <= 1 or model.manifest.state:
        return turn
    act = _pass
    if model.manifest.remembers:  # without state that is a window: preprocess fills it

        def act(seq: int, sample: Sample) -> None:
            del seq
            model.preprocess(sample)

    return _thinned(turn, _unanswered(Reason.SHED, statistics, start, act), every)


def build_constant_turn(
    order: Shed,
    statistics: StatisticsWriter,
    start: int,
    emit: Emit | None,
) -> Turn:
    """Return the turn of a model that is not asked: nothing is said, or a constant.

    Args:
        order: What is said.
        statistics: Where samples are counted, in the section at word ``start``.
        start: See above.
        emit: Passes the constant on (see ``constant_model``), if anyone listens.
    """
    act = _pass
    if order.answer == "safe_output" and emit is not None:
        say = emit

        def act(seq: int, sample: Sample) -> None:
            del sample
            say(seq, -1, order.safe_output.score, NOTHING, NOTHING)

    turn = _unanswered(Reason.ABSTAINED, statistics, start, act)
    if order.every <= 1:
        return turn
    # Nobody fills a window meanwhile: it is empty when the model is asked again.
    shed = _unanswered(Reason.SHED, statistics, start, _pass)
    return _thinned(turn, shed, order.every)


def constant_model(model: LoadedModel, safe: SafeOutput) -> LoadedModel:
    """Return a model of the same name whose prediction lines say the safe output.

    They are marked, so that no reader takes them for what the model saw, and have
    ``outputs``, of which there are none, for those who always read them.
    """
    said = {"label": safe.label, "score": safe.score, "outputs": {}, "safe": True}

    def describe(
        inputs: Arrays, outputs: Arrays, index: int, score: float
    ) -> dict[str, object]:
        del inputs, outputs, index, score
        return said

    return replace(model, describe=describe)


def _thinned(turn: Turn, shed: Turn, every: int) -> Turn:
    """Return what takes the first turn once, then the second for the others."""
    left = 0

    def thinned(sample: Sample) -> int:
        nonlocal left
        if left:
            left -= 1
            return shed(sample)
        left = every - 1
        return turn(sample)

    return thinned


def _unanswered(
    reason: Reason, statistics: StatisticsWriter, start: int, act: Act
) -> Turn:
    """Return what ends a sample as dropped, after something was done with it."""
    words, clock = statistics.words, time.perf_counter_ns
    received, outcome = start + RECEIVED, OUTCOME_INDEX[reason]
    said: set[Reason] = set()

    def turn(sample: Sample) -> int:
        words[received] += 1
        seq = words[NEXT_SEQ]
        words[NEXT_SEQ] = seq + 1
        words[BUSY_SINCE_NS] = clock()
        try:
            act(seq, sample)
        except Exception as err:  # noqa: BLE001 - one bad sample ends as failed, counted
            wrong = Reason.INPUT if isinstance(err, InputError) else Reason.OUTPUT
            statistics.end(start, OUTCOME_INDEX[wrong])
            if wrong not in said:
                said.add(wrong)
                log.warning("samples fail: %s", err, extra={"reason": wrong})
        else:
            statistics.end(start, outcome)
        return clock()

    return turn


def _pass(seq: int, sample: Sample) -> None:
    """Do nothing."""
    del seq, sample
