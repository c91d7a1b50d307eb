"""The agent's HTTP API: which path does what, and who may.

The same routes are served over TLS to operators and fleet servers, and on the unix
socket to the command line. ``openapi.py`` describes them for others; a test holds the
two equal.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from aiohttp import web

from agent.core.targets import GroupFile
from agent.core.updates import Report
from agent.endpoint.asks import Ask
from agent.endpoint.audit import SEQ, Receipts
from agent.endpoint.bodies import parse_number, read_json
from agent.endpoint.challenge import Challenges
from agent.endpoint.identity import Certificates
from agent.endpoint.live import Live
from agent.endpoint.meter import Metering
from agent.endpoint.needs import Facts, Operations
from agent.endpoint.openapi import describe_api
from agent.endpoint.origins import check_reader
from agent.endpoint.pages import answer_page
from agent.endpoint.peers import Access, may
from agent.endpoint.problems import absent
from agent.endpoint.provenance import Provenance
from agent.endpoint.services import Services
from agent.endpoint.shapes import (
    Commissioned,
    CommissionOrder,
    CurrentPhase,
    EventLog,
    OneUpdate,
    RollbackOrder,
    RolledBack,
    TakenGeneration,
    UpdateLog,
)
from agent.endpoint.state import Json, describe_agent
from agent.endpoint.uploads import Intake

DIGEST = "{sha256:[0-9a-f]{64}}"


@dataclass(frozen=True, slots=True)
class Route:
    """One path and method.

    Attributes:
        access: What a peer has to be allowed.
        answer: Returns JSON to show, or a whole answer, or None for "it is done".
        status: Of an answer that has no other.
        quiet: One of many of its kind: no line in the log for each.
        browser: It is for browsers, who can be made to call us by a foreign name.
    """

    method: str
    path: str
    access: Access
    answer: Callable[[Ask], Awaitable[object]]
    status: int = 200
    quiet: bool = False
    browser: bool = False


class Api:
    """Answers every request of the API.

    Args:
        facts: What is shown.
        services: What can be done.
    """

    def __init__(self, facts: Facts, services: Services) -> None:
        self._facts = facts
        self._services = services
        self._intake = Intake(services)
        self._certificates = Certificates(services)
        self._provenance = Provenance(services)
        self._metering = Metering(services)
        self.live = Live(facts, services)

    def routes(self) -> Sequence[Route]:
        """Return the table of everything there is."""
        intake, certificates = self._intake, self._certificates
        challenges, metering = Challenges(self._provenance), self._metering
        receipts = Receipts(self._services)
        read, operate = Access.READ, Access.OPERATE
        return (
            Route("GET", "/", read, self._page, browser=True),
            Route("GET", "/metrics", Access.METRICS, self._metrics),
            Route("GET", "/v1/openapi.json", Access.ANY, self._openapi),
            Route("GET", "/v1/state", read, self._state),
            Route("GET", "/v1/live", read, self._live, browser=True),
            Route("GET", "/v1/events", read, self._events),
            Route("GET", "/v1/desired", read, self._desired),
            Route("PUT", "/v1/desired", operate, self._set_desired),
            Route("DELETE", "/v1/desired", operate, self._forget_desired, 204),
            Route("GET", "/v1/updates", read, self._updates),
            Route("POST", "/v1/updates", operate, self._look, 202),
            Route("GET", r"/v1/updates/{id:[0-9]{1,15}}", read, self._update),
            Route("POST", "/v1/rollback", operate, self._roll_back, 202),
            Route("POST", "/v1/commission", operate, self._commission),
            Route("GET", f"/v1/uploads/{DIGEST}", read, intake.offset),
            Route("PUT", f"/v1/uploads/{DIGEST}", operate, intake.put, quiet=True),
            Route("DELETE", "/v1/uploads", operate, intake.clear, 204),
            Route("DELETE", f"/v1/quarantine/{DIGEST}", operate, self._forgive, 204),
            Route("GET", "/v1/identity", read, certificates.show),
            Route("PUT", "/v1/identity/certificate", operate, certificates.install),
            Route("GET", "/v1/audit/checkpoint", read, receipts.checkpoint),
            Route("GET", f"/v1/audit/proof/{SEQ}", read, receipts.proof),
            Route("GET", "/v1/audit/consistency", read, receipts.consistency),
            Route("GET", "/v1/audit/records", read, receipts.records),
            Route("GET", "/v1/audit/kept", read, receipts.kept),
            Route("GET", f"/v1/audit/kept/{SEQ}", read, receipts.kept_input),
            Route("GET", "/v1/provenance", read, self._provenance.show),
            Route("POST", "/v1/watermark/challenge", operate, challenges.answer),
            Route("GET", "/v1/meter", read, metering.show),
            Route("GET", "/v1/meter/usage", read, metering.report),
            Route("POST", "/v1/meter/vouchers", operate, metering.redeem),
        )

    def phase(self) -> str:
        """Return the phase that the update machine is in."""
        return self._facts.snapshot().update.phase

    async def _metrics(self, ask: Ask) -> web.Response:
        """Answer a scrape in the format it asks for."""
        content_type, body = self._facts.metrics(ask.request.headers.get("Accept", ""))
        return web.Response(body=body, headers={"Content-Type": content_type})

    async def _page(self, ask: Ask) -> web.Response:
        """Show the board's page, with buttons for who may press them."""
        acts = may(ask.peer.role, Access.OPERATE) and self._services.operations
        return answer_page(operator=bool(acts))

    async def _live(self, ask: Ask) -> web.StreamResponse:
        """Stream the state and the events to a page."""
        check_reader(ask.request)
        return await self.live.answer(ask.request, ask.peer.key)

    async def _events(self, ask: Ask) -> EventLog:
        """Show what was logged since a number."""
        events = self._facts.events(0)
        after = parse_number(ask.request, "after")
        last = events[-1].id if events else 0
        return EventLog([event for event in events if event.id > after], last)

    async def _openapi(self, ask: Ask) -> Json:
        """Describe this API."""
        del ask
        return describe_api()

    async def _state(self, ask: Ask) -> Json:
        """Show everything."""
        del ask
        return describe_agent(self._facts.snapshot())

    async def _desired(self, ask: Ask) -> GroupFile:
        """Show the desired state that was pushed last."""
        del ask
        desired = self._operations().desired()
        if desired is None:
            raise absent("no desired state was pushed to this board yet")
        return desired

    async def _set_desired(self, ask: Ask) -> TakenGeneration:
        """Take a desired state."""
        desired = await read_json(ask.request, GroupFile)
        await self._operations().set_desired(desired, ask.operator)
        return TakenGeneration(desired.generation)

    async def _forget_desired(self, ask: Ask) -> None:
        """Forget what was pushed: the next desired state may have any generation."""
        await self._operations().forget_desired(ask.operator)

    async def _updates(self, ask: Ask) -> UpdateLog:
        """Show the update that is under way, and those that ended."""
        del ask
        operations = self._operations()
        progress = self._facts.snapshot().update.progress
        return UpdateLog(progress, operations.reports(), operations.quarantine())

    async def _update(self, ask: Ask) -> OneUpdate:
        """Show one update: how far it is, or how it ended."""
        number = int(ask.part("id"))
        progress = self._facts.snapshot().update.progress
        if progress is not None and progress.id == number:
            return OneUpdate(progress, None)
        return OneUpdate(None, self._report(number))

    async def _look(self, ask: Ask) -> CurrentPhase:
        """Ring the doorbell: look at the repository and the inbox now."""
        await self._operations().look(ask.operator)
        return CurrentPhase(self.phase())

    async def _roll_back(self, ask: Ask) -> RolledBack:
        """Go back to the previous model."""
        order = await read_json(ask.request, RollbackOrder)
        operations = self._operations()
        name = await operations.roll_back(order.pipeline, ask.operator)
        return RolledBack(name)

    async def _commission(self, ask: Ask) -> Commissioned:
        """Let the board's own baseline of a pipeline begin anew."""
        order = await read_json(ask.request, CommissionOrder)
        operations = self._operations()
        return Commissioned(await operations.commission(order.pipeline, ask.operator))

    async def _forgive(self, ask: Ask) -> None:
        """Let a bundle that was set aside be tried again."""
        sha256, operations = ask.part("sha256"), self._operations()
        if all(it.sha256 != sha256 for it in operations.quarantine()):
            raise absent("this bundle was not set aside")
        await operations.forgive(sha256, ask.operator)

    def _report(self, number: int) -> Report:
        """Return how an update ended.

        Raises:
            AbsentError: It is not among those that are kept.
        """
        for report in self._operations().reports():
            if report.id == number:
                return report
        raise absent("there is no report of an update of this number")

    def _operations(self) -> Operations:
        """Return what carries out orders.

        Raises:
            AbsentError: This board takes none.
        """
        if self._services.operations is None:
            raise absent("this board takes no orders", "Set `update.root`.")
        return self._services.operations
