"""The board's meter: what may be answered is paid for and reserved before, durably.

The rules this module keeps:
 * The loop never waits for the disk. Where the disk takes no lease, answers end with
   what was reserved.
 * A voucher is durable before it counts, and counts before its event is logged: the log
   of receipts hears ``meter.`` events.
"""

import logging
import struct
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from agent.audit.key import verify_ed25519
from agent.audit.meter_leases import Clocks, Leases
from agent.core.meter_account import HOUR_S
from agent.core.meter_report import (
    Usage,
    render_report,
    sum_rows,
    total,
)
from agent.core.meter_status import MeteredPipeline, MeterStatus
from agent.core.protect_settings import Unpaid
from agent.core.reasons import Reason
from agent.core.receipts import FAILED, RECORD_BYTES
from agent.core.voucher import ISSUER_BYTES, Voucher, believe_voucher, key_hash
from agent.errors import AgentError

log = logging.getLogger(__name__)
# Flags and the model's digest; the rest of a record is passed over.
_COUNTED = struct.Struct(f">24xI4x32s{RECORD_BYTES - 64}x")
OnThin = Callable[[str, int], None]


@dataclass(frozen=True, slots=True)
class Terms:
    """Whose meter it is, and by which rules it counts.

    Attributes:
        board: The raw Ed25519 public key that signs this board's log.
        vendor: The raw Ed25519 public key that signs vouchers.
        lease: Units that one write reserves at least.
        refund: Give back after a crash what was reserved and not used.
        policies: Pipeline -> what it does once nothing is left.
        sign: Makes a signed note of a report's text.
    """

    board: bytes
    vendor: bytes
    lease: int
    refund: bool
    policies: Mapping[str, Unpaid]
    sign: Callable[[str], str]


@dataclass(slots=True)
class _Counts:
    """What one pipeline had since the start, and was told last."""

    used: int = 0
    free: int = 0
    allowed: int = 0
    reason: Reason = Reason.NONE


class Meter:
    """Counts what is paid for; satisfies ``agent.audit.recorder.Meter``.

    Args:
        terms: See there.
        clocks: What time it is.
        leases: Keep what is counted durable.
        on_thin: Told pipeline and N whenever it is to answer one sample in N, and 1
            when it is to answer all again; called by whoever asks for an allowance.
    """

    def __init__(
        self, terms: Terms, clocks: Clocks, leases: Leases, on_thin: OnThin
    ) -> None:
        self.terms = terms
        self._clocks = clocks
        self._leases = leases
        self._lock, self._account = leases.lock, leases.account
        self._on_thin = on_thin
        self._thin: dict[str, int] = {}
        self._counts: dict[str, _Counts] = {}

    def start(self) -> None:
        """Begin to renew leases."""
        self._leases.start()

    # --- for the recorder

    def take(self, pipeline: str, records: memoryview) -> None:
        """Count inferences: whole records of receipts, in order."""
        now_s = self._clocks.wall()
        with self._lock:
            failed = answered = 0
            # All at once in C: 0.3 us a record; within a look a model rarely changes.
            for (flags, model), count in Counter(_COUNTED.iter_unpack(records)).items():
                if flags & FAILED:
                    failed += count
                else:
                    answered += count
                    self._account.note(model.hex(), count, now_s)
            self._spend(pipeline, answered, failed)

    def allowance(self, pipeline: str) -> tuple[int, Reason]:
        """Return how many more samples may be answered now, and why not more.

        With ``unpaid`` and more than 0 it is one sample in so many: see ``on_thin``.
        """
        now_s, mono_s = self._clocks.now()
        with self._lock:
            allowed, reason = self._account.hand_out(pipeline, now_s, mono_s)
            if self._account.is_due(now_s, mono_s):
                self._leases.want()
            handed = self._account.handed
        if not self._leases.mark(handed):
            allowed = 0
        if not allowed and reason is Reason.NONE:
            reason = self._leases.trouble
        counts = self._counts.setdefault(pipeline, _Counts())
        counts.allowed = allowed
        self._tell(pipeline, counts, reason, degrades=allowed > 0)
        return allowed, reason

    def let_go(self, pipeline: str) -> None:
        """Forget what a pipeline may answer that has ended."""
        with self._lock:
            self._account.let_go(pipeline)
        self._counts.pop(pipeline, None)
        self._thin.pop(pipeline, None)

    def follow(self, policies: Mapping[str, Unpaid], lease: int) -> None:
        """Go on by other rules: the settings have changed."""
        with self._lock:
            self._account.policies, self._account.lease = policies, lease
        for name in self._counts.keys() - policies.keys():
            self.let_go(name)

    # --- for people

    def redeem(self, raw: bytes) -> Voucher:
        """Redeem a voucher; it is durable when this returns. Blocks: call in a thread.

        Raises:
            RequestRefusedError: ``malformed``, ``signature``, ``other_board``,
                ``replayed``, ``expired`` or ``units``.
            DeviceError: It could not be kept, and does not count.
        """
        vendor, board = self.terms.vendor, self.terms.board
        try:
            voucher = believe_voucher(
                raw,
                key_hash(vendor)[:ISSUER_BYTES],
                key_hash(board),
                lambda signature, text: verify_ed25519(vendor, signature, text),
            )
            self._leases.keep(voucher)
        except AgentError as err:
            log.warning("meter.refused", extra={"reason": err.reason})
            raise
        said = {"voucher": voucher.seq, "kind": voucher.kind.name.lower()}
        log.info("meter.redeemed", extra={**said, "units": voucher.units})
        return voucher

    def status(self) -> MeterStatus:
        """Return the meter at this moment; cheap."""
        now_s, mono_s = self._clocks.now()
        with self._lock:
            account, state = self._account, self._account.state
            unlimited = account.unlimited(now_s, mono_s)
            lease, policies = account.lease_now(), dict(account.policies)
            left_s = max(0, int(account.stretch_s - mono_s))
        pipelines = {
            name: _describe(policies.get(name, Unpaid()), counts)
            for name, counts in list(self._counts.items())
        }
        return MeterStatus(
            board=key_hash(self.terms.board).hex(),
            vendor=key_hash(self.terms.vendor).hex(),
            left=state.left,
            owed=state.owed,
            bought=state.bought,
            used=state.used,
            reserved=state.reserved - state.used,
            lease=lease,
            lost=state.lost,
            free=state.free,
            failed=state.failed,
            unlimited=unlimited,
            until=state.until_s if max(now_s, state.seen_s) < state.until_s else 0,
            seconds=state.time_s + left_s,
            voucher=state.window.highest,
            refund=self.terms.refund,
            trouble=self._leases.trouble,
            pipelines=pipelines,
        )

    def report(self, from_s: float = 0.0) -> str:
        """Return the signed usage report since a time. Blocks: call in a thread.

        Raises:
            DeviceError: What was kept cannot be read.
        """
        rows = sum_rows(self._leases.rows(), int(from_s) // HOUR_S)
        with self._lock:
            state = self._account.state
        board = key_hash(self.terms.board).hex()
        usage = Usage(board, total(rows), state.used, state.lost, rows)
        return render_report(usage, self.terms.sign)

    def renew(self) -> None:
        """Reserve another lease now. Blocks: the thread of ``start`` does so ahead.

        Raises:
            DeviceError: The disk does not play along.
        """
        self._leases.renew()

    def close(self) -> None:
        """End it: what was reserved and not used is given back. Blocks."""
        self._leases.close()

    # --- how

    def _spend(self, pipeline: str, answered: int, failed: int) -> None:
        """Charge what was answered; the lock is held."""
        before = self._account.state
        self._account.take(pipeline, answered, failed)
        counts = self._counts.setdefault(pipeline, _Counts())
        counts.used += self._account.state.used - before.used
        counts.free += self._account.state.free - before.free

    def _tell(
        self, pipeline: str, counts: _Counts, reason: Reason, *, degrades: bool
    ) -> None:
        """Say that a pipeline is paid for or not, whenever that changes."""
        unpaid, was = reason is Reason.UNPAID, counts.reason is Reason.UNPAID
        counts.reason = reason
        if unpaid and not was:
            # A person has to pay: who listens to warnings only has to hear it.
            log.warning("meter.unpaid", extra={"pipeline": pipeline})
        elif was and not unpaid:
            log.info("meter.paid", extra={"pipeline": pipeline})
        policy = self._account.policies.get(pipeline, Unpaid())
        every = policy.every if unpaid and degrades else 1
        if every != self._thin.get(pipeline, 1):
            self._thin[pipeline] = every
            self._on_thin(pipeline, every)


def _describe(policy: Unpaid, counts: _Counts) -> MeteredPipeline:
    """Return one pipeline's part of the status."""
    return MeteredPipeline(
        policy=policy.policy,
        grace=policy.grace,
        every=policy.every,
        allowed=counts.allowed,
        reason=counts.reason,
        used=counts.used,
        free=counts.free,
    )
