"""What the meter says of itself at one moment, on pages, in metrics and as JSON."""

from msgspec import Struct

from agent.core.reasons import Reason


class MeteredPipeline(Struct, frozen=True):
    """One pipeline beside its meter.

    Attributes:
        policy: What it does once nothing is left; ``grace`` and ``every`` see there.
        allowed: What it may answer at this moment, without asking again.
        reason: Why it may answer nothing, or one in so many only: ``unpaid``.
        used: Answers since the start that were charged; ``free`` that were not.
    """

    policy: str
    grace: int
    every: int
    allowed: int = 0
    reason: str = ""
    used: int = 0
    free: int = 0

    @property
    def is_thinned(self) -> bool:
        """Whether it answers one sample in ``every``, for want of units."""
        return self.policy == "degrade" and self.reason == Reason.UNPAID


class MeterStatus(Struct, frozen=True):
    """The meter at one moment.

    Attributes:
        board: What vouchers for this board name: SHA-256 of its public key, hex.
        vendor: SHA-256 of the key that signs them, hex.
        left: Units that are paid for and not used; ``owed`` used and not paid for.
        owed: See above.
        bought: Units of all vouchers, less what was taken back; ``used`` of them.
        used: See above.
        reserved: What a loss of power would take of those that are left, at most.
        lease: Units that the next write reserves.
        lost: Of ``used``: what crashes took.
        free: Answers that cost nothing; ``failed`` samples that had none.
        failed: See above.
        unlimited: Nothing is counted at this moment.
        until: Unix seconds until which nothing is counted, 0 for none.
        seconds: Of unlimited running that are left.
        voucher: The highest number of a voucher that was redeemed.
        refund: After a crash what was not used is given back.
        trouble: Why the disk takes no lease; empty where it does.
        pipelines: By name.
    """

    board: str
    vendor: str
    left: int
    owed: int
    bought: int
    used: int
    reserved: int
    lease: int
    lost: int
    free: int
    failed: int
    unlimited: bool
    until: int
    seconds: int
    voucher: int
    refund: bool
    trouble: str = ""
    pipelines: dict[str, MeteredPipeline] = {}


def thinned_to(meter: MeterStatus | None, pipeline: str) -> int:
    """Return one sample in how many a pipeline answers for want of units, 1 for all."""
    paid = meter.pipelines.get(pipeline) if meter else None
    return paid.every if paid and paid.is_thinned else 1


def say_thinned(every: int) -> str:
    """Say what a pipeline does that degrades for want of units.

    >>> say_thinned(10)
    'unpaid: answers 1 in 10'
    """
    return f"{Reason.UNPAID}: answers 1 in {every:,}"


def say_meter(left: int, owed: int, *, unlimited: bool, trouble: str) -> str:
    """Say in a line what may still be answered.

    >>> say_meter(617, 0, unlimited=False, trouble="")
    '617 units left'
    >>> say_meter(0, 40, unlimited=True, trouble="disk_full")
    'unlimited now, 0 units left, 40 owed; the disk takes no lease: disk_full'
    """
    said = ["unlimited now"] if unlimited else []
    said.append(f"{left:,} units left")
    if owed:
        said.append(f"{owed:,} owed")
    line = ", ".join(said)
    return f"{line}; the disk takes no lease: {trouble}" if trouble else line
