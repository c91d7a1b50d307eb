"""Whoever can run a model: passed in, because this folder cannot."""

from typing import Protocol

from agent.publish.watermark.graph import Array


class Executor(Protocol):
    """Runs .tflite files; picklable, so that every process can have one."""

    def run(self, content: bytes, inputs: Array) -> Array:
        """Return the stored outputs (N, ...) for a stack of stored inputs (N, ...).

        Raises:
            TrialFailedError: The runtime does not take the model, or fails.
        """
        ...
