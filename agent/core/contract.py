"""The contract: what a .tflite file itself says it takes, gives, uses and needs.

The manifest repeats it for every variant, and preflight compares the two.
"""

from dataclasses import dataclass

from agent.core.manifest import TensorSpec


@dataclass(frozen=True, slots=True)
class Contract:
    """The facts of one .tflite file, as an interpreter on this machine sees them.

    Attributes:
        inputs: Tensors in the model's order; ``outputs`` likewise.
        operators: Names of the operators it uses, each once, sorted.
        ram_bytes: What its tensors need beside the file itself.
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    operators: tuple[str, ...]
    ram_bytes: int
