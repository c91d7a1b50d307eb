"""The reference profile: how a model's input and output looked on held-out data.

It travels in the bundle as ``profile.json``, which TUF signs with it, and holds
moments, quantile edges, counts and thresholds: no sample, no minimum, no maximum.

The rules this module keeps:
 * ``parse_profile`` raises ``BundleRefusedError`` only (``profile``), for any bytes;
   array sizes agree with each other, and every number is finite.
 * No numpy here: arrays are little-endian float32 (counts: uint32) bytes, base64 in
   JSON; ``agent.core.drift`` reads them.
 * Law: ``parse_profile(render_profile(p)) == p``.
"""

from typing import Annotated, Literal

from msgspec import Meta, Struct

from agent.core.watching import FeatureName

SCHEMA = 1
MAX_PROFILE_BYTES = 64 * 1024
FEATURES_VERSION = 1  # of the code that computes features; a change makes profiles void
BINS = 16  # of each feature's histogram, between 15 quantiles of the reference

Kind = Literal["image", "spectrogram", "vector", "other"]
Calibration = Literal["grouped", "iid", "ordered", "table"]
Finite = Annotated[float, Meta(ge=-1e30, le=1e30)]
Threshold = Annotated[float, Meta(gt=0, le=1e9)]


class Base(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Base of every part of the profile: immutable, and strict when parsed."""


class Projection(Base, frozen=True):
    """An inner tensor that the model exports as an output, seen along a few axes.

    Attributes:
        output: Name of the output tensor.
        mean: Its mean, one value each.
        axes: ``count`` rows of as many values: principal axes.
    """

    output: Annotated[str, Meta(max_length=200)]
    count: Annotated[int, Meta(ge=1, le=8)]
    mean: bytes
    axes: bytes


class Reference(Base, frozen=True):
    """One variant's reference.

    Attributes:
        variant: SHA-256 of the .tflite bytes that were run.
        kind: How the input is looked at; ``features`` names what is looked at, the
            ``d`` columns of everything below.
        count: Samples of the reference, of ``groups`` sources.
        mean, sd: Of each feature; ``abs_mean``, ``abs_sd`` of ``|z|``.
        whitening: (2d, 2d) matrix that whitens ``[z, |z|]``.
        edges: (d, 15) quantiles; ``counts`` (d, 16) reference counts between them.
        eps: (d) tolerated rank shift of each feature, for the e-detector.
        centre, precision: (n) and (n, n) of a sensor vector's Mahalanobis distance.
        classes: Reference answers by label.
        thresholds: Scope -> threshold of its MEWMA; ``site_thresholds`` those to use
            with a site baseline of ``site_count`` samples.
        calibration: How the thresholds were found.
        autocorrelation: Expected lag-1 autocorrelation at full rate, -1 without an
            ordered recording.
        target: Lag-1 autocorrelation at which the thresholds hold.
        confidence: ATC threshold and the accuracy it was found at; -1 without labels.
        notes: What could not be calibrated, for people.
    """

    variant: Annotated[str, Meta(pattern=r"^[0-9a-f]{64}$(?!\n)")]
    kind: Kind
    features: Annotated[tuple[FeatureName, ...], Meta(min_length=1, max_length=40)]
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
    autocorrelation: Annotated[float, Meta(ge=-1, le=1)] = -1.0
    classes: Annotated[tuple[int, ...], Meta(max_length=65)] = ()
    centre: bytes = b""
    precision: bytes = b""
    projection: Projection | None = None
    confidence: Annotated[float, Meta(ge=-1, le=1)] = -1.0
    accuracy: Annotated[float, Meta(ge=-1, le=1)] = -1.0
    notes: Annotated[
        tuple[Annotated[str, Meta(max_length=200)], ...], Meta(max_length=16)
    ] = ()


class Profile(Base, frozen=True):
    """Everything that ``profile.json`` says.

    Attributes:
        preprocessing: SHA-256 of the manifest's preprocess steps and io.
        features_version: Of the feature code.
        references: One for each variant that was run.
    """

    schema: Annotated[int, Meta(ge=1)]
    model: Annotated[str, Meta(max_length=64)]
    preprocessing: Annotated[str, Meta(pattern=r"^[0-9a-f]{64}$(?!\n)")]
    features_version: int
    references: Annotated[tuple[Reference, ...], Meta(min_length=1, max_length=16)]
