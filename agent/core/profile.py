"""The reference profile: how a model's input and output looked on held-out data.

It travels in the bundle as ``profile.json``, which TUF signs with it, and holds
moments, quantile edges, counts and thresholds: no sample, no minimum, no maximum.

The rules this module keeps:
 * ``parse_profile`` raises ``BundleRefusedError`` only (``profile``), for any bytes;
   array sizes agree with each other, and every number is finite.
 * No numpy here: arrays are little-endian float32 (counts: uint32) bytes, base64 in
   JSON; ``agent.core.drift.reference`` reads them.
 * Law: ``parse_profile(render_profile(p)) == p``.
"""

import hashlib
import json
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

from agent.core.manifest import Manifest
from agent.core.reasons import Reason
from agent.core.watching import MAX_FEATURES, FeatureName
from agent.errors import BundleRefusedError

SCHEMA = 1
MAX_PROFILE_BYTES = 64 * 1024
FEATURES_VERSION = 1  # of the code that computes features; a change makes profiles void
BINS = 16  # of each feature's histogram, between 15 quantiles of the reference
MAX_CHANNELS = 32  # of a sensor vector: wider ones are looked at as a whole

Kind = Literal["image", "spectrogram", "vector", "other"]
Calibration = Literal["grouped", "iid", "ordered", "table"]
Digest = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}$(?!\n)")]
Threshold = Annotated[float, Meta(gt=0, le=1e9)]
Share = Annotated[float, Meta(ge=-1, le=1)]
Note = Annotated[str, Meta(max_length=200)]


class Part(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What all parts of a profile share: immutable, and strict when parsed."""


class Projection(Part, frozen=True):
    """An inner tensor that the model exports as an output, seen along a few axes.

    Attributes:
        output: Name of the output tensor, of ``n`` values.
        count: How many axes.
        mean: (n) its mean, in real units.
        axes: (count, n): principal axes, for real units.
    """

    output: Annotated[str, Meta(max_length=200)]
    count: Annotated[int, Meta(ge=1, le=8)]
    mean: bytes
    axes: bytes


class Reference(Part, frozen=True):
    """One variant's reference.

    Attributes:
        variant: SHA-256 of the .tflite bytes that were run.
        kind: How the input is looked at; ``features`` names what is looked at, the
            ``d`` columns of everything below.
        count: Samples of the reference, of ``groups`` sources.
        mean, sd: Of each feature; ``abs_mean``, ``abs_sd`` of ``|z|``. An ``sd`` or
            ``abs_sd`` of 0 is a feature that never moved: it is not watched.
        whitening: Lower triangle, row by row, of a (2d, 2d) matrix W with ``W @ W.T``
            the inverse covariance of ``[z, (|z| - abs_mean) / abs_sd]``.
        edges: (d, 15) quantiles; ``counts`` (d, 16) reference counts between them.
        eps: (d) tolerated rank shift of each feature, for the e-detector.
        thresholds: Scope -> threshold of its MEWMA; ``site_thresholds`` those to use
            with a site baseline of ``site_count`` samples.
        calibration: How the thresholds were found.
        target: Lag-1 autocorrelation at which the thresholds hold.
        autocorrelation: Expected lag-1 autocorrelation at full rate, -1 without an
            ordered recording.
        classes: Reference answers by label.
        centre: (n) of a sensor vector's Mahalanobis distance; ``precision`` the lower
            triangle, row by row, of its inverse covariance.
        projection: The inner tensor that is looked at, too.
        logits: The model answers scores before softmax, which is done here.
        confidence: ATC threshold and the accuracy it was found at; -1 without labels.
        notes: What could not be calibrated, for people.
    """

    variant: Digest
    kind: Kind
    features: Annotated[
        tuple[FeatureName, ...], Meta(min_length=1, max_length=MAX_FEATURES)
    ]
    count: Annotated[int, Meta(ge=50, le=2**31)]
    groups: Annotated[int, Meta(ge=0, le=2**31)]
    mean: bytes
    sd: bytes
    abs_mean: bytes
    abs_sd: bytes
    whitening: bytes
    edges: bytes
    counts: bytes
    eps: bytes
    thresholds: dict[str, Threshold]
    site_thresholds: dict[str, Threshold]
    site_count: Annotated[int, Meta(ge=50, le=100_000)]
    calibration: Calibration
    target: Annotated[float, Meta(gt=0, le=1)]
    autocorrelation: Share = -1.0
    classes: Annotated[
        tuple[Annotated[int, Meta(ge=0, le=2**31)], ...], Meta(max_length=65)
    ] = ()
    centre: bytes = b""
    precision: bytes = b""
    projection: Projection | None = None
    logits: bool = False
    confidence: Share = -1.0
    accuracy: Share = -1.0
    notes: Annotated[tuple[Note, ...], Meta(max_length=16)] = ()


class Profile(Part, frozen=True):
    """Everything that ``profile.json`` says.

    Attributes:
        preprocessing: ``preprocessing_digest`` of the manifest it was made with.
        features_version: Of the feature code.
        references: One for each variant that was run.
    """

    schema: Annotated[int, Meta(ge=1)]
    model: Annotated[str, Meta(max_length=64)]
    preprocessing: Digest
    features_version: Annotated[int, Meta(ge=1, le=2**31)]
    references: Annotated[tuple[Reference, ...], Meta(min_length=1, max_length=16)]


def preprocessing_digest(manifest: Manifest) -> str:
    """Return the SHA-256 of all that stands between a sample and the model's input."""
    steps = msgspec.to_builtins(manifest.preprocess)
    tree = {"io": manifest.io, "steps": steps}
    return hashlib.sha256(json.dumps(tree, sort_keys=True).encode()).hexdigest()


def parse_profile(raw: bytes) -> Profile:
    """Parse and check a profile.

    Raises:
        BundleRefusedError: ``profile``.
    """
    raise NotImplementedError


def render_profile(profile: Profile) -> bytes:
    """Return the one canonical spelling of a profile: sorted keys, no blanks.

    Raises:
        BundleRefusedError: ``profile``: it contradicts itself, or is too large.
    """
    raise NotImplementedError


def find_reference(profile: Profile, manifest: Manifest, sha256: str) -> Reference:
    """Return what a profile says of one variant of this model.

    Raises:
        BundleRefusedError: ``profile``: it is of another model, preprocessing, feature
            code or variant.
    """
    raise NotImplementedError


def refused(what: str) -> BundleRefusedError:
    """Return the error that refuses a profile."""
    return BundleRefusedError(f"profile.json: {what}", reason=Reason.PROFILE)
