"""Delegates: libraries that compute for the runtime, from an allow-list only.

A delegate is native code in the worker. It is loaded only if the settings name its
path and digest, and only with exactly that content.
"""

import ctypes
import hashlib
from collections.abc import Callable
from pathlib import Path

from agent.core.executors import DelegateFile
from agent.core.reasons import Reason
from agent.errors import TrialFailedError
from agent.worker.engines.failures import translated

# delegates/external/external_delegate_interface.h of TensorFlow Lite
ENTRY_POINTS = ("tflite_plugin_create_delegate", "tflite_plugin_destroy_delegate")


def load_allowed(
    allowed: DelegateFile, load_delegate: Callable[[str, dict[str, str]], object]
) -> object:
    """Return a delegate after its file was hashed, right before it is loaded.

    Whoever can write the file between the two steps can as well write what the
    settings say: both belong to the operator.

    Raises:
        TrialFailedError: ``delegate``: missing, changed, or it does not load.
    """
    path = Path(allowed.path)
    if not path.is_absolute():
        # The loader would look for a bare name in its own search path.
        raise _unusable(allowed, "its path is not absolute")
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as err:
        raise _unusable(allowed, err.strerror or "it cannot be read") from err
    if digest != allowed.sha256:
        raise _unusable(allowed, f"its sha256 is {digest}")
    _check_library(allowed)
    with translated(f"delegate {allowed.name}", Reason.DELEGATE):
        return load_delegate(str(path), dict(allowed.options))


def _check_library(allowed: DelegateFile) -> None:
    """Load the library ahead of the runtime, which leaves half an object behind.

    Raises:
        TrialFailedError: ``delegate``: it does not load, or is no delegate.
    """
    try:
        library = ctypes.CDLL(allowed.path)
    except OSError as err:
        raise _unusable(allowed, str(err)) from err
    for symbol in ENTRY_POINTS:
        if not hasattr(library, symbol):
            raise _unusable(allowed, f"it has no {symbol}")


def _unusable(allowed: DelegateFile, why: str) -> TrialFailedError:
    """Return the error for a delegate that must not be loaded."""
    return TrialFailedError(
        f"delegate {allowed.name} at {allowed.path}: {why}", reason=Reason.DELEGATE
    )
