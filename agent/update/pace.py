"""How long to wait between two looks at a repository.

>>> pace = Pace(poll_s=300.0, draw=lambda: 0.5)
>>> pace.after(failed=False), pace.after(failed=True), pace.after(failed=True)
(300.0, 600.0, 900.0)
>>> pace.after(failed=False, due_s=60.0), pace.after(failed=True, asked_s=1200.0)
(75.0, 1200.0)
"""

from collections.abc import Callable

JITTER = 0.1  # boards that were switched on together drift apart
MAX_BACKOFF_S = 3600.0  # an hour: what a repaired server has to wait for at most
MAX_ASKED_S = 86_400.0  # a day: no server silences a board for longer
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

    def after(
        self, *, failed: bool, asked_s: float = 0.0, due_s: float | None = None
    ) -> float:
        """Return the seconds to wait after a look.

        Args:
            failed: It did not work.
            asked_s: The server asked to be left alone for so long (Retry-After).
            due_s: In so many seconds something may begin. A fleet whose window opens
                does not come all at once: a share of ``poll_s`` is drawn on top.
        """
        if failed:
            return max(self._backoff(), min(asked_s, MAX_ASKED_S))
        self._failures = 0
        pause_s = self._poll_s * (1 - JITTER + 2 * JITTER * self._draw())
        if due_s is None:
            return pause_s
        return min(pause_s, max(due_s, 0.0) + JITTER * self._poll_s * self._draw())

    def _backoff(self) -> float:
        """Return the pause after one more failure."""
        self._failures = min(self._failures + 1, MAX_DOUBLINGS)
        span = min(self._poll_s * 2.0**self._failures, max(MAX_BACKOFF_S, self._poll_s))
        return self._poll_s + span * self._draw()
