"""The control thread in a process of its own making: real tiny models, real socket."""

import mmap
import os
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from agent.core.flow import BoardSource
from agent.core.manifest import Manifest, render_manifest
from agent.core.messages import (
    MAX_MESSAGE_BYTES,
    Activate,
    Commission,
    Configure,
    Discard,
    FromChild,
    Load,
    Loaded,
    Message,
    NewSource,
    Refused,
    Shed,
    Stop,
    Swapped,
    Tap,
    Tapped,
    Untap,
    Watch,
    Watched,
    parse_from_child,
    render_message,
)
from agent.core.reasons import Reason
from agent.core.shadow_ring import RING_BYTES, RingReader
from agent.core.statistics_block import (
    FIRST_OUTCOME,
    OUTCOME_INDEX,
    section_start,
)
from agent.core.watching import Monitored
from agent.supervise.memfd import shared_memory
from agent.worker.channel import ChildChannel
from agent.worker.content import seal_content
from agent.worker.control import Control, candidate_builder
from agent.worker.loop import Loop
from agent.worker.model import LoadedModel
from agent.worker.samples import Sample
from agent.worker.slot import Candidate, ModelSlot
from agent.worker.tap import Tap as Listening
from agent.worker.watch import Watcher
from agent.worker.watch_build import watcher_builder
from tests.fakes.scripted_eye import ListReporter, ScriptedEye
from tests.fakes.tiny_models import content, executor, manifest
from tests.fakes.worker_parts import Board

SAMPLE = np.ones((1, 4), np.float32)


class Endless:
    """A source that always has a sample."""

    ready_ns = 1
    dropped = partial = 0
    ended = False

    def __init__(self) -> None:
        self.replaced: list[int] = []

    def take(self, timeout_s: float) -> Sample | None:
        """Return a sample, a little later."""
        threading.Event().wait(min(timeout_s, 0.0005))
        return SAMPLE

    def replace(self, descriptor: int) -> None:
        """Note and close the descriptor."""
        self.replaced.append(descriptor)
        os.close(descriptor)


@dataclass
class Watching:
    """The eyes that a worker's watchers got, by the load they were built for."""

    reporter: ListReporter = field(default_factory=ListReporter)
    eyes: dict[int, ScriptedEye] = field(default_factory=dict)
    orders: list[Watch] = field(default_factory=list)

    def build_eye(self, order: Watch, model: LoadedModel) -> ScriptedEye:
        """Build an eye."""
        self.orders.append(order)
        return self.eyes.setdefault(model.generation, ScriptedEye())

    def last(self, generation: int) -> Monitored:
        """Return what the monitor of a load said last."""
        said = [it for it in self.reporter.reports if it.generation == generation]
        assert isinstance(said[-1], Watched)
        return said[-1].monitored


@dataclass
class Worker:
    """A loop and a control thread, seen from the daemon's end of the socket."""

    ours: socket.socket
    board: Board
    source: Endless
    stated: Manifest
    watching: "Watching"

    def send(self, message: Message, *descriptors: int) -> None:
        """Send an order."""
        socket.send_fds(self.ours, [render_message(message)], list(descriptors))

    def ask(self, message: Message, *descriptors: int) -> FromChild:
        """Send an order and return the answer."""
        self.send(message, *descriptors)
        return parse_from_child(self.ours.recv(MAX_MESSAGE_BYTES))

    def load(self, generation: int, model: bytes | None = None) -> FromChild:
        """Have a model loaded."""
        descriptor = seal_content(model or content("quantised"), "model")
        raw = render_manifest(self.stated)
        try:
            return self.ask(Load(generation, raw, "quantised", executor()), descriptor)
        finally:
            os.close(descriptor)


@pytest.fixture
def worker() -> Iterator[Worker]:
    """Give a loop and a control thread that run; they are stopped in the end."""
    yield from run_worker(None)


def run_worker(broken: Exception | None) -> Iterator[Worker]:
    """Run a worker in threads; with ``broken`` its candidates cannot be bound."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.settimeout(60)
    board, source = Board(), Endless()
    slot = ModelSlot(board.writer)
    build = candidate_builder("p", [], board.writer, lambda: 0.0)

    def bind(
        model: LoadedModel,
        section: int,
        tap: Listening | None = None,
        watcher: Watcher | None = None,
    ) -> Candidate:
        if broken is not None:
            raise broken
        return build(model, section, tap, watcher)

    channel = ChildChannel(theirs.detach())
    watching = Watching()
    watch = watcher_builder(watching.reporter, build=watching.build_eye)
    control = Control(channel, slot, board.writer, source, bind, watch)
    loop = Loop(source, slot, board.writer, lambda: None)
    threads = [threading.Thread(target=it) for it in (control.run, loop.run)]
    for thread in threads:
        thread.start()
    worker = Worker(ours, board, source, manifest("quantised"), watching)
    try:
        yield worker
    finally:
        worker.send(Stop())
        for thread in threads:
            thread.join()
        ours.close()
        channel._socket.close()


def generations(worker: Worker) -> list[int]:
    """Return the generations of both sections, the active one last."""
    while True:
        try:
            block = worker.board.block()
        except AssertionError:  # copied within a store
            continue
        sections = block.sections
        return [
            sections[1 - block.active].generation,
            sections[block.active].generation,
        ]


def test_load_then_activate(worker: Worker) -> None:
    """A candidate is built beside the model that answers, then takes its place."""
    for generation in (1, 2, 3):
        loaded = worker.load(generation)
        before = generations(worker)
        swapped = worker.ask(Activate(generation))
        assert isinstance(loaded, Loaded)
        assert isinstance(swapped, Swapped)
        assert (loaded.generation, swapped.generation) == (generation, generation)
        assert before[1] == generation - 1
        assert generations(worker) == [generation - 1, generation]
        assert swapped.first_seq <= worker.board.writer.words[8]


def test_activate_without_load(worker: Worker) -> None:
    """What was not loaded, or was discarded, or refused, cannot answer."""
    assert worker.ask(Activate(1)) == Refused(1, Reason.INTERNAL, "it is not loaded")
    worker.load(2)
    assert isinstance(worker.ask(Activate(1)), Refused)
    worker.load(3)
    worker.send(Discard(3))
    assert isinstance(worker.ask(Activate(3)), Refused)
    assert generations(worker) == [0, 0]


def test_a_refused_load_leaves_the_model(worker: Worker) -> None:
    """Other bytes than signed are refused; the model that answers goes on."""
    worker.load(1)
    worker.ask(Activate(1))
    refused = worker.load(2, content("logarithm"))
    assert isinstance(refused, Refused)
    assert (refused.generation, refused.reason) == (2, Reason.DIGEST)
    assert generations(worker)[1] == 1
    assert isinstance(worker.load(3), Loaded)


@pytest.mark.parametrize(
    ("err", "reason"),
    [
        (MemoryError("enough"), Reason.MEMORY),
        (ValueError("a bug of ours"), Reason.INTERNAL),
    ],
)
def test_whatever_fails_is_answered(err: Exception, reason: Reason) -> None:
    """No memory and our own mistakes are answers, too, and the thread lives on."""
    for worker in run_worker(err):
        for generation in (1, 2):
            refused = worker.load(generation)
            assert isinstance(refused, Refused)
            assert (refused.generation, refused.reason) == (generation, reason)


def test_a_new_source_is_handed_over(worker: Worker) -> None:
    """The descriptor of a program's next life goes to the source."""
    reader, writer = os.pipe()
    worker.send(NewSource(), reader)
    worker.load(1)  # orders are performed one after the other
    os.close(reader)
    os.close(writer)
    assert len(worker.source.replaced) == 1


def test_an_order_that_does_not_belong_here(worker: Worker) -> None:
    """A second Configure is refused."""
    refused = worker.ask(Configure("p", BoardSource(), ()))
    assert isinstance(refused, Refused)
    assert refused.reason == Reason.INTERNAL


def test_a_tap_comes_and_goes(worker: Worker) -> None:
    """Samples are copied between Tap and Untap; the model and its counts go on."""
    ring = shared_memory("ring", RING_BYTES)
    memory = mmap.mmap(ring, RING_BYTES)
    reader = RingReader(memoryview(memory))
    worker.load(1)
    worker.ask(Activate(1))
    assert worker.ask(Tap(2), ring) == Tapped(2)
    while reader.read() is None:
        threading.Event().wait(0.001)
    assert generations(worker)[1] == 1
    assert worker.ask(Untap(3)) == Tapped(3)
    while reader.read() is not None:
        pass
    threading.Event().wait(0.01)
    assert (reader.read(), worker.ask(Untap(4))) == (None, Tapped(4))
    assert generations(worker)[1] == 1
    reader.close()
    memory.close()
    os.close(ring)


def ends_as(worker: Worker, reason: Reason, more: int = 10) -> None:
    """Wait until more samples have ended so."""
    at = FIRST_OUTCOME + OUTCOME_INDEX[reason]
    words = worker.board.writer.words

    def count() -> int:
        return sum(words[section_start(section) + at] for section in (0, 1))

    wanted, deadline_s = count() + more, time.monotonic() + 60
    while count() < wanted:
        assert time.monotonic() < deadline_s, f"no samples end as {reason or 'ok'}"
        threading.Event().wait(0.001)


def test_an_order_to_shed_outlives_swaps_and_taps(worker: Worker) -> None:
    """It comes before any model, and holds for each that is loaded, listened or not."""
    ring = shared_memory("ring", RING_BYTES)
    worker.send(Shed(answer="abstain"))
    for generation in (1, 2):
        worker.load(generation)
        worker.ask(Activate(generation))
        ends_as(worker, Reason.ABSTAINED)
    assert worker.ask(Tap(3), ring) == Tapped(3)
    ends_as(worker, Reason.ABSTAINED)
    worker.send(Shed(2))
    ends_as(worker, Reason.SHED)
    ends_as(worker, Reason.NONE)
    assert worker.ask(Untap(4)) == Tapped(4)  # the ring is the one that was tapped
    ends_as(worker, Reason.SHED)
    worker.load(5)
    worker.send(Shed())
    worker.ask(Activate(5))
    assert worker.board.writer.words[section_start(0)] == 5
    ends_as(worker, Reason.NONE)
    shed = FIRST_OUTCOME + OUTCOME_INDEX[Reason.SHED]
    assert worker.board.writer.words[section_start(0) + shed] == 0
    os.close(ring)


def test_a_swap_ends_a_tap(worker: Worker) -> None:
    """The ring is let go with the model it listened to; another tap replaces one."""
    rings = [shared_memory(f"listened-{number}", RING_BYTES) for number in range(3)]
    worker.load(1)
    worker.ask(Activate(1))
    for number, ring in enumerate(rings):
        assert worker.ask(Tap(10 + number), ring) == Tapped(10 + number)
        os.close(ring)
    mapped = Path("/proc/self/maps").read_text(encoding="ascii")
    assert ["listened-2" in mapped, "listened-1" in mapped] == [True, False]
    worker.load(20)
    worker.ask(Activate(20))
    assert "listened" not in Path("/proc/self/maps").read_text(encoding="ascii")


def test_nothing_answers_and_nobody_can_listen(worker: Worker) -> None:
    """Without a model there is nothing to tap, and its ring is let go."""
    ring = shared_memory("listened", RING_BYTES)
    refused = worker.ask(Tap(1), ring)
    os.close(ring)
    assert isinstance(refused, Refused)
    assert (refused.generation, refused.reason) == (1, Reason.NO_MODEL)
    assert worker.ask(Untap(2)) == Tapped(2)
    assert "listened" not in Path("/proc/self/maps").read_text(encoding="ascii")


def test_a_ring_that_is_none(worker: Worker) -> None:
    """What cannot be mapped is refused; the thread lives on."""
    worker.load(1)
    worker.ask(Activate(1))
    reader, writer = os.pipe()
    refused = worker.ask(Tap(2), reader)
    os.close(reader)
    os.close(writer)
    assert isinstance(refused, Refused)
    assert refused.reason == Reason.INTERNAL
    assert isinstance(worker.load(3), Loaded)


def until_looked(worker: Worker, generation: int, more: int = 1) -> ScriptedEye:
    """Wait until a load's monitor has looked at a few more samples."""
    eye = worker.watching.eyes[generation]
    wanted = len(eye.looked) + more
    while len(eye.looked) < wanted:
        threading.Event().wait(0.001)
    return eye


def test_a_model_is_watched_as_ordered(worker: Worker) -> None:
    """The order before a load is that load's; its last word comes with the swap."""
    order = Watch(1, profile=b"p", site=b"s", cpu_share=0.5, site_samples=300)
    worker.send(order)
    worker.load(1)
    worker.ask(Activate(1))
    assert worker.watching.orders == [order]
    eye = until_looked(worker, 1, 3)
    worker.load(2)
    worker.ask(Activate(2))
    seen = len(eye.looked)
    assert worker.watching.last(1).samples == seen
    threading.Event().wait(0.01)
    assert len(eye.looked) == seen
    assert worker.watching.reporter.started == 1


def test_an_order_is_for_its_own_load_only(worker: Worker) -> None:
    """A load without an order before it is not watched, nor one with another's."""
    worker.load(1)
    worker.send(Watch(7))
    worker.load(2)
    worker.load(7)
    worker.ask(Activate(7))
    assert worker.watching.orders == []


def test_a_tap_leaves_the_watcher_alone(worker: Worker) -> None:
    """One eye sees the samples before, during and after a tap."""
    worker.send(Watch(1, cpu_share=0.5))
    worker.load(1)
    worker.ask(Activate(1))
    until_looked(worker, 1)
    ring = shared_memory("listened", RING_BYTES)
    worker.ask(Tap(2), ring)
    os.close(ring)
    until_looked(worker, 1, 2)
    worker.ask(Untap(3))
    eye = until_looked(worker, 1, 2)
    assert eye.looked == sorted(set(eye.looked))
    assert len(worker.watching.eyes) == 1


def test_an_operators_order_reaches_the_model_it_is_for(worker: Worker) -> None:
    """The monitor of the model that answers collects a new baseline; others do not."""
    worker.send(Watch(1, cpu_share=0.5))
    worker.load(1)
    worker.ask(Activate(1))
    worker.send(Commission(9, 1))
    worker.send(Watch(2, cpu_share=0.5))
    worker.load(2)
    worker.send(Commission(1, 1))
    assert isinstance(worker.load(3), Loaded)  # both orders were performed by then
    until_looked(worker, 1, 2)
    commissioned = {n: eye.commissioned for n, eye in worker.watching.eyes.items()}
    assert (len(commissioned[1]), commissioned[2]) == (1, [])
