"""The place of a source that could not be opened: no samples, until it has changed.

A worker without its source lives on, so that a model can still be loaded and committed.
It cannot open what appears later, because it has locked itself in without it; the next
worker can.

The rules this module keeps:
 * A look is one ``stat``: nothing is opened or listed, so that no look takes long.
 * A path has changed only when two looks agree: whoever copies it has ended.
"""

import os
import time
from collections.abc import Callable
from pathlib import Path

from agent.core.reasons import Reason
from agent.errors import DeviceError
from agent.worker.samples import Sample

LOOK_S = 1.0
Look = tuple[int, int, int] | None


class AbsentSource:
    """No samples, ever; see ``Source`` for its attributes.

    Args:
        reason: Why there is no source.
        path: What is missing or wrong; None if nothing will change.
        before: What it looked like before it was opened in vain.
        clock: Seconds, monotonic.
    """

    ready_ns = 0
    dropped = 0
    partial = 0
    ended = False

    def __init__(
        self,
        reason: Reason,
        path: Path | None,
        before: Look,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._reason = reason
        self._path = path
        self._before = self._last = before
        self._clock = clock
        self._next_s = clock() + LOOK_S

    def take(self, timeout_s: float) -> Sample | None:
        """Wait in vain.

        Raises:
            DeviceError: The path has changed: time for a worker that may read it.
        """
        time.sleep(timeout_s)
        if self._path is not None and self._clock() >= self._next_s:
            self._next_s = self._clock() + LOOK_S
            last, self._last = self._last, look_at(self._path)
            if self._last == last and last not in (None, self._before):
                raise DeviceError(f"{self._path} has changed", reason=self._reason)
        return None

    def replace(self, descriptor: int) -> None:
        """Close the pipe: nobody can read it."""
        os.close(descriptor)

    def close(self) -> None:
        """Nothing is open."""


def look_at(path: Path) -> Look:
    """Return what changes when a file or directory does, None if it is not there."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns, status.st_size
