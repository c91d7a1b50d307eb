"""The meter's state: what was bought, what is used, and what a crash leaves of it.

The rules this module keeps:
 * It is pure: what is durable is a value, and every change returns another one.
 * ``used <= reserved`` at all times, on the disk as in memory: what may be answered was
   reserved durably before. After a crash all of it counts as used, unless the board's
   policy is to refund and something vouches for less.
 * A voucher's number is taken once: a window of 64 numbers, as IPsec's (RFC 4303,
   3.4.3), tells which; whatever is older than the window is taken as redeemed.
"""

from dataclasses import dataclass
from typing import Annotated

from msgspec import Meta, Struct
from msgspec.structs import replace

from agent.core.reasons import Reason
from agent.core.voucher import (
    MAX_TOTAL,
    Kind,
    Voucher,
    check_times,
    check_units,
    units_error,
)
from agent.errors import RequestRefusedError

WINDOW = 64
MAX_ROWS = 256  # of the hour that is open: models that answered in it
# A count that JSON keeps exact; and what a slot of the file may say at most.
Count = Annotated[int, Meta(ge=0, le=MAX_TOTAL)]
Bits = Annotated[int, Meta(ge=0)]  # 64 of them: an upper bound has 63 in msgspec


class Window(Struct, frozen=True):
    """Which numbers of vouchers were taken.

    Attributes:
        highest: The highest of them, 0 for none.
        taken: Bit i stands for number ``highest - i``.
    """

    highest: Count = 0
    taken: Bits = 0

    def has(self, seq: int) -> bool:
        """Whether a number was taken, or is too old to tell."""
        age = self.highest - seq
        return age >= WINDOW or (age >= 0 and bool(self.taken >> age & 1))

    def take(self, seq: int) -> "Window":
        """Return the window once a number was taken; one that it has changes nothing.

        Law: no number is taken twice, and none older than the window ever.
        """
        if self.has(seq):
            return self
        ahead = seq - self.highest
        if ahead <= 0:
            return replace(self, taken=self.taken | 1 << -ahead)
        kept = self.taken << ahead if ahead < WINDOW else 0
        return Window(seq, (kept | 1) % 2**WINDOW)

    def close_below(self, seq: int) -> "Window":
        """Return a window that takes no number up to this one any more."""
        taken = self.take(seq)
        low = min(WINDOW, max(0, taken.highest - seq))
        return replace(taken, taken=taken.taken | 2**WINDOW - 2**low)


class UsageRow(Struct, frozen=True, array_like=True):
    """How many answers one model gave within one hour.

    Attributes:
        hour: Hours since 1970, UTC.
        model: SHA-256 of the .tflite that answered, lower case hex; empty for units
            that a crash took, which have no receipt.
        count: Answers.
    """

    hour: Count
    model: Annotated[str, Meta(max_length=64)]
    count: Count


class MeterState(Struct, frozen=True):
    """What is durable.

    Attributes:
        window: Which vouchers were redeemed.
        bought: Units of all vouchers, less what was taken back.
        used: Units that were charged, those lost in crashes included.
        reserved: ``used`` may rise so far without another write.
        lost: Units that crashes took: charged, and no receipt tells what for.
        free: Answers that were not charged: unlimited, or in spite of no units.
        failed: Samples that ended without an answer; these cost nothing.
        until_s: Nothing is counted until this Unix time.
        time_s: Seconds of unlimited running that are left beyond the stretch that is
            reserved.
        seen_s: When a voucher was last taken that bounds the time, and all running
            since: a clock that is set back lengthens nothing by more than what the
            board was switched off for, and one that was ahead for a while ends nothing.
        inferences: How many the log had, when this was written.
        lenient: Not every answer since was to be charged.
        rows: Usage of the open hour; ``closed`` rows were kept before.
    """

    window: Window = Window()
    bought: Count = 0
    used: Count = 0
    reserved: Count = 0
    lost: Count = 0
    free: Count = 0
    failed: Count = 0
    until_s: Count = 0
    time_s: Count = 0
    seen_s: Count = 0
    inferences: Count = 0
    lenient: bool = False
    rows: Annotated[tuple[UsageRow, ...], Meta(max_length=MAX_ROWS)] = ()
    closed: Count = 0

    @property
    def left(self) -> int:
        """Units that are paid for and not used."""
        return max(0, self.bought - self.used)

    @property
    def owed(self) -> int:
        """Units that are used and not paid for."""
        return max(0, self.used - self.bought)


@dataclass(frozen=True, slots=True)
class Remains:
    """What a life that did not end in peace left behind, besides the state.

    Attributes:
        handed: Up to where workers were let answer, as a count of ``used``; None where
            that is not known, as after a loss of power.
        inferences: How many the log has by now; None without a log.
    """

    handed: int | None = None
    inferences: int | None = None


@dataclass(frozen=True, slots=True)
class Settlement:
    """How a crash was settled.

    Attributes:
        state: What holds from now on; nothing is reserved.
        charged: Units that may have been used, and count as used.
        refunded: Units that were reserved, and are given back.
        behind: Inferences in the log that this state could not know of: it is an older
            copy that somebody brought back.
    """

    state: MeterState
    charged: int = 0
    refunded: int = 0
    behind: int = 0


def settle(state: MeterState, remains: Remains, *, refund: bool) -> Settlement:
    """Return the state after a life that ended somehow.

    Law: what was truly used is charged, and at most what was reserved, unless the log
    knows of more.

    Args:
        state: What the disk says; after an orderly end nothing is reserved.
        remains: What else there is.
        refund: Give back what was reserved and not handed out, where that is known.
    """
    open_units = state.reserved - state.used
    receipts = None
    if remains.inferences is not None:
        receipts = max(0, remains.inferences - state.inferences)
    charged = open_units
    # After a loss of power nobody knows what was answered: records that were not on the
    # medium yet are no proof that there was nothing. All of it is charged.
    if refund and remains.handed is not None:
        charged = min(open_units, max(0, remains.handed - state.used))
    behind = 0
    if receipts is not None and not state.lenient and receipts > open_units:
        behind = receipts - open_units
        charged = receipts  # the log wins: its records cannot be made up
    used = min(MAX_TOTAL, state.used + charged)
    settled = replace(
        state,
        used=used,
        reserved=used,
        lost=state.lost + charged - min(charged, receipts or 0),
        inferences=state.inferences
        if remains.inferences is None
        else min(MAX_TOTAL, remains.inferences),
    )
    return Settlement(settled, charged, max(0, open_units - charged), behind)


def redeem(
    state: MeterState, voucher: Voucher, now_s: float, held: int = 0
) -> MeterState:
    """Return the state once a voucher was redeemed.

    Args:
        state: The state now.
        voucher: A voucher that is believed (``believe_voucher``).
        now_s: Unix seconds: the later of the clock and its floor.
        held: Units that workers may use already.

    Raises:
        RequestRefusedError: ``replayed``, ``expired`` or ``units``.
    """
    if state.window.has(voucher.seq):
        raise RequestRefusedError(
            f"voucher {voucher.seq} was redeemed, or is older than one that took it "
            "back",
            reason=Reason.REPLAYED,
            todo="A voucher counts once; ask the vendor for another.",
        )
    check_times(voucher, max(now_s, state.seen_s))
    check_units(voucher)
    if voucher.kind is Kind.UNTIL or voucher.expiry_s:
        # It was not over by this clock, so the clock cannot be ahead of its end.
        seen_s = min(MAX_TOTAL, max(state.seen_s, int(now_s)))
        state = replace(state, seen_s=seen_s)
    taken, units = state.window.take(voucher.seq), voucher.units
    match voucher.kind:
        case Kind.UNITS:
            bought = _sum(state.bought, units)
            return replace(state, window=taken, bought=bought)
        case Kind.TIME:
            return replace(state, window=taken, time_s=_sum(state.time_s, units))
        case Kind.UNTIL:
            return replace(state, window=taken, until_s=max(state.until_s, units))
        case Kind.REVOKE:
            return _take_back(state, voucher, held)


def _take_back(state: MeterState, voucher: Voucher, held: int) -> MeterState:
    """Return the state without the units that a voucher takes back.

    So many are taken as nobody holds. Where all are, no unit is left: what workers hold
    they may still use, and owe it then; what they have not used lapses with their
    daemon.
    """
    all_of_it = voucher.units == 0
    free = max(0, state.bought - state.used - held)
    bought = state.bought - min(free, voucher.units)
    if all_of_it:
        bought = min(state.bought, state.used)
    return replace(
        state,
        window=state.window.close_below(voucher.seq),
        bought=bought,
        reserved=max(state.used + held, min(state.reserved, bought)),
        until_s=0 if all_of_it else state.until_s,
        time_s=0 if all_of_it else state.time_s,
    )


def _sum(had: int, units: int) -> int:
    """Add units.

    Raises:
        RequestRefusedError: ``units``: no counter holds so many.
    """
    if had + units > MAX_TOTAL:
        raise units_error(f"{had} and {units} units are more than a counter holds")
    return had + units
