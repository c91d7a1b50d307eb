"""A meter on a real folder, clocks that stand still, and records to count."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from agent.audit.files import Folder
from agent.audit.meter import Meter, Terms
from agent.audit.meter_leases import Clocks
from agent.audit.meter_opening import Opening, open_meter
from agent.core.meter_status import MeteredPipeline, MeterStatus
from agent.core.note import NoteKey, sign_note
from agent.core.protect_settings import Unpaid
from agent.core.receipts import FAILED, NO_HASH, Receipt, pack_receipt
from tests.fakes.vouchers import BOARD, VENDOR

NOW_S = 1_800_000_000.0
BOARD_KEY = NoteKey("tinyward/pi/1", BOARD)
MODEL = b"m" * 32
# One with something in every field, for pages and metrics.
STATUS = MeterStatus(
    board="ab" * 32,
    vendor="cd" * 32,
    left=617,
    owed=0,
    bought=1000,
    used=383,
    reserved=90,
    lease=100,
    lost=12,
    free=7,
    failed=1,
    unlimited=False,
    until=0,
    seconds=60,
    voucher=3,
    refund=False,
    pipelines={"door": MeteredPipeline("stop", 0, 10, 64, "", 383, 7)},
)


@dataclass
class FixedClock:
    """Clocks that are set by hand."""

    now_s: float = NOW_S
    mono_s: float = 100.0

    def clocks(self) -> Clocks:
        """Return them as the meter reads them."""
        return Clocks(lambda: self.now_s, lambda: self.mono_s)


@dataclass
class MeteredBoard:
    """One board's meter, over several lives.

    Attributes:
        thinned: What pipelines were told, in order.
        folder: Of the meter that was opened last.
    """

    home: Path
    policies: Mapping[str, Unpaid] = field(default_factory=lambda: {"door": Unpaid()})
    lease: int = 100
    refund: bool = False
    clock: FixedClock = field(default_factory=FixedClock)
    thinned: list[tuple[str, int]] = field(default_factory=list)
    folder: Folder = field(init=False)

    def __post_init__(self) -> None:
        self.folder = Folder(self.home)

    def open(self, inferences: int | None = None) -> Meter:
        """Open the meter, without its thread: ``renew`` is called by tests."""
        private = Ed25519PrivateKey.from_private_bytes(b"b" * 32)
        terms = Terms(
            board=BOARD,
            vendor=VENDOR.public,
            lease=self.lease,
            refund=self.refund,
            policies=self.policies,
            sign=lambda text: sign_note(text, BOARD_KEY, private.sign),
        )
        self.folder = Folder(self.home)  # of this life
        opening = Opening(
            self.folder, inferences, lambda *told: self.thinned.append(told)
        )
        return open_meter(terms, self.clock.clocks(), opening)


def records(answered: int, failed: int = 0, model: bytes = MODEL) -> memoryview:
    """Return receipts as a ring gives them."""
    one = Receipt(1, 1, 1, 0, 1, model, NO_HASH, NO_HASH)
    bad = Receipt(1, 1, 1, FAILED, 1, model, NO_HASH, NO_HASH)
    return memoryview(pack_receipt(one) * answered + pack_receipt(bad) * failed)
