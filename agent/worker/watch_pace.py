"""The monitor's pace: which sample is looked at next, so that looks stay affordable.

Three wishes make the interval N, one in so many samples, and the widest wins: what the
monitor asks for (autocorrelation), what the share of CPU allows, and, where samples
wait for the loop, that hardly any is delayed.

The rules this module keeps:
 * Law: at the start of every look, what all looks took so far and what this one is
   expected to take is at most ``share`` of the time since the beginning.
 * An idle hour saves nothing up: credit is bounded, so a burst after it is not watched
   more closely than any other.
 * No clock here: times are arguments, in nanoseconds of a clock that never falls.
"""

import math

NEVER = 2**62  # the number of no sample
# A first look meets cold caches and pages; until one was measured, it is taken for 1 ms
# (25 times a warm one here), so that it begins after 50 ms at a share of 2 %.
FIRST_COST_NS = 1_000_000.0
# Every eighth look closes a batch and costs twice as much: an average over some 16.
LEARNED = 1 / 16
# Looks that were slower than the average, and reports, are paid from what is kept.
KEPT = 0.9
# What may be saved up: what 0.1 s earn, and always enough for a look.
SAVED_NS = 100_000_000
SAVED_LOOKS = 2.0
# A loop that is busy more than half of its time is taken to have samples waiting.
BUSY = 0.5
# There, a look each 50 ms is plenty, and takes 0.4 % of the time even at the 200 us of
# one that finds cold caches; 1 in 120 keeps looks out of the p99 of slower models, and
# one each 0.6 s is made of those so slow that 120 samples take a minute.
BUSY_NS = 50_000_000
BUSY_INTERVAL, SLOW_NS = 120, 600_000_000
# But a model that has just begun is looked at as often as is affordable: its monitor
# needs 512 samples before it raises an alarm (``agent.core.drift.thinning``).
CLOSE_LOOKS = 600
# What is measured jitters, and a monitor that measures memory wants samples evenly
# apart: N narrows by a quarter or not at all.
NARROWER = 0.75
SMOOTHED = 0.25  # weight of the newest rate


class Pace:
    """Decides when to look, from what looks cost and how fast samples come.

    Args:
        share: What looking may take of all time, above 0.
        now_ns: The beginning.

    Attributes:
        interval: One in so many samples, as decided last.
        spent_ns: Everything that was paid.
    """

    def __init__(self, share: float, now_ns: int) -> None:
        self._share = share
        self._cost_ns = FIRST_COST_NS
        self._credit_ns = 0.0
        self._period_ns = 0.0  # between two samples, on average since the last visit
        self._seq = 0
        self._looks = 0
        self._seen_spent = 0
        self._earned_at = self._seen_at = now_ns
        self.interval = 1
        self.spent_ns = 0

    def may_look(self, seq: int, now_ns: int) -> bool:
        """Whether the sample may be looked at; it is the one that was due, or later."""
        saved_ns = max(self._share * SAVED_NS, SAVED_LOOKS * self._cost_ns)
        earned_ns = self._share * (now_ns - self._earned_at)
        self._credit_ns = min(saved_ns, self._credit_ns + earned_ns)
        self._earned_at = now_ns
        if self._seq and seq > self._seq:
            # Without the looks: they must not pass for a loop with time to spare.
            looks_ns = self.spent_ns - self._seen_spent
            passed_ns = max(1, now_ns - self._seen_at - looks_ns)
            newest = (seq - self._seq) / passed_ns
            before = 1 / self._period_ns if self._period_ns > 0 else newest
            # Rates are averaged, not times: a pause is one slow sample, not a slow
            # source.
            self._period_ns = 1 / (before + (newest - before) * SMOOTHED)
        self._seq, self._seen_at, self._seen_spent = seq, now_ns, self.spent_ns
        return self._credit_ns >= self._cost_ns

    def pay(self, spent_ns: int, *, look: bool = True) -> None:
        """Take what something cost from the credit; a look's cost is learned."""
        self._credit_ns -= spent_ns
        self.spent_ns += spent_ns
        if look:
            self._cost_ns += (spent_ns - self._cost_ns) * LEARNED
            self._looks += 1

    def next_due(self, wanted: int, busy_ns: float = 0) -> int:
        """Return the number of the sample that is looked at next.

        Args:
            wanted: The interval that the monitor asks for.
            busy_ns: How long a sample keeps the loop.
        """
        period_ns = self._period_ns
        interval = wanted
        if period_ns > 0:
            affordable = self._cost_ns / (KEPT * self._share * period_ns)
            interval = max(interval, math.ceil(min(affordable, NEVER // 2)))
            if busy_ns > BUSY * period_ns and self._looks > CLOSE_LOOKS:
                sparing = min(BUSY_INTERVAL, math.ceil(SLOW_NS / period_ns))
                interval = max(interval, sparing, math.ceil(BUSY_NS / period_ns))
        if not NARROWER * self.interval <= interval <= self.interval:
            self.interval = interval
        return self._seq + max(self.interval, self._until_credit())

    def later(self) -> int:
        """Return the number of the sample at which there may be credit for a look."""
        return self._seq + max(1, self._until_credit())

    def _until_credit(self) -> int:
        """Return after how many samples there will be credit for a look."""
        missing_ns = self._cost_ns - self._credit_ns
        if missing_ns <= 0 or self._period_ns <= 0:
            return 0
        samples = missing_ns / (self._share * self._period_ns)
        return math.ceil(min(samples, NEVER // 2))
