"""The pace: looks stay inside their share of time, whatever they cost and whenever."""

import math
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.worker.watch_pace import (
    BUSY_INTERVAL,
    CLOSE_LOOKS,
    FIRST_COST_NS,
    KEPT,
    NARROWER,
    NEVER,
    SAVED_LOOKS,
    SAVED_NS,
    Pace,
)

S_NS = 1_000_000_000
COST_NS = 40_000  # of a look at a picture
shares = st.sampled_from([0.001, 0.02, 0.5])
periods = st.integers(1, 3 * S_NS)
costs = st.integers(1, 50_000_000)


@dataclass
class Stream:
    """Samples that come at a pace of their own, and what was looked at."""

    share: float
    began_ns: int = 5
    wanted: int = 1
    busy_ns: int = 0
    due: int = 0
    seq: int = 0
    looked: list[int] = field(default_factory=list)
    dearest_ns: int = 0

    def __post_init__(self) -> None:
        self.pace = Pace(self.share, self.began_ns)
        self.now_ns = self.began_ns

    def sample(self, period_ns: int, cost_ns: int) -> None:
        """Take one sample, and look at it if it is due and affordable."""
        self.seq += 1
        self.now_ns += period_ns
        if self.seq < self.due:
            return
        pace = self.pace
        if not pace.may_look(self.seq, self.now_ns):
            self.due = pace.later()
            return
        # The law: with what is expected, it is still inside the share.
        earned_ns = self.share * (self.now_ns - self.began_ns)
        assert pace.spent_ns + pace._cost_ns <= earned_ns + 1
        self.looked.append(self.seq)
        self.now_ns += cost_ns
        self.dearest_ns = max(self.dearest_ns, cost_ns)
        pace.pay(cost_ns)
        self.due = pace.next_due(self.wanted, self.busy_ns)

    def run(self, rate: float, seconds: float, cost_ns: int = COST_NS) -> None:
        """Take samples at a steady rate."""
        period_ns = int(S_NS / rate)
        for _ in range(int(rate * seconds)):
            self.sample(period_ns, cost_ns)

    @property
    def spent_share(self) -> float:
        """What looks took of all time."""
        return self.pace.spent_ns / (self.now_ns - self.began_ns)


@given(
    share=shares,
    steps=st.lists(st.tuples(periods, costs, st.integers(1, 50)), max_size=40),
)
def test_no_look_begins_beyond_the_share(
    share: float, steps: list[tuple[int, int, int]]
) -> None:
    """At any rate, with any jumps of rate and cost; one look's surprise may be owed."""
    stream = Stream(share)
    for period_ns, cost_ns, times in steps:
        for _ in range(times):
            stream.sample(period_ns, cost_ns)
    passed_ns = stream.now_ns - stream.began_ns
    assert stream.pace.spent_ns <= share * passed_ns + stream.dearest_ns


@pytest.mark.parametrize("rate", [1, 10, 100, 1000, 16_000, 40_000])
def test_the_share_holds_at_every_rate(rate: int) -> None:
    """Looks take at most 2 % of the time, and most of that where there is a need."""
    stream = Stream(0.02)
    stream.run(rate, max(4.0, 8.0 / rate))
    assert stream.spent_share <= 0.02
    affordable = 0.02 / (COST_NS / S_NS)  # looks a second
    expected = 1 if rate < affordable else rate / affordable
    widest = math.ceil(expected / KEPT / NARROWER)
    assert expected <= stream.pace.interval <= widest
    if rate > affordable:
        assert stream.spent_share >= 0.01  # N is whole, and the beginning cautious


def test_a_slow_source_is_watched_from_its_first_sample_on() -> None:
    """At 1 sample/s every one is looked at."""
    stream = Stream(0.02)
    stream.run(1, 20)
    assert stream.looked == list(range(1, 21))


def test_slow_first_looks_are_paid_for() -> None:
    """A look of 50 ms is followed by a pause that earns it, then N narrows again."""
    stream = Stream(0.02)
    for _ in range(5000):
        stream.sample(S_NS // 1000, 50_000_000 if not stream.looked else COST_NS)
    assert stream.looked[1] - stream.looked[0] >= 2500  # 50 ms / 2 %, and the next one
    stream.run(1000, 60)
    assert stream.pace.interval <= 3
    assert stream.spent_share <= 0.02


@given(st.integers(2, 1000))
def test_the_monitor_can_only_widen(wanted: int) -> None:
    """What autocorrelation asks for is a lower bound."""
    stream = Stream(0.5, wanted=wanted)
    stream.run(100, 200)
    gaps = {after - before for before, after in zip(*[iter(stream.looked)] * 2)}  # noqa: B905 - an odd one is left
    assert stream.pace.interval == wanted
    assert gaps <= {wanted}


@pytest.mark.parametrize(
    ("rate", "busy", "interval"),
    [
        (40_000, 0.9, 2000),
        (1000, 0.9, BUSY_INTERVAL),
        (200, 0.9, BUSY_INTERVAL),
        (10, 0.9, 6),
        (1, 0.9, 1),
        (200, 0.4, 1),
        (10, 0.4, 1),
    ],
)
def test_samples_that_wait_are_spared(rate: int, busy: float, interval: int) -> None:
    """Where the loop has no slack, hardly any is delayed, but for the first looks."""
    stream = Stream(0.02, busy_ns=int(busy * S_NS / rate))
    while len(stream.looked) < CLOSE_LOOKS // 2:
        stream.run(rate, 0.25 if rate > 4 else 1)
    before = stream.pace.interval
    assert before <= math.ceil(rate * COST_NS / S_NS / 0.02 / KEPT / NARROWER)
    stream.run(rate, max(5, CLOSE_LOOKS / rate))
    assert stream.pace.interval == pytest.approx(interval, rel=0.02)


def test_looks_do_not_pass_for_time_to_spare() -> None:
    """A loop that only waits for its own monitor is busy."""
    stream = Stream(0.5, busy_ns=6_000)
    stream.run(100_000, 3)
    assert stream.pace.interval > 1000


@given(st.integers(0, 10**15), st.integers(1, 10**9))
def test_an_idle_hour_saves_nothing_up(idle_ns: int, cost_ns: int) -> None:
    """After any pause there is credit for what a moment earns, or for two looks."""
    pace = Pace(0.02, 0)
    pace.may_look(1, idle_ns)
    looks = 0
    while looks < 2000 and pace.may_look(2 + looks, idle_ns):
        pace.pay(cost_ns)
        looks += 1
    saved_ns = max(0.02 * SAVED_NS, SAVED_LOOKS * FIRST_COST_NS)
    assert pace.spent_ns <= saved_ns + cost_ns


def test_reports_are_paid_and_teach_nothing() -> None:
    """What a report cost is missing from the credit, and no look looks dearer."""
    pace = Pace(0.02, 0)
    cost_ns = pace._cost_ns
    pace.pay(10 * S_NS, look=False)
    assert (pace.spent_ns, pace._cost_ns) == (10 * S_NS, cost_ns)
    assert not pace.may_look(1, S_NS)


def test_the_next_sample_has_a_number() -> None:
    """Neither a clock that stands still nor a tiny share leads beyond all numbers."""
    pace = Pace(1e-12, 0)
    for seq, now_ns in ((1, 1), (2, 1), (3, 2)):
        assert not pace.may_look(seq, now_ns)
        assert seq < pace.later() < NEVER
        pace.pay(10**9)
        assert seq < pace.next_due(1) < NEVER
