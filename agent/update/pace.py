"""How long to wait between two looks at a repository.

A board that was switched on before its network looks again within seconds: "full
jitter", a pause drawn from the whole of a span that doubles (Marc Brooker, "Exponential
Backoff And Jitter", AWS Architecture Blog, 2015), until that span is the usual pause.

A board that has looked before, every five minutes or more often, goes on as if nothing
had happened. Its fleet is spread over the poll period, and any haste after a failure
would undo that: retries after 2, 4, 8... s meet a server that comes back after five
minutes with the eightfold of what it bears, and waiting longer and longer leaves it
alone for an hour more. Like this it hears the usual number of looks, from all boards
within one period: never twice of what it hears on any day.

Where the period is longer, one hiccup would cost all of it. There the pause is drawn
from five minutes, then ten, twenty... until that is the period. After an outage such a
server hears more than on other days (of an hourly fleet eight times as much for some
seconds), and less than twice of what the same fleet asks of it at the usual period of
five minutes (``tests/update/test_pace.py``).

>>> pace = Pace(poll_s=300.0, draw=lambda: 0.5)
>>> [pace.after(failed=True) for _ in range(5)], pace.after(failed=False)
([2.0, 4.0, 8.0, 16.0, 32.0], 300.0)
>>> pace.after(failed=False, due_s=60.0), pace.after(failed=True, asked_s=1200.0)
(75.0, 1200.0)
>>> pace.after(failed=True)
300.0
>>> hourly = Pace(poll_s=3600.0, draw=lambda: 0.5)
>>> hourly.after(failed=False), [hourly.after(failed=True) for _ in range(5)]
(3600.0, [150.0, 300.0, 600.0, 1200.0, 3600.0])
"""

from collections.abc import Callable

JITTER = 0.1  # boards that were switched on together drift apart
SPREAD = 0.5  # after a start once: they come from all over the period from then on
FIRST_SPAN_S = 4.0  # about what an interface takes to get its address after a boot
# After a look that worked: the usual period, for which servers are sized.
HICCUP_SPAN_S = 300.0
FLOOR_S = 1.0  # no draw makes a board hammer a server
MAX_ASKED_S = 86_400.0  # a day: no server silences a board for longer


class Pace:
    """Knows whether a look ever worked, counts failures in a row, draws pauses.

    Attributes:
        poll_s: Seconds between two looks; may be changed.
    """

    def __init__(self, poll_s: float, draw: Callable[[], float]) -> None:
        self.poll_s = poll_s
        self._draw = draw
        self._span_s = FIRST_SPAN_S
        self._worked = False

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
            pause_s = self._retry()
            # What was due before the failure is no reason to hurry for ever.
            if due_s is not None and due_s > 0:
                pause_s = min(pause_s, self._soon_after(due_s))
            return max(pause_s, min(asked_s, MAX_ASKED_S))
        pause_s = self._usual(JITTER if self._worked else SPREAD)
        self._worked, self._span_s = True, HICCUP_SPAN_S
        if due_s is None:
            return pause_s
        return min(pause_s, self._soon_after(max(due_s, 0.0)))

    def _soon_after(self, due_s: float) -> float:
        """Return a pause until something may begin, and a share of the period."""
        return due_s + JITTER * self.poll_s * self._draw()

    def _usual(self, share: float = JITTER) -> float:
        """Return the pause between two looks, give or take a share of it."""
        return self.poll_s * (1 - share + 2 * share * self._draw())

    def _retry(self) -> float:
        """Return the pause after one more failure."""
        if self._span_s >= self.poll_s:
            return self._usual()
        span_s, self._span_s = self._span_s, 2 * self._span_s
        return max(span_s * self._draw(), FLOOR_S)
