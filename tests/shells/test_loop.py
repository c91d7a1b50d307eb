"""The loop: whatever comes, every sample ends in exactly one outcome."""

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core.reasons import Reason
from agent.core.statistics_block import (
    GAP_NS,
    OUTCOME_INDEX,
    OUTCOMES,
    TURN_NS,
)
from agent.worker.control import candidate_builder
from agent.worker.loop import Loop
from agent.worker.samples import Sample
from agent.worker.slot import Candidate, ModelSlot
from tests.fakes.scripted_eye import (
    S_NS,
    ListReporter,
    ScriptedEye,
    Times,
    scripted_watcher,
)
from tests.fakes.worker_parts import (
    BAD,
    EMIT,
    ENGINE,
    OK,
    OUTPUT,
    STRANGE,
    WARMING,
    Board,
    ListSink,
    ScriptedSource,
    sample,
    scripted_model,
    unreadable,
)

Step = Callable[[ScriptedSource], Sample | None]
ENDS_AS = {
    OK: Reason.NONE,
    BAD: Reason.INPUT,
    STRANGE: Reason.INPUT,
    WARMING: Reason.WARMING,
    ENGINE: Reason.INVOKE,
    OUTPUT: Reason.OUTPUT,
    EMIT: Reason.OUTPUT,
}
events = st.lists(
    st.one_of(
        st.sampled_from(sorted(ENDS_AS)),
        st.sampled_from(["unreadable", "nothing", "swap", "swap_during"]),
        st.tuples(st.sampled_from(["dropped", "partial"]), st.integers(1, 5)),
    ),
    max_size=40,
)


class Bench:
    """A loop on a script, with everything that it counts looked at on the way."""

    def __init__(self, room: int = 1_000_000) -> None:
        self.board = Board()
        self.slot = ModelSlot(self.board.writer)
        self.sink = ListSink(room)
        self.version = 0
        self.expected: Counter[tuple[int, Reason]] = Counter()
        self.lost: Counter[Reason] = Counter()
        self.seen: dict[int, tuple[tuple[int, ...], int]] = {}
        self.ends = 0
        self.swap()

    def swap(self) -> None:
        """Ask for the next version, as the control thread does, without waiting."""
        self.version += 1
        build = candidate_builder(
            "p", [(0, self.sink)], self.board.writer, lambda: 12.5
        )
        wanted = self.slot.wanted
        section = 1 - wanted.section if wanted else 0
        model = scripted_model(self.version, self.look)
        self.slot.exchange(build(model, section), 0)

    def look(self) -> None:
        """Check what holds at every moment: sums agree, counters never fall."""
        for generation, outcomes, received in self.board.sections():
            before, received_before = self.seen.get(
                generation, ((0,) * len(OUTCOMES), 0)
            )
            assert all(a <= b for a, b in zip(before, outcomes, strict=True))
            assert received_before <= received <= received_before + 6
            assert received - sum(outcomes) in (0, 1)
            self.seen[generation] = outcomes, received

    def step(self, event: object) -> Step:
        """Turn an event into a step of the source, and note how it must end."""
        return partial(self._perform, event)

    def _perform(self, event: object, source: ScriptedSource) -> Sample | None:
        version = self.version
        match event:
            case int():
                self.expected[version, ENDS_AS[event]] += 1
                return sample(event)
            case "unreadable":
                self.expected[version, Reason.INPUT] += 1
                return unreadable(source)
            case "swap":
                self.swap()
            case "swap_during":  # the sample was taken before the swap was seen
                self.expected[version, Reason.NONE] += 1
                self.swap()
                return sample(OK)
            case ("dropped", int(number)):
                source.dropped += number
                self.lost[Reason.OVERRUN] += number
            case ("partial", int(number)):
                source.partial += number
                self.lost[Reason.PARTIAL] += number
            case _:
                assert event == "nothing"
        return None

    def run(self, script: list[object]) -> None:
        """Let the loop work through a script."""
        source = ScriptedSource(
            self.slot, [self.step(event) for event in script], self.look
        )
        Loop(source, self.slot, self.board.writer, self.note_end).run()
        self.look()

    def note_end(self) -> None:
        """Count the calls."""
        self.ends += 1

    def counted(self) -> Counter[tuple[int, Reason]]:
        """Return what was counted: (version, reason) -> samples."""
        return Counter(
            {
                (generation, reason): count
                for generation, (outcomes, _) in self.seen.items()
                for (_, reason), count in zip(OUTCOMES, outcomes, strict=True)
                if count
            }
        )


@given(events)
def test_every_sample_ends_once_in_the_right_section(script: list[object]) -> None:
    """Any order of good, bad and lost samples and swaps is attributed exactly."""
    bench = Bench()
    bench.run(script)
    counted = bench.counted()
    lost = Counter[Reason]()
    for (version, reason), count in list(counted.items()):
        if reason in (Reason.OVERRUN, Reason.PARTIAL):
            lost[reason] += count
            del counted[version, reason]
    assert (counted, lost) == (bench.expected, bench.lost)


@given(events)
def test_numbers_have_no_hole(script: list[object]) -> None:
    """Each sample that was received, lost ones included, has a number of its own."""
    bench = Bench()
    bench.run(script)
    received = sum(received for _, received in bench.seen.values())
    assert bench.board.block().next_seq - 1 == received


@given(events)
def test_lines_tell_what_was_counted(script: list[object]) -> None:
    """Every ok sample, and no other, was written, under the version that answered."""
    bench = Bench()
    bench.run(script)
    written = Counter(record["version"] for record in bench.sink.records)
    expected = {
        version: count
        for (version, reason), count in bench.expected.items()
        if reason is Reason.NONE
    }
    numbers = [int(str(record["seq"])) for record in bench.sink.records]
    assert written == Counter(expected)
    assert numbers == sorted(set(numbers))


@given(st.integers(0, 5), st.integers(0, 10))
def test_a_full_sink_drops_and_counts(room: int, number: int) -> None:
    """What a sink cannot take is counted as its drop; the sample is ok all the same."""
    bench = Bench(room)
    bench.run([OK] * number)
    dropped = bench.board.block().sink_dropped[0]
    assert (len(bench.sink.records) + dropped, dropped) == (
        number,
        max(0, number - room),
    )
    assert bench.counted()[1, Reason.NONE] == number


def test_the_first_of_each_failure_is_logged_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A thousand bad samples are no thousand lines."""
    bench = Bench()
    with caplog.at_level(logging.WARNING):
        bench.run([BAD, ENGINE, OUTPUT, "unreadable", OK] * 20)
    said = [(it.__dict__["reason"], it.getMessage()) for it in caplog.records]
    assert sorted(said) == [
        (Reason.INPUT, "kws 1: samples fail: NaN"),
        (Reason.INPUT, "samples cannot be read: half a file"),
        (Reason.INVOKE, "kws 1: samples fail: the runtime says no"),
        (Reason.OUTPUT, "kws 1: samples fail: NaN"),
    ]


def test_a_stop_waits_for_the_sample_in_flight() -> None:
    """A stop that comes while a sample is answered ends the loop after it."""
    bench = Bench()
    stopping = scripted_model(9, bench.slot.stop)
    build = candidate_builder("p", [], bench.board.writer, lambda: 0.0)
    bench.slot.wanted = build(stopping, 0)
    source = ScriptedSource(bench.slot, [lambda _: sample(OK)] * 5)
    Loop(source, bench.slot, bench.board.writer, bench.note_end).run()
    (counts,) = bench.board.sections()
    assert counts[1][OUTCOME_INDEX[Reason.NONE]] == counts[2] == 1


def test_the_end_of_a_source_is_said_once() -> None:
    """An ended source is reported once, however often the loop looks at it."""
    bench = Bench()

    def end(source: ScriptedSource) -> Sample | None:
        source.ended = True
        return None

    steps = [bench.step(OK), end, end, end]
    source = ScriptedSource(bench.slot, steps)
    Loop(source, bench.slot, bench.board.writer, bench.note_end).run()
    assert bench.ends == 1


def test_without_a_model_nothing_is_taken() -> None:
    """The loop idles, visibly, until there is a model or it is stopped."""
    board = Board()
    slot = ModelSlot(board.writer)
    loop = Loop(ScriptedSource(slot, []), slot, board.writer, lambda: None)
    thread = threading.Thread(target=loop.run)
    thread.start()
    while not board.writer.words[TURN_NS]:
        time.sleep(0.001)
    slot.stop()
    thread.join()
    block = board.block()
    assert (block.next_seq, block.input_waiting) == (1, False)


@given(
    waits=st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 10**6)), min_size=1),
    watched=st.booleans(),
)
def test_the_longest_pause_excludes_waiting_for_input(
    waits: list[tuple[int, int]], *, watched: bool
) -> None:
    """A pause begins when the sample before was answered or this one was there."""
    board = Board()
    slot = ModelSlot(board.writer)
    began = 10**18  # far ahead of the clock, which the loop reads only once
    now, times = began, []
    for waited, busy in waits:
        ready = now + waited
        now = ready + busy
        times.append((ready, now))
    ends = iter([end for _, end in times])
    slot.exchange(Candidate(scripted_model(1), lambda _: lambda _: next(ends), 0), 0)

    def at(ready: int) -> Step:
        def step(source: ScriptedSource) -> Sample | None:
            source.ready_ns = ready
            return sample(OK)

        return step

    if watched:
        slot.watch()
    source = ScriptedSource(slot, [at(ready) for ready, _ in times])
    Loop(source, slot, board.writer, lambda: None).run()
    expected = max(busy for _, busy in waits) if watched else 0
    assert slot.unwatch() == expected
    assert board.writer.words[GAP_NS] == expected


def test_an_idle_loop_lets_its_monitor_rest() -> None:
    """What was seen is said while nothing comes, and the end has the last word."""
    bench, times, reporter = Bench(), Times(), ListReporter()
    eye = ScriptedEye(interval=2)
    watcher = scripted_watcher(eye, reporter, times)
    build = candidate_builder("p", [], bench.board.writer, lambda: 0.0)
    bench.slot.exchange(build(scripted_model(5), 1, watcher=watcher), 0)

    def later(source: ScriptedSource) -> Sample | None:
        del source
        times.now_ns += S_NS
        return None

    answered = bench.step(OK)
    steps = [answered, answered, later, later, answered, answered]
    source = ScriptedSource(bench.slot, steps)
    Loop(source, bench.slot, bench.board.writer, bench.note_end).run()
    bench.slot.finish()
    assert eye.looked == [1, 3]
    assert [it.samples for it in reporter.monitored] == [0, 1, 2]
