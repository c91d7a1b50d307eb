"""The tap: copies of samples go into a ring, and nothing else changes."""

import mmap
import os
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import pytest
from msgspec.structs import replace as with_fields

from agent.core.messages import Shed
from agent.core.shadow_ring import RING_BYTES, RingReader
from agent.core.steps import Window
from agent.supervise.memfd import shared_memory
from agent.worker.control import candidate_builder
from agent.worker.loop import Loop
from agent.worker.samples import Sample
from agent.worker.slot import ModelSlot
from agent.worker.tap import Tap
from agent.worker.tapped import Tapped, parse_record
from tests.fakes.scripted_eye import (
    S_NS,
    ListReporter,
    ScriptedEye,
    Times,
    scripted_watcher,
)
from tests.fakes.worker_parts import (
    BAD,
    ENGINE,
    OK,
    WARMING,
    Board,
    ListSink,
    ScriptedSource,
    sample,
    scripted_model,
)


class Listener:
    """The shadow's end of a ring."""

    def __init__(self) -> None:
        self.descriptor = shared_memory("ring", RING_BYTES)
        self._memory = mmap.mmap(self.descriptor, RING_BYTES)
        self.ring = RingReader(memoryview(self._memory))

    def tap(self, every: int = 1) -> Tap:
        """Return a tap that fills the ring."""
        return Tap(os.dup(self.descriptor), every)

    def heard(self) -> Iterator[Tapped]:
        """Yield what is in the ring."""
        while (record := self.ring.read()) is not None:
            yield parse_record(record)

    def close(self) -> None:
        """Let everything go; raises BufferError if a view were left."""
        self.ring.close()
        self._memory.close()
        os.close(self.descriptor)


@pytest.fixture
def listener() -> Iterator[Listener]:
    """Give a ring; it is closed in the end."""
    made = Listener()
    yield made
    made.close()


def open_descriptors() -> int:
    """Return how many descriptors this process has."""
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - names alone


WORDS = [OK, BAD, OK, WARMING, ENGINE, OK, OK]


def answered(tap: Tap | None) -> tuple[Board, ListSink]:
    """Answer the words three times; somebody listens the second time, if at all."""
    board, sink = Board(), ListSink()
    slot = ModelSlot(board.writer)
    build = candidate_builder("p", [(0, sink)], board.writer, lambda: 0.0)
    model = scripted_model(1)

    def change(source: ScriptedSource) -> Sample | None:
        del source
        assert slot.wanted is not None
        slot.wanted = build(model, 0, None if slot.wanted.tap else tap)
        return sample(OK)

    def give(word: int) -> Callable[[ScriptedSource], Sample | None]:
        return lambda _: sample(word)

    slot.wanted = build(model, 0)
    steps = [give(word) for word in WORDS]
    source = ScriptedSource(slot, [*steps, change, *steps, change, *steps])
    Loop(source, slot, board.writer, lambda: None).run()
    return board, sink


def test_outcomes_and_sums_go_on(listener: Listener) -> None:
    """With and without a tap, and across both changes, the block is the same."""
    tap = listener.tap()
    sections = []
    for board, sink in (answered(None), answered(tap)):
        section = board.block().sections[0]
        assert sum(section.stages[-1].buckets) == section.outcomes[0] == 14
        assert section.stages[1].sum_ns > 0
        assert len(sink.records) == 14
        sections.append((section.received, section.outcomes, section.labels))
    assert sections[0] == sections[1]
    # The sample that comes with a change is answered by the turn before it.
    assert [it.seq for it in listener.heard()] == [9, 11, 14, 15, 16]
    tap.close()


def test_sums_never_fall_between_turns(listener: Listener) -> None:
    """The turn that follows another goes on from what its section holds."""
    board = Board()
    slot = ModelSlot(board.writer)
    build = candidate_builder("p", [], board.writer, lambda: 0.0)
    model = scripted_model(1)
    tap = listener.tap()
    before = 0
    for with_tap in (None, tap, None):
        turn = slot.enter(build(model, 0, with_tap))
        for _ in range(5):
            turn(sample(OK))
        section = board.block().sections[0]
        assert section.stages[-1].sum_ns > before
        before = section.stages[-1].sum_ns
    assert board.block().sections[0].outcomes[0] == 15
    tap.close()


@pytest.mark.parametrize("every", [1, 3, 10])
def test_one_in_so_many(listener: Listener, every: int) -> None:
    """Copies are of every N-th number, whole and with what was said."""
    board = Board()
    build = candidate_builder("p", [], board.writer, lambda: 0.0)
    tap = listener.tap(every)
    turn = ModelSlot(board.writer).enter(build(scripted_model(1), 0, tap))
    for number in range(30):
        turn(np.array([OK, number]))
    heard = list(listener.heard())
    assert [it.seq for it in heard] == [n for n in range(1, 31) if not n % every]
    for it in heard:
        assert isinstance(it.sample, np.ndarray)
        assert it.sample.tolist() == [OK, it.seq - 1]
        assert it.opinion is not None
        assert it.opinion.labels == (scripted_model(1).labels[1],)
        assert it.total_ns > 0
    tap.close()


def test_a_full_ring_costs_nothing(listener: Listener) -> None:
    """Whoever does not listen loses copies; every sample is answered."""
    board = Board()
    build = candidate_builder("p", [], board.writer, lambda: 0.0)
    tap = listener.tap()
    turn = ModelSlot(board.writer).enter(build(scripted_model(1), 0, tap))
    for _ in range(100):
        turn(sample(OK))
    assert board.block().sections[0].outcomes[0] == 100
    assert len(list(listener.heard())) + listener.ring.dropped == 100
    assert listener.ring.dropped > 0
    tap.close()


def test_models_that_remember_are_given_everything(listener: Listener) -> None:
    """Samples without an answer, too: the next answer depends on them."""
    board = Board()
    build = candidate_builder("p", [], board.writer, lambda: 0.0)
    model = scripted_model(1)
    stated = with_fields(model.manifest, preprocess=(Window(length=2),))
    remembering = replace(model, manifest=stated)
    tap = listener.tap()
    turn = ModelSlot(board.writer).enter(build(remembering, 0, tap))
    for word in (OK, WARMING, BAD, OK):
        turn(sample(word))
    heard = [(it.seq, it.opinion is not None) for it in listener.heard()]
    assert heard == [(1, True), (2, False), (3, False), (4, True)]
    tap.close()


@pytest.mark.parametrize("copied", [1, 2, 3])
@pytest.mark.parametrize("every", [2, 3])
def test_one_in_so_many_of_those_that_are_answered(
    listener: Listener, copied: int, every: int
) -> None:
    """A shadow hears as large a part of the answers while others are shed."""
    board = Board()
    build = candidate_builder("p", [], board.writer, lambda: 0.0)
    tap, slot = listener.tap(copied), ModelSlot(board.writer)
    slot.shed = Shed(every)
    turn = slot.enter(build(scripted_model(1), 0, tap))
    for _ in range(36):
        turn(sample(OK))
    answered = range(1, 37, every)
    assert [it.seq for it in listener.heard()] == list(answered)[copied - 1 :: copied]
    tap.close()


def test_a_shadow_that_remembers_is_given_what_is_shed(listener: Listener) -> None:
    """Its window is filled as the active model's is; nobody listens to a silence."""
    board = Board()
    build = candidate_builder("p", [], board.writer, lambda: 0.0)
    model = scripted_model(1)
    stated = with_fields(model.manifest, preprocess=(Window(length=2),))
    tap, slot = listener.tap(), ModelSlot(board.writer)
    for order in (Shed(2), Shed(answer="safe_output")):
        slot.shed = order
        turn = slot.enter(build(replace(model, manifest=stated), 0, tap))
        for _ in range(3):
            turn(sample(OK))
    heard = [(it.seq, it.opinion is not None) for it in listener.heard()]
    assert heard == [(1, True), (2, False), (3, True)]
    tap.close()


def test_what_cannot_be_copied_is_said_once(
    listener: Listener, caplog: pytest.LogCaptureFixture
) -> None:
    """Samples go on, and nothing more is copied."""
    board = Board()
    build = candidate_builder("p", [], board.writer, lambda: 0.0)
    tap = listener.tap()
    turn = ModelSlot(board.writer).enter(build(scripted_model(1), 0, tap))
    turn(np.array([OK, "no number"], dtype=object))
    for _ in range(3):
        turn(sample(OK))
    assert board.block().sections[0].outcomes[0] == 4
    assert list(listener.heard()) == []
    assert [record.message for record in caplog.records] == [
        "samples cannot be shadowed: only numbers can be shadowed"
    ]
    tap.close()


def test_a_tap_leaves_no_descriptor(listener: Listener) -> None:
    """The ring is mapped, its descriptor closed, also where mapping fails."""
    before = open_descriptors()
    listener.tap().close()
    reader, writer = os.pipe()
    with pytest.raises(OSError, match="denied"):
        Tap(reader, 1)
    os.close(writer)
    assert open_descriptors() == before


def test_a_tap_and_a_watcher_see_the_same(listener: Listener) -> None:
    """Both at once, and the watcher goes on when the tap comes and goes."""
    board, times, eye = Board(), Times(), ScriptedEye(interval=2)
    watcher = scripted_watcher(eye, ListReporter(), times)
    slot = ModelSlot(board.writer)
    build = candidate_builder("p", [], board.writer, lambda: 0.0)
    model = scripted_model(1)
    tap = listener.tap()
    for with_tap in (None, tap, None):
        turn = slot.enter(build(model, 0, with_tap, watcher))
        for _ in range(6):
            times.now_ns += S_NS
            turn(sample(OK))
    assert [it.seq for it in listener.heard()] == list(range(7, 13))
    assert eye.looked == list(range(1, 19, 2))
    assert board.block().sections[0].outcomes[0] == 18
    tap.close()
