"""The worker's checks of itself, on memory and models of this process."""

import mmap
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from agent.core.messages import Inspect, Inspected
from agent.core.protect_settings import IntegritySettings
from agent.supervise.integrity import OFF, Integrity
from agent.worker.audited import Audited
from agent.worker.content import content_path, seal_content
from agent.worker.engines import build_engine
from agent.worker.engines.constants import Constant
from agent.worker.inspection import Inspection, open_inspection
from agent.worker.integrity_answers import KNOWN, KnownAnswers
from agent.worker.integrity_audit import IN_A_ROW, LEARNED, Audit, other_executor
from agent.worker.integrity_memory import (
    Block,
    Blocks,
    Copy,
    Peek,
    heap_blocks,
    mapping_blocks,
    view,
)
from agent.worker.integrity_rehash import SLICE_BYTES, Rehash
from agent.worker.model import LoadedModel, load_model
from agent.worker.watch_pace import NEVER
from tests.fakes.digits import executor, placed

ALL = Inspect(rehash_mbps=1000.0, known_answers=True, audit_one_in=2)


def private(content: bytes) -> tuple[mmap.mmap, Block]:
    """Return memory with some content, and where it lies."""
    memory = mmap.mmap(-1, max(1, len(content)), mmap.MAP_PRIVATE)
    memory[: len(content)] = content
    address = np.frombuffer(memory, np.uint8).ctypes.data
    return memory, Block(address, len(memory), "0")


def as_copy(block: Block) -> Copy:
    """Return memory as a copy of a tensor that lies in it."""
    return Copy(block, Constant("weights", block.address, block.size, flat=False))


def in_thread(act: Callable[[], None]) -> None:
    """Do something in a thread of its own, which has a heap of its own."""
    failures: list[BaseException] = []

    def run() -> None:
        try:
            act()
        except BaseException as err:  # noqa: BLE001 - it is raised below
            failures.append(err)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if failures:
        raise failures[0]


def loaded(kernels: str = "plain") -> tuple[LoadedModel, int, Blocks]:
    """Return the demo's model, the descriptor of its file, and what was before."""
    one = placed(1)
    before = Blocks()
    descriptor = seal_content(one.bundle.variant_bytes("int8"), "model-int8")
    other = executor().__class__(executor().engine, kernels)  # type: ignore[arg-type] # a word of Kernels
    model = load_model(1, one.bundle.manifest, "int8", other, descriptor)
    return model, descriptor, before


def inspected(order: Inspect, kernels: str = "plain") -> Inspection:
    """Return the checks of the demo's model."""
    model, descriptor, before = loaded(kernels)
    try:
        return open_inspection(order, model, descriptor, before)
    finally:
        os.close(descriptor)


# --- memory


@given(st.binary(min_size=1, max_size=3000), st.integers(0, 2**20), st.integers(0, 7))
def test_any_flipped_bit_is_found_where_it_is(
    content: bytes, at: int, bit: int
) -> None:
    """Of each single flip one pass finds the slice, and nothing once it is undone."""
    whole = content * (1 + SLICE_BYTES // len(content))
    memory, block = private(whole)
    rehash = Rehash([], 0, "", [as_copy(block)])
    place = at % len(whole)
    memory[place] ^= 1 << bit
    found = [e for it in rehash.slices if (e := it.look(rehash.peek)) is not None]
    assert [e.place for e in found] == [place // SLICE_BYTES * SLICE_BYTES]
    assert found[0].expected != found[0].found
    memory[place] ^= 1 << bit
    assert [None] * len(rehash.slices) == [it.look(rehash.peek) for it in rehash.slices]


def test_a_file_that_is_not_what_was_verified_is_said_at_once() -> None:
    """Where the mapped bytes do not have the verified digest, nothing is believed."""
    _memory, block = private(b"model" * 1000)
    rehash = Rehash([block], 5000, "0" * 64, [])
    assert rehash.wrong is not None
    assert rehash.wrong.check == "source"


@given(st.binary(max_size=20_000))
def test_any_memory_may_be_looked_at(content: bytes) -> None:
    """What is no heap of malloc's has blocks within itself, or none."""
    for offset, size in (*heap_blocks(content), *mapping_blocks(content)):
        assert 0 <= offset <= offset + size <= len(content)


def test_memory_that_is_gone_ends_no_process() -> None:
    """Reading what nobody has mapped gives nothing."""
    memory, block = private(b"x" * 4096)
    peek = Peek(4096)
    assert bytes(peek.copy(block.address, 16)) == b"x" * 16
    del memory
    assert len(peek.copy(0x1000, 16)) == 0


def test_packed_copies_are_found_and_watched() -> None:
    """A bit that flips in what XNNPACK computes from is found in one pass."""

    def case() -> None:
        inspection = inspected(ALL, "xnnpack")
        assert whole_pass(inspection) == []
        said = inspection.say(os_thread=0)
        assert said.bytes.keys() == {"source", "packed"}
        rehash = inspection._rehash
        assert rehash is not None
        packed = [it for it in rehash.slices if it.check == "packed"]
        byte = view(Block(packed[0].block.address + 7, 1)).cast("B")
        byte[0] ^= 16
        found = whole_pass(inspection)
        assert [(it.check, it.place) for it in found] == [("packed", 0)]
        assert whole_pass(inspection) == [], "it is said once"
        byte[0] ^= 16
        assert whole_pass(inspection) == []
        byte[0] ^= 16
        assert len(whole_pass(inspection)) == 1, "and again when it comes back"
        byte[0] ^= 16
        assert inspection.say(os_thread=0).mismatches["packed"] == 2

    in_thread(case)


def whole_pass(inspection: Inspection) -> list:  # type: ignore[type-arg] # evidence
    """Return what a pass and a bit finds: it may have begun in the middle."""
    before = inspection.say(os_thread=0).passed
    found = []
    while inspection.say(os_thread=0).passed < before + 2:
        found += inspection.turn(1)[1]
    return found


# --- known answers


def test_known_answers_are_the_same_for_ever() -> None:
    """The kernels give the same bits; one weight that differs is a difference."""
    model, descriptor, _ = loaded()
    os.close(descriptor)
    answers = KnownAnswers(model.engine, model.variant)
    assert 1 < len(answers.known) <= KNOWN
    for number in range(len(answers.known)):
        assert answers.check(number) is None
    known = answers.known[0]
    answers.known[0] = replace(known, outputs=[it + 1 for it in known.outputs])
    evidence = answers.check(0)
    assert evidence is not None
    assert (evidence.check, evidence.place) == ("answers", 0)
    assert evidence.difference > 0


def test_one_inference_per_rest() -> None:
    """However long nobody comes, a sample waits for one inference at most."""
    model, descriptor, _ = loaded()
    os.close(descriptor)
    answers = KnownAnswers(model.engine, model.variant)
    before = answers.asked
    answers.rest()
    answers.rest()  # not due: the first one took its time
    assert answers.asked == before + 1


def test_a_model_that_remembers_is_left_alone() -> None:
    """Asking would change what its user's samples meet."""
    path = Path(__file__).parent.parent / "data" / "remembering.tflite"
    engine = build_engine(executor(), path.read_bytes())
    one = placed(1).bundle.manifest.variant("int8")
    variant = one.__class__(
        **{
            **{name: getattr(one, name) for name in one.__struct_fields__},
            "inputs": engine.inputs,
            "outputs": engine.outputs,
        }
    )
    answers = KnownAnswers(engine, variant)
    assert (answers.known, bool(answers.skipped)) == ([], True)


# --- the audit


def test_an_audit_needs_several_answers_to_differ() -> None:
    """What agrees is no mismatch; three in a row beyond the tolerance are."""
    model, descriptor, _ = loaded()
    shapes = {spec.name: spec.shape for spec in model.variant.inputs}
    path = content_path(descriptor)
    other = build_engine(other_executor(model.executor), path, shapes)
    os.close(descriptor)
    known = KnownAnswers(model.engine, model.variant).known
    audit = Audit(other, model.variant, known)
    while audit.audited < LEARNED:
        audit.offer(1, known[0].inputs, known[0].outputs)
        assert audit.work() is None
    wrong = [np.flip(it).copy() ^ 0x55 for it in known[0].outputs]
    found = []
    for number in range(IN_A_ROW):
        audit.offer(number, known[0].inputs, wrong)
        found.append(audit.work())
    assert [it is not None for it in found] == [False] * (IN_A_ROW - 1) + [True]
    assert (audit.audited, audit.differed) == (LEARNED + IN_A_ROW, IN_A_ROW)


def test_the_audit_picks_one_in_so_many() -> None:
    """Samples are offered at their distance; without a watcher nothing else is due."""
    heard: list[int] = []
    watcher = Audited(None, 10, lambda seq, *_: heard.append(seq))
    watcher.begin()
    for seq in range(1, 41):
        if seq >= watcher.due[0]:
            watcher.look(seq, 0, [], [], 0, 0.0)
    assert heard == [1, 11, 21, 31]
    watcher.rest()
    assert watcher.due[0] < NEVER


# --- switched off


def test_what_is_off_is_not_told_nor_imported() -> None:
    """With all three off no order goes out, and no worker imports what checks."""
    assert Integrity("door", OFF).order(1, placed(1)) is None
    off = IntegritySettings(rehash_mbps=0, known_answers=False, audit_one_in=0)
    assert off == OFF
    code = (
        "import sys, agent.worker.run, agent.worker.control;"
        "print([m for m in sys.modules if 'integrity_' in m or 'inspection' in m])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_other_settings_are_for_the_next_load() -> None:
    """A worker that was told to check is also told to check no more."""
    checks = Integrity("door", IntegritySettings())
    assert checks.order(1, placed(1)) == Inspect(
        1.0, known_answers=True, audit_one_in=1000
    )
    stand_in = replace(placed(1), stands_in=True)
    assert checks.order(2, stand_in) == Inspect(1.0, known_answers=True)
    assert checks.follow(OFF)
    assert not checks.follow(OFF)
    assert checks.order(3, placed(1)) == Inspect()


def test_what_kernels_do_not_pack_is_skipped() -> None:
    """Plain kernels compute from the file: it is covered, and nothing else is."""
    inspection = inspected(ALL)
    assert whole_pass(inspection) == []
    said = Inspected(1, inspection.say(os_thread=0))
    assert said.checked.bytes["source"] == len(placed(1).bundle.variant_bytes("int8"))
    assert "packed" in said.checked.skipped  # plain kernels pack nothing
