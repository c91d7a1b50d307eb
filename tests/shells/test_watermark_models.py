"""Reading, walking, cutting and patching .tflite files for marking."""

import dataclasses
import struct
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from autograd import make_vjp
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.cli.watermark_runtime import Runtime
from agent.core.reasons import Reason
from agent.demo.owner import ASSETS
from agent.errors import BundleRefusedError
from agent.publish.watermark.convolution import fit_window, windows
from agent.publish.watermark.cut import cut_body, cut_head
from agent.publish.watermark.graph import Graph, Operator, parse_graph
from agent.publish.watermark.head import Head, apply_blocks, find_head
from agent.publish.watermark.triggers import Grid
from agent.publish.watermark.walker import build_walker

DEMO = [f"digits-{number}/{name}" for number in (1, 2) for name in ("int8", "float")]
PUBLIC = [
    ("pretrainedResnet_quant", 255.0, 0.1),
    ("pretrainedResnet", 255.0, 1e-4),
    ("kws_ref_model", 1.0, 0.1),
    ("kws_ref_model_float32", 1.0, 0.1),  # hybrid kernels round features to 8 bits
]


def demo(name: str) -> bytes:
    """Return one of the demo's files."""
    return (ASSETS / f"{name}.tflite").read_bytes()


def opened(content: bytes) -> tuple[Graph, Head]:
    """Return a file's graph and head."""
    graph = parse_graph(content)
    return graph, find_head(graph, "int8")


def answers(content: bytes, high: float) -> tuple[np.ndarray, np.ndarray]:
    """Return logits of random inputs: the walker's, and the runtime's."""
    graph, head = opened(content)
    source = graph.tensors[graph.inputs[0]]
    grid = Grid.of(source)
    random = np.random.default_rng(5)
    shape = (4, *source.shape[1:])
    stored = grid.store(random.uniform(0, high, shape).astype(np.float32))
    _, walked = build_walker(graph, head)(grid.real(stored))
    # The body alone, one operator longer: it ends with the logits.
    longer = dataclasses.replace(head, place=head.place + 1, features=head.logits)
    run = Runtime("reference").run(cut_body(graph, longer), stored).reshape(4, -1)
    answer = graph.tensors[head.logits]
    if answer.scales:
        run = (run.astype(np.float32) - answer.zeros[0]) * answer.scales[0]
    return walked, run


@pytest.mark.parametrize("name", DEMO)
def test_the_walker_computes_what_the_runtime_does(name: str) -> None:
    """Logits agree to a part of their span: 8 bits round at every layer."""
    walked, run = answers(demo(name), 1.0)
    span = float(np.ptp(run))
    assert np.abs(walked - run).max() <= (0.05 if "int8" in name else 1e-5) * span


@pytest.mark.parametrize(("name", "high", "share"), PUBLIC)
def test_the_walker_follows_public_models(
    models: Path, name: str, high: float, share: float
) -> None:
    """Residual and depthwise networks, too, int8 and float."""
    content = (models / "mlperf-tiny" / f"{name}.tflite").read_bytes()
    walked, run = answers(content, high)
    assert np.abs(walked - run).max() <= share * float(np.ptp(run))


@pytest.mark.parametrize("name", DEMO)
def test_body_and_head_answer_as_the_whole_file(name: str) -> None:
    """Cut in two and run one after the other, a model gives the same bytes."""
    content = demo(name)
    graph, head = opened(content)
    source = graph.tensors[graph.inputs[0]]
    random = np.random.default_rng(1)
    stored = Grid.of(source).store(
        random.random((8, *source.shape[1:]), dtype=np.float32)
    )
    features = Runtime("plain").run(cut_body(graph, head), stored)
    halves = Runtime("plain").run(cut_head(graph, head), features)
    whole = Runtime("plain").run(content, stored)
    assert whole.tobytes() == halves.tobytes()


@pytest.mark.parametrize("name", DEMO)
def test_shipped_weights_patched_in_place_change_nothing(name: str) -> None:
    """Rounding what was rounded gives the same file."""
    content = demo(name)
    _, head = opened(content)
    assert content == apply_blocks(content, head.render(head.weights.astype(float)))


@pytest.mark.parametrize("name", DEMO)
def test_whatever_a_head_becomes_it_stays_in_its_places(name: str) -> None:
    """Boards refuse every other byte; a head much larger changes its scales, too."""
    content = demo(name)
    _, head = opened(content)
    written = {
        (block.offset, len(block.content))
        for times in (1, 4)
        for block in head.render(head.weights.astype(float) * times)
    }
    assert written == set(head.places())


@pytest.mark.parametrize("name", ["digits-1/int8", "digits-2/int8"])
def test_weights_that_do_not_fit_widen_the_scale(name: str) -> None:
    """A head four times as large reads back as that, in steps of its new scale."""
    content = demo(name)
    _, head = opened(content)
    wanted = head.weights.astype(float) * 4
    patched = apply_blocks(content, head.render(wanted))
    _, found = opened(patched)
    assert len(content) == len(patched)
    steps = np.abs(wanted[:, :-1]).max() / 127
    assert np.abs(found.weights[:, :-1] - wanted[:, :-1]).max() <= 0.51 * steps
    assert np.abs(found.weights[:, -1] - wanted[:, -1]).max() <= 1e-3


@given(
    st.tuples(st.integers(3, 7), st.integers(3, 7)),
    st.tuples(st.integers(1, 3), st.integers(1, 3)),
    st.tuples(st.integers(1, 2), st.integers(1, 2)),
    st.booleans(),
)
@settings(max_examples=30)
def test_the_gradient_of_windows_is_their_adjoint(
    picture: tuple[int, int],
    size: tuple[int, int],
    stride: tuple[int, int],
    same: bool,  # noqa: FBT001 - Hypothesis passes it
) -> None:
    """<y, windows(x)> = <gradient(y), x> for all x and y."""
    window = fit_window(picture, size, stride, same=same)
    random = np.random.default_rng(2)
    padded = [
        side + before + after
        for side, before, after in zip(
            picture, window.before, window.after, strict=True
        )
    ]
    values = random.random((2, *padded, 3))
    back, seen = make_vjp(windows)(values, window)
    other = random.random(seen.shape)
    assert float((other * seen).sum()) == pytest.approx((back(other) * values).sum())


def changed(graph: Graph, place: int, **fields: Any) -> Graph:  # noqa: ANN401
    """Return a graph with one operator changed."""
    steps = list(graph.operators)
    steps[place] = dataclasses.replace(steps[place], **fields)
    return dataclasses.replace(graph, operators=tuple(steps))


def test_heads_that_cannot_be_turned_are_refused_by_name() -> None:
    """Each with the reason ``watermark`` and with what is in the way."""
    graph, head = opened(demo("digits-2/int8"))
    step = graph.operators[head.place]
    weights = graph.tensors[step.inputs[1]]
    two = list(graph.tensors)
    two[step.inputs[1]] = dataclasses.replace(weights, shape=(2, 64))
    two[step.inputs[2]] = dataclasses.replace(two[step.inputs[2]], shape=(2,))
    shared = [*graph.tensors, dataclasses.replace(weights, name="another")]
    reader = Operator("RELU", step.inputs[1:2], (0,), {})
    cases = {
        "CONV_2D, not FULLY": changed(graph, head.place, name="CONV_2D"),
        "activation of its own": changed(
            graph, head.place, options={"FusedActivationFunction": 1}
        ),
        "no bias": changed(graph, head.place, inputs=(*step.inputs[:2], -1)),
        "2 classes": dataclasses.replace(graph, tensors=tuple(two)),
        "shared": dataclasses.replace(graph, tensors=tuple(shared)),
        "shared with": dataclasses.replace(graph, operators=(reader, *graph.operators)),
        "2 outputs": dataclasses.replace(graph, outputs=(1, 2)),
        "nothing computes": dataclasses.replace(graph, outputs=(graph.inputs[0],)),
    }
    for said, case in cases.items():
        with pytest.raises(BundleRefusedError, match=said) as refused:
            find_head(case, "int8")
        assert refused.value.reason == Reason.WATERMARK


def test_operators_that_cannot_be_followed_are_refused_by_name() -> None:
    """Before anything is run."""
    graph, head = opened(demo("digits-2/int8"))
    with pytest.raises(BundleRefusedError, match="BATCH_MATMUL") as refused:
        build_walker(changed(graph, 0, name="BATCH_MATMUL"), head)
    assert refused.value.reason == Reason.WATERMARK
    with pytest.raises(BundleRefusedError, match="2 inputs"):
        build_walker(dataclasses.replace(graph, inputs=(0, 1)), head)


@given(st.data())
@settings(max_examples=150)
def test_a_suspects_bytes_are_parsed_or_refused(data: st.DataObject) -> None:
    """Damaged files raise ``BundleRefusedError`` and nothing else."""
    content = bytearray(demo("digits-1/int8"))
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(content) - 4))
        struct.pack_into("<I", content, place, data.draw(st.integers(0, 2**32 - 1)))
    with suppress(BundleRefusedError):
        find_head(parse_graph(bytes(content)), "")


@pytest.mark.parametrize("content", [b"", b"TFL3", bytes(64), b"x" * 4096])
def test_what_is_no_model_is_refused(content: bytes) -> None:
    """With the reason ``malformed``."""
    with pytest.raises(BundleRefusedError) as refused:
        parse_graph(content)
    assert refused.value.reason == Reason.MALFORMED
