"""How long to wait between two looks at a repository.

>>> pace = Pace(poll_s=300.0, draw=lambda: 0.5)
>>> pace.after(failed=False), pace.after(failed=True), pace.after(failed=True)
(300.0, 600.0, 900.0)
"""

from collections.abc import Callable

JITTER = 0.1  # boards that were switched on together drift apart
MAX_BACKOFF_S = 3600.0  # an hour: what a repaired server has to wait for at most
MAX_DOUBLINGS = 16  # beyond that the cap holds for every poll_s


class Pace:
    """Counts failures in a row and draws pauses.

    After failures a random share (full jitter) of a span that doubles comes on top of
    the usual pause, which is never undercut.
    """

    def __init__(self, poll_s: float, draw: Callable[[], float]) -> None:
        self._poll_s = poll_s
        self._draw = draw
        self._failures = 0

    def after(self, *, failed: bool) -> float:
        """Return the seconds to wait after a look that failed or did not."""
        if not failed:
            self._failures = 0
            return self._poll_s * (1 - JITTER + 2 * JITTER * self._draw())
        self._failures = min(self._failures + 1, MAX_DOUBLINGS)
        span = min(self._poll_s * 2.0**self._failures, max(MAX_BACKOFF_S, self._poll_s))
        return self._poll_s + span * self._draw()
