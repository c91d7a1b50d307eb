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

from agent.core.manifest import Manifest, no_constants, unique_keys
from agent.core.profile_numbers import (
    LARGEST,
    check_rising,
    check_sums,
    check_within,
    is_positive,
    read_counts,
    read_floats,
    side_of,
    triangle,
)
from agent.core.reasons import Reason
from agent.core.watching import MAX_FEATURES, SCOPES, FeatureName
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
    if len(raw) > MAX_PROFILE_BYTES:
        raise refused(f"{len(raw)} bytes, at most {MAX_PROFILE_BYTES} allowed")
    try:
        tree = json.loads(
            raw.decode("utf-8"),
            object_pairs_hook=unique_keys,
            parse_constant=no_constants,
        )
        _check_schema(tree)
        # Lone surrogates pass json, and would end whoever prints a note.
        json.dumps(tree, ensure_ascii=False).encode()
        profile = msgspec.convert(tree, Profile)
    except (json.JSONDecodeError, UnicodeDecodeError) as err:
        # A parser's line and column help nobody: it is one line, and made by a machine.
        raise refused("it is cut off or damaged") from err
    except (ValueError, RecursionError, msgspec.ValidationError) as err:
        raise refused(str(err) or type(err).__name__) from err
    check_profile(profile)
    return profile


def render_profile(profile: Profile) -> bytes:
    """Return the one canonical spelling of a profile: sorted keys, no blanks.

    Raises:
        BundleRefusedError: ``profile``: it contradicts itself, or is too large.
    """
    tree = msgspec.to_builtins(profile)
    text = json.dumps(tree, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    raw = text.encode() + b"\n"
    if len(raw) > MAX_PROFILE_BYTES:
        raise refused(
            f"{len(raw)} bytes, at most {MAX_PROFILE_BYTES} allowed: "
            "profile fewer variants, or look along fewer axes"
        )
    parse_profile(raw)  # whoever is handed these bytes can read them
    return raw


def check_profile(profile: Profile) -> None:
    """Check what types alone cannot say: sizes that agree, values that can be.

    Raises:
        BundleRefusedError: ``profile``.
    """
    variants = [reference.variant for reference in profile.references]
    if len(set(variants)) != len(variants):
        raise refused("two references are of one variant")
    for reference in profile.references:
        try:
            check_reference(reference)
        except ValueError as err:
            raise refused(f"variant {reference.variant[:12]}: {err}") from err


def check_reference(reference: Reference) -> None:
    """Check one variant's reference.

    Raises:
        ValueError: It contradicts itself; the message says where.
    """
    d = len(reference.features)
    if len(set(reference.features)) != d:
        raise ValueError("features: a name stands twice")
    read_floats(reference.mean, d, "mean")
    read_floats(reference.abs_mean, d, "abs_mean")
    sd = read_floats(reference.sd, d, "sd")
    abs_sd = read_floats(reference.abs_sd, d, "abs_sd")
    check_within(sd, 0.0, LARGEST, "sd")
    check_within(abs_sd, 0.0, LARGEST, "abs_sd")
    if not is_positive(sd):
        raise ValueError("sd: no feature ever moved: there is nothing to compare")
    read_floats(reference.whitening, triangle(2 * d), "whitening")
    edges = read_floats(reference.edges, d * (BINS - 1), "edges")
    check_rising(edges, BINS - 1, "edges")
    counts = read_counts(reference.counts, d * BINS, "counts")
    check_sums(counts, BINS, reference.count, "counts")
    check_within(read_floats(reference.eps, d, "eps"), 0.0, 1.0, "eps")
    _check_thresholds(reference)
    _check_lens(reference)


def _check_thresholds(reference: Reference) -> None:
    """Every scope is a known one, and what has features has a threshold."""
    for name in ("thresholds", "site_thresholds"):
        unknown = sorted(getattr(reference, name).keys() - set(SCOPES))
        if unknown:
            raise ValueError(f"{name}: {unknown[0]!r} is no scope")
    if "all" not in reference.thresholds:
        raise ValueError("thresholds: there is none for all features")
    if sum(reference.classes) > reference.count:
        raise ValueError(f"classes: more answers than {reference.count} samples")


def _check_lens(reference: Reference) -> None:
    """What looks at vectors and inner tensors has matching sizes."""
    channels = side_of(reference.centre, "centre")
    if channels > MAX_CHANNELS:
        raise ValueError(f"centre: {channels} channels, at most {MAX_CHANNELS}")
    read_floats(reference.centre, channels, "centre")
    read_floats(reference.precision, triangle(channels), "precision")
    if reference.projection is not None:
        inner = reference.projection
        values = side_of(inner.mean, "projection.mean")
        read_floats(inner.mean, values, "projection.mean")
        read_floats(inner.axes, inner.count * values, "projection.axes")


def find_reference(profile: Profile, manifest: Manifest, sha256: str) -> Reference:
    """Return what a profile says of one variant of this model.

    Raises:
        BundleRefusedError: ``profile``: it is of another model, preprocessing, feature
            code or variant.
    """
    if profile.model != manifest.model:
        raise refused(f"it is of model {profile.model!r}, not {manifest.model!r}")
    if profile.features_version != FEATURES_VERSION:
        raise refused(
            f"made by feature code {profile.features_version}, "
            f"this agent has {FEATURES_VERSION}"
        )
    if profile.preprocessing != preprocessing_digest(manifest):
        raise refused("made with other preprocess steps or another io")
    for reference in profile.references:
        if reference.variant == sha256:
            return reference
    raise refused(f"it has no reference of variant {sha256[:12]}")


def refused(what: str) -> BundleRefusedError:
    """Return the error that refuses a profile."""
    return BundleRefusedError(f"profile.json: {what}", reason=Reason.PROFILE)


def _check_schema(tree: object) -> None:
    """Name a newer schema before strict parsing trips over its new keys."""
    schema = tree.get("schema") if isinstance(tree, dict) else None
    if isinstance(schema, int) and schema > SCHEMA:
        raise refused(f"schema {schema} is newer than {SCHEMA}, the newest read here")
