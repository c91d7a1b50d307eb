r"""Train and convert the demo models, and cut the demo stream from real data.

Run from this folder, with Python 3.11 (never needed to use the product)::

    python3.11 -m venv /tmp/assets && /tmp/assets/bin/pip install \
        tensorflow-cpu==2.21.0 keras==3.15.1 ai-edge-litert==2.3.0 \
        scikit-learn==1.9.1 numpy==2.4.6
    /tmp/assets/bin/python make_assets.py

The data are the UCI handwritten digits that come with scikit-learn (see
``LICENSE-digits.txt``). 600 of the 1797 images, drawn by class with a fixed
seed, are held out: no training and no calibration sees them. The others train.

Written next to this file (or in ``--out``):

- ``digits-1/float.tflite`` and ``digits-1/int8.tflite``: the tiny, weak version;
- ``digits-2/float.tflite`` and ``digits-2/int8.tflite``: the convolutional one;
- ``digits-stream.npz``: the held-out ``images`` (raw 0..16), their ``labels``, and
  the ``writers``, as far as they are known (see ``find_writers``);
- ``accuracy.json``: accuracies of the four files on the held-out samples.

The ``pack.toml`` files and the licence text are written by hand and not touched.
``make_profiles.py`` makes the reference profiles afterwards.
It prints the accuracies and the largest output differences between LiteRT's
kernels (XNNPACK, plain built-in, reference): the ground for the tolerances in
``pack.toml``.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")

import keras
import numpy as np
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter, OpResolverType
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from tensorflow.lite.tools import flatbuffer_utils

SEED = 20240607
HELD_OUT = 600
CALIBRATION = 300
CLASSES = 10
SMOOTHING = 0.1
EPOCHS = {1: 14, 2: 40}
VARIANTS = ("int8", "float")
# First image of each writer's stretch of the data.
WRITER_STARTS = [
    0,
    130,
    256,
    386,
    516,
    646,
    776,
    915,
    1029,
    1157,
    1287,
    1415,
    1545,
    1667,
]
KERNELS = {
    "xnnpack": OpResolverType.AUTO,
    "plain": OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
    "reference": OpResolverType.BUILTIN_REF,
}

Images = NDArray[np.uint8]
Labels = NDArray[np.uint8]
Floats = NDArray[np.float32]


def load_split() -> tuple[Images, Labels, Images, Labels]:
    """Return training images and labels, then held-out images and labels."""
    digits = load_digits()
    images = digits.images.astype(np.uint8)[..., np.newaxis]
    labels = digits.target.astype(np.uint8)
    train, held, train_labels, held_labels = train_test_split(
        images, labels, test_size=HELD_OUT, stratify=labels, random_state=SEED
    )
    return train, train_labels, held, held_labels


def find_writers() -> Labels:
    """Return who wrote each held-out image, as a number from 0 on.

    The data name no writers, but keep the order in which they were collected, and
    everybody copied the same sheet of about 130 digits: there are 14 places where it
    begins anew. There were 13 writers, so somebody came twice and stands for two.
    """
    digits = load_digits()
    numbers = np.arange(len(digits.target))
    _, held = train_test_split(
        numbers, test_size=HELD_OUT, stratify=digits.target, random_state=SEED
    )
    return np.searchsorted(WRITER_STARTS, held, "right").astype(np.uint8) - 1


def scale(images: Images) -> Floats:
    """Apply the pack's one preprocessing step: raw 0..16 to float 0..1."""
    return images.astype(np.float32) * np.float32(0.0625)


def build(version: int) -> keras.Model:
    """Return the untrained network of a version."""
    image = keras.Input((8, 8, 1), name="image")
    if version == 1:
        x = keras.layers.Conv2D(4, 3, strides=2, activation="relu")(image)
        x = keras.layers.Flatten()(x)
    else:
        x = keras.layers.Conv2D(16, 3, padding="same", activation="relu")(image)
        x = keras.layers.Conv2D(32, 3, padding="same", activation="relu")(x)
        x = keras.layers.MaxPooling2D()(x)
        x = keras.layers.Flatten()(x)
        x = keras.layers.Dropout(0.3)(x)
        x = keras.layers.Dense(64, activation="relu")(x)
    out = keras.layers.Dense(CLASSES, activation="softmax", name="probabilities")(x)
    return keras.Model(image, out)


def train(version: int, images: Images, labels: Labels) -> keras.Model:
    """Train a version on the training samples, with fixed seeds.

    Smoothed labels keep the logits small, and so keep one int8 step of a logit,
    the rounding by which kernels may differ, small in the probabilities.
    """
    keras.utils.set_random_seed(SEED + version)
    model = build(version)
    loss = keras.losses.CategoricalCrossentropy(label_smoothing=SMOOTHING)
    model.compile(optimizer="adam", loss=loss)
    targets = keras.utils.to_categorical(labels, CLASSES)
    epochs = EPOCHS[version]
    model.fit(scale(images), targets, batch_size=32, epochs=epochs, verbose=0)
    return model


def convert(model: keras.Model, variant: str, calibration: Images) -> bytes:
    """Convert a trained model to a TFLite file with batch size 1."""

    def representative() -> Iterator[list[Floats]]:
        for sample in scale(calibration):
            yield [sample[np.newaxis]]

    with tempfile.TemporaryDirectory() as folder:
        spec = tf.TensorSpec((1, 8, 8, 1), tf.float32, "image")
        model.export(folder, input_signature=[spec], verbose=False)
        converter = tf.lite.TFLiteConverter.from_saved_model(folder)
        if variant == "int8":
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
            converter.representative_dataset = representative
            converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
            converter.inference_input_type = tf.int8
            converter.inference_output_type = tf.int8
        return rename(converter.convert())


def rename(content: bytes) -> bytes:
    """Name input and output `image` and `probabilities`, tensors and signature."""
    model = flatbuffer_utils.convert_bytearray_to_object(bytearray(content))
    graph = model.subgraphs[0]
    model.signatureDefs[0].inputs[0].name = b"image"
    model.signatureDefs[0].outputs[0].name = b"probabilities"
    graph.tensors[graph.inputs[0]].name = b"image"
    graph.tensors[graph.outputs[0]].name = b"probabilities"
    return bytes(flatbuffer_utils.convert_object_to_bytearray(model))


def predict(path: Path, images: Images, kernels: OpResolverType) -> Floats:
    """Return the dequantised outputs (N, 10) of a TFLite file for raw images."""
    interpreter = Interpreter(
        str(path), experimental_op_resolver_type=kernels, num_threads=1
    )
    interpreter.allocate_tensors()
    source = interpreter.get_input_details()[0]
    target = interpreter.get_output_details()[0]
    rows = []
    for sample in scale(images):
        interpreter.set_tensor(source["index"], quantise(sample, source)[np.newaxis])
        interpreter.invoke()
        rows.append(dequantise(interpreter.get_tensor(target["index"])[0], target))
    return np.stack(rows)


def quantise(values: Floats, tensor: dict[str, Any]) -> NDArray[Any]:
    """Turn float values into the element type of an input tensor."""
    if tensor["dtype"] is np.float32:
        return values
    step, zero = tensor["quantization"]
    limits = np.iinfo(tensor["dtype"])
    levels = np.round(values / np.float32(step)) + zero
    return np.clip(levels, limits.min, limits.max).astype(tensor["dtype"])


def dequantise(values: NDArray[Any], tensor: dict[str, Any]) -> Floats:
    """Turn the elements of an output tensor into float values."""
    if tensor["dtype"] is np.float32:
        return values
    step, zero = tensor["quantization"]
    return (values.astype(np.float32) - zero) * np.float32(step)


def measure(path: Path, images: Images, labels: Labels) -> float:
    """Print how far LiteRT's kernels agree on a file; return its accuracy."""
    outputs = {name: predict(path, images, kind) for name, kind in KERNELS.items()}
    base = outputs["xnnpack"]
    scores = {name: np.mean(out.argmax(1) == labels) for name, out in outputs.items()}
    spread = {name: np.abs(out - base).max() for name, out in outputs.items()}
    print(f"{path.parent.name}/{path.name}: {path.stat().st_size} bytes")
    for name in KERNELS:
        print(f"  {name:9} accuracy {scores[name]:.4f}, off by {spread[name]:.7f}")
    return round(float(scores["xnnpack"]), 4)


def save_stream(path: Path, images: Images, labels: Labels) -> None:
    """Write the held-out samples, compressed, without pickles; images first."""
    arrays = {"images": images, "labels": labels, "writers": find_writers()}
    np.savez_compressed(path, allow_pickle=False, **arrays)


def make(out: Path) -> dict[str, dict[str, dict[str, float]]]:
    """Train, convert, write and measure everything; return the accuracies."""
    images, labels, held, held_labels = load_split()
    out.mkdir(parents=True, exist_ok=True)
    save_stream(out / "digits-stream.npz", held, held_labels)
    accuracy: dict[str, dict[str, float]] = {}
    for version in EPOCHS:
        folder = out / f"digits-{version}"
        folder.mkdir(exist_ok=True)
        model = train(version, images, labels)
        scores = accuracy.setdefault(str(version), {})
        for variant in VARIANTS:
            path = folder / f"{variant}.tflite"
            path.write_bytes(convert(model, variant, images[:CALIBRATION]))
            scores[variant] = measure(path, held, held_labels)
    result = {"digits": accuracy}
    (out / "accuracy.json").write_text(json.dumps(result, indent=2) + "\n")
    return result


def main() -> None:
    """Make all files, in this folder unless `--out` names another."""
    parser = argparse.ArgumentParser(description="Make the demo models and data.")
    parser.add_argument("--out", type=Path, default=Path(__file__).resolve().parent)
    tf.config.experimental.enable_op_determinism()
    print(json.dumps(make(parser.parse_args().out), indent=2))


if __name__ == "__main__":
    main()
