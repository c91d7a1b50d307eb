"""The monitor's pace: which sample is looked at next, so that looks stay affordable.

Three wishes make the interval N, one in so many samples, and the widest wins: what the
monitor asks for (autocorrelation), what the share of CPU allows, and, where samples
wait for the loop, that hardly any is delayed.

The rules this module keeps:
 * Law: at the start of every look, what all looks took so far and what this one is
   expected to take is at most ``share`` of the time since the beginning.
 * An idle hour saves nothing up: credit is bounded, so a burst after it is not watched
   more closely than any other.
 * N is steady: what it was when a baseline was made it is when that is compared with.
   It widens at once and narrows after a good while. Gaps are near N by chance, so that
   of a source that goes round no phase is left out, whatever its length.
 * No clock here: times are arguments, in nanoseconds of a clock that never falls.
"""

import math
from bisect import bisect_left

from agent.worker.watch_flow import Flow

NEVER = 2**62  # the number of no sample
# A first look meets cold caches and pages; until one was measured, it is taken for 1 ms
# (25 times a warm one here), so that it begins after 50 ms at a share of 2 %.
FIRST_COST_NS = 1_000_000.0
# Every eighth look closes a batch and costs twice as much, and now and then another
# process leaves cold caches: an average over some 64 keeps N steady.
LEARNED = 1 / 64
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
# What the budget may choose from, each some 1.25 times the one before: few, so that N
# seldom changes, and primes, so that sources that take turns are seen in all phases.
STEPS = (
    *(1, 2, 3, 5, 7, 11, 17, 23, 29, 37, 47, 59, 79, 101, 127, 163, 211, 269, 337, 431),
    *(541, 677, 853, 1069, 1361, 1709, 2137, 2677, 3347, 4201, 5261, 6577, 8231, 10289),
    *(12889, 16127, 20161, 25219, 31531, 39419, 49277, 61603, 77017, 96281, 120371),
    *(150473, 188107, 235159, 293957, 367453, 459317, 574157, 717697, 897133, 1121423),
)
# What is measured jitters: N widens where it is too narrow by more than this part, less
# than what is kept, and narrows where a step less would do with this to spare.
SLACK = 0.05
# It narrows when a step less would have done for so long; sooner in the beginning, when
# first looks were dear and a drift from the first sample on is to be found.
CALM_NS = 10_000_000_000
CALM_PART = 0.25  # of the time since the first sample
# One look in so many times the average teaches no more: it met another process, not a
# dearer sample. It is paid for all the same.
ODD_COST = 4.0
# Gaps are within a quarter of N, but never below what the monitor asks for. Where that
# is no whole sample, one in five is one more: fewer than half, for the median gap must
# not dance (``agent.core.drift.thinning``).
NEAR = 4
ONE_MORE = 1.2
# Knuth's linear congruential generator (MMIX), modulo 2**64: its high bits are good.
MULTIPLIER, INCREMENT = 6364136223846793005, 1442695040888963407
OVERDUE = 2.0  # times of the interval after which a source is taken to be slower now


def step_of(interval: float) -> int:
    """Return the smallest of ``STEPS`` not below it; beyond the last, itself."""
    at = bisect_left(STEPS, interval)
    return STEPS[at] if at < len(STEPS) else math.ceil(min(interval, NEVER // 4))


class Pace:
    """Decides when to look, from what looks cost and how fast samples come.

    Args:
        share: What looking may take of all time, above 0.
        now_ns: The beginning.

    Attributes:
        interval: One in so many samples, as decided last.
        spacing: One in so many as it comes out: wider where credit is missing.
        spent_ns: Everything that was paid.
    """

    def __init__(self, share: float, now_ns: int) -> None:
        self._share = share
        self._cost_ns = FIRST_COST_NS
        self._credit_ns = 0.0
        self._flow = Flow()
        self._seq = self._looked = self._looks = 0
        self._earned_at = now_ns
        self._first_at = 0  # time of the first sample, once there was one
        self._affordable = 1  # of STEPS
        self._calm_at, self._calm_most = now_ns, 0.0
        self._chance = 1
        self.interval = self.spacing = 1
        self.spent_ns = 0

    def may_look(self, seq: int, now_ns: int, busy_ns: int = 0) -> bool:
        """Whether the sample may be looked at; it is the one that was due, or later.

        Args:
            seq: The sample's number.
            now_ns: The time.
            busy_ns: How long all samples so far kept the loop.
        """
        saved_ns = max(self._share * SAVED_NS, SAVED_LOOKS * self._cost_ns)
        earned_ns = self._share * (now_ns - self._earned_at)
        self._credit_ns = min(saved_ns, self._credit_ns + earned_ns)
        self._earned_at = now_ns
        if not self._seq:
            self._first_at = self._calm_at = now_ns
            self._looked = seq
        self._flow.see(seq, now_ns, self.spent_ns, busy_ns)
        self._seq = seq
        return self._credit_ns >= self._cost_ns

    def pay(self, spent_ns: int, *, look: bool = True) -> None:
        """Take what something cost from the credit; a look's cost is learned."""
        self._credit_ns -= spent_ns
        self.spent_ns += spent_ns
        if look:
            usual_ns = min(spent_ns, ODD_COST * self._cost_ns)
            weight = max(LEARNED, 1 / (self._looks + 2))
            self._cost_ns += (usual_ns - self._cost_ns) * weight
            self._looks += 1

    def next_due(self, wanted: int) -> int:
        """Return the number of the sample that is looked at next.

        Args:
            wanted: The interval that the monitor asks for.
        """
        self._decide(self._needed())
        self.interval = max(wanted, self._affordable)
        # Out of credit, as a dear look or a report leaves it, it is wider for once.
        least = max(wanted, self._until_credit())
        wide = least > 2 * self.interval
        self._looked, self.spacing = self._seq, least if wide else self.interval
        return self._seq + self._gap(least)

    def later(self) -> int:
        """Return the number of the sample at which there may be credit for a look."""
        gap = max(1, self._until_credit())
        passed = self._seq - self._looked + gap
        if passed > 2 * self.interval:
            self.spacing = max(self.spacing, passed)
        return self._seq + gap

    def overdue(self, now_ns: int) -> bool:
        """Whether so much time passed since the last visit that N must be too wide."""
        usual_ns = self.interval * self._flow.period_ns
        return now_ns - self._earned_at > OVERDUE * usual_ns

    def _needed(self) -> float:
        """Return the interval that the share, and samples that wait, ask for."""
        period_ns = self._flow.period_ns
        if period_ns <= 0:
            return 1.0
        needed = self._cost_ns / (KEPT * self._share * period_ns)
        if self._flow.busy > BUSY and self._looks > CLOSE_LOOKS:
            sparing = min(float(BUSY_INTERVAL), SLOW_NS / period_ns)
            needed = max(needed, sparing, BUSY_NS / period_ns)
        return needed

    def _decide(self, needed: float) -> None:
        """Widen what is affordable at once; narrow it when less did for a while."""
        now_ns = self._earned_at
        roomy = needed * (1 + SLACK)
        if needed > self._affordable * (1 + SLACK):
            self._affordable = step_of(needed)
        elif step_of(roomy) < self._affordable:
            self._calm_most = max(self._calm_most, roomy)
            calm_ns = min(CALM_NS, (now_ns - self._first_at) * CALM_PART)
            if now_ns - self._calm_at < calm_ns:
                return
            self._affordable = step_of(self._calm_most)
        self._calm_at, self._calm_most = now_ns, 0.0

    def _gap(self, least: int) -> int:
        """Return a gap near the interval, by chance, and not below ``least``.

        Gaps are independent of each other: of low discrepancy, they would keep in step
        with a source that goes round with their mean.
        """
        if self.interval < 2:
            return least
        near = self.interval // NEAR
        low = max(least, self.interval - near)
        choices = max(self.interval + near - low + 1, ONE_MORE)
        self._chance = (self._chance * MULTIPLIER + INCREMENT) % 2**64
        return low + int((self._chance >> 33) / 2**31 * choices)

    def _until_credit(self) -> int:
        """Return after how many samples there will be credit for a look."""
        missing_ns = self._cost_ns - self._credit_ns
        period_ns = self._flow.period_ns
        if missing_ns <= 0 or period_ns <= 0:
            return 0
        samples = missing_ns / (self._share * period_ns)
        return math.ceil(min(samples, NEVER // 4))
