"""An engine that computes what the test says; held to the contract of real ones."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from agent.core.manifest import TensorSpec
from agent.worker.samples import Array, Arrays


@dataclass
class ScriptedEngine:
    """Answers with ``script(inputs)``, or raises the next of ``failures`` first."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    script: Callable[[Arrays], Arrays]
    failures: list[Exception] = field(default_factory=list)
    operators: tuple[str, ...] = ("SCRIPT",)
    ram_bytes: int = 0
    calls: int = 0
    resets: int = 0

    def infer(self, samples: Sequence[Array]) -> Arrays:
        """Answer one sample as strictly as a runtime does."""
        self.calls += 1
        for spec, sample in zip(self.inputs, samples, strict=True):
            if sample.shape != spec.shape or sample.dtype != np.dtype(spec.dtype):
                raise ValueError(f"{spec.name}: {sample.dtype} {sample.shape}")
        if self.failures:
            raise self.failures.pop(0)
        return [np.array(output) for output in self.script(list(samples))]

    def reset(self) -> None:
        """Count the call."""
        self.resets += 1
