"""How fast samples come and how busy their loop is, over the last seconds.

The rules this module keeps:
 * No rate is of less than a second: what waited while the loop was held up comes at
   once, and is no fast source.
 * No clock here: times are arguments, in nanoseconds of a clock that never falls.
"""

from collections import deque

# Over less, no rate is believed: a board that is busy holds a worker up for 0.2 s, and
# what waited then comes within a few milliseconds.
LEAST_NS = 1_000_000_000
# Looked back at least so far, once there is so much: a hold-up of 0.2 s is 5 % of it.
SPAN_NS = 4_000_000_000
MARK_NS = 1_000_000_000  # at most so far further; six marks are kept

Mark = tuple[int, int, int, int]  # time, sample, time of looks, busy time


class Flow:
    """The rate of samples and the share of time that they keep the loop.

    Attributes:
        period_ns: Between two samples, on average; 0 as long as it is not known.
        busy: Share of the time that the loop was at work on samples, in [0, 1] or so.
    """

    def __init__(self) -> None:
        self.period_ns = 0.0
        self.busy = 0.0
        self._marks: deque[Mark] = deque()

    def see(self, seq: int, now_ns: int, looks_ns: int, busy_ns: int) -> None:
        """Take in where the stream is.

        Args:
            seq: Number of the sample.
            now_ns: The time.
            looks_ns: What looks and reports took so far: taken out of the time, for
                they must not pass for a loop with time to spare.
            busy_ns: How long all samples so far kept the loop.
        """
        marks = self._marks
        if not marks or now_ns - marks[-1][0] >= MARK_NS:
            marks.append((now_ns, seq, looks_ns, busy_ns))
        while len(marks) > 1 and now_ns - marks[1][0] >= SPAN_NS:
            marks.popleft()
        then_ns, first, looks_then_ns, busy_then_ns = marks[0]
        if seq <= first:
            return
        passed_ns = max(LEAST_NS, now_ns - then_ns)
        # Looks may take half of the time at most; one that took more was a surprise.
        passed_ns = max(passed_ns // 2, passed_ns - (looks_ns - looks_then_ns))
        self.period_ns = passed_ns / (seq - first)
        self.busy = (busy_ns - busy_then_ns) / passed_ns
