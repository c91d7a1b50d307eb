"""Features: what the monitor sees of a sample, a dozen numbers of input and output.

=============  =============================================================
kind of input  features
=============  =============================================================
image          mean, sd, gradient, sharpness, clipped
spectrogram    band0 ... band4, sd, roughness
vector         x0 ... x31, distance (with a profile only)
other          mean, sd, roughness
=============  =============================================================

Then, by task: confidence and entropy (classification), score (regression, anomaly),
score and boxes (detection); then axis0 ... axis7 of an inner tensor, if a profile names
one. ``agent.core.drift.features_inputs`` and ``features_outputs`` say what each is.

The rules this module keeps:
 * The same code runs over held-out data (``tinyward profile``) and on the board; a
   change of what a feature means raises ``FEATURES_VERSION``.
 * What does not depend on the sample is computed at build; buffers are kept.
 * No sample raises: what cannot be looked at is counted in ``invalid``.
"""

import zlib
from collections.abc import Mapping
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from agent.core.drift.features_inputs import Tensor
from agent.core.drift.features_kinds import (
    infer_kind,
    watched_input,
    watched_steps,
)
from agent.core.drift.features_outputs import NO_CONFIDENCE, Tensors
from agent.core.drift.features_parts import (
    Parts,
    add_inner,
    add_output,
    add_spread,
    input_parts,
)
from agent.core.drift.packing import Floats
from agent.core.manifest import Manifest, Variant
from agent.core.profile import Reference
from agent.core.watching import Scope

# By Chebyshev's inequality at most one sample in 10,000 lies so many standard
# deviations away, whatever the distribution: more of them are no tail but a sensor
# that says nonsense. No minimum or maximum needs to be kept for it.
RANGE_SDS = 100.0
# crc32 takes 10 us for so much; of larger inputs the values that are seen are summed.
# A frozen camera repeats them all, a live one's noise changes at least one in 8,192.
SUMMED_WHOLE_BYTES = 64 * 1024

_subtract, _multiply = np.subtract, np.multiply


class FeatureReader:
    """Reads the features of one model's samples; made by ``build_reader``.

    Attributes:
        kind: How the input is looked at.
        names: Of the ``d`` features, in order.
        columns: Columns of the scopes ``input``, ``output`` and ``all``; the first two
            may be empty.
        classes: How many labels an answer may name, 0 where that is not known.
        invalid: What was wrong with inputs -> samples. ``nan``: NaN or infinity.
            ``range``: numbers too large to be squared, or, with a reference, a feature
            of the input ``RANGE_SDS`` away from its mean; the latter is read all the
            same, so that a sensor that went there for good alarms, too.
        confidence: Of the sample read last, in [0, 1]; -1 for none.
    """

    def __init__(self, parts: Parts) -> None:
        self.kind = parts.kind
        self.names = (*parts.input_names, *parts.output_names, *parts.inner_names)
        ends = np.cumsum([len(parts.input_names), len(parts.output_names)])
        count = len(self.names)
        self.columns: Mapping[Scope, NDArray[np.intp]] = {
            "input": np.arange(0, ends[0]),
            "output": np.arange(ends[0], ends[1]),
            "all": np.arange(count),
        }
        self.classes = parts.classes
        self.invalid: dict[Literal["nan", "range", "shape"], int] = {
            "nan": 0,
            "range": 0,
        }
        self.confidence = NO_CONFIDENCE
        self._notes = parts.notes
        self._scores = parts.scores
        self._look, self._opinion, self._inner = parts.look, parts.opinion, parts.inner
        self._values = values = np.zeros(count)
        self._of_input = values[: ends[0]]
        self._of_output = values[ends[0] : ends[1]]
        self._of_inner = values[ends[1] :]
        self._cut = parts.cut
        self._centre, self._inverse = parts.centre, parts.inverse
        self._apart = np.zeros(count)

    @property
    def logits(self) -> bool:
        """Whether the model answers scores before softmax (then done here).

        Without a profile it may become True with a sample, and stays so.
        """
        return self._scores is not None and self._scores.logits

    @property
    def notes(self) -> tuple[str, ...]:
        """What is left out and how answers are treated, for people."""
        said = "answers are scores before softmax, which is done for them here"
        return (*self._notes, said) if self.logits else self._notes

    def read(
        self, inputs: Tensors, outputs: Tensors, index: int, score: float
    ) -> Floats | None:
        """Return the features (d) of one sample, or None if it has none to compare.

        Args:
            inputs: What preprocess returned: the model's inputs without state.
            outputs: All outputs, as stored.
            index: What judge answered: a label or -1.
            score: The answer's score.

        Returns:
            A buffer that the next call overwrites.
        """
        values, apart = self._values, self._apart
        self._look(inputs[0], self._of_input)
        if self._opinion is not None:
            self.confidence = self._opinion(outputs, index, score, self._of_output)
        if self._inner is not None:
            self._inner(outputs, self._of_inner)
        # One sum for all: NaN and infinity survive it, and so does what is far away.
        # BLAS sets no floating point flags, so that nothing warns.
        _subtract(values, self._centre, apart)
        _multiply(apart, self._inverse, apart)
        if apart.dot(apart) <= RANGE_SDS**2:
            return values
        return self._judge_odd(inputs[0])

    def checksum(self, inputs: Tensors) -> int:
        """Return a crc32 of the watched input: equal if it did not move at all."""
        watched = inputs[0]
        if watched.nbytes > SUMMED_WHOLE_BYTES:
            watched = self._cut(watched)
        if not watched.flags.c_contiguous:
            watched = np.ascontiguousarray(watched)
        return zlib.crc32(watched.data)

    def _judge_odd(self, watched: Tensor) -> Floats | None:
        """Count what is wrong with a sample; return what can be compared even so."""
        if not np.isfinite(self._values).all():
            is_float = watched.dtype.kind == "f"
            whole = not is_float or bool(np.isfinite(watched).all())
            self.invalid["range" if whole else "nan"] += 1
            return None
        if (np.abs(self._apart[self.columns["input"]]) > RANGE_SDS).any():
            self.invalid["range"] += 1
        return self._values


def build_reader(
    manifest: Manifest, variant: Variant, reference: Reference | None = None
) -> FeatureReader:
    """Build what reads the features of one variant.

    Args:
        manifest: Says the task, the preprocess steps, the labels.
        variant: Says the tensors; the first input that is not state is watched.
        reference: States the kind of input and whether answers are scores before
            softmax, and holds what Mahalanobis distance and inner tensor need. Without
            it the first two are inferred, the others left out. Nothing else of it has
            to be filled in yet.

    Raises:
        BundleRefusedError: ``profile``: the reference does not suit these tensors.
    """
    spec = watched_input(manifest, variant)
    inferred = infer_kind(spec, watched_steps(manifest, spec), manifest.task)
    kind = reference.kind if reference else inferred
    parts = input_parts(kind, spec, watched_steps(manifest, spec), reference)
    add_output(parts, manifest, variant, reference)
    if reference is not None and reference.projection is not None:
        add_inner(parts, variant, reference.projection)
    add_spread(parts, reference)
    if len(variant.inputs) - len(manifest.state) > 1:
        parts.notes += (f"of several inputs only {spec.name[:100]!r} is watched",)
    return FeatureReader(parts)
