"""The account that runs in memory: what pipelines may answer, and what they have.

A durable write reserves a *lease*; out of it each pipeline is *handed* what it may
answer next, a little ahead of what it takes. Answers come back as records.

The rules this module keeps:
 * It is pure: clocks are arguments, and who writes is told what to write.
 * What is handed out is reserved, each unit once: since the last write no more records
   come than ``reserved - used`` there, those that failed and cost nothing included.
   It is never taken back, for the worker may have used it already.
 * The lease grows with the rate: it lasts ``LEASE_S`` at least, and is renewed before
   the last second of it begins, so nobody waits for the disk.
 * Answers that cost nothing (unlimited, or one in so many without units) are handed out
   apart from those that do, and are used first; without units none before those that a
   pipeline still holds are used. The disk says before that there may be
   some: whoever compares with the log must not take them for a fraud.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from msgspec.structs import replace

from agent.core.meter import MAX_ROWS, MeterState, UsageRow, redeem
from agent.core.protect_settings import Unpaid
from agent.core.reasons import Reason
from agent.core.receipts import SLOTS
from agent.core.voucher import MAX_TOTAL, Kind, Voucher

HOUR_S = 3600
# A slow card's fdatasync takes 1 s at its worst: what is left then has to last so long.
LEASE_S = 2.0
# What an idle pipeline holds at most, for a source that begins: less of a small lease.
FIRST_UNITS = 64
# Looks come every 0.1 s, and one may come late.
AHEAD = 3
RATE_S = 1.0
FORGET = 0.75  # how much of its highest rate a pipeline keeps from look to look
# What a crash costs of unlimited running; and how long before its end more is reserved.
TIME_LEASE_S = 60
TIME_AHEAD_S = 20.0
# How much running a crash may forget of what is unlimited until a date.
SEEN_S = 600


@dataclass(slots=True)
class Holding:
    """What one pipeline may answer.

    Attributes:
        paid: Units handed out and not come back; ``free`` the same of free answers.
        taken: Records since the last look.
        rate: Records in one look, at its highest lately.
    """

    paid: int = 0
    free: int = 0
    taken: int = 0
    rate: float = 0.0


@dataclass(slots=True)
class Account:
    """Everything the meter decides; see the module.

    Attributes:
        state: What is durable, but for ``used``, ``free``, ``failed`` and
            ``inferences``: these run ahead of the disk, within what is reserved there.
        lease: Units that one write reserves at least.
        policies: Pipeline -> what it does once nothing is left.
        held: Pipeline -> what it may answer.
        stretch_s: Monotonic seconds until which running is unlimited.
        frozen: Units are being taken back: none is handed out meanwhile.
        rows: (hour, model) -> answers, of hours that were not kept yet.
    """

    state: MeterState
    lease: int
    policies: Mapping[str, Unpaid] = field(default_factory=dict)
    held: dict[str, Holding] = field(default_factory=dict)
    stretch_s: float = 0.0
    frozen: bool = False
    rows: Counter[tuple[int, str]] = field(default_factory=Counter)
    _recent: float = 0.0  # units a second
    _since_s: float = 0.0
    _since: int = 0
    _failed: int = 0  # that came before the last write
    _run_s: float | None = None  # monotonic seconds up to which ``seen_s`` has counted
    _written_s: float = 0.0  # the same at the last write

    def __post_init__(self) -> None:
        self.rows.update({(row.hour, row.model): row.count for row in self.state.rows})
        self._since, self._failed = self.state.used, self.state.failed

    # --- what may be answered

    def unlimited(self, now_s: float, mono_s: float) -> bool:
        """Whether nothing is counted at the moment."""
        return max(now_s, self.state.seen_s) < self.state.until_s or (
            mono_s < self.stretch_s
        )

    def hand_out(
        self, pipeline: str, now_s: float, mono_s: float
    ) -> tuple[int, Reason]:
        """Let a pipeline answer a little more; return how much it may, and why no more.

        Returns:
            How many samples it may answer beyond those taken. With ``unpaid`` and more
            than 0 it is to answer one sample in so many.
        """
        held = self.held.setdefault(pipeline, Holding())
        first = max(1, min(FIRST_UNITS, self.lease // (4 * len(self.held))))
        # What has waited is taken at once, and is no rate: it counts doubled at most.
        held.rate = max(min(held.taken, held.rate * 2 + first), held.rate * FORGET)
        held.taken = 0
        wanted = min(SLOTS, max(first, int(held.rate * AHEAD)))
        policy = self.policies.get(pipeline, Unpaid())
        missing = max(0, wanted - held.paid - held.free)
        free = missing if self.state.lenient else 0
        if self.unlimited(now_s, mono_s):
            held.free += free
            return held.paid + held.free, Reason.NONE
        left = self._ceiling(policy) - self.state.used - self.held_units
        if left > 0:
            held.paid += min(missing, self._share(policy))
        elif policy.policy == "degrade" and not held.paid:
            held.free += free
            return held.free, Reason.UNPAID
        allowed = held.paid + held.free
        return allowed, Reason.NONE if allowed or left > 0 else Reason.UNPAID

    def _may_be_free(self, now_s: float, mono_s: float) -> bool:
        """Whether answers may cost nothing, now or once nothing is left."""
        degrading = any(it.policy == "degrade" for it in self.policies.values())
        return degrading or self.unlimited(now_s, mono_s)

    @property
    def held_units(self) -> int:
        """Units that are handed out and have not come back."""
        return sum(held.paid for held in self.held.values())

    @property
    def handed(self) -> int:
        """Up to where workers were let answer: no life can have used more."""
        failed = self.state.failed - self._failed
        return self.state.used + failed + self.held_units

    @property
    def _room(self) -> int:
        """What is reserved and not handed out."""
        return self.state.reserved - self.handed

    def _ceiling(self, policy: Unpaid) -> int:
        """How far ``used`` may rise for a pipeline with this policy."""
        grace = policy.grace if policy.policy == "grace" else 0
        return min(MAX_TOTAL, self.state.bought + grace)

    def _share(self, policy: Unpaid) -> int:
        """What one pipeline may be handed of what is reserved.

        The last units are divided: a pipeline that has nothing to do would hold them.
        """
        if self.frozen:
            return 0
        left = self._ceiling(policy) - self.state.used - self.held_units
        room = min(self._room, left)
        scarce = room < FIRST_UNITS * 2 * len(self.held)
        return max(0, -(-room // len(self.held)) if scarce else room)

    # --- what was answered

    def take(self, pipeline: str, answered: int, failed: int) -> None:
        """Count records that came back: samples that were answered, and that failed."""
        held = self.held.setdefault(pipeline, Holding())
        held.taken += answered + failed
        free = min(held.free, answered + failed)
        held.free -= free
        paid = answered + failed - free
        held.paid = max(0, held.paid - paid)
        charged = min(answered, paid)  # what failed costs nothing
        used = min(MAX_TOTAL, self.state.used + charged)
        self.state = replace(
            self.state,
            used=used,
            # Beyond what was handed out nothing comes back, unless a worker lies; then
            # it is charged all the same.
            reserved=max(self.state.reserved, used),
            free=self.state.free + answered - charged,
            failed=self.state.failed + failed,
            inferences=self.state.inferences + answered + failed,
        )

    # --- what is written

    def lease_now(self) -> int:
        """Return what a lease is at the present rate."""
        return max(self.lease, int(self._recent * LEASE_S), self.held_units * 2)

    def is_due(self, now_s: float, mono_s: float) -> bool:
        """Whether something has to be written, for answers to go on."""
        state = self.state
        if not state.lenient and self._may_be_free(now_s, mono_s):
            return True
        if max(now_s, state.seen_s) < state.until_s:
            return mono_s - self._written_s > SEEN_S
        if state.time_s and mono_s > self.stretch_s - TIME_AHEAD_S:
            return True
        if self.unlimited(now_s, mono_s) or self._top() <= state.reserved:
            return False
        return self._room * 4 < self.lease_now() or self._room < self._recent

    def plan(self, now_s: float, mono_s: float) -> tuple[MeterState, float]:
        """Return what to write now, and until when running is unlimited then.

        Nothing holds before it is durable and ``adopt`` was called.
        """
        self._measure(mono_s)
        self._run(mono_s)
        state, self._written_s = self.state, mono_s
        dated = max(now_s, state.seen_s) < state.until_s
        time_s, stretch_s = state.time_s, self.stretch_s
        if not dated and time_s and mono_s > stretch_s - TIME_AHEAD_S:
            more = min(time_s, TIME_LEASE_S)
            time_s, stretch_s = time_s - more, max(stretch_s, mono_s) + more
        # What is unlimited reserves nothing: a crash of it shall cost no unit.
        unlimited = dated or mono_s < stretch_s
        lease = 0 if unlimited else self.lease_now()
        reserved = min(self._top(), state.used + lease)
        free = any(held.free for held in self.held.values())
        planned = replace(
            state,
            reserved=max(state.reserved, reserved),
            time_s=time_s,
            lenient=unlimited or free or self._may_be_free(now_s, mono_s),
            rows=tuple(self.all_rows()[-MAX_ROWS:]),
        )
        return planned, stretch_s

    def adopt(self, written: MeterState, stretch_s: float) -> None:
        """Let hold what has become durable; what was used meanwhile stays used."""
        self.stretch_s, self._failed = stretch_s, written.failed
        self.state = replace(
            self.state,
            window=written.window,
            bought=written.bought,
            reserved=max(written.reserved, self.state.used),
            until_s=written.until_s,
            time_s=written.time_s,
            seen_s=max(self.state.seen_s, written.seen_s),
            lenient=written.lenient,
        )

    def redeemed(
        self, voucher: Voucher, now_s: float, mono_s: float
    ) -> tuple[MeterState, float]:
        """Return what to write so that a voucher counts; ``adopt`` it then.

        Raises:
            RequestRefusedError: ``replayed``, ``expired`` or ``units``.
        """
        planned, stretch_s = self.plan(now_s, mono_s)
        state = redeem(planned, voucher, now_s, self.held_units)
        if voucher.kind is Kind.REVOKE and not voucher.units:
            stretch_s = 0.0  # the minute that runs is taken back, too
        free = planned.lenient or voucher.kind in (Kind.TIME, Kind.UNTIL)
        return replace(state, lenient=free), stretch_s

    def closing(self, mono_s: float) -> MeterState:
        """Return what to write at an orderly end: nothing stays reserved."""
        left_s = max(0, int(self.stretch_s - mono_s))
        self._run(mono_s)
        state, used = self.state, self.state.used
        return replace(
            state,
            reserved=used,
            time_s=min(MAX_TOTAL, state.time_s + left_s),
            lenient=False,
            rows=tuple(self.all_rows()[-MAX_ROWS:]),
        )

    def _run(self, mono_s: float) -> None:
        """Let the time that was seen go on with what the board has run."""
        if self._run_s is None:
            self._run_s = mono_s
        past_s = max(0, int(mono_s - self._run_s))
        self._run_s += past_s
        if self.state.seen_s:  # nothing is bounded by time before a voucher is
            seen_s = min(MAX_TOTAL, self.state.seen_s + past_s)
            self.state = replace(self.state, seen_s=seen_s)

    def _top(self) -> int:
        """How far anything may be reserved: what is paid, and the longest grace."""
        policies = self.policies.values()
        return max((self._ceiling(it) for it in policies), default=self.state.bought)

    def _measure(self, mono_s: float) -> None:
        """Note how many units a second are used.

        Of a second that is not over yet what it has so far: a burst after a pause is
        no rate, and a model that uses a lease in 10 ms is soon known to.
        """
        past_s = mono_s - self._since_s
        rate = (self.state.used - self._since) / max(past_s, RATE_S)
        self._recent = max(
            rate, self._recent * FORGET if past_s > RATE_S else self._recent
        )
        if past_s > RATE_S:
            self._since_s, self._since = mono_s, self.state.used

    def let_go(self, pipeline: str) -> None:
        """Forget what a pipeline may answer that has ended, its last record taken."""
        self.held.pop(pipeline, None)

    # --- usage

    def note(self, model: str, answered: int, now_s: float) -> None:
        """Count answers of a model in the present hour, for the report.

        Of more models than a report holds, which only a worker that lies has, the rest
        is counted together.
        """
        key = int(now_s) // HOUR_S, model
        if key not in self.rows and len(self.rows) >= MAX_ROWS - 1:
            key = key[0], ""
        self.rows[key] += answered

    def past_rows(self, now_s: float) -> list[UsageRow]:
        """Return the rows of hours that are over, to be kept elsewhere."""
        hour = int(now_s) // HOUR_S
        return [row for row in self.all_rows() if row.hour != hour]

    def forget(self, rows: list[UsageRow]) -> None:
        """Leave out rows that were kept elsewhere."""
        for row in rows:
            key = row.hour, row.model
            self.rows[key] -= row.count
            if self.rows[key] <= 0:
                del self.rows[key]
        self.state = replace(self.state, closed=self.state.closed + len(rows))

    def all_rows(self) -> list[UsageRow]:
        """Return the rows that are not kept elsewhere, oldest first."""
        return [UsageRow(*key, count) for key, count in sorted(self.rows.items())]
