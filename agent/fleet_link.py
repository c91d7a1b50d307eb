"""This board's link to a fleet's server that speaks DDI: built where one is wanted.

The rules this module keeps:
 * Its client and what that keeps are not imported where another orchestrator decides,
   the client not before the board answers: the link waits for nothing, and nothing
   waits for it.
 * The server is asked with this board's papers, read anew when they change; its
   certificates are judged by the clock floors, as a repository's are.
 * What the board is too hot for, or has too little current for, can wait.
"""

import os
import random
import ssl
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from agent.core.installed import Board
from agent.core.readings import BoardReadings
from agent.core.reasons import Reason
from agent.core.snapshot import ServerSnapshot
from agent.settings import DegradeSettings, Settings
from agent.store import Store
from agent.trust.transport import Transport
from agent.update import UpdatePoller

if TYPE_CHECKING:
    from agent.core.fleet_settings import DdiSettings
    from agent.trust.tls import ServerContext
    from agent.update.ddi_client import DdiClient
    from agent.update.ddi_needs import Answer, Wire


@dataclass(slots=True)
class FleetLink:
    """Follows the fleet's server, if there is one.

    Attributes:
        settings: As they were at the start: another server needs a restart.
        board_id: What the board is called there, unless the settings say.
        poller: Carries out what the server orders.
        store: Keeps it.
        certificate_floor: The time by which certificates are judged at least.
        board: What this board is, as of now.
        readings: Its sensors.
        degrade: From when on it is too hot.
    """

    settings: Settings
    board_id: str
    poller: UpdatePoller
    store: Store
    certificate_floor: Callable[[], float]
    board: Callable[[], Board]
    readings: Callable[[], BoardReadings]
    degrade: Callable[[], DegradeSettings]
    requests: Counter[str] = field(default_factory=Counter)
    _client: "DdiClient | None" = None

    def __post_init__(self) -> None:
        """Check the server's address before anything starts.

        Raises:
            SettingsError: ``fleet.ddi.url`` cannot be used.
        """
        if self.is_wanted:
            from agent.update.ddi_links import Controller

            ddi = self.settings.fleet.ddi
            Controller(ddi.url, ddi.tenant, ddi.controller or self.board_id)

    @property
    def is_wanted(self) -> bool:
        """Whether a server orders about this board."""
        return self.settings.update.orchestrator == "ddi"

    async def run(self) -> None:
        """Follow the server; ends by cancellation only, or at once without one.

        Raises:
            SettingsError: ``fleet.ddi.url`` cannot be used.
            ExceptionGroup: A bug.
        """
        if self.is_wanted:
            self._client = self._build()
            await self._client.run()

    def poke(self) -> None:
        """Ask the server now, if there is one."""
        if self._client is not None:
            self._client.poke()

    def snapshot(self) -> ServerSnapshot | None:
        """Return what is known of the server; None where there is none."""
        url, client, ddi = (
            self.settings.fleet.ddi.url,
            self._client,
            self.poller.sources.ddi,
        )
        if ddi is None or client is None:
            return ServerSnapshot(url) if self.is_wanted else None
        known = client.snapshot()
        action = ddi.at_hand.open
        return ServerSnapshot(
            url,
            last_poll=known.last_poll,
            next_poll=known.next_poll,
            action=known.action,
            said=known.said,
            download=action.download if action else "",
            update=action.update if action else "",
            window_open=action is None or action.window_open,
            held=action.held if action else "",
            outbox=known.outbox,
            trouble=known.trouble,
            requests=dict(self.requests),
        )

    def _build(self) -> "DdiClient":
        """Return the client, with all that it touches."""
        from agent.update.ddi_client import DdiClient
        from agent.update.ddi_errands import BoardErrands
        from agent.update.ddi_state import DdiState
        from agent.update.ddi_wire import HttpWire

        ddi, sources = self.settings.fleet.ddi, self.poller.sources
        papers = Papers(ddi, lambda: (sources.clock_floor, self.certificate_floor()))
        wire = HttpWire(ddi.url, papers.context, papers.credentials)
        return DdiClient(
            ddi,
            self.board_id,
            CountedWire(wire, self.requests),
            sources.ddi or DdiState(self.store, ddi.window),
            BoardErrands(
                self.poller, self.store, self.board, self._unfit, self._traits
            ),
            time.time,  # noqa: TID251 - the daemon owns the clock
            random.random,
        )

    def _unfit(self) -> str:
        """Return why an update had better wait, or nothing."""
        readings = self.readings()
        if dict(readings.throttled).get("under_voltage"):
            return Reason.UNDER_VOLTAGE
        hottest_c = max((it for _, it in readings.temperatures), default=0.0)
        return Reason.HEAT if hottest_c >= self.degrade().hot_c else ""

    def _traits(self) -> Mapping[str, str]:
        """Return what a person wants to know of a board first."""
        identity = self.readings().identity
        return {"board_model": identity.model, "system": identity.system}


class CountedWire:
    """Counts requests by how they were answered; satisfies ``Wire``."""

    def __init__(self, wire: "Wire", requests: Counter[str]) -> None:
        self._wire = wire
        self._requests = requests

    async def ask(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        max_bytes: int = 65_536,
    ) -> "Answer":
        """Send a request and return its answer; see ``Wire``."""
        result = "failed"
        try:
            answer = await self._wire.ask(
                method, url, headers=headers, body=body, max_bytes=max_bytes
            )
            result = result_of(answer.status)
        finally:
            self._requests[result] += 1
        return answer

    async def close(self) -> None:
        """Let go of the connection."""
        await self._wire.close()


def result_of(status: int) -> str:
    """Return how a request was answered, in one of four words.

    >>> [result_of(status) for status in (200, 304, 401, 503)]
    ['ok', 'unchanged', 'refused', 'failed']
    """
    if status == 304:
        return "unchanged"
    if status < 300:
        return "ok"
    return "refused" if status < 500 else "failed"


class Papers:
    """What this board shows to the server, and what it judges the server by.

    Args:
        ddi: Where they are.
        floors: Returns the clock floor and the certificate floor, Unix seconds.
    """

    def __init__(
        self, ddi: "DdiSettings", floors: Callable[[], tuple[float, float]]
    ) -> None:
        self._ddi = ddi
        self._floors = floors
        self._credentials = os.environ.get("CREDENTIALS_DIRECTORY", "")
        self._transport = Transport(ca=ddi.ca, certificate=ddi.certificate, key=ddi.key)
        self._context: ServerContext | None = None
        self._files: object = None

    def context(self) -> ssl.SSLContext | None:
        """Return the TLS context, the same one as long as no file changed.

        Raises:
            DeviceError: ``certificate``: a file cannot be used.
        """
        if not self._ddi.url.startswith("https:"):
            return None
        from agent.trust.tls import files_of, server_context

        files = files_of(self._transport)
        if self._context is None or files != self._files:
            self._context = server_context(self._transport, "fleet.ddi")
            self._files = files
        now = time.time()  # noqa: TID251 - the daemon owns the clock
        self._context.judge_by(now, *self._floors())
        return self._context

    def credentials(self) -> str:
        """Return the header that says who this board is; empty for a certificate's.

        Raises:
            DeviceError: ``permission``: the token cannot be used.
        """
        from agent.trust.token import read_token, token_place

        ddi = self._ddi
        place = token_place(ddi.token_credential, ddi.token_file, self._credentials)
        if place is None:
            return ""
        kind = "GatewayToken" if ddi.gateway_token else "TargetToken"
        return f"{kind} {read_token(place)}"
