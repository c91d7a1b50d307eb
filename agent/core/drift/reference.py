"""References: from a profile to arrays, and back.

The rules this module keeps:
 * A profile that is not of exactly this model, variant, preprocessing, feature code and
   feature list is refused: comparing with it would alarm for ever, or never.
 * Law: opening what was sealed gives the same numbers, rounded to float32, and a
   whitening of the same distances.
"""

import hashlib
from dataclasses import dataclass
from typing import cast

import numpy as np
from numpy.typing import NDArray

from agent.core.drift.features import FeatureReader, build_reader
from agent.core.drift.opened import Floats, OpenReference, whitening_fault
from agent.core.drift.packing import (
    lower_factor,
    pack_counts,
    pack_floats,
    pack_triangle,
    unpack_counts,
    unpack_floats,
    unpack_triangle,
)
from agent.core.manifest import Manifest, Variant
from agent.core.profile import (
    BINS,
    Calibration,
    Kind,
    Profile,
    Projection,
    Reference,
    check_profile,
    check_reference,
    find_reference,
    parse_profile,
    refused,
)
from agent.core.reasons import Reason
from agent.core.watching import Scope
from agent.errors import BundleRefusedError

MAX_CLASSES = 64  # as the statistics block counts them; all further ones are one more
# Of a vector's covariance, towards no correlation: enough that two channels which are
# one sensor read twice do not divide by rounding errors, too little for others.
DISTANCE_SHRINKAGE = 0.001
SCORED: tuple[Scope, ...] = ("input", "output", "all")  # what has a MEWMA


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
    if not raw:
        return Shipped(build_reader(manifest, variant), None, Reason.UNWATCHED)
    try:
        profile = parse_profile(raw)
        found = find_reference(profile, manifest, variant.sha256)
        reader = build_reader(manifest, variant, found)
        reference = open_reference(profile, manifest, variant, reader)
    except BundleRefusedError as err:
        reader = build_reader(manifest, variant)
        return Shipped(reader, None, err.reason, str(err)[:500])
    return Shipped(reader, reference)


def open_reference(
    profile: Profile, manifest: Manifest, variant: Variant, reader: FeatureReader
) -> OpenReference:
    """Open what a profile says of one variant, read by this reader.

    Features that never moved in the reference (``sd`` 0) stay in it, and are left out
    of every comparison: see ``OpenReference.moving``.

    Raises:
        BundleRefusedError: ``profile``: it is of another model, variant, preprocessing,
            feature code or feature list, or contradicts itself.
    """
    check_profile(profile)
    found = find_reference(profile, manifest, variant.sha256)
    if found.kind != reader.kind or found.features != reader.names:
        raise refused(_difference(found, reader))
    for scope in SCORED:
        if reader.columns[scope].size and scope not in found.thresholds:
            raise refused(f"there is no threshold for {scope}")
    opened = _open(found)
    if fault := whitening_fault(opened):
        raise refused(fault)
    return opened


def _difference(found: Reference, reader: FeatureReader) -> str:
    """Say how the features of a profile differ from those of a reader."""
    if found.kind != reader.kind:
        return f"its input was looked at as {found.kind}, here as {reader.kind}"
    missing = [name for name in reader.names if name not in found.features]
    unknown = [name for name in found.features if name not in reader.names]
    return f"other features: without {missing}, with unknown {unknown}"


def _open(found: Reference) -> OpenReference:
    """Return a checked reference as arrays."""
    d = len(found.features)
    return OpenReference(
        features=found.features,
        count=found.count,
        mean=unpack_floats(found.mean, d),
        sd=unpack_floats(found.sd, d),
        abs_mean=unpack_floats(found.abs_mean, d),
        abs_sd=unpack_floats(found.abs_sd, d),
        whitening=unpack_triangle(found.whitening),
        edges=unpack_floats(found.edges, d, BINS - 1),
        counts=unpack_counts(found.counts, d, BINS),
        eps=unpack_floats(found.eps, d),
        thresholds=dict(found.thresholds),
        site_thresholds=dict(found.site_thresholds),
        site_count=found.site_count,
        classes=found.classes,
        target=found.target,
        autocorrelation=found.autocorrelation,
        confidence=found.confidence,
        accuracy=found.accuracy,
        calibration=found.calibration,
        digest=_digest(found),
    )


def _digest(found: Reference) -> str:
    """Return the SHA-256 of all that samples are compared with."""
    parts = (found.mean, found.sd, found.whitening, found.edges, found.counts)
    return hashlib.sha256(b"".join(parts)).hexdigest()


@dataclass(frozen=True, slots=True)
class Origin:
    """What a reference is of, beside its numbers: what ``seal_reference`` adds.

    Attributes:
        variant: SHA-256 of the .tflite bytes that were run.
        kind: How the input was looked at.
        groups: Sources of the samples.
        centre: (n) of a vector's Mahalanobis distance, and ``precision`` (n, n).
        projection: As ``build_projection`` made it.
        logits: ``FeatureReader.logits`` after all samples.
        notes: What could not be calibrated, for people.
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
    """Return what a profile holds of an opened reference.

    Raises:
        BundleRefusedError: ``profile``: it contradicts itself.
    """
    centre, precision = origin.centre, origin.precision
    sealed = Reference(
        variant=origin.variant,
        kind=origin.kind,
        features=opened.features,
        count=opened.count,
        groups=origin.groups,
        mean=pack_floats(opened.mean),
        sd=pack_floats(opened.sd),
        abs_mean=pack_floats(opened.abs_mean),
        abs_sd=pack_floats(opened.abs_sd),
        whitening=pack_triangle(lower_factor(opened.whitening)),
        edges=pack_floats(opened.edges),
        counts=pack_counts(opened.counts),
        eps=pack_floats(opened.eps),
        thresholds=dict(opened.thresholds),
        site_thresholds=dict(opened.site_thresholds),
        site_count=opened.site_count,
        calibration=cast("Calibration", opened.calibration),  # render checks it
        target=opened.target,
        autocorrelation=opened.autocorrelation,
        classes=fold_classes(opened.classes),
        centre=b"" if centre is None else pack_floats(centre),
        precision=b"" if precision is None else pack_triangle(precision),
        projection=origin.projection,
        logits=origin.logits,
        confidence=opened.confidence,
        accuracy=opened.accuracy,
        notes=origin.notes,
    )
    try:
        check_reference(sealed)
    except ValueError as err:
        raise refused(str(err)) from err
    return sealed


def fold_classes(answers: tuple[int, ...]) -> tuple[int, ...]:
    """Return answers by label, those beyond ``MAX_CLASSES`` as one more.

    >>> fold_classes((1,) * 100)[-1], len(fold_classes((1,) * 100))
    (36, 65)
    """
    if len(answers) <= MAX_CLASSES:
        return answers
    return (*answers[:MAX_CLASSES], sum(answers[MAX_CLASSES:]))


def build_projection(
    output: str, tensors: NDArray[np.floating], axes: int
) -> Projection:
    """Return the principal axes of an inner tensor.

    Args:
        output: Name of the output tensor.
        tensors: (samples, n) its values, in real units.
        axes: How many are wanted, at most 8; fewer where it has fewer dimensions.
    """
    values = np.asarray(tensors, np.float64)
    mean = values.mean(axis=0)
    _, directions = np.linalg.eigh(np.atleast_2d(np.cov(values - mean, rowvar=False)))
    largest = directions.T[::-1][:axes]
    return Projection(output, len(largest), pack_floats(mean), pack_floats(largest))


def build_distance(vectors: NDArray[np.floating]) -> tuple[bytes, bytes]:
    """Return (centre, precision) of sensor vectors (samples, n), as a profile has them.

    The covariance is shrunk towards its diagonal as far as ``DISTANCE_SHRINKAGE``, so
    that channels which always agree, or never move, have an inverse, too.
    """
    values = np.asarray(vectors, np.float64)
    covariance = np.atleast_2d(np.cov(values, rowvar=False))
    own = np.diag(covariance).copy()
    own[own <= 0] = 1.0  # a channel that never moved counts what it moves later
    shrunk = (1 - DISTANCE_SHRINKAGE) * covariance
    np.fill_diagonal(shrunk, own)
    return pack_floats(values.mean(axis=0)), pack_triangle(np.linalg.inv(shrunk))
