"""What the benchmark watches: scenarios behind a manifest, read as a worker reads.

The rules this module keeps:
 * Features, reference, rendering, parsing and opening are the product's own.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agent.cli.profile_learning import learn
from agent.cli.profile_words import Question
from agent.core.drift.calibrate import Calibrated, calibrate
from agent.core.drift.calibrate_plan import HeldOut
from agent.core.drift.features import FeatureReader, build_reader
from agent.core.drift.packing import unpack_floats, unpack_triangle
from agent.core.drift.reference import Origin, Shipped, open_shipped, seal_reference
from agent.core.manifest import Golden, Manifest, TensorSpec, Variant
from agent.core.profile import (
    FEATURES_VERSION,
    SCHEMA,
    Profile,
    Reference,
    preprocessing_digest,
    render_profile,
)
from benchmarks.drift_scenarios import DigitWorld
from benchmarks.drift_scenarios_sensors import SensorWorld
from benchmarks.drift_scenarios_shifts import NONE, Shift

Tensors = tuple[list[NDArray[Any]], list[NDArray[Any]]]
SOFTMAX = {"dtype": "int8", "scale": 1 / 256, "zero_point": -128}
INNER = "inner"


@dataclass(frozen=True, slots=True)
class Looks:
    """What a reader saw of n samples.

    Attributes:
        values: (n, d) features; ``index``, ``confidence`` and ``checksum`` (n).
    """

    values: NDArray[np.float64]
    index: NDArray[np.intp]
    confidence: NDArray[np.float64]
    checksum: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.values)

    def take(self, rows: NDArray[np.intp]) -> "Looks":
        """Return these samples, in this order."""
        return Looks(
            *(self.values[rows], self.index[rows]),
            *(self.confidence[rows], self.checksum[rows]),
        )

    def then(self, other: "Looks") -> "Looks":
        """Return these samples and then the others."""
        return Looks(
            np.concatenate([self.values, other.values]),
            np.concatenate([self.index, other.index]),
            np.concatenate([self.confidence, other.confidence]),
            np.concatenate([self.checksum, other.checksum]),
        )


@dataclass(frozen=True, slots=True)
class Watched:
    """A model whose profile was made, rendered and opened again.

    Attributes:
        raw: The profile's bytes.
        shipped: As a worker opens it: with the reader that reads its features.
        calibrated: What calibration said.
    """

    manifest: Manifest
    raw: bytes
    shipped: Shipped
    calibrated: Calibrated

    @property
    def reader(self) -> FeatureReader:
        """What reads its features."""
        return self.shipped.reader


def digit_manifest() -> Manifest:
    """Return the manifest of the digits' network."""
    outputs = (
        TensorSpec("softmax", (1, 9), **SOFTMAX),  # type: ignore[arg-type]  # of a dict
        TensorSpec(INNER, (1, 32), "float32"),
    )
    frame = TensorSpec("frame", (1, 32, 32, 1), "uint8", 1 / 255)
    return plain_manifest("digits", frame, outputs, [str(label) for label in range(9)])


def sensor_manifest() -> Manifest:
    """Return the manifest of the machine's classifier."""
    outputs = (TensorSpec("softmax", (1, 4), **SOFTMAX),)  # type: ignore[arg-type]  # of a dict
    vector = TensorSpec("readings", (1, 32), "float32")
    return plain_manifest("machine", vector, outputs, ["a", "b", "c", "d"])


def digit_tensors(world: DigitWorld, frames: NDArray[np.uint8]) -> list[Tensors]:
    """Return the tensors of each frame, as a worker holds them."""
    answers = world.answer(frames)
    return [
        ([frame[None, :, :, None]], [softmax[None], inner[None]])
        for frame, softmax, inner in zip(
            frames, answers.softmax, answers.inner, strict=True
        )
    ]


def sensor_tensors(world: SensorWorld, rows: NDArray[np.float32]) -> list[Tensors]:
    """Return the tensors of each reading."""
    answers = world.answer(rows)
    return [
        ([row[None]], [softmax[None]])
        for row, softmax in zip(rows, answers, strict=True)
    ]


def read_all(reader: FeatureReader, tensors: Sequence[Tensors]) -> Looks:
    """Read samples one by one, as a worker does."""
    count = len(tensors)
    values = np.empty((count, len(reader.names)))
    index = np.empty(count, np.intp)
    confidence = np.empty(count)
    checksum = np.empty(count, np.int64)
    for at, (inputs, outputs) in enumerate(tensors):
        softmax = outputs[0][0]
        answer = int(softmax.argmax())
        score = (float(softmax[answer]) + 128) / 256
        seen = reader.read(inputs, outputs, answer, score)
        if seen is None:
            raise ValueError("a scenario's sample has no features")
        values[at], index[at] = seen, answer
        confidence[at] = reader.confidence
        checksum[at] = reader.checksum(inputs)
    return Looks(values, index, confidence, checksum)


def see_digits(
    reader: FeatureReader,
    world: DigitWorld,
    pool: NDArray[np.intp],
    count: int,
    shift: Shift = NONE,
    *,
    random: np.random.Generator,
) -> Looks:
    """Draw frames of a pool and read them."""
    sources = world.draw(pool, count, shift, random)
    return read_all(reader, digit_tensors(world, world.frames(sources, shift, random)))


def watch_digits(world: DigitWorld, pool: NDArray[np.intp], seed: int) -> Watched:
    """Make the profile of the digits' network: four frames of each source of a pool."""
    random = np.random.default_rng(seed)
    sources = np.repeat(pool, 4)
    frames = world.frames(sources, NONE, random)
    right = world.answer(frames).index == world.labels[sources]
    return make_watched(
        digit_manifest(),
        digit_tensors(world, frames),
        groups=sources,
        right=right,
        random=random,
    )


def make_watched(
    manifest: Manifest,
    tensors: Sequence[Tensors],
    *,
    groups: NDArray[np.intp] | None,
    random: np.random.Generator,
    right: NDArray[np.bool_] | None = None,
    ordered: bool = False,
) -> Watched:
    """Read held-out data, calibrate, render the profile and open it again."""
    variant = manifest.variants[0]
    draft = _draft(manifest, variant, tensors)
    reader = build_reader(manifest, variant, draft)
    looks = read_all(reader, tensors)
    held_out = HeldOut(
        features=reader.names,
        columns=reader.columns,
        values=looks.values,
        index=looks.index,
        groups=groups,
        classes=reader.classes,
        ordered=ordered,
        confidence=None if right is None else looks.confidence,
        right=right,
    )
    calibrated = calibrate(held_out, random)
    raw = _render(manifest, variant, reader, draft, calibrated)
    shipped = open_shipped(raw, manifest, variant)
    if shipped.reference is None:
        raise ValueError(f"the profile was refused: {shipped.detail}")
    return Watched(manifest, raw, shipped, calibrated)


def _draft(
    manifest: Manifest, variant: Variant, tensors: Sequence[Tensors]
) -> Reference | None:
    """Learn what a reader has to be told, as ``tinyward profile`` does."""
    reader = build_reader(manifest, variant)
    values = read_all(reader, tensors).values.astype(np.float32)
    named = [spec.name for spec in variant.outputs]
    inner = INNER if INNER in named else ""
    rows = [pair[1][named.index(INNER)][0] for pair in tensors] if inner else []
    question = Question(b"", variant.name, b"", (), tensor=inner)
    return learn(variant.sha256, question, reader, list(values), rows)


def _render(
    manifest: Manifest,
    variant: Variant,
    reader: FeatureReader,
    draft: Reference | None,
    calibrated: Calibrated,
) -> bytes:
    """Return the profile's bytes."""
    has_distance = draft is not None and bool(draft.precision)
    origin = Origin(
        variant=variant.sha256,
        kind=reader.kind,
        groups=calibrated.groups,
        centre=unpack_floats(draft.centre, -1) if draft and has_distance else None,
        precision=(
            unpack_triangle(draft.precision, symmetric=True)
            if draft and has_distance
            else None
        ),
        projection=draft.projection if draft else None,
        logits=reader.logits,
        notes=calibrated.notes,
    )
    return render_profile(
        Profile(
            schema=SCHEMA,
            model=manifest.model,
            preprocessing=preprocessing_digest(manifest),
            features_version=FEATURES_VERSION,
            references=(seal_reference(calibrated.reference, origin),),
        )
    )


def plain_manifest(
    name: str, spec: TensorSpec, outputs: tuple[TensorSpec, ...], labels: list[str]
) -> Manifest:
    """Return a manifest of one variant, whose bytes nobody needs here."""
    digest = hashlib.sha256(name.encode()).hexdigest()
    file = "variants/only.tflite"
    variant = Variant("only", file, digest, 1, (spec,), outputs, 1.0)
    return Manifest(
        schema=1,
        model=name,
        version=1,
        task="classification",
        variants=(variant,),
        golden=Golden(digest, 1, 1),
        labels=tuple(labels),
    )
