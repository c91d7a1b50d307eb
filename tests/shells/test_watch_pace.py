"""The pace: looks stay inside their share of time, whatever they cost and whenever."""

from dataclasses import dataclass, field
from itertools import pairwise
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core.drift.thinning import next_prime
from agent.worker.watch_pace import (
    BUSY_INTERVAL,
    CALM_NS,
    CLOSE_LOOKS,
    FIRST_COST_NS,
    KEPT,
    NEAR,
    NEVER,
    SAVED_LOOKS,
    SAVED_NS,
    STEPS,
    Pace,
    step_of,
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
    intervals: list[int] = field(default_factory=list)
    dearest_ns: int = 0
    busy_total_ns: int = 0

    def __post_init__(self) -> None:
        self.pace = Pace(self.share, self.began_ns)
        self.now_ns = self.began_ns

    def sample(self, period_ns: int, cost_ns: int) -> None:
        """Take one sample, and look at it if it is due and affordable."""
        self.seq += 1
        self.now_ns += period_ns
        self.busy_total_ns += self.busy_ns
        if self.seq < self.due:
            return
        pace = self.pace
        if not pace.may_look(self.seq, self.now_ns, self.busy_total_ns):
            self.due = pace.later()
            return
        # The law: with what is expected, it is still inside the share.
        earned_ns = self.share * (self.now_ns - self.began_ns)
        assert pace.spent_ns + pace._cost_ns <= earned_ns + 1
        self.looked.append(self.seq)
        self.now_ns += cost_ns
        self.dearest_ns = max(self.dearest_ns, cost_ns)
        pace.pay(cost_ns)
        self.due = pace.next_due(self.wanted)
        self.intervals.append(pace.interval)

    def run(self, rate: float, seconds: float, cost_ns: int = COST_NS) -> None:
        """Take samples at a steady rate."""
        period_ns = int(S_NS / rate)
        for _ in range(int(rate * seconds)):
            self.sample(period_ns, cost_ns)

    def hold_up(self, rate: float, held_ns: int, cost_ns: int = COST_NS) -> None:
        """Hold the loop up; what waited then comes at once, 40 us apart."""
        period_ns, gap_ns = int(S_NS / rate), 40_000
        self.sample(held_ns, cost_ns)
        behind_ns = held_ns - period_ns
        while behind_ns >= period_ns:
            self.sample(gap_ns, cost_ns)
            behind_ns -= period_ns - gap_ns
        self.sample(period_ns - behind_ns, cost_ns)

    @property
    def gaps(self) -> set[int]:
        """Samples between looks."""
        return {after - before for before, after in pairwise(self.looked)}

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
    assert expected <= stream.pace.interval <= step_of(expected / KEPT)
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
    assert stream.pace.interval == wanted
    assert min(stream.gaps) >= wanted
    assert max(stream.gaps) <= wanted + max(1, wanted // NEAR)


@pytest.mark.parametrize(
    ("rate", "busy", "interval"),
    [
        (40_000, 0.9, step_of(2000)),
        (1000, 0.9, step_of(BUSY_INTERVAL)),
        (200, 0.9, step_of(BUSY_INTERVAL)),
        (10, 0.9, step_of(6)),
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
    assert before <= step_of(rate * COST_NS / S_NS / 0.02 / KEPT)
    stream.run(rate, max(5, CLOSE_LOOKS / rate))
    assert stream.pace.interval == interval


def test_looks_do_not_pass_for_time_to_spare() -> None:
    """A loop that only waits for its own monitor is busy."""
    stream = Stream(0.5, busy_ns=6_000)
    stream.run(100_000, 3)
    assert stream.pace.interval > 1000


@given(
    rate=st.sampled_from([20, 50, 100, 300]),
    held_ms=st.integers(20, 500),
    each_s=st.floats(2, 10),
)
def test_a_loop_that_was_held_up_has_no_fast_source(
    rate: int, held_ms: int, each_s: float
) -> None:
    """What waited comes at once; N stays what the rate asks for, nearly all is seen."""
    stream = Stream(0.02)
    while stream.now_ns < 20 * S_NS:
        stream.run(rate, each_s)
        stream.hold_up(rate, held_ms * S_NS // 1000)
    assert max(stream.intervals) == 1
    assert len(stream.looked) >= 0.85 * stream.seq
    assert stream.spent_share <= 0.02


@pytest.mark.parametrize("rate", [50, 300, 2000, 16_000])
def test_a_slow_board_uses_what_it_may(rate: int) -> None:
    """With hold-ups each second or so, looks take two thirds of what they need."""
    cost_ns = 120_000
    stream = Stream(0.02)
    while stream.now_ns < 20 * S_NS:
        stream.run(rate, 1.3, cost_ns)
        stream.hold_up(rate, S_NS // 10, cost_ns)
    needed = min(0.02, rate * cost_ns / S_NS)
    assert 0.6 * needed <= stream.spent_share <= 0.02


@given(seed=st.integers(0, 10**6), rate=st.sampled_from([400, 1000, 3000]))
def test_the_interval_is_steady(seed: int, rate: int) -> None:
    """Costs that jitter and single dear looks do not move N once it is found."""
    chance = Random(seed)  # noqa: S311 - nothing is secret here
    stream = Stream(0.02)
    period_ns = S_NS // rate
    found = None
    for _ in range(20 * rate):
        odd = chance.random() < 0.001
        cost_ns = 100 * COST_NS if odd else int(COST_NS * chance.uniform(0.7, 1.6))
        stream.sample(period_ns + chance.randint(-20_000, 20_000), cost_ns)
        if found is None and stream.now_ns > 5 * S_NS:
            found = len(stream.intervals)
    later = stream.intervals[found:]
    changes = sum(a != b for a, b in pairwise(later))
    assert changes <= 2
    assert set(later) <= set(STEPS)


def test_it_widens_at_once_and_narrows_after_a_while() -> None:
    """A source that was fast for a moment does not make N dance."""
    stream = Stream(0.02)
    stream.run(100, 60)
    stream.run(10_000, 6)
    wide = stream.pace.interval
    assert wide >= 20
    stream.run(1000, CALM_NS / S_NS / 2)
    assert stream.pace.interval == wide
    stream.run(1000, 2 * CALM_NS / S_NS)
    assert stream.pace.interval == step_of(1000 * COST_NS / S_NS / 0.02 / KEPT)


def test_steps_are_primes_a_quarter_apart() -> None:
    """A few that differ, and share no factor with a source that goes round."""
    assert [next_prime(it) for it in STEPS] == list(STEPS)
    ratios = [b / a for a, b in pairwise(STEPS[3:])]
    assert max(ratios) < 1.6
    assert (step_of(0.1), step_of(6), step_of(2e6)) == (1, 7, 2_000_000)


@given(
    length=st.integers(2, 2000),
    wanted=st.sampled_from([2, 3, 5, 7, 29, 127, 600]),
    budget=st.booleans(),
)
def test_no_phase_of_a_loop_is_left_out(
    length: int, wanted: int, *, budget: bool
) -> None:
    """Whatever its length is a multiple of: tenths of it are watched alike."""
    pace = Pace(0.02, 0)
    pace.interval = wanted
    seq, looks = 0, 20_000
    parts = min(length, 10)
    counts = [0] * parts
    for _ in range(looks):
        seq += pace._gap(1 if budget else wanted)
        counts[seq % length * parts // length] += 1
    sizes = [0] * parts
    for phase in range(length):
        sizes[phase * parts // length] += 1
    for count, size in zip(counts, sizes, strict=True):
        assert count / looks * length / size == pytest.approx(1, abs=0.35)


def test_a_share_too_small_for_any_look_shows() -> None:
    """As long as nothing may be looked at, N is what it comes to."""
    stream = Stream(0.0002)
    stream.run(100, 4)
    assert stream.looked == []
    assert stream.pace.spacing >= 400
    stream.run(100, 60)
    assert len(stream.looked) > 1
    assert stream.pace.spacing >= 100 * COST_NS / S_NS / 0.0002


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
