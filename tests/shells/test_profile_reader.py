"""The child that reads features: what it reads is what the worker would have seen."""

import os
import struct
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.cli.profile_child import answer
from agent.cli.profile_features import read
from agent.cli.profile_learning import Reservoir, begin
from agent.cli.profile_reader import FeatureChild
from agent.cli.profile_words import HEAD, Done, Failed, Features, Question, Said
from agent.core.drift.features import build_reader
from agent.core.manifest import render_manifest
from agent.core.reasons import Reason
from agent.errors import AgentError
from agent.worker.content import seal_content
from agent.worker.model import LoadedModel, load_model
from tests.fakes import tiny_models
from tests.fakes.digits import digits, executor
from tests.fakes.profiled import STREAM, stream

MANIFEST = digits(2).manifest


def question(**changes: object) -> Question:
    """Return what asks for the features of the demo's second model."""
    plain = Question(
        manifest=render_manifest(MANIFEST),
        variant="int8",
        content=int8(),
        parts=(str(STREAM),),
        array="images",
        kind="image",
    )
    return msgspec.structs.replace(plain, **changes)


@contextmanager
def loaded(content: bytes) -> Iterator[LoadedModel]:
    """Load the model as a worker does."""
    descriptor = seal_content(content, "int8")
    try:
        yield load_model(0, MANIFEST, "int8", executor(), descriptor)
    finally:
        os.close(descriptor)


def int8() -> bytes:
    """Return the .tflite bytes of the model."""
    return bytes(digits(2).variant_bytes("int8"))


def tiny_question(name: str, path: Path, **changes: object) -> Question:
    """Return what asks for the features of one of the models of tests/data."""
    plain = Question(
        manifest=render_manifest(tiny_models.manifest(name)),
        variant=name,
        content=tiny_models.content(name),
        parts=(str(path),),
    )
    return msgspec.structs.replace(plain, **changes)


def floats(raw: bytes, width: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    """Return rows of float32."""
    return np.frombuffer(raw, "<f4").reshape(-1, width)


def test_features_are_those_of_the_workers_own_path() -> None:
    """Preprocess, engine, judge and reader of a board give the same rows."""
    said: list[Said] = []
    found = read(question(limit=20), said.append)
    assert [word for word in said if not isinstance(word, Done)] == []
    variant = MANIFEST.variant("int8")
    reader = build_reader(MANIFEST, variant, begin(variant.sha256, question()))
    rows, answers = [], []
    with loaded(int8()) as model:
        for image in stream()["images"][:20]:
            inputs = model.preprocess(image)
            assert inputs is not None
            outputs = model.infer(inputs)
            index, score = model.judge(inputs, outputs)
            values = reader.read(inputs, outputs, index, score)
            assert values is not None
            rows.append(values.astype(np.float32))
            answers.append(index)
    assert found.names == reader.names
    assert np.array_equal(floats(found.values, len(reader.names)), np.stack(rows))
    assert np.frombuffer(found.index, "<i4").tolist() == answers
    assert np.frombuffer(found.number, "<i8").tolist() == list(range(20))
    assert (found.samples, found.more) == (20, True)


def test_an_inner_tensor_is_seen_along_its_axes(tmp_path: Path) -> None:
    """With ``tensor`` there are more features, and the projection that made them."""
    random = np.random.default_rng(3)
    path = tmp_path / "data.npy"
    np.save(path, random.integers(-60, 60, (300, 4), np.int8))
    plain = read(tiny_question("quantised", path), lambda _: None)
    inner = read(tiny_question("quantised", path, tensor="answer"), lambda _: None)
    assert inner.projection is not None
    assert (inner.projection.output, plain.projection) == ("answer", None)
    assert len(inner.names) > len(plain.names)


def test_a_vector_gets_a_centre(tmp_path: Path) -> None:
    """What is learnt in a first pass is what the second reads with."""
    random = np.random.default_rng(3)
    path = tmp_path / "data.npy"
    samples = random.integers(-60, 60, (300, 4), np.int8)
    np.save(path, samples)
    found = read(tiny_question("quantised", path), lambda _: None)
    assert found.kind == "vector"
    assert len(np.frombuffer(found.centre, "<f4")) == samples.shape[1]
    assert len(found.inputs) == samples.shape[1] + 1


def test_a_recording_ends_at_its_boundary(tmp_path: Path) -> None:
    """State of one recording does not reach into the next."""
    path = tmp_path / "data.npy"
    shape = tiny_models.variant("streaming").inputs[0].shape
    np.save(path, np.ones((120, *shape), np.float32))
    whole = read(tiny_question("streaming", path, shifts=True), lambda _: None)
    parted = read(tiny_question("streaming", path, boundaries=(60,)), lambda _: None)
    scores = [np.frombuffer(found.score, "<f4") for found in (whole, parted)]
    assert whole.shifts == ()  # a sample out of its recording says nothing
    rows = [floats(found.values, len(found.names)) for found in (whole, parted)]
    assert np.array_equal(rows[0][:60], rows[1][:60])
    assert np.array_equal(rows[1][:60], rows[1][60:])
    assert len(scores[0]) == len(scores[1])


def test_samples_changed_on_purpose_look_different() -> None:
    """Every shift of pictures moves some feature of the same samples."""
    found = read(question(limit=80, shifts=True), lambda _: None)
    width = len(found.names)
    calm = floats(found.values, width).mean(axis=0)
    assert [shift.name for shift in found.shifts] == [
        *("brighter", "darker", "grain", "blur", "cover"),
    ]
    for shift in found.shifts:
        moved = np.abs(floats(shift.values, width).mean(axis=0) - calm)
        assert moved.max() > 0.01, shift.name


def test_an_error_is_the_last_word() -> None:
    """What ends the reading reaches the parent as a branch with its reason."""
    said: list[Said] = []
    answer(question(tensor="inner"), said.append)
    assert isinstance(said[-1], Failed)
    assert (said[-1].branch, said[-1].reason) == ("SettingsError", Reason.SETTINGS)


def child(code: str, silent_s: float = 60.0) -> FeatureChild:
    """Return a reader whose child runs ``code``."""
    return FeatureChild((sys.executable, "-c", code), silent_s)


def sends(*words: bytes) -> str:
    """Return code that reads the question and sends messages."""
    raw = b"".join(HEAD.pack(len(word)) + word for word in words)
    return f"import sys; sys.stdin.buffer.read(); sys.stdout.buffer.write({raw!r})"


def rows(**changes: object) -> bytes:
    """Return a last word of two rows that fits together, but for the changes."""
    plain = Features(
        names=("one", "two"),
        inputs=(0,),
        outputs=(1,),
        kind="vector",
        values=np.zeros((2, 2), "<f4").tobytes(),
        index=np.zeros(2, "<i4").tobytes(),
        score=np.zeros(2, "<f4").tobytes(),
        confidence=np.zeros(2, "<f4").tobytes(),
        number=np.arange(2, dtype="<i8").tobytes(),
        part=np.zeros(2, "<i4").tobytes(),
        samples=2,
    )
    return msgspec.msgpack.encode(msgspec.structs.replace(plain, **changes))


def test_whole_words_arrive() -> None:
    """Progress is told as it comes; the last word becomes arrays."""
    told: list[int] = []
    done = msgspec.msgpack.encode(Done(7))
    found = child(sends(done, rows())).read(question(), told.append)
    assert (told, found.values.shape) == ([7], (2, 2))


CHILDREN: dict[str, tuple[str, float, Reason]] = {
    "dies": ("import os; os.abort()", 60.0, Reason.CRASH),
    "hangs": (
        "import sys, signal; sys.stdin.buffer.read(); signal.pause()",
        0.2,
        Reason.HANG,
    ),
    "raises": ("raise ValueError('ours')", 60.0, Reason.INTERNAL),
    "says nothing": ("", 60.0, Reason.INTERNAL),
    "says rubbish": (sends(b"rubbish"), 60.0, Reason.INTERNAL),
    "says half a word": (
        sends() + "; sys.stdout.buffer.write(b'1234567')",
        60.0,
        Reason.INTERNAL,
    ),
    "claims too much": (
        f"{sends()}; sys.stdout.buffer.write({struct.pack('<I', 2**31)!r})",
        60.0,
        Reason.INTERNAL,
    ),
    "sends NaN": (
        sends(rows(values=np.full((2, 2), np.nan, "<f4").tobytes())),
        60.0,
        Reason.INTERNAL,
    ),
    "sends other lengths": (sends(rows(index=b"")), 60.0, Reason.INTERNAL),
    "sends half a number": (sends(rows(values=b"123")), 60.0, Reason.INTERNAL),
    "names no column": (sends(rows(inputs=(2,))), 60.0, Reason.INTERNAL),
    "numbers another sample": (
        sends(rows(number=np.array([0, 9], "<i8").tobytes())),
        60.0,
        Reason.INTERNAL,
    ),
    "reports": (
        sends(msgspec.msgpack.encode(Failed("X", "no", Reason.MEMORY))),
        60.0,
        Reason.MEMORY,
    ),
}


@pytest.mark.parametrize("case", CHILDREN)
def test_whatever_the_child_does_becomes_a_reason(case: str) -> None:
    """A child that dies, hangs or lies is an error of ours with a stable reason."""
    code, silent_s, reason = CHILDREN[case]
    with pytest.raises(AgentError) as caught:
        child(code, silent_s).read(question(), lambda _: None)
    assert reason == caught.value.reason


@given(st.integers(0, 300), st.integers(1, 40), st.integers(0, 9))
def test_a_reservoir_is_a_choice(offered: int, size: int, seed: int) -> None:
    """It holds as many rows as it can, each offered once, and the same by seed."""
    kept = []
    for _ in range(2):
        reservoir = Reservoir(size, seed)
        for number in range(offered):
            reservoir.offer(partial(int, number))
        kept.append(reservoir.rows)
    assert kept[0] == kept[1]
    assert len(kept[0]) == len(set(kept[0])) == min(offered, size)
