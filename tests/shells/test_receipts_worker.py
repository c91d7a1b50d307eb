"""Receipts in the worker: of inferences alone, before the answer is heard."""

import hashlib
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.core.kept import (
    KEPT_BYTES,
    KeptSample,
    fits_receipt,
    hash_tensors,
    parse_kept,
)
from agent.core.messages import Shed
from agent.core.receipts import (
    BLAKE2B,
    FAILED,
    INPUT_HASHED,
    KEPT,
    NO_HASH,
    RECORD_BYTES,
    RING_BYTES,
    SLOTS,
    Mode,
    Receipt,
    ReceiptOrder,
    RingReader,
    RingWriter,
    parse_receipt,
)
from agent.core.shadow_ring import RING_BYTES as SHADOW_BYTES
from agent.core.shadow_ring import RingReader as KeptReader
from agent.supervise.memfd import shared_memory
from agent.worker.control import candidate_builder
from agent.worker.engines.tensors import zeros
from agent.worker.gated import GatedLoop
from agent.worker.receipts import Receipts, hash_blake2b, hash_sha256
from agent.worker.samples import Arrays, Sample
from agent.worker.slot import ModelSlot
from agent.worker.statistics import StatisticsWriter
from agent.worker.tap import Tap
from tests.fakes.tiny_models import loaded, manifest
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

PIPELINE = "p"
WORDS = (OK, BAD, STRANGE, WARMING, ENGINE, OUTPUT, EMIT)
# Flags of those that reach the model; the others never did.
INFERRED = {OK: 0, ENGINE: FAILED, OUTPUT: FAILED, EMIT: 0}


class PausingSlot(ModelSlot):
    """Does something instead of waiting; each pause is one call."""

    def __init__(self, statistics: StatisticsWriter) -> None:
        super().__init__(statistics)
        self.on_pause: Callable[[], object] = lambda: None

    def pause(self, timeout_s: float) -> None:
        """Do it."""
        del timeout_s
        self.on_pause()


class LookingSink(ListSink):
    """Notes how many receipts there are when it hears of an answer."""

    def __init__(self, ring: RingWriter) -> None:
        super().__init__()
        self._ring = ring
        self.heard: list[int] = []

    def write(self, record: dict[str, object]) -> bool:
        """Note that, and keep the record."""
        self.heard.append(self._ring.written)
        return super().write(record)


class Bench:
    """A gated loop on a script, with a ring that is read in between."""

    def __init__(
        self,
        order: ReceiptOrder,
        draw: Callable[[], float] = lambda: 0.5,
        allowed: int = SLOTS,
    ) -> None:
        self.board = Board()
        self.slot = PausingSlot(self.board.writer)
        memory = memoryview(bytearray(RING_BYTES))
        kept = memoryview(bytearray(KEPT_BYTES)) if order.keep_one_in else None
        self.ring = RingReader(memory)
        self.kept = KeptReader(kept) if kept is not None else None
        self.ring.allow(allowed)
        writer = self.board.writer
        self.receipts = Receipts(order, PIPELINE, memory, writer, kept, draw)
        self.sink = LookingSink(self.receipts.ring)
        self.build = candidate_builder(
            PIPELINE, [(0, self.sink)], writer, lambda: 0.0, self.receipts
        )
        self.swap(1)

    def swap(self, version: int, tap: Tap | None = None) -> None:
        """Let a version answer from the next sample on."""
        wanted = self.slot.wanted
        section = 1 - wanted.section if wanted else 0
        self.slot.exchange(self.build(scripted_model(version), section, tap), 0)

    def run(self, *steps: int | Callable[[ScriptedSource], Sample | None]) -> None:
        """Let the loop take samples, or do what is said."""
        self.slot.running = True
        made = [
            (lambda _, word=step: sample(word)) if isinstance(step, int) else step
            for step in steps
        ]
        source = ScriptedSource(self.slot, made)
        ring, writer = self.receipts.ring, self.board.writer
        GatedLoop(source, self.slot, writer, lambda: None, ring).run()

    def taken(self) -> list[Receipt]:
        """Take what was written."""
        found = self.ring.copy(self.ring.look_finally())
        self.ring.take(len(found) // RECORD_BYTES)
        starts = range(0, len(found), RECORD_BYTES)
        return [parse_receipt(found[at : at + RECORD_BYTES]) for at in starts]


def doing(act: Callable[[], object]) -> Callable[[ScriptedSource], Sample | None]:
    """Return a step in which something is done, and no sample comes."""

    def step(source: ScriptedSource) -> Sample | None:
        del source
        act()
        return None

    return step


@given(st.lists(st.sampled_from(WORDS), max_size=30))
@settings(max_examples=60, deadline=None)
def test_inferences_have_receipts_and_nothing_else(words: list[int]) -> None:
    """One for each sample that reached the model, with its number, in order."""
    bench = Bench(ReceiptOrder("chain"))
    bench.run(*words)
    expected = [
        (seq, INFERRED[word]) for seq, word in enumerate(words, 1) if word in INFERRED
    ]
    assert expected == [(it.sample, it.flags) for it in bench.taken()]


@given(st.lists(st.sampled_from([*WORDS, "swap", "unreadable"]), max_size=30))
@settings(max_examples=60, deadline=None)
def test_no_line_is_written_without_a_receipt(script: list[int | str]) -> None:
    """Whatever happens: what sinks hear is among the receipts, of the same model."""
    bench = Bench(ReceiptOrder("chain"))
    version = iter(range(2, 100))
    steps = {"swap": doing(lambda: bench.swap(next(version))), "unreadable": unreadable}
    bench.run(*(steps[it] if isinstance(it, str) else it for it in script))
    receipts = {it.sample: it for it in bench.taken()}
    for line in bench.sink.records:
        receipt = receipts[int(str(line["seq"]))]
        assert not receipt.flags & FAILED


def test_the_record_is_there_when_the_sink_hears() -> None:
    """A kill in any moment leaves at most a receipt too many."""
    bench = Bench(ReceiptOrder("chain"))
    bench.run(OK, OK, OK)
    assert bench.sink.heard == [1, 2, 3]


@pytest.mark.parametrize("hashed", ["sha256", "blake2b"])
@pytest.mark.parametrize("mode", ["count", "chain", "inputs"])
def test_each_mode_hashes_what_it_says(mode: Mode, hashed: str) -> None:
    """Count hashes nothing, chain the output, inputs both; the flags say so."""
    order = ReceiptOrder(mode, "blake2b" if hashed == "blake2b" else "sha256")
    bench = Bench(order)
    bench.run(OK)
    (receipt,) = bench.taken()
    tensor = sample(OK)
    assert isinstance(tensor, np.ndarray)
    said = hashlib.sha256(tensor.tobytes()).digest()
    given_hash = hash_tensors([tensor.tobytes()], order.input_hash)
    flags = INPUT_HASHED | (BLAKE2B if hashed == "blake2b" else 0)
    expected = {
        "count": (0, NO_HASH, NO_HASH),
        "chain": (0, NO_HASH, said),
        "inputs": (flags, given_hash, said),
    }
    assert expected[mode] == (receipt.flags, receipt.input, receipt.output)


def test_a_swap_changes_the_digest_between_two_records() -> None:
    """Receipts name what answered, however close to a swap."""
    bench = Bench(ReceiptOrder("chain"))
    bench.run(OK, OK, doing(lambda: bench.swap(2)), OK)
    digests = [it.model.hex() for it in bench.taken()]
    assert [scripted_model(it).variant.sha256 for it in (1, 1, 2)] == digests


def test_constants_and_shed_samples_have_none() -> None:
    """Only what the model was asked is an inference."""
    bench = Bench(ReceiptOrder("chain"))
    bench.slot.shed = Shed(every=3)
    bench.run(*[OK] * 7)
    assert [it.sample for it in bench.taken()] == [1, 4, 7]
    for order in (Shed(answer="abstain"), Shed(answer="safe_output")):
        bench.slot.shed = order
        bench.swap(2)
        bench.run(OK, OK)
    assert bench.taken() == []


def test_a_tapped_model_gives_its_receipts() -> None:
    """A shadow that listens changes nothing about them."""
    bench = Bench(ReceiptOrder("chain"))
    tap = Tap(shared_memory("tap", SHADOW_BYTES), 1)
    bench.swap(2, tap)
    bench.run(OK, ENGINE, OK)
    assert [(it.sample, it.flags) for it in bench.taken()] == [
        (1, 0),
        (2, FAILED),
        (3, 0),
    ]
    tap.close()


def test_a_closed_gate_takes_nothing_and_lets_swaps_through() -> None:
    """What may not be answered stays; a stop and a swap are seen meanwhile."""
    bench = Bench(ReceiptOrder("chain"), allowed=2)
    took: list[int] = []

    def allow_one() -> None:
        bench.taken()
        bench.ring.allow(1)

    acts = iter([lambda: bench.swap(2), allow_one, lambda: None, bench.slot.stop])

    def act() -> None:
        next(acts)()

    bench.slot.on_pause = act

    def step(source: ScriptedSource) -> Sample | None:
        del source
        took.append(bench.receipts.ring.written)
        return sample(OK)

    bench.run(step, step, step, step)
    assert took == [0, 1, 2]
    assert {
        generation: sum(outcomes) for generation, outcomes, _ in bench.board.sections()
    } == {1: 2, 2: 1}


def test_live_losses_are_counted_while_the_gate_is_closed() -> None:
    """A camera goes on: what is not answered ends as dropped."""
    bench = Bench(ReceiptOrder("chain"), allowed=1)
    source = ScriptedSource(bench.slot, [lambda _: sample(OK)])

    def lose() -> None:
        source.dropped += 3
        if source.dropped > 8:
            bench.slot.stop()

    bench.slot.on_pause = lose
    ring, writer = bench.receipts.ring, bench.board.writer
    GatedLoop(source, bench.slot, writer, lambda: None, ring).run()
    ((_, outcomes, received),) = bench.board.sections()
    # The last ones came after the last look.
    assert (received, sum(outcomes)) == (7, 7)


class TestKept:
    """One in so many inputs is left for the daemon."""

    def test_what_is_kept_fits_its_receipt(self) -> None:
        """Flag, number and hashes belong together, in a mode that hashes nothing."""
        bench = Bench(ReceiptOrder("count", keep_one_in=1))
        bench.run(OK, ENGINE, EMIT)
        receipts = bench.taken()
        flags = [KEPT | INPUT_HASHED, FAILED, KEPT | INPUT_HASHED]
        assert flags == [it.flags for it in receipts]
        for receipt in (receipts[0], receipts[2]):
            found = self.read(bench)
            assert found is not None
            assert receipt.seq == found.number
            assert fits_receipt(found, receipt)
            assert found.executor == "litert / plain / 1"
        assert self.read(bench) is None

    def test_no_room_is_no_flag(self) -> None:
        """What the daemon has not fetched yet is not overwritten, nor waited for."""
        bench = Bench(ReceiptOrder("chain", keep_one_in=1))
        bench.run(*[OK] * 100)
        kept = [it.seq for it in bench.taken() if it.flags & KEPT]
        read = [it.number for it in iter(lambda: self.read(bench), None)]
        assert kept == read
        assert len(read) < 100
        assert bench.kept is not None
        assert bench.kept.dropped == 100 - len(read)

    @given(st.floats(0, 1, exclude_max=True), st.integers(1, 10**9))
    def test_a_gap_is_one_at_least(self, drawn: float, one_in: int) -> None:
        """Whatever is drawn, the next kept sample is one that comes."""
        bench = Bench(ReceiptOrder("count", keep_one_in=one_in), lambda: drawn)
        assert bench.receipts._gap() >= 1

    def test_gaps_are_geometric(self) -> None:
        """On a grid of what can be drawn their mean is what was asked for."""
        grid = iter((at + 0.5) / 5001 for at in range(5001))  # one for the first gap
        bench = Bench(ReceiptOrder("count", keep_one_in=20), lambda: next(grid))
        gaps = [bench.receipts._gap() for _ in range(5000)]
        assert 19.5 < sum(gaps) / len(gaps) < 20.5
        ones = sum(gap == 1 for gap in gaps)
        assert 0.04 < ones / len(gaps) < 0.06

    def test_state_is_kept_with_the_input(self) -> None:
        """What was fed back is part of what the model was given: it can be rerun."""
        bench = Bench(ReceiptOrder("count", keep_one_in=1))
        with loaded(manifest("streaming"), "streaming") as model:
            receipted = bench.receipts.of(model)
            carried = np.zeros((1, 4), np.float32)
            for value in (1, 5, 2):
                given = np.full((1, 4), value, np.float32)
                outputs = receipted.infer([given])
                receipted.judge([given], outputs)
                found = self.read(bench)
                assert found is not None
                assert found.inputs == (given.tobytes(), carried.tobytes())
                carried = outputs[1]
                again = [np.frombuffer(it, np.float32) for it in found.inputs]
                answers = model.engine.infer([it.reshape(1, 4) for it in again])
                assert [it.tobytes() for it in answers] == list(found.outputs)

    def test_all_inputs_and_outputs_are_kept(self) -> None:
        """Of a model with two of each, in the model's order."""
        bench = Bench(ReceiptOrder("count", keep_one_in=1))
        with loaded(manifest("two_in_two_out"), "two_in_two_out") as model:
            receipted = bench.receipts.of(model)
            given = [zeros(spec) + 1 for spec in model.variant.inputs]
            outputs = receipted.infer(given)
            receipted.judge(given, outputs)
        found = self.read(bench)
        assert found is not None
        assert found.inputs == tuple(it.tobytes() for it in given)
        assert found.outputs == tuple(it.tobytes() for it in outputs)
        (receipt,) = bench.taken()
        assert fits_receipt(found, receipt)

    @staticmethod
    def read(bench: Bench) -> KeptSample | None:
        """Return the next one that was kept."""
        assert bench.kept is not None
        content = bench.kept.read()
        return None if content is None else parse_kept(content)


@given(st.data())
def test_hashes_do_not_depend_on_how_tensors_lie(data: st.DataObject) -> None:
    """A slice of a picture hashes as its copy; many tensors as their bytes in a row."""
    shape = data.draw(st.tuples(*[st.integers(1, 5)] * 3))
    picture = np.arange(np.prod(shape), dtype=np.int16).reshape(shape)
    sliced: Arrays = [picture[:, ::2], picture.T, picture]
    raw = [np.ascontiguousarray(it).tobytes() for it in sliced]
    assert hash_tensors(raw) == hash_sha256(sliced)
    assert hash_tensors(raw, "blake2b") == hash_blake2b(sliced)
    assert hash_tensors(raw[:1]) == hash_sha256(sliced[:1])
