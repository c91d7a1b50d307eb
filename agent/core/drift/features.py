"""Features: what the monitor sees of a sample, a dozen numbers of input and output.

The rules this module keeps:
 * The same code runs over held-out data (``tinyward profile``) and on the board.
 * What does not depend on the sample is computed at build; buffers are kept.
 * No sample raises: what cannot be looked at is counted in ``invalid``.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from agent.core.manifest import Manifest, Variant
from agent.core.profile import Kind, Reference
from agent.core.watching import Scope

Tensors = Sequence[NDArray[Any]]


class FeatureReader:
    """Reads the features of one model's samples; made by ``build_reader``.

    Attributes:
        kind: How the input is looked at.
        names: Of the ``d`` features, in order.
        columns: Columns of the scopes ``input``, ``output`` and ``all``; the first two
            may be empty.
        classes: How many labels an answer may name, 0 for tasks without.
        invalid: What was wrong with inputs -> samples.
        notes: What is left out and how answers are treated, for people.
    """

    kind: Kind
    names: tuple[str, ...]
    columns: Mapping[Scope, NDArray[np.intp]]
    classes: int
    invalid: dict[Literal["nan", "range", "shape"], int]
    notes: tuple[str, ...]

    @property
    def confidence(self) -> float:
        """Of the sample read last, in [0, 1]; -1 for tasks without."""
        raise NotImplementedError

    @property
    def logits(self) -> bool:
        """Whether the model answers scores before softmax (then done here)."""
        raise NotImplementedError

    def read(
        self, inputs: Tensors, outputs: Tensors, index: int, score: float
    ) -> NDArray[np.float64] | None:
        """Return the features (d) of one sample, or None if it has none to compare.

        Args:
            inputs: What preprocess returned: the model's inputs without state.
            outputs: All outputs, as stored.
            index: What judge answered, and ``score`` likewise.

        Returns:
            A buffer that the next call overwrites.
        """
        raise NotImplementedError

    def checksum(self, inputs: Tensors) -> int:
        """Return a crc32 of the watched input: equal if it did not move at all."""
        raise NotImplementedError


def build_reader(
    manifest: Manifest, variant: Variant, reference: Reference | None = None
) -> FeatureReader:
    """Build what reads the features of one variant.

    Args:
        manifest: Says the task, the preprocess steps, the labels.
        variant: Says the tensors; the first input that is not state is watched.
        reference: States the kind of input, and holds what Mahalanobis distance and
            inner tensor need; without it the kind is inferred, and both are left out.

    Raises:
        BundleRefusedError: ``profile``: the reference does not suit these tensors.
    """
    raise NotImplementedError
