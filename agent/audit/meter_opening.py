"""The opening of a meter: its last life is settled before anything is answered."""

import logging
from dataclasses import dataclass, field

from agent.audit.files import Folder
from agent.audit.meter import Meter, OnThin, Terms
from agent.audit.meter_file import MeterFile
from agent.audit.meter_leases import Clocks, Leases
from agent.audit.meter_usage import UsageFile
from agent.core.meter import MeterState, Remains, settle
from agent.core.meter_account import Account

log = logging.getLogger(__name__)


def answer_all(pipeline: str, every: int) -> None:
    """Tell nobody how many samples are to be answered."""
    del pipeline, every


@dataclass(slots=True)
class Opening:
    """What a meter is opened with.

    Attributes:
        folder: Where its files lie: there, and locked.
        inferences: How many the log has; None without one.
        on_thin: See ``Meter``.
    """

    folder: Folder
    inferences: int | None
    on_thin: OnThin = field(default=answer_all)


def open_meter(terms: Terms, clocks: Clocks, opening: Opening) -> Meter:
    """Return the board's meter; it is to be started.

    Raises:
        DeviceError: ``state``: its file is damaged; else what the disk says.
    """
    file, usage = MeterFile(opening.folder), UsageFile(opening.folder)
    state = file.load()
    if state is None:
        state = MeterState(inferences=opening.inferences or 0)
        file.save(state)
        log.info("meter.begun")
    remains = Remains(file.marked(), opening.inferences)
    settled = settle(state, remains, refund=terms.refund)
    if settled.state != state:
        file.save(settled.state)  # or a loss of power now would settle it otherwise
    if settled.charged or settled.refunded:
        said = {"charged": settled.charged, "refunded": settled.refunded}
        log.warning("meter.settled", extra=said)
    if settled.behind:
        log.warning("meter.behind_log", extra={"inferences": settled.behind})
    account = Account(settled.state, terms.lease, terms.policies)
    # So that the rows of a report add up to what was charged.
    account.note("", settled.charged, clocks.wall())
    leases = Leases(account, file, usage, clocks, marks=terms.refund)
    return Meter(terms, clocks, leases, opening.on_thin)
