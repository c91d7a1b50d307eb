"""How much of something a child gets: so many in a span of time, then no more."""

import time


class Allowance:
    """So many in each span; what is left over is lost when the next span begins."""

    def __init__(self, most: int, span_s: float) -> None:
        self._most = most
        self._span_s = span_s
        self._began_s = time.monotonic()
        self._taken = 0

    def take(self) -> bool:
        """Take one; False if this span has no more."""
        now_s = time.monotonic()
        if now_s - self._began_s >= self._span_s:
            self._began_s, self._taken = now_s, 0
        self._taken += 1
        return self._taken <= self._most

    def give_back(self) -> None:
        """Take the last one for not taken: it was asked for."""
        self._taken -= 1
