"""How long to wait between two looks at a repository.

After failures "full jitter": a pause drawn from the whole of a span that doubles (Marc
Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015). The span begins
small: a network that comes up seconds after the board is found seconds later, and a
server that fell over is met by a fleet that has spread itself.

>>> pace = Pace(poll_s=300.0, draw=lambda: 0.5)
>>> [pace.after(failed=True) for _ in range(5)], pace.after(failed=False)
([2.0, 4.0, 8.0, 16.0, 32.0], 300.0)
>>> pace.after(failed=False, due_s=60.0), pace.after(failed=True, asked_s=1200.0)
(75.0, 1200.0)
"""

from collections.abc import Callable

JITTER = 0.1  # boards that were switched on together drift apart
FIRST_SPAN_S = 4.0  # about what an interface takes to get its address after a boot
FLOOR_S = 1.0  # no draw makes a board hammer a server
MAX_BACKOFF_S = 3600.0  # an hour: what a repaired server has to wait for at most
MAX_ASKED_S = 86_400.0  # a day: no server silences a board for longer
MAX_DOUBLINGS = 20  # 48 days: beyond any poll_s that makes sense


class Pace:
    """Counts failures in a row and draws pauses.

    Attributes:
        poll_s: Seconds between two looks that work; may be changed.
    """

    def __init__(self, poll_s: float, draw: Callable[[], float]) -> None:
        self.poll_s = poll_s
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
        pause_s = self.poll_s * (1 - JITTER + 2 * JITTER * self._draw())
        if due_s is None:
            return pause_s
        return min(pause_s, max(due_s, 0.0) + JITTER * self.poll_s * self._draw())

    def _backoff(self) -> float:
        """Return the pause after one more failure."""
        cap_s = max(self.poll_s, MAX_BACKOFF_S)
        span_s = min(FIRST_SPAN_S * 2.0**self._failures, cap_s)
        self._failures = min(self._failures + 1, MAX_DOUBLINGS)
        # Who polls more often than once a second waits no longer than that for it.
        return max(span_s * self._draw(), min(FLOOR_S, self.poll_s))
