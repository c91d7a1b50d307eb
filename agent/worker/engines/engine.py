"""The Engine Protocol: what a runtime has to offer to run one model."""

from collections.abc import Callable, Sequence
from typing import Protocol

from agent.core.manifest import TensorSpec
from agent.worker.samples import Array, Arrays

Infer = Callable[[Sequence[Array]], Arrays]


class Engine(Protocol):
    """One model, built and warm, on one executor.

    The contract that tests/contracts/test_engines.py states for all of them:
    the answers are fresh arrays that later calls do not change, in the order of
    ``outputs``; an input of another number, shape or type raises ``ValueError`` and
    leaves the engine able to answer the next sample.
    """

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """Input tensors in the model's order, with the shapes that were allocated."""

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """Output tensors in the model's order, with the shapes that it answered."""

    @property
    def operators(self) -> tuple[str, ...]:
        """Names of the model's operators, each once, sorted; slow, for reports."""

    @property
    def ram_bytes(self) -> int:
        """What the tensors need beside the file, estimated; slow, for reports."""

    @property
    def infer(self) -> Infer:
        """Run one sample: stored values in, stored values out; releases the GIL."""

    def reset(self) -> None:
        """Forget what the model itself remembers of earlier samples."""
