"""Profiles and manifests for tests: good ones, to be used or to be spoiled."""

import struct
from typing import Any

import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from agent.core.drift.opened import OpenReference
from agent.core.manifest import Manifest, TensorSpec, Variant
from agent.core.profile import (
    BINS,
    FEATURES_VERSION,
    SCHEMA,
    Kind,
    Profile,
    Reference,
    preprocessing_digest,
)
from agent.core.profile_numbers import triangle
from tests.fakes.bundles import manifest as fake_manifest

COUNT = 160
SOFTMAX = TensorSpec("scores", (1, 4), "int8", 1 / 256, -128)
PICTURE = TensorSpec("image", (1, 32, 32, 3), "uint8", 1 / 255, 0)


def floats(*values: float) -> bytes:
    """Return float32 bytes, made without numpy."""
    return struct.pack(f"<{len(values)}f", *values)


def describe(
    spec: TensorSpec = PICTURE,
    *outputs: TensorSpec,
    others: tuple[TensorSpec, ...] = (),
    **changes: object,
) -> tuple[Manifest, Variant]:
    """Return the manifest of a model with these tensors, and its variant.

    Args:
        spec: The first input; ``others`` follow it.
        outputs: By default those of a softmax of four classes.
        others: See above.
        changes: Keys of the manifest.
    """
    variant = Variant(
        name="int8",
        file="variants/int8.tflite",
        sha256="ab" * 32,
        size=1,
        inputs=(spec, *others),
        outputs=outputs or (SOFTMAX,),
        tolerance=0.0,
    )
    described = replace(fake_manifest(), labels=(), variants=(variant,))
    return replace(described, **changes), variant


def sealed(features: tuple[str, ...] = ("mean", "sd"), **changes: object) -> Reference:
    """Return a reference of such features, all of them standard normal."""
    d = len(features)
    ones, zeros = floats(*[1.0] * d), floats(*[0.0] * d)
    row = [COUNT // BINS] * BINS
    kept: dict[str, Any] = {
        "variant": "ab" * 32,
        "kind": "image",
        "features": features,
        "count": COUNT,
        "groups": 4,
        "mean": zeros,
        "sd": ones,
        "abs_mean": ones,
        "abs_sd": ones,
        "whitening": floats(*[0.5] * triangle(2 * d)),
        "edges": floats(*[float(edge) for edge in range(BINS - 1)] * d),
        "counts": struct.pack(f"<{BINS * d}I", *row * d),
        "eps": floats(*[0.08] * d),
        "thresholds": {"all": 30.0, "input": 20.0, "output": 15.0},
        "site_thresholds": {"all": 25.0},
        "site_count": 2000,
        "calibration": "grouped",
        "target": 0.05,
    }
    kept.update(changes)
    return Reference(**kept)


def profile_of(described: Manifest, *references: Reference) -> Profile:
    """Return a profile of this model with these references."""
    return Profile(
        schema=SCHEMA,
        model=described.model,
        preprocessing=preprocessing_digest(described),
        features_version=FEATURES_VERSION,
        references=references,
    )


def opened(features: tuple[str, ...], rng: np.random.Generator) -> OpenReference:
    """Return a reference with plausible numbers of these features."""
    d = len(features)
    values = rng.normal(size=(COUNT, d)) * rng.uniform(0.1, 9, d)
    edges = np.quantile(values, np.arange(1, BINS) / BINS, axis=0).T
    root = 3 * np.eye(2 * d) + 0.3 * rng.normal(size=(2 * d, 2 * d))
    return OpenReference(
        features=features,
        count=COUNT,
        mean=values.mean(0),
        sd=values.std(0),
        abs_mean=np.full(d, 0.8),
        abs_sd=np.full(d, 0.6),
        whitening=root,
        edges=edges,
        counts=_binned(values, edges),
        eps=np.full(d, 0.08),
        thresholds={"input": 20.0, "output": 15.0, "all": 30.0},
        site_thresholds={"all": 25.0},
        classes=(COUNT, 0, 0, 0),
        calibration="grouped",
    )


def _binned(
    values: NDArray[np.float64], edges: NDArray[np.float64]
) -> NDArray[np.int64]:
    """Return how many values lie between the edges of each column."""
    return np.array(
        [
            np.bincount(np.searchsorted(row, column), minlength=BINS)
            for row, column in zip(edges, values.T, strict=True)
        ]
    )


def kinds() -> tuple[Kind, ...]:
    """Return all kinds of input."""
    return ("image", "spectrogram", "vector", "other")
