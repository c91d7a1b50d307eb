"""The meter's place in the daemon: there before its log and its file are open.

The rules this module keeps:
 * Until it is open, and where it cannot be opened, nothing is allowed: what is to be
   paid for is not answered for nothing because a file is damaged.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from agent.audit.files import Folder
from agent.audit.key import AuditKey, parse_public
from agent.audit.log import AuditLog
from agent.audit.meter import Meter, OnThin, Terms
from agent.audit.meter_leases import Clocks
from agent.audit.meter_opening import Opening, open_meter
from agent.core.disk_reasons import disk_reason
from agent.core.meter_status import MeterStatus
from agent.core.note import sign_note
from agent.core.protect_settings import MeterSettings, Unpaid
from agent.core.reasons import Reason
from agent.core.voucher import Voucher
from agent.errors import BundleRefusedError, DeviceError

FOLDER = "meter"
MAX_KEY_BYTES = 4096


@dataclass(frozen=True, slots=True)
class Rules:
    """What a meter counts by.

    Attributes:
        settings: The table [meter].
        policies: Pipeline -> what it does once nothing is left.
        clock: Unix seconds: the later of the clock and its floor.
        on_thin: See ``Meter``.
    """

    settings: MeterSettings
    policies: Callable[[], Mapping[str, Unpaid]]
    clock: Callable[[], float]
    on_thin: OnThin


class Metering:
    """A meter that is opened later; satisfies what recorders and listeners need."""

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self._meter: Meter | None = None
        self.closed = Reason.STARTING  # why it is not open

    def open(self, state_dir: Path, key: AuditKey, log: AuditLog) -> None:
        """Open the meter beside its log. Blocks: call in a thread.

        Raises:
            DeviceError: Its file is damaged, or the vendor's key cannot be used.
        """
        try:
            self._meter = self._open(state_dir, key, log)
        except DeviceError as err:
            self.closed = Reason(err.reason)
            raise
        self._meter.start()

    def follow(self, settings: MeterSettings) -> None:
        """Go on by other rules, once the settings have changed."""
        if self._meter is not None:
            policies = self._rules.policies()
            self._meter.follow(policies, settings.lease)

    def close(self) -> None:
        """End it, once the workers have ended. Blocks."""
        if self._meter is not None:
            self._meter.close()

    # --- for the recorder

    def take(self, pipeline: str, records: memoryview) -> None:
        """Count inferences that have receipts."""
        if self._meter is not None:
            self._meter.take(pipeline, records)

    def allowance(self, pipeline: str) -> tuple[int, Reason]:
        """Return how many more samples may be answered now, and why not more."""
        if self._meter is None:
            return 0, self.closed
        return self._meter.allowance(pipeline)

    # --- for listeners

    def status(self) -> MeterStatus:
        """Return the meter at this moment.

        Raises:
            DeviceError: It is not open.
        """
        return self._opened().status()

    def shown(self) -> MeterStatus | None:
        """Return the meter at this moment; None while it is not open."""
        return self._meter.status() if self._meter is not None else None

    def redeem(self, raw: bytes) -> Voucher:
        """Redeem a voucher, durably. Blocks: call in a thread.

        Raises:
            RequestRefusedError: See ``Meter.redeem``.
            DeviceError: It could not be kept, or the meter is not open.
        """
        return self._opened().redeem(raw)

    def report(self, from_s: float) -> str:
        """Return the signed usage report since a time. Blocks: call in a thread.

        Raises:
            DeviceError: It cannot be read, or the meter is not open.
        """
        return self._opened().report(from_s)

    def _opened(self) -> Meter:
        """Return the meter.

        Raises:
            DeviceError: Why it is not open.
        """
        if self._meter is None:
            raise DeviceError("the meter is not open", reason=self.closed)
        return self._meter

    def _open(self, state_dir: Path, key: AuditKey, log: AuditLog) -> Meter:
        """Open the meter.

        Raises:
            DeviceError: See ``open``.
        """
        settings, rules = self._rules.settings, self._rules
        signer = key.named(log.origin)
        terms = Terms(
            board=key.public,
            vendor=read_public(Path(settings.vendor_key).expanduser()),
            lease=settings.lease,
            refund=settings.refund,
            policies=rules.policies(),
            sign=lambda text: sign_note(text, signer, key.sign),
        )
        path = state_dir / FOLDER
        try:
            path.mkdir(mode=0o700, exist_ok=True)
        except OSError as err:
            reason = disk_reason(err.errno)
            raise DeviceError(f"{path}: {err.strerror}", reason=reason) from err
        opening = Opening(Folder(path), log.inferences, rules.on_thin)
        return open_meter(terms, Clocks(rules.clock), opening)


def read_public(path: Path) -> bytes:
    """Return the raw Ed25519 public key in a file: PEM, or a verifier key's line.

    Raises:
        DeviceError: ``signature``: it holds none; else what the disk says.
    """
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_KEY_BYTES)
    except OSError as err:
        reason = disk_reason(err.errno)
        raise DeviceError(f"{path}: {err.strerror}", reason=reason) from err
    try:
        return parse_public(raw.decode("utf-8", errors="replace"))
    except BundleRefusedError as err:
        raise DeviceError(
            f"{path}: no Ed25519 public key",
            reason=Reason.SIGNATURE,
            todo="Name the vendor's `.pub` file: `tinyward meter key` makes one.",
        ) from err
