"""References: from a profile's bytes to arrays and back."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from agent.core.drift.features import FeatureReader
from agent.core.drift.opened import Floats, OpenReference
from agent.core.manifest import Manifest, Variant
from agent.core.profile import Kind, Profile, Projection, Reference


@dataclass(frozen=True, slots=True)
class Shipped:
    """What a bundle's profile gave, or why it gave nothing; the reader always works.

    Attributes:
        reader: Reads this variant's features.
        reference: What to compare with, None without a good profile.
        reason: Why there is none: a ``Reason`` word, and ``detail`` for people.
    """

    reader: FeatureReader
    reference: OpenReference | None
    reason: str = ""
    detail: str = ""


def open_shipped(raw: bytes, manifest: Manifest, variant: Variant) -> Shipped:
    """Open a bundle's profile (``b""``: it has none); never raises for its content."""
    raise NotImplementedError


def open_reference(
    profile: Profile, manifest: Manifest, variant: Variant, reader: FeatureReader
) -> OpenReference:
    """Open what a profile says of one variant, read by this reader.

    Raises:
        BundleRefusedError: ``profile``: it is of another model, variant, preprocessing,
            feature code or feature list, or contradicts itself.
    """
    raise NotImplementedError


@dataclass(frozen=True, slots=True)
class Origin:
    """What a reference is of, beside its numbers: what ``seal_reference`` adds.

    Attributes:
        variant: SHA-256 of the .tflite bytes that were run.
        groups: Sources of the samples.
        centre: (n) of a vector's Mahalanobis distance, and ``precision`` (n, n).
        projection: As ``build_projection`` made it.
        logits: ``FeatureReader.logits`` after all samples.
    """

    variant: str
    kind: Kind
    groups: int
    centre: Floats | None = None
    precision: Floats | None = None
    projection: Projection | None = None
    logits: bool = False
    notes: tuple[str, ...] = ()


def seal_reference(opened: OpenReference, origin: Origin) -> Reference:
    """Return what a profile holds of an opened reference; the inverse of opening it.

    Law: what is opened again differs by rounding to float32 only, and its whitening is
    the triangular one of the same covariance.

    Raises:
        BundleRefusedError: ``profile``: it contradicts itself.
    """
    raise NotImplementedError


def build_projection(
    output: str, tensors: NDArray[np.floating], axes: int
) -> Projection:
    """Return the principal axes of an inner tensor's values (samples, n), real units."""
    raise NotImplementedError
