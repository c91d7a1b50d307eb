"""The account: nothing is answered that is not reserved, however a life ends."""

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from agent.core.meter import MeterState, Remains, redeem, settle
from agent.core.meter_account import (
    FIRST_UNITS,
    SEEN_S,
    TIME_LEASE_S,
    Account,
)
from agent.core.protect_settings import Unpaid
from agent.core.reasons import Reason
from agent.core.voucher import Kind, Voucher

NOW_S, MONO_S = 1_800_000_000.0, 100.0
PIPELINES = ("door", "yard")
POLICIES = {"door": Unpaid(), "yard": Unpaid("grace", grace=40)}


def voucher(seq: int, units: int, kind: Kind = Kind.UNITS) -> Voucher:
    """Return a voucher that is believed."""
    return Voucher(kind, bytes(8), bytes(32), seq, units)


def account(
    bought: int = 0, lease: int = 1000, policies: dict[str, Unpaid] | None = None
) -> Account:
    """Return an account whose first lease is durable."""
    made = Account(MeterState(bought=bought), lease, policies or {"door": Unpaid()})
    renew(made)
    return made


def renew(made: Account, now_s: float = NOW_S, mono_s: float = MONO_S) -> MeterState:
    """Write a lease, if one is due; return what is durable then."""
    planned, stretch_s = made.plan(now_s, mono_s)
    made.adopt(planned, stretch_s)
    return planned


class Lives(RuleBasedStateMachine):
    """Pipelines answer, the daemon takes, leases and vouchers are written, or not.

    Writes are torn into planned, durable and adopted: a crash may come between any two
    steps. ``made`` are records in rings, which a crash loses.
    """

    @initialize(lease=st.integers(1, 200), refund=st.booleans())
    def begin(self, lease: int, refund: bool) -> None:  # noqa: FBT001 - drawn
        """Begin with a new board."""
        self.lease, self.refund = lease, refund
        self.disk = MeterState()
        self.account = Account(self.disk, lease, POLICIES)
        self.planned: tuple[MeterState, float, bool] | None = None
        self.durable = False
        self.limits = dict.fromkeys(PIPELINES, 0)
        self.made = dict.fromkeys(PIPELINES, 0)
        self.marked = self.logged = self.answered = 0
        self.seq, self.mono_s = 0, MONO_S

    @rule(pipeline=st.sampled_from(PIPELINES))
    def allow(self, pipeline: str) -> None:
        """A worker is told how much it may answer: never less than before."""
        allowed, _ = self.account.hand_out(pipeline, NOW_S, self.mono_s)
        assert allowed >= self.limits[pipeline]
        self.limits[pipeline] = allowed
        self.marked = max(self.marked, self.account.handed)

    @rule(pipeline=st.sampled_from(PIPELINES), share=st.floats(0, 1))
    def answer(self, pipeline: str, share: float) -> None:
        """A worker answers, as far as it may."""
        count = int((self.limits[pipeline] - self.made[pipeline]) * share)
        self.made[pipeline] += count
        self.answered += count

    @rule(pipeline=st.sampled_from(PIPELINES), failed=st.floats(0, 1))
    def take(self, pipeline: str, failed: float) -> None:
        """The daemon takes what is in a ring; some of it has failed."""
        count = self.made[pipeline]
        bad = int(count * failed)
        self.account.take(pipeline, count - bad, bad)
        self.answered -= bad
        self.logged += count
        self.limits[pipeline] -= count
        self.made[pipeline] = 0

    @precondition(lambda self: self.planned is None)
    @rule(past_s=st.floats(0, 3))
    def plan(self, past_s: float) -> None:
        """A lease is planned."""
        self.mono_s += past_s
        self.planned = (*self.account.plan(NOW_S, self.mono_s), False)
        self.durable = False

    @precondition(lambda self: self.planned is None)
    @rule(units=st.integers(1, 400), back=st.booleans())
    def redeem(self, units: int, back: bool) -> None:  # noqa: FBT001 - drawn
        """A voucher is planned: it gives, or takes back."""
        self.seq += 1
        kind = Kind.REVOKE if back else Kind.UNITS
        found = voucher(self.seq, units, kind)
        self.planned = (*self.account.redeemed(found, NOW_S, self.mono_s), True)
        self.account.frozen = True
        self.durable = False

    @precondition(lambda self: self.planned is not None and not self.durable)
    @rule()
    def write(self) -> None:
        """It is on the disk."""
        assert self.planned is not None
        self.disk, self.durable = self.planned[0], True

    @precondition(lambda self: self.planned is not None and self.durable)
    @rule()
    def adopt(self) -> None:
        """It holds."""
        assert self.planned is not None
        self.account.adopt(*self.planned[:2])
        self.account.frozen = False
        self.planned = None

    @rule(same_boot=st.booleans())
    def crash(self, same_boot: bool) -> None:  # noqa: FBT001 - drawn
        """The daemon and its workers die; the log has what was taken."""
        lost = sum(self.made.values())
        remains = Remains(self.marked if same_boot else None, self.logged)
        before = self.disk
        settled = settle(before, remains, refund=self.refund)
        assert settled.behind == 0
        used = settled.state.used
        known = self.answered - (lost if self.refund and not same_boot else 0)
        assert known <= used
        # At most what one write had reserved is charged without an answer.
        assert settled.charged <= before.reserved - before.used
        self.disk = settled.state
        self.answered = used  # what was lost is lost: later lives owe nothing for it
        self.account = Account(settled.state, self.lease, POLICIES)
        self.marked = used
        self.limits, self.made = (dict.fromkeys(PIPELINES, 0) for _ in range(2))
        self.planned = None

    @rule()
    def end(self) -> None:
        """An orderly end gives back what was not used."""
        for pipeline in PIPELINES:
            self.take(pipeline, 0.0)
        self.disk = self.account.closing(self.mono_s)
        assert self.disk.reserved == self.disk.used == self.answered
        self.account = Account(self.disk, self.lease, POLICIES)
        self.marked = self.disk.used
        self.limits = dict.fromkeys(PIPELINES, 0)
        self.planned = None

    @invariant()
    def nothing_is_answered_that_is_not_reserved(self) -> None:
        """What may be answered, all of it, is reserved on the disk."""
        if not hasattr(self, "disk"):
            return
        may = self.account.state.used + sum(self.limits.values())
        assert self.answered <= may <= max(self.disk.reserved, self.disk.used)
        assert may <= self.account.state.bought + 40
        door = self.account.state.used + self.limits["door"]
        assert self.limits["door"] == 0 or door <= self.account.state.bought


Lives.TestCase.settings = settings(
    max_examples=150, stateful_step_count=40, deadline=None
)
TestLives = Lives.TestCase


def test_a_model_is_never_stopped_by_its_lease() -> None:
    """At 40,000 answers a second the lease has grown after a second, and holds."""
    made = account(bought=10**9)
    allowed, mono_s, stops = 0, MONO_S, []
    for look in range(50):
        mono_s += 0.1
        made.take("door", min(allowed, 4000), 0)
        allowed, _ = made.hand_out("door", NOW_S, mono_s)
        if allowed < 4000:
            stops.append(look)
        if made.is_due(NOW_S, mono_s):
            renew(made, mono_s=mono_s)
    assert max(stops, default=0) < 15
    assert made.lease_now() <= 4000 * 10 * 3


def test_a_slow_model_keeps_to_its_lease() -> None:
    """At ten answers a second a write reserves what the settings say, and is rare."""
    made, mono_s, writes = account(bought=10**6, lease=100), MONO_S, 0
    for _ in range(1000):
        mono_s += 0.1
        made.take("door", 1, 0)
        made.hand_out("door", NOW_S, mono_s)
        if made.is_due(NOW_S, mono_s):
            renew(made, mono_s=mono_s)
            writes += 1
        assert made.state.reserved - made.state.used <= 100
    assert writes <= 25  # of 1,000 answers


def test_the_last_units_are_shared() -> None:
    """Of the last units one pipeline does not get all, while another gets none."""
    policies = {"door": Unpaid(), "yard": Unpaid()}
    made = account(bought=10, policies=policies)
    made.hand_out("yard", NOW_S, MONO_S)
    made.let_go("yard")
    for name in policies:
        made.take(name, 0, 0)
    first, _ = made.hand_out("door", NOW_S, MONO_S)
    second, _ = made.hand_out("yard", NOW_S, MONO_S)
    assert (first, second) == (5, 3)


def test_grace_is_owed_and_paid_back() -> None:
    """After what is paid `grace` more is answered, and the next voucher pays it."""
    policies = {"yard": Unpaid("grace", grace=7)}
    made = account(bought=3, policies=policies)
    allowed, _ = made.hand_out("yard", NOW_S, MONO_S)
    made.take("yard", allowed, 0)
    assert (allowed, made.state.owed) == (10, 7)
    expected = (0, Reason.UNPAID)
    assert expected == made.hand_out("yard", NOW_S, MONO_S)
    made.adopt(redeem(made.state, voucher(1, 20), NOW_S), 0.0)
    assert (made.state.left, made.state.owed) == (13, 0)


def test_degrading_answers_are_not_charged() -> None:
    """Without units a pipeline that degrades goes on, for nothing, and says why."""
    made = account(bought=5, policies={"door": Unpaid("degrade")})
    made.take("door", made.hand_out("door", NOW_S, MONO_S)[0], 0)
    allowed, reason = made.hand_out("door", NOW_S, MONO_S)
    assert allowed > 0
    assert reason is Reason.UNPAID
    made.take("door", allowed, 0)
    assert (5, allowed) == (made.state.used, made.state.free)
    strict = account(policies={"door": Unpaid()})
    assert strict.hand_out("door", NOW_S, MONO_S) == (0, Reason.UNPAID)


@given(bought=st.integers(1, 300), takes=st.lists(st.integers(0, 90), max_size=60))
def test_what_is_paid_is_used_before_anything_is_free(
    bought: int, takes: list[int]
) -> None:
    """A pipeline that degrades holds no unit unused while it answers for nothing."""
    made = account(bought=bought, policies={"door": Unpaid("degrade")})
    for count in takes:
        allowed, reason = made.hand_out("door", NOW_S, MONO_S)
        assert (made.state.used == bought) == (reason is Reason.UNPAID)
        made.take("door", min(count, allowed), 0)
        renew(made)
        assert made.state.free == 0 or made.state.left == 0


def test_nothing_free_is_answered_before_the_disk_says_so() -> None:
    """A state that is not marked lenient would be taken for an old copy."""
    made = Account(MeterState(), 100, {"door": Unpaid("degrade")})
    assert made.hand_out("door", NOW_S, MONO_S) == (0, Reason.UNPAID)
    assert made.is_due(NOW_S, MONO_S)
    assert renew(made).lenient
    assert made.hand_out("door", NOW_S, MONO_S)[0] > 0
    assert not made.is_due(NOW_S, MONO_S)


def test_nothing_is_counted_until_a_date() -> None:
    """Answers are free, units stay, and the time that was seen is kept now and then."""
    made = account(bought=50)
    until = voucher(1, int(NOW_S) + 5000, Kind.UNTIL)
    made.adopt(*made.redeemed(until, NOW_S, MONO_S))
    allowed, reason = made.hand_out("door", NOW_S, MONO_S)
    made.take("door", allowed, 0)
    assert (Reason.NONE, 0, allowed) == (reason, made.state.used, made.state.free)
    assert not made.is_due(NOW_S, MONO_S + SEEN_S)
    assert made.is_due(NOW_S, MONO_S + SEEN_S + 1)
    renew(made, mono_s=MONO_S + 4000)
    assert made.state.seen_s == NOW_S + 4000
    assert made.unlimited(0.0, MONO_S)
    renew(made, 0.0, MONO_S + 5000)
    assert not made.unlimited(0.0, MONO_S)
    assert not made.unlimited(NOW_S + 5000, MONO_S)


def test_a_clock_that_was_ahead_ends_nothing() -> None:
    """A clock in 2101, for one start: what was bought until a date goes on after it."""
    made = account(bought=50)
    until = voucher(1, int(NOW_S) + 5000, Kind.UNTIL)
    made.adopt(*made.redeemed(until, NOW_S, MONO_S))
    wrong_s = NOW_S + 4e9
    assert not made.unlimited(wrong_s, MONO_S)
    renew(made, wrong_s)
    later = Account(made.closing(MONO_S + 10), 100, {"door": Unpaid()})
    assert later.unlimited(NOW_S, MONO_S)
    paid = voucher(2, 7)
    later.adopt(*later.redeemed(paid, wrong_s, MONO_S))
    assert later.unlimited(NOW_S, MONO_S)


def test_time_passes_while_it_runs_and_a_crash_takes_a_minute() -> None:
    """Seconds are reserved a minute at a time, and an orderly end gives them back."""
    made = account()
    made.adopt(*made.redeemed(voucher(1, 100, Kind.TIME), NOW_S, MONO_S))
    assert made.is_due(NOW_S, MONO_S)
    planned = renew(made)
    assert (planned.time_s, planned.lenient) == (100 - TIME_LEASE_S, True)
    assert made.unlimited(NOW_S, MONO_S + TIME_LEASE_S - 1)
    assert not made.unlimited(NOW_S, MONO_S + TIME_LEASE_S + 1)
    assert made.closing(MONO_S + 10).time_s == 90
    renew(made, mono_s=MONO_S + TIME_LEASE_S - 5)
    assert made.unlimited(NOW_S, MONO_S + 99)
    assert not made.unlimited(NOW_S, MONO_S + 101)
    made.adopt(*made.redeemed(voucher(2, 0, Kind.REVOKE), NOW_S, MONO_S + 70))
    assert not made.unlimited(NOW_S, MONO_S + 71)


def test_what_fails_costs_nothing_and_stays_within_the_lease() -> None:
    """A failed sample is not charged; no more of them come unseen than a lease has."""
    made = account(bought=1000, lease=100)
    for _ in range(20):
        allowed, _ = made.hand_out("door", NOW_S, MONO_S)
        made.take("door", 0, allowed)
    assert (made.state.used, made.state.failed) == (0, 100)
    renew(made)
    assert made.hand_out("door", NOW_S, MONO_S)[0] > 0


def test_what_is_taken_back_is_not_handed_out_meanwhile() -> None:
    """While a voucher that takes units back is written, nobody gets them."""
    made = account(bought=500)
    held, _ = made.hand_out("door", NOW_S, MONO_S)
    planned = made.redeemed(voucher(1, 0, Kind.REVOKE), NOW_S, MONO_S)
    made.frozen = True
    made.take("door", held, 0)
    assert made.hand_out("door", NOW_S, MONO_S) == (0, Reason.NONE)
    made.adopt(*planned)
    made.frozen = False
    assert made.hand_out("door", NOW_S, MONO_S) == (0, Reason.UNPAID)
    # It was handed out before; whoever uses it after everything was taken back owes it.
    assert (made.state.used, made.state.left, made.state.owed) == (held, 0, held)


def test_an_idle_pipeline_holds_little() -> None:
    """Units that nobody uses stay with a pipeline: some tens of them."""
    made = account(bought=10**6, lease=10**5)
    assert made.hand_out("door", NOW_S, MONO_S) == (FIRST_UNITS, Reason.NONE)
    assert made.hand_out("door", NOW_S, MONO_S)[0] == FIRST_UNITS


def test_usage_is_kept_by_hour_and_model() -> None:
    """Hours that are over are handed on, those of the open hour stay."""
    made = account()
    for hour in range(3):
        made.note("aa", 5, NOW_S + hour * 3600)
        made.note("bb", 1, NOW_S + hour * 3600)
    past = made.past_rows(NOW_S + 2 * 3600)
    assert [row.count for row in past] == [5, 1, 5, 1]
    made.forget(past)
    assert made.state.closed == 4
    assert [row.model for row in made.all_rows()] == ["aa", "bb"]
    for number in range(1000):
        made.note(f"{number:064x}", 1, NOW_S)
    assert sum(row.count for row in made.all_rows()) == 1006
    assert len(made.all_rows()) <= 256
