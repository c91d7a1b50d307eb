"""What a reader has to be told before it reads: learnt from a first look at the data.

A *draft* is a reference without numbers, which tells ``build_reader`` the kind of
input, the centre of a sensor vector, the axes of an inner tensor, and whether answers
still need their softmax.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from agent.cli.profile_words import Question
from agent.core.drift.features import FeatureReader
from agent.core.drift.reference import build_distance, build_projection
from agent.core.manifest import TensorSpec, Variant
from agent.core.profile import Kind, Reference
from agent.core.reasons import Reason
from agent.errors import SettingsError
from agent.worker.engines.tensors import real_values
from agent.worker.samples import Arrays

AXES = 8  # of an inner tensor: they hold most of what differs between inputs
MIN_ROWS = 50  # below it the whole is refused: nothing can be learnt either
# What the mean and the axes of a tensor may take of a profile's 64 kB, before base64:
# a third, so that two variants fit. 8 axes of 500 values do; of 2,000 values there is
# one, and wider tensors are activations of pictures, which should be pooled first.
PROJECTION_BYTES = 16 * 1024


class Reservoir:
    """A fair choice of rows out of any number, in memory that does not grow.

    Vitter, "Random sampling with a reservoir" (1985), algorithm R.
    """

    def __init__(self, size: int, seed: int) -> None:
        self.rows: list[Any] = []
        self._size = size
        self._offered = 0
        self._random = np.random.default_rng(seed)

    def offer(self, row: Callable[[], object]) -> None:
        """Take a row in, or not; it is only made if it is taken."""
        self._offered += 1
        if len(self.rows) < self._size:
            self.rows.append(row())
            return
        place = int(self._random.integers(self._offered))
        if place < self._size:
            self.rows[place] = row()


def begin(sha256: str, question: Question) -> Reference | None:
    """Return the draft for the first look: None if nothing was asked for."""
    return _blank(sha256, question.kind) if question.kind else None


def learn(
    sha256: str,
    question: Question,
    reader: FeatureReader,
    values: Sequence[NDArray[np.float32]],
    tensors: Sequence[NDArray[np.float32]],
) -> Reference | None:
    """Return the draft for the second look; None if the first saw all there is.

    Args:
        sha256: Of the variant.
        question: What was asked for.
        reader: That of the first look.
        values: Its features.
        tensors: Values of the inner tensor, of some samples.
    """
    if len(values) < MIN_ROWS:
        return None
    draft = _blank(sha256, reader.kind)
    changes: dict[str, Any] = {}
    if reader.kind == "vector":
        vectors = np.asarray(values)[:, reader.columns["input"]]
        centre, precision = build_distance(vectors)
        changes |= {"centre": centre, "precision": precision}
    if question.tensor:
        rows = np.asarray(tensors)
        axes = min(AXES, PROJECTION_BYTES // (4 * rows.shape[1]) - 1)
        changes["projection"] = build_projection(question.tensor, rows, axes)
    if reader.logits:
        changes["logits"] = True
    return replace(draft, **changes) if changes else None


def tensor_values(
    variant: Variant, name: str
) -> Callable[[Arrays], NDArray[np.float32]] | None:
    """Return what takes the named output's real values out of an answer.

    Raises:
        SettingsError: ``settings``: the model has no such output, or a very wide one.
    """
    if not name:
        return None
    names = [spec.name for spec in variant.outputs]
    if name not in names:
        raise SettingsError(
            f"--tensor: variant {variant.name} has no output {name!r}; it has "
            + ", ".join(names),
            reason=Reason.SETTINGS,
            todo="Export the inner tensor as an output of the model, and name it.",
        )
    at = names.index(name)
    spec: TensorSpec = variant.outputs[at]
    values = math.prod(spec.shape)
    if 8 * values > PROJECTION_BYTES:
        raise SettingsError(
            f"--tensor: {name!r} has {values} values, at most {PROJECTION_BYTES // 8}",
            reason=Reason.SETTINGS,
            todo="Pool it over height and width in the model, before it is output.",
        )
    return lambda outputs: real_values(spec, outputs[at]).reshape(-1)


def _blank(sha256: str, kind: Kind) -> Reference:
    """Return a reference that states a kind, and no numbers."""
    return Reference(
        variant=sha256,
        kind=kind,
        features=("none",),
        count=MIN_ROWS,
        groups=0,
        mean=b"",
        sd=b"",
        abs_mean=b"",
        abs_sd=b"",
        whitening=b"",
        edges=b"",
        counts=b"",
        eps=b"",
        thresholds={},
        site_thresholds={},
        site_count=MIN_ROWS,
        calibration="iid",
        target=1.0,
    )
