"""Parts of a reader: what looks at the input, at the answer and at an inner tensor.

The rules this module keeps: a profile that does not suit the tensors is refused here,
before a sample comes; without one every model gets a reader.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from agent.core.drift.features_inputs import (
    PICTURE,
    WAVE,
    Look,
    Tensor,
    build_cut,
    build_picture,
    build_spectrogram,
    build_vector,
    build_wave,
    spectrogram_names,
    vector_names,
)
from agent.core.drift.features_kinds import find_runs, find_table
from agent.core.drift.features_limits import find_limits
from agent.core.drift.features_outputs import (
    BOXES,
    CLASSES,
    SCORE,
    Inner,
    Opinion,
    Scores,
    best_box_opinion,
    build_boxes,
    build_classes,
    build_inner,
    chosen_output,
    value_opinion,
)
from agent.core.drift.packing import Floats, unpack_floats, unpack_triangle
from agent.core.manifest import Manifest, TensorSpec, Variant
from agent.core.profile import MAX_CHANNELS, Kind, Projection, Reference, refused
from agent.core.profile_numbers import FLOAT_BYTES
from agent.core.steps import Step

# Of a feature that has no spread to be measured in: what is finite counts as nothing,
# infinity stays what it is (0 * infinity would be a warning).
ALMOST_NOTHING = 1e-300


@dataclass
class Parts:
    """What a reader is put together from.

    Attributes:
        look: Writes the input's features; ``opinion`` the answer's, ``inner`` those of
            an inner tensor.
        cut: The part of a large input that is seen, for checksums.
        scores: Whether answers are scores before softmax; None for other tasks.
        classes: How many labels an answer may name.
        centre: Mean of each feature; ``inverse`` one over its standard deviation.
    """

    kind: Kind
    input_names: tuple[str, ...]
    look: Look
    cut: Callable[[Tensor], Tensor]
    output_names: tuple[str, ...] = ()
    opinion: Opinion | None = None
    scores: Scores | None = None
    classes: int = 0
    inner_names: tuple[str, ...] = ()
    inner: Inner | None = None
    notes: tuple[str, ...] = ()
    centre: Floats = field(default_factory=lambda: np.zeros(0))
    inverse: Floats = field(default_factory=lambda: np.zeros(0))

    @property
    def names(self) -> tuple[str, ...]:
        """Of all features, in order."""
        return (*self.input_names, *self.output_names, *self.inner_names)


def input_parts(
    kind: Kind, spec: TensorSpec, steps: Sequence[Step], reference: Reference | None
) -> Parts:
    """Return what looks at the input, as its kind asks for.

    Raises:
        BundleRefusedError: ``profile``: it cannot be looked at as that kind.
    """
    if kind == "vector":
        return _vector_parts(spec, reference)
    if kind == "spectrogram":
        return _spectrogram_parts(spec, steps)
    runs = find_runs(spec, kind)
    if runs is None:
        raise refused(f"input {list(spec.shape)} is no {kind}")
    if kind == "image":
        look = build_picture(runs, spec, find_limits(spec, steps, runs))
        return Parts(kind, PICTURE, look, build_cut(runs))
    return Parts(kind, WAVE, build_wave(runs, spec), build_cut(runs))


def _vector_parts(spec: TensorSpec, reference: Reference | None) -> Parts:
    """Return what looks at a sensor vector, with a distance if a centre is known."""
    channels = math.prod(spec.shape)
    if channels > MAX_CHANNELS:
        raise refused(f"a vector of {channels} values, at most {MAX_CHANNELS}")
    centre, precision = np.zeros(0), np.zeros((0, 0))
    if reference is not None and reference.centre:
        centre = unpack_floats(reference.centre, -1)
        precision = unpack_triangle(reference.precision, symmetric=True)
        if precision.shape != (channels, channels) or centre.size != channels:
            raise refused(f"a centre of {centre.size} values for {channels}")
    names = vector_names(channels, distance=bool(centre.size))
    look = build_vector(spec, centre, precision)
    return Parts("vector", names, look, lambda x: x)


def _spectrogram_parts(spec: TensorSpec, steps: Sequence[Step]) -> Parts:
    """Return what looks at rows of times."""
    table, runs = find_table(spec, steps), find_runs(spec, "other")
    if table is None or runs is None:
        raise refused(f"input {list(spec.shape)} is no spectrogram")
    look = build_spectrogram(table, spec)
    return Parts("spectrogram", spectrogram_names(table), look, build_cut(runs))


def add_output(
    parts: Parts, manifest: Manifest, variant: Variant, reference: Reference | None
) -> None:
    """Add what the manifest's task makes of the answer."""
    at = chosen_output(manifest, variant)
    if manifest.task == "classification" and at >= 0:
        spec = variant.outputs[at]
        stated = reference.logits if reference else None
        parts.scores = Scores(spec, stated=stated)
        parts.opinion = build_classes(at, spec, parts.scores)
        parts.output_names = CLASSES
        parts.classes = max(2, math.prod(spec.shape))
    elif manifest.task == "detection":
        _add_boxes(parts, manifest, variant)
    elif manifest.task in {"regression", "anomaly"}:
        parts.opinion, parts.output_names = value_opinion, SCORE
    else:
        parts.notes += ("task raw has no answer: only the input is watched",)


def _add_boxes(parts: Parts, manifest: Manifest, variant: Variant) -> None:
    """Add what reads the answers of a detector."""
    outputs = variant.outputs
    parts.classes = len(manifest.labels)
    if manifest.postprocess.layout == "ssd" and len(outputs) == 4:
        # Boxes come first or second, scores third or first: as postprocess finds them.
        at = 2 if outputs[0].shape[-1:] == (4,) else 0
        parts.opinion = build_boxes(at, outputs[at], manifest.postprocess.min_score)
        parts.output_names = BOXES
        return
    parts.opinion, parts.output_names = best_box_opinion, SCORE
    parts.notes += ("boxes are not counted: yolov8 would have to be read again",)


def add_inner(parts: Parts, variant: Variant, projection: Projection) -> None:
    """Add the axes of an inner tensor.

    Raises:
        BundleRefusedError: ``profile``: there is no such output, or of another size.
    """
    names = [spec.name for spec in variant.outputs]
    if projection.output not in names:
        raise refused(f"there is no output {projection.output!r}")
    at = names.index(projection.output)
    size, values = math.prod(variant.outputs[at].shape), len(projection.mean)
    if values != size * FLOAT_BYTES:
        raise refused(f"axes of {values // FLOAT_BYTES} values for {size}")
    if len(projection.axes) != values * projection.count:
        raise refused(f"not {projection.count} axes of {size} values")
    parts.inner = build_inner(at, variant.outputs[at], projection)
    parts.inner_names = tuple(f"axis{number}" for number in range(projection.count))


def add_spread(parts: Parts, reference: Reference | None) -> None:
    """Add what tells values that cannot be: mean and spread of a whole reference."""
    count = len(parts.names)
    parts.centre, parts.inverse = np.zeros(count), np.full(count, ALMOST_NOTHING)
    if reference is None or len(reference.sd) != FLOAT_BYTES * count:
        return  # none, or a draft
    parts.centre[...] = unpack_floats(reference.mean, count)
    sd = unpack_floats(reference.sd, count)
    moving = sd > 0
    parts.inverse[moving] = 1.0 / sd[moving]
