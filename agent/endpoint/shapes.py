"""What crosses the API as JSON, where ``agent.core`` has no type for it already.

Answers are made of these structs and ``openapi.py`` describes them, so that neither
can say anything else than the other.
"""

from collections.abc import Sequence
from typing import Annotated, Any

from msgspec import Meta, Struct

from agent.core.events import Event
from agent.core.updates import Progress, Report, SetAside

Count = Annotated[int, Meta(ge=0)]


class RollbackOrder(Struct, frozen=True, forbid_unknown_fields=True):
    """Which pipeline goes back; an empty name means the only one there is."""

    pipeline: Annotated[str, Meta(max_length=64)] = ""


class TakenGeneration(Struct, frozen=True):
    """The generation of the desired state that was taken."""

    generation: Count


class CurrentPhase(Struct, frozen=True):
    """The phase that the update machine is in."""

    phase: str


class RolledBack(Struct, frozen=True):
    """The pipeline that goes back."""

    pipeline: str


class CommissionOrder(Struct, frozen=True, forbid_unknown_fields=True):
    """Which pipeline's baseline begins anew; an empty name means the only one."""

    pipeline: Annotated[str, Meta(max_length=64)] = ""


class Commissioned(Struct, frozen=True):
    """The pipeline that collects a new baseline."""

    pipeline: str


class SignedStatements(Struct, frozen=True):
    """Pipeline -> DSSE envelope of an in-toto statement about the bytes it runs."""

    pipelines: dict[str, Any]


class SignedAnswers(Struct, frozen=True):
    """What a model answered to a challenge: a DSSE envelope, signed by the board."""

    answers: dict[str, Any]


class UploadOffset(Struct, frozen=True):
    """How many bytes of an upload are here: where the next piece begins."""

    offset: Count


class UploadState(Struct, frozen=True):
    """How many bytes of an upload are here, and whether it has its place now."""

    offset: Count
    complete: bool


class UpdateLog(Struct, frozen=True):
    """What goes on, what was (newest first), and what is not tried again."""

    progress: Progress | None
    reports: Sequence[Report]
    quarantine: Sequence[SetAside]


class OneUpdate(Struct, frozen=True):
    """One update: how far it is, or how it ended."""

    progress: Progress | None
    report: Report | None


class Certificate(Struct, frozen=True):
    """The board's own certificate."""

    certificate: dict[str, Any]


class CertificateAndRequest(Struct, frozen=True):
    """The board's certificate, and a PEM request to have its successor signed."""

    certificate: dict[str, Any]
    request: str


class EventLog(Struct, frozen=True):
    """What was logged since a number, oldest first, and the newest number there is.

    ``last`` below the number that was asked for means that the daemon began anew.
    """

    events: Sequence[Event]
    last: Count


class VoucherText(Struct, frozen=True, forbid_unknown_fields=True):
    """Vouchers as text, one after another: see ``agent.core.voucher_text``."""

    vouchers: Annotated[str, Meta(max_length=60_000)]


class RedeemedVoucher(Struct, frozen=True):
    """One voucher: what it gave, or why it does not count."""

    voucher: Count
    kind: str
    units: Count
    reason: str = ""
    detail: str = ""


class Redeemed(Struct, frozen=True):
    """What became of vouchers, in their order, and how many units are left."""

    redeemed: Sequence[RedeemedVoucher]
    left: Count


class UsageReport(Struct, frozen=True):
    """A signed usage report: see ``agent.core.meter_report``."""

    report: str


class LogRecord(Struct, frozen=True):
    """One record of the log of receipts, in base64, and what its event says."""

    record: str
    event: str = ""


class LogRecords(Struct, frozen=True):
    """Records of the log, the number of the oldest it has, and of how many in all."""

    first: Count
    size: Count
    records: Sequence[LogRecord]


class KeptList(Struct, frozen=True):
    """Numbers of receipts whose inputs are kept here, oldest first; some of many."""

    seqs: Sequence[Count]


class LogGrowth(Struct, frozen=True, rename={"start": "from"}):
    """The proof that the log of ``to`` records begins with ``from``, in base64."""

    start: Count
    to: Count
    path: Sequence[str]
    checkpoint: str


class Problem(Struct, frozen=True):
    """Why something was not done (RFC 9457).

    Attributes:
        reason: A stable word; the README lists all of them.
        todo: What the reader can do.
        phase: Of the update machine, with the reason ``busy``.
    """

    type: str
    title: str
    status: int
    reason: str
    detail: str
    todo: str
    phase: str = ""
