"""What is marked: the repository's own classifier, and a public one on photographs."""

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from agent.cli.watermark_runtime import Runtime
from agent.core.manifest import Variant
from agent.demo.owner import ASSETS
from agent.publish.watermark.graph import Array, Real, parse_graph
from agent.publish.watermark.markable import Given, Wish
from agent.publish.watermark.triggers import Grid
from agent.worker.examine import default_examiner

MODELS = Path(os.environ.get("TINYWARD_MODELS", "../shared/models"))
CROPS, CROP_PIXELS = 900, 32  # of two photographs; two in three make heads


@dataclass(frozen=True, slots=True)
class Subject:
    """One model file with data.

    Attributes:
        given: What the publisher has.
        held: Stored inputs that nothing was made with.
        labels: Their right answers; what the model says where nobody knows them.
        labelled: Whether somebody knows.
        clean_labels: Of the publisher's inputs: an attacker fine-tunes with them.
        strangers: Other models that answer the same inputs, by what they are called.
    """

    name: str
    given: Given
    held: Array
    labels: NDArray[np.int64]
    labelled: bool
    clean_labels: NDArray[np.int64]
    wish: Wish
    strangers: dict[str, bytes] = field(default_factory=dict)


def find_subjects() -> Iterator[Subject]:
    """Yield what is there."""
    yield _digits("int8")
    yield _digits("float")
    path = MODELS / "mlperf-tiny" / "pretrainedResnet_quant.tflite"
    if path.is_file():
        yield _photographs(path)


def _digits(variant: str) -> Subject:
    """Return the demo's classifier: heads of training images, judged by held-out ones.

    Without scikit-learn, which has the training images, a half of the held-out ones
    stands for them.
    """
    content = (ASSETS / "digits-2" / f"{variant}.tflite").read_bytes()
    with np.load(ASSETS / "digits-stream.npz") as stream:
        held, labels = stream["images"], stream["labels"].astype(np.int64)
    try:
        from sklearn.datasets import load_digits

        known = load_digits()
        images = known.images.astype(np.uint8)[..., None]
        held_bytes = {image.tobytes() for image in held}
        new = np.array([image.tobytes() not in held_bytes for image in images])
        clean, clean_labels = images[new], known.target[new].astype(np.int64)
    except ImportError:
        clean, clean_labels = held[::2], labels[::2]
        held, labels = held[1::2], labels[1::2]
    grid = _grid(content)
    scaled = [
        grid.store(it.astype(np.float32) * np.float32(1 / 16)) for it in (clean, held)
    ]
    return Subject(
        name=f"digits {variant}",
        given=_given(variant, content, scaled[0]),
        held=scaled[1],
        labels=labels,
        labelled=True,
        clean_labels=clean_labels,
        # The command's defaults.
        wish=Wish(bits=128, margin=1.2, floor=0.98, steps=200),
        strangers={
            f"another model, digits-1 {other}": (
                ASSETS / "digits-1" / f"{other}.tflite"
            ).read_bytes()
            for other in ("int8", "float")
        },
    )


def _photographs(path: Path) -> Subject:
    """Return ResNet-8 on tinted crops of two photographs, which nobody has labelled."""
    content = path.read_bytes()
    random = np.random.default_rng(8)
    pictures = [
        _bitmap(MODELS / "images" / name) for name in ("person.bmp", "no_person.bmp")
    ]
    crops = _grid(content).store(
        np.stack([_crop(pictures[i % 2], random) for i in range(CROPS)])
    )
    clean, held = crops[: CROPS * 2 // 3], crops[CROPS * 2 // 3 :]
    told = [Runtime().run(content, it).argmax(axis=1) for it in (clean, held)]
    return Subject(
        # Not the command's defaults (98 %, 1.2 or less, 200), and said in every row:
        # copies of this model agree with it less.
        name="ResNet-8 int8 (floor 80 %, margin 1.5, 60 steps)",
        given=_given("int8", content, clean),
        held=held,
        labels=told[1],
        labelled=False,
        clean_labels=told[0],
        wish=Wish(bits=128, margin=1.5, floor=0.8, steps=60),
    )


def _given(name: str, content: bytes, clean: Array) -> Given:
    """Return what a publisher has, with some clean inputs as golden samples."""
    facts = default_examiner().contract(content)
    output = facts.outputs[0]
    golden = clean[:32]
    answers = Runtime("plain").run(content, golden).reshape(len(golden), -1)
    real: Real = answers.astype(np.float32)
    if output.scale:
        real = (real - np.float32(output.zero_point)) * np.float32(output.scale)
    variant = Variant(
        name=name,
        file=f"variants/{name}.tflite",
        sha256="0" * 64,
        size=len(content),
        inputs=facts.inputs,
        outputs=facts.outputs,
        tolerance=0.05,
    )
    return Given(variant, content, clean, golden, real)


def _grid(content: bytes) -> Grid:
    """Return what a model's input can hold."""
    graph = parse_graph(content)
    return Grid.of(graph.tensors[graph.inputs[0]])


def _bitmap(path: Path) -> NDArray[np.uint8]:
    """Return an uncompressed grey BMP of 8 bits, (H, W)."""
    raw = path.read_bytes()
    start, width, height = (
        int.from_bytes(raw[at : at + 4], "little") for at in (10, 18, 22)
    )
    stride = -(-width // 4) * 4
    rows = np.frombuffer(raw, np.uint8, stride * height, start)
    return rows.reshape(height, stride)[::-1, :width]


def _crop(picture: NDArray[np.uint8], random: np.random.Generator) -> Real:
    """Return a random square of a picture, shrunk to the model's input and tinted."""
    height, width = picture.shape
    side = int(random.integers(CROP_PIXELS, min(height, width) + 1))
    top = int(random.integers(height - side + 1))
    left = int(random.integers(width - side + 1))
    steps = np.linspace(0, side - 1, CROP_PIXELS).astype(int)
    crop = picture[top + steps][:, left + steps, None].astype(np.float32)
    tint = random.uniform(0.6, 1.0, 3).astype(np.float32)
    tinted: Real = crop * tint
    return tinted
