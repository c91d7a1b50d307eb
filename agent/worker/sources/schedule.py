"""When recorded samples are due: a rate on an absolute schedule.

Sample k is due k periods after the first, however long each one took: no drift.

The rules this module keeps:
 * No clock is read here: callers pass ``now_ns``.
 * Nothing is skipped. Samples that became due during a pause are due at once
   afterwards, up to ``MAX_BACKLOG_NS`` of them; a model that is slower than the rate
   for longer shifts the schedule, so that lag says how far behind it is, not for how
   long it has been too slow.

>>> schedule = Schedule(rate_hz=100.0)
>>> schedule.begin(1_000)
>>> schedule.due_ns
1000
>>> schedule.advance(1_000)
>>> schedule.due_ns
10001000
"""

MAX_BACKLOG_NS = 1_000_000_000  # a swap or a page fault, caught up within a second


class Schedule:
    """Due times of samples at ``rate_hz``."""

    def __init__(self, rate_hz: float) -> None:
        self._period_ns = 1e9 / rate_hz
        self._origin_ns = 0
        self._count = 0
        self.due_ns = 0

    def begin(self, now_ns: int) -> None:
        """Make the first sample due now."""
        self._origin_ns, self._count, self.due_ns = now_ns, 0, now_ns

    def advance(self, now_ns: int) -> None:
        """A sample was taken: move on to when the next one is due."""
        self._count += 1
        due_ns = self._origin_ns + int(self._count * self._period_ns)
        if due_ns < now_ns - MAX_BACKLOG_NS:
            self.begin(now_ns - MAX_BACKLOG_NS)
        else:
            self.due_ns = due_ns
