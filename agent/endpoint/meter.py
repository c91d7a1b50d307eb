"""The meter over HTTP: its status, vouchers that are redeemed, the usage report."""

import asyncio

from agent.core.meter_status import MeterStatus
from agent.core.voucher_text import parse_texts
from agent.endpoint.asks import Ask
from agent.endpoint.bodies import parse_number, read_json
from agent.endpoint.needs import Meter
from agent.endpoint.problems import absent
from agent.endpoint.services import Services
from agent.endpoint.shapes import (
    Redeemed,
    RedeemedVoucher,
    UsageReport,
    VoucherText,
)
from agent.errors import AgentError


class Metering:
    """Answers the requests about what is paid for."""

    def __init__(self, services: Services) -> None:
        self._services = services

    async def show(self, ask: Ask) -> MeterStatus:
        """Show what is left."""
        del ask
        return self._meter().status()

    async def report(self, ask: Ask) -> UsageReport:
        """Return the signed usage report since a time."""
        since_s = float(parse_number(ask.request, "since"))
        return UsageReport(await asyncio.to_thread(self._meter().report, since_s))

    async def redeem(self, ask: Ask) -> Redeemed:
        """Redeem vouchers, one after the other; each of them counts or does not.

        Raises:
            AgentError: None of them counts: what was wrong with the last.
        """
        meter = self._meter()
        order = await read_json(ask.request, VoucherText)
        done: list[RedeemedVoucher] = []
        refused: AgentError | None = None
        for raw in parse_texts(order.vouchers):
            try:
                found = await asyncio.to_thread(meter.redeem, raw)
            except AgentError as err:
                refused = err
                done.append(RedeemedVoucher(0, "", 0, err.reason, str(err)))
            else:
                kind = found.kind.name.lower()
                done.append(RedeemedVoucher(found.seq, kind, found.units))
        if refused is not None and all(it.reason for it in done):
            raise refused
        return Redeemed(done, meter.status().left)

    def _meter(self) -> Meter:
        """Return the meter.

        Raises:
            AbsentError: Nothing is counted on this board.
        """
        if self._services.meter is None:
            raise absent("nothing is metered here", "Set `meter.vendor_key`.")
        return self._services.meter
