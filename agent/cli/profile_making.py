"""Making a profile: each variant is read, judged, calibrated and sealed.

The rules this module keeps:
 * What could not be calibrated is a warning, and a note in the profile.
 * Data that say nothing (too few, all alike, mostly bad) end in an error that says so.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from agent.cli.profile_delays import ShiftDelay, shift_delays
from agent.cli.profile_held_out import Codes, HeldOut, group_codes, label_codes
from agent.cli.profile_reader import FeatureChild, Rows
from agent.cli.profile_verdict import check_lengths, check_rows, warn_about
from agent.cli.profile_words import Question
from agent.core.drift import calibrate_plan
from agent.core.drift.calibrate import SPLITS, Calibrated, calibrate
from agent.core.drift.distance import cross_distances
from agent.core.drift.mewma import mewma_path
from agent.core.drift.opened import Columns
from agent.core.drift.packing import unpack_floats, unpack_triangle
from agent.core.drift.reference import Origin, seal_reference
from agent.core.manifest import Manifest, Variant
from agent.core.profile import (
    FEATURES_VERSION,
    SCHEMA,
    Kind,
    Profile,
    Reference,
    preprocessing_digest,
    render_profile,
)
from agent.trust.bundle import Bundle

MAX_NOTES = 16  # of a profile, of MAX_NOTE_CHARACTERS each
MAX_NOTE_CHARACTERS = 200


class View(Protocol):
    """Whoever is shown how far it is."""

    def begin(self, what: str, total: int | None) -> None:
        """Begin a stage of so many steps, None if nobody knows."""

    def move(self, done: int) -> None:
        """So many steps of the stage are done."""


@dataclass(frozen=True, slots=True)
class Making:
    """What is asked for.

    Attributes:
        bundle: The model; ``variants`` those of it that are profiled.
        held_out: The data.
        ordered: They stand in the order in which they were recorded.
        tensor: Output with inner features; empty means none.
        kind: How to look at the input; None means by its shape.
        site_samples: Of the baselines that boards will collect.
        seed: Of all chance in here.
        shifts: Also see how soon shifts are found, for the report.
    """

    bundle: Bundle
    variants: tuple[Variant, ...]
    held_out: HeldOut
    ordered: bool = False
    tensor: str = ""
    kind: Kind | None = None
    site_samples: int = 2000
    seed: int = 0
    shifts: bool = False


@dataclass(frozen=True, slots=True)
class MadeVariant:
    """One variant's reference, and how it came to be.

    Attributes:
        paths: Scope -> (n) MEWMA over its threshold along the data.
        bounds: Where groups end on those paths; ``axis`` says what they go along.
        labels: Of the model's classes.
        delays: How soon inputs changed on purpose are found.
        warnings: What is not as it could be.
    """

    variant: Variant
    rows: Rows
    calibrated: Calibrated
    reference: Reference
    labels: tuple[str, ...]
    paths: dict[str, NDArray[np.float64]]
    bounds: tuple[int, ...]
    axis: str
    delays: tuple[ShiftDelay, ...]
    warnings: tuple[str, ...]

    def label(self, number: int) -> str:
        """Return the name of a class, or its number."""
        return self.labels[number] if number < len(self.labels) else str(number)


@dataclass(frozen=True, slots=True)
class Made:
    """A whole profile; ``raw`` its bytes."""

    manifest: Manifest
    profile: Profile
    raw: bytes
    variants: tuple[MadeVariant, ...]


def make_profile(making: Making, view: View, child: FeatureChild | None = None) -> Made:
    """Read, calibrate and seal every variant.

    Args:
        making: What is asked for.
        view: Is shown how far it is.
        child: Runs the models; the real one by default.

    Raises:
        SettingsError: Groups, labels or a name do not fit (``settings``).
        TrialFailedError: A model cannot be used, or the data say nothing of it.
        DeviceError: The data cannot be read.
        BundleRefusedError: The profile would be too large (``profile``).
    """
    manifest = making.bundle.manifest
    running = child or FeatureChild()
    made = tuple(
        _make_variant(making, variant, view, running) for variant in making.variants
    )
    profile = Profile(
        schema=SCHEMA,
        model=manifest.model,
        preprocessing=preprocessing_digest(manifest),
        features_version=FEATURES_VERSION,
        references=tuple(one.reference for one in made),
    )
    return Made(manifest, profile, render_profile(profile), made)


def _make_variant(
    making: Making, variant: Variant, view: View, child: FeatureChild
) -> MadeVariant:
    """Make one variant's reference.

    Raises:
        AgentError: See ``make_profile``.
    """
    rows = _read(making, variant, view, child)
    check_lengths(making.held_out, rows)
    check_rows(rows, variant.name)
    held_out, codes = _held_out(making, rows)
    random = np.random.default_rng(making.seed)
    view.begin(f"{variant.name}: calibrating", SPLITS)
    calibrated = calibrate(
        held_out,
        random,
        site_count=making.site_samples,
        progress=lambda done, _total: view.move(done),
    )
    warnings = (*calibrated.notes, *warn_about(rows, calibrated, making.held_out))
    delays = shift_delays(rows, calibrated, held_out.columns, making.seed)
    order, bounds, axis = _order(codes, len(rows.values), ordered=making.ordered)
    return MadeVariant(
        variant=variant,
        rows=rows,
        calibrated=calibrated,
        reference=_seal(variant, rows, calibrated, warnings),
        labels=making.bundle.manifest.labels,
        paths=score_paths(rows.values[order], calibrated, held_out.columns),
        bounds=tuple(at // calibrated.interval for at in bounds),
        axis=axis
        if calibrated.interval == 1
        else f"{axis}, one in {calibrated.interval}",
        delays=delays,
        warnings=warnings,
    )


def _read(making: Making, variant: Variant, view: View, child: FeatureChild) -> Rows:
    """Run one variant over the data."""
    held_out = making.held_out
    known = held_out.groups or held_out.labels
    view.begin(f"{variant.name}: reading", len(known) if known else None)
    question = Question(
        manifest=making.bundle.raw_manifest,
        variant=variant.name,
        content=bytes(making.bundle.variant_bytes(variant.name)),
        parts=tuple(str(part.path.resolve()) for part in held_out.parts),
        array=held_out.array,
        boundaries=held_out.boundaries(),
        tensor=making.tensor,
        kind=making.kind,
        shifts=making.shifts,
        seed=making.seed,
    )
    return child.read(question, view.move)


def _held_out(
    making: Making, rows: Rows
) -> tuple[calibrate_plan.HeldOut, Codes | None]:
    """Return the rows as calibration wants them, and the group of each."""
    codes = _codes(making.held_out, rows)
    named = making.held_out.labels
    right: NDArray[np.bool_] | None = None
    if named is not None and rows.said.classes and (rows.confidence >= 0).all():
        truth = label_codes(named, making.bundle.manifest.labels)
        right = truth[rows.number] == rows.index
    held_out = calibrate_plan.HeldOut(
        features=rows.said.names,
        columns=columns_of(rows),
        values=_unseen(rows, codes),
        index=rows.index.astype(np.intp),
        groups=codes,
        classes=rows.said.classes,
        ordered=making.ordered,
        confidence=rows.confidence.astype(np.float64) if right is not None else None,
        right=right,
    )
    return held_out, codes


def _unseen(rows: Rows, codes: Codes | None) -> NDArray[np.float64]:
    """Return the features with distances from what other sources teach."""
    names = rows.said.names
    if not rows.said.centre or "distance" not in names:
        return rows.values
    values = rows.values.copy()
    at = names.index("distance")
    channels = [column for column in rows.said.inputs if column != at]
    values[:, at] = cross_distances(values[:, channels], codes)
    return values


def _codes(held_out: HeldOut, rows: Rows) -> Codes | None:
    """Return the group of each row as a number."""
    if held_out.groups is not None:
        return group_codes(held_out.groups)[0][rows.number]
    return rows.part.astype(np.int64) if held_out.grouped else None


def _order(
    codes: Codes | None, count: int, *, ordered: bool
) -> tuple[NDArray[np.intp], tuple[int, ...], str]:
    """Return the order in which scores are shown, where groups end, and what it is.

    Samples without an order are shown group by group: then a source that differs from
    the others is a hill, instead of a little noise everywhere.
    """
    rows = np.arange(count, dtype=np.intp)
    if codes is None:
        return rows, (), "samples"
    if not ordered:
        rows = np.argsort(codes, kind="stable")
    ends = np.flatnonzero(np.diff(codes[rows])) + 1
    axis = "samples in order" if ordered else "samples, group by group"
    return rows, tuple(ends.tolist()), axis


def columns_of(rows: Rows) -> Columns:
    """Return the columns of each scope."""
    return {
        "input": np.asarray(rows.said.inputs, np.intp),
        "output": np.asarray(rows.said.outputs, np.intp),
        "all": np.arange(len(rows.said.names), dtype=np.intp),
    }


def score_paths(
    values: NDArray[np.float64], calibrated: Calibrated, columns: Columns
) -> dict[str, NDArray[np.float64]]:
    """Return each scope's statistic over its threshold, along the data.

    An ordered recording is thinned as a board would thin it.
    """
    paths = mewma_path(values[:: calibrated.interval], calibrated.reference, columns)
    thresholds = calibrated.reference.thresholds
    return {
        scope: path / thresholds[scope]
        for scope, path in paths.items()
        if scope in thresholds
    }


def _seal(
    variant: Variant, rows: Rows, calibrated: Calibrated, warnings: tuple[str, ...]
) -> Reference:
    """Return the reference as the profile holds it."""
    said = rows.said
    notes = tuple(
        note
        if len(note) <= MAX_NOTE_CHARACTERS
        else f"{note[: MAX_NOTE_CHARACTERS - 1]}…"
        for note in dict.fromkeys(warnings)
    )
    origin = Origin(
        variant=variant.sha256,
        kind=said.kind,
        groups=calibrated.groups,
        centre=unpack_floats(said.centre, -1) if said.centre else None,
        precision=(
            unpack_triangle(said.precision, symmetric=True) if said.precision else None
        ),
        projection=said.projection,
        logits=said.logits,
        notes=notes[:MAX_NOTES],
    )
    return seal_reference(calibrated.reference, origin)
