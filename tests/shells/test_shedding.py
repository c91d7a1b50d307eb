"""Answering less than every sample: each ends once, and resumed models are whole."""

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from agent.core.degradation import SafeOutput
from agent.core.manifest import StateLink
from agent.core.messages import Shed
from agent.core.reasons import Reason
from agent.core.statistics_block import OUTCOMES, section_start
from agent.core.steps import Window
from agent.worker.control import candidate_builder
from agent.worker.loop import Loop
from agent.worker.model import LoadedModel
from agent.worker.samples import Sample
from agent.worker.shedding import build_constant_turn, thin_turn
from agent.worker.slot import ModelSlot
from agent.worker.turn import build_turn
from tests.fakes.scripted_eye import (
    ListReporter,
    ScriptedEye,
    Times,
    scripted_watcher,
)
from tests.fakes.worker_parts import (
    BAD,
    OK,
    OUTPUT,
    Board,
    ListSink,
    ScriptedSource,
    sample,
    scripted_model,
)

SAFE = SafeOutput("stop", -1.0)
orders = st.builds(
    Shed,
    every=st.integers(1, 4),
    answer=st.sampled_from(["model", "abstain", "safe_output"]),
    safe_output=st.just(SAFE),
)
events = st.lists(
    st.one_of(st.sampled_from([OK, BAD, OUTPUT]), st.just("swap"), orders),
    max_size=60,
)
ENDS_AS = {OK: Reason.NONE, BAD: Reason.INPUT, OUTPUT: Reason.OUTPUT}


class Bench:
    """A loop whose samples, swaps and orders come from a script."""

    def __init__(self) -> None:
        self.board = Board()
        self.slot = ModelSlot(self.board.writer)
        self.sink = ListSink()
        self.version = 0
        self.left = 0
        self.expected: Counter[Reason] = Counter()
        self.said: list[object] = []
        self.counted: dict[int, tuple[int, ...]] = {}

    def swap(self) -> None:
        """Let the next version answer, as the control thread does."""
        self.version += 1
        build = candidate_builder("p", [(0, self.sink)], self.board.writer, lambda: 0.0)
        section = 1 - self.slot.wanted.section if self.slot.wanted else 0
        self.slot.exchange(build(scripted_model(self.version), section), 0)
        self.left = 0

    def order(self, order: Shed) -> None:
        """Shed, as the control thread does."""
        self.slot.shed = order
        assert self.slot.wanted is not None
        self.slot.exchange(dataclasses.replace(self.slot.wanted), 0)
        self.left = 0

    def expect(self, word: int) -> None:
        """Note how a sample has to end, and what is written of it."""
        order, left = self.slot.shed, self.left
        self.left = left - 1 if left else order.every - 1
        if left:
            self.expected[Reason.SHED] += 1
        elif order.answer == "model":
            self.expected[ENDS_AS[word]] += 1
            self.said += [str(self.version % 3)] if word == OK else []
        else:
            self.expected[Reason.ABSTAINED] += 1
            self.said += [SAFE.label] if order.answer == "safe_output" else []

    def step(self, event: object) -> Callable[[ScriptedSource], Sample | None]:
        """Turn an event into a step of the source."""

        def perform(source: ScriptedSource) -> Sample | None:
            del source
            if isinstance(event, int):
                self.expect(event)
                return sample(event)
            if isinstance(event, Shed):
                self.order(event)
            else:
                self.swap()
            return None

        return perform

    def look(self) -> None:
        """See what is counted; nothing of it is ever torn, and never falls."""
        for generation, outcomes, received in self.board.sections():
            assert received - sum(outcomes) in (0, 1)
            before = self.counted.get(generation, outcomes)
            assert all(a <= b for a, b in zip(before, outcomes, strict=True))
            self.counted[generation] = outcomes

    def run(self, script: list[object]) -> None:
        """Let the loop work through a script."""
        self.swap()
        steps = [self.step(event) for event in script]
        source = ScriptedSource(self.slot, steps, self.look)
        Loop(source, self.slot, self.board.writer, lambda: None).run()
        self.look()

    def outcomes(self) -> Counter[Reason]:
        """Return what was counted, over all versions."""
        total: Counter[Reason] = Counter()
        for outcomes in self.counted.values():
            for (_, reason), number in zip(OUTCOMES, outcomes, strict=True):
                total[reason] += number
        return +total


@given(events)
def test_every_sample_ends_once_however_much_is_shed(script: list[object]) -> None:
    """Any sequence of orders and swaps leaves each sample exactly one outcome."""
    bench = Bench()
    bench.run(script)
    assert bench.outcomes() == bench.expected
    numbers = bench.board.block().next_seq - 1
    assert numbers == sum(isinstance(event, int) for event in script)


@given(events)
def test_sinks_hear_answers_and_constants_only(script: list[object]) -> None:
    """A shed sample and one that nobody answers leave no line."""
    bench = Bench()
    bench.run(script)
    assert [line["label"] for line in bench.sink.records] == bench.said


@given(events)
def test_what_the_model_did_not_answer_is_in_no_duration(script: list[object]) -> None:
    """Histograms and labels count the model's answers, and only those."""
    bench = Bench()
    bench.run(script)
    for section in bench.board.block().sections:
        answered = section.outcomes[0]
        assert sum(section.stages[-1].buckets) == sum(section.labels) == answered


def test_where_nothing_is_shed_the_turn_is_the_usual_one() -> None:
    """Not even a comparison is added to the sample path."""
    bench = Bench()
    build = candidate_builder("p", [], bench.board.writer, lambda: 0.0)
    model = scripted_model(1)
    usual = build_turn(model, bench.board.writer, section_start(0), None)
    turn = build(model, 0).begin(Shed())
    assert turn.__code__ is usual.__code__


def test_a_constant_line_says_that_it_is_one() -> None:
    """It has the keys of any prediction line, and one that marks it."""
    bench = Bench()
    bench.run([Shed(answer="safe_output", safe_output=SAFE), OK])
    assert bench.sink.records == [
        {
            "seq": 1,
            "t": 0.0,
            "pipeline": "p",
            "model": "kws",
            "version": 1,
            "label": "stop",
            "score": -1.0,
            "outputs": {},
            "safe": True,
        }
    ]


def test_a_sink_that_fails_fails_its_sample() -> None:
    """A constant that cannot be said is no reason to end the loop."""
    board = Board()
    board.writer.enter(0, 1)

    def emit(*_: object) -> None:
        raise OSError("no pipe")

    order = Shed(answer="safe_output")
    turn = build_constant_turn(order, board.writer, section_start(0), emit)
    turn(sample(OK))
    (_, outcomes, received), *_ = board.sections()
    assert (received, outcomes[3], sum(outcomes)) == (1, 1, 1)


class Remembering:
    """A model with a window, or with state, that notes what it is given."""

    def __init__(self, kind: Literal["window", "state"]) -> None:
        self.prepared: list[int] = []
        self.inferred: list[int] = []
        plain = scripted_model(1)
        windows = replace(plain.manifest, preprocess=(Window(length=2),))
        stateful = replace(plain.manifest, state=(StateLink("out", "in"),))

        def preprocess(taken: Sample) -> list[np.ndarray]:
            assert isinstance(taken, np.ndarray)
            self.prepared.append(int(taken.flat[0]))
            return [np.zeros(1), taken]

        def infer(inputs: object) -> list[np.ndarray]:
            del inputs
            self.inferred.append(self.prepared[-1])
            return [np.zeros(1)]

        self.model: LoadedModel = dataclasses.replace(
            plain,
            manifest=windows if kind == "window" else stateful,
            preprocess=preprocess,
            infer=infer,
            reset=lambda: self.prepared.append(-1),
        )

    def answer(self, every: int, numbers: range) -> None:
        """Let it answer one in so many of these samples."""
        board, start = Board(), section_start(0)
        board.writer.enter(0, 1)
        turn = build_turn(self.model, board.writer, start, None)
        thinned = thin_turn(turn, every, self.model, board.writer, start)
        for number in numbers:
            thinned(np.array([number]))


def test_a_window_is_filled_by_samples_that_are_shed() -> None:
    """It sees every sample, so that time does not run at double speed in it."""
    bench = Remembering("window")
    bench.answer(3, range(10, 17))
    assert bench.prepared == list(range(10, 17))
    assert bench.inferred == [10, 13, 16]


def test_a_shed_sample_that_cannot_be_read_has_failed() -> None:
    """What no window can take is no sample that was left out on purpose."""
    board, model = Board(), scripted_model(1)
    board.writer.enter(0, 1)
    stated = replace(model.manifest, preprocess=(Window(length=2),))
    windowed = dataclasses.replace(model, manifest=stated)
    turn = build_turn(windowed, board.writer, section_start(0), None)
    thinned = thin_turn(turn, 2, windowed, board.writer, section_start(0))
    for word in (OK, BAD, OK, OK):
        thinned(sample(word))
    (_, outcomes, _), *_ = board.sections()
    counted = {reason: n for (_, reason), n in zip(OUTCOMES, outcomes, strict=True)}
    assert (counted[Reason.NONE], counted[Reason.INPUT], counted[Reason.SHED]) == (
        *(2, 1),
        1,
    )


def test_a_model_with_state_sheds_nothing() -> None:
    """Its state would be that of a signal with every other sample cut out."""
    bench = Remembering("state")
    bench.answer(2, range(4))
    assert bench.inferred == [0, 1, 2, 3]


@pytest.mark.parametrize("answer", ["abstain", "safe_output"])
def test_a_model_that_remembers_begins_anew_after_a_silence(
    answer: Literal["abstain", "safe_output"],
) -> None:
    """What it remembers from before the silence is forgotten, once."""
    bench = Bench()
    remembering = Remembering("window")
    build = candidate_builder("p", [], bench.board.writer, lambda: 0.0)

    def steps() -> Iterator[Callable[[ScriptedSource], Sample | None]]:
        yield lambda _: np.array([1])
        for order in (Shed(answer=answer), Shed(2, answer), Shed(), Shed(2)):
            yield lambda _, order=order: bench.order(order)  # type: ignore[misc]  # a bound default
            yield lambda _: np.array([2])

    bench.slot.exchange(build(remembering.model, 0), 0)
    source = ScriptedSource(bench.slot, steps())
    Loop(source, bench.slot, bench.board.writer, lambda: None).run()
    assert remembering.prepared == [1, -1, 2, 2]


def test_a_new_model_has_nothing_to_forget() -> None:
    """A swap during a silence brings a model that was never asked."""
    bench = Bench()
    remembering = Remembering("window")
    bench.run([Shed(answer="abstain"), OK])
    build = candidate_builder("p", [], bench.board.writer, lambda: 0.0)
    bench.slot.enter(build(remembering.model, 1))
    bench.slot.shed = Shed()
    bench.slot.enter(build(remembering.model, 1))
    assert remembering.prepared == [-1]  # harmless: it is the first of its samples


def test_no_monitor_looks_at_what_was_not_answered() -> None:
    """A constant is no answer of the model, and its input was not looked at."""
    board, times = Board(), Times()
    board.writer.enter(0, 1)
    eye = ScriptedEye()
    watcher = scripted_watcher(eye, ListReporter(), times)
    build = candidate_builder("p", [], board.writer, lambda: 0.0)
    candidate = build(scripted_model(1), 0, watcher=watcher)
    for order, looks in ((Shed(answer="abstain"), 0), (Shed(), 1)):
        turn = candidate.begin(order)
        turn(sample(OK))
        assert len(eye.looked) == looks
