"""How long a DDI server that fails is left alone: full jitter over a span that doubles.

The rules this module keeps:
 * The first failure after an answer costs the usual pause on average, and five minutes
   at most: one lost packet must not cost a day of a fleet that polls daily.
 * No failure makes a fleet ask more often than usual: the mean of the first pauses is
   the server's own sleep. Each further one has it asked half as often, down to a tenth.
 * A board that was just switched on, perhaps before its network, asks within seconds.

Source: Marc Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.

>>> backoff = Backoff(lambda: 0.5)
>>> [backoff.after() for _ in range(4)]
[2.0, 4.0, 8.0, 16.0]
>>> backoff.reset(30.0)
>>> [backoff.after() for _ in range(6)]
[30.0, 60.0, 120.0, 150.0, 150.0, 150.0]
>>> backoff.reset(86_400.0)
>>> [backoff.after() for _ in range(3)]
[300.0, 600.0, 1200.0]
"""

from collections.abc import Callable

from agent.core.ddi_messages import DEFAULT_SLEEP_S

FIRST_SPAN_S = 4.0  # about what an interface takes to get its address after a boot
HICCUP_S = 300.0  # the pause that hawkBit and its like are sized for
TIMES = 10.0  # of the server's sleep: a failing server is not helped by less
LONG_S = 3600.0  # and no longer than this, where its own sleep is not
FLOOR_S = 1.0  # no draw makes a board hammer a server


class Backoff:
    """Draws the pauses after failures in a row."""

    def __init__(self, draw: Callable[[], float]) -> None:
        """Take what draws from [0, 1)."""
        self._draw = draw
        self._span_s = FIRST_SPAN_S
        self._sleep_s = DEFAULT_SLEEP_S

    def reset(self, sleep_s: float) -> None:
        """Begin anew: the server answered, and asks for this pause."""
        self._sleep_s = sleep_s
        self._span_s = 2 * min(sleep_s, HICCUP_S)

    def after(self) -> float:
        """Return the seconds to wait after one more failure."""
        longest_s = max(self._sleep_s, min(TIMES * self._sleep_s, LONG_S))
        span_s = min(self._span_s, longest_s)
        self._span_s = 2 * span_s
        return max(span_s * self._draw(), FLOOR_S)
