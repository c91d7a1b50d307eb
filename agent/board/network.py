"""How much a board sends and receives, per second."""

import time
from collections.abc import Callable
from math import nan

from agent.board.kernel import read_traffic


class Traffic:
    """Remembers what was counted before.

    Args:
        root: Where ``/proc`` lies, without a slash at its end.
        clock: Seconds of a clock that never jumps.
    """

    def __init__(self, root: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._root = root
        self._clock = clock
        self._counted = read_traffic(root)
        self._at = clock()

    def rates(self) -> tuple[float, float]:
        """Return bytes per second received and sent since the last call."""
        counted, now = read_traffic(self._root), self._clock()
        before, seconds = self._counted, now - self._at
        self._counted, self._at = counted, now
        if seconds <= 0:
            return nan, nan
        # An interface that went away takes its counters with it: never below zero.
        received = max(0.0, counted[0] - before[0]) / seconds
        return received, max(0.0, counted[1] - before[1]) / seconds
