"""What runs models for marking them: the product's own engine, one input at a time.

The rules this module keeps:
 * Importing it imports no numpy: ``quiet_arithmetic`` has to come first.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING

from msgspec.structs import replace

from agent.core.reasons import Reason
from agent.errors import SettingsError

if TYPE_CHECKING:
    from agent.core.executors import Kernels
    from agent.worker.samples import Array

# Small products by the million: a library that spreads each over all cores makes this
# six times slower, and the processes of a crew take the cores themselves.
_ONE_THREAD = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")


@dataclass(frozen=True, slots=True)
class Runtime:
    """Runs .tflite files on one kind of kernels.

    Attributes:
        kernels: XNNPACK's, which boards choose for nearly every model.
    """

    kernels: "Kernels" = "xnnpack"

    def run(self, content: bytes, inputs: "Array") -> "Array":
        """Return the stored outputs for a stack of stored inputs.

        Raises:
            TrialFailedError: The runtime does not take the model, or fails.
        """
        import numpy as np

        from agent.worker.engines import build_engine
        from agent.worker.examine import default_examiner

        executor = replace(default_examiner().executor, kernels=self.kernels)
        with _unheard():
            built = build_engine(executor, content)
        shape = built.inputs[0].shape
        rows = [built.infer([row.reshape(shape)])[0].copy() for row in inputs]
        answer: Array = np.stack(rows).reshape(len(rows), *rows[0].shape[1:])
        return answer


def require_libraries() -> None:
    """Say what to install where the owner's libraries are missing.

    Raises:
        SettingsError: They are.
    """
    missing = [name for name in ("autograd", "tflite") if find_spec(name) is None]
    if missing:
        raise SettingsError(
            f"not installed: {', '.join(missing)}",
            reason=Reason.SETTINGS,
            todo="pip install 'tinyward[owner]' where models are marked.",
        )


def quiet_arithmetic() -> None:
    """Let numpy compute on one core; before it is imported, and for children, too."""
    for name in _ONE_THREAD:
        os.environ.setdefault(name, "1")


@contextmanager
def _unheard() -> Iterator[None]:
    """Drop what a runtime writes to standard error while it builds."""
    kept = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
