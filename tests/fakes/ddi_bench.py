"""The whole update side in one process, at a DDI server that may lie: no sockets.

Real client, real plan and machine; the repository and the trials are fakes, and the
simulator's honest answers come without HTTP. Thousands of rounds take seconds.
"""

import asyncio
from collections.abc import Callable, Mapping
from typing import Self

from msgspec.structs import replace

from agent.core.fleet_settings import DdiSettings, FleetSettings
from agent.core.targets import bundle_path
from agent.update import UpdatePoller
from agent.update.ddi_client import DdiClient
from agent.update.ddi_errands import BoardErrands
from agent.update.ddi_needs import Answer, Wire
from agent.update.ddi_state import DdiState
from agent.update.ddi_wire import HttpWire
from tests.fakes.bundles import good_bundle
from tests.fakes.ddi_access import TOKEN
from tests.fakes.ddi_actions import Action, Chunk
from tests.fakes.ddi_resources import Ask, Resources
from tests.fakes.ddi_server import TARGET_KEY, DdiServer
from tests.fakes.update_bench import BOARD, BUNDLES, Bench

URL = "https://hawkbit.example"
MODEL = "kws"
HURRY_S = 0.4  # in all for a request; honest answers on loopback take some ms
Twist = Callable[[str, Answer], Answer]  # kind of resource, honest answer -> answer


def truth(kind: str, answer: Answer) -> Answer:
    """Leave an answer as it is."""
    del kind
    return answer


def _plain() -> None:
    """Speak no TLS: the server is on loopback."""


def _credentials() -> str:
    """Return what the server wants to be shown."""
    return f"TargetToken {TOKEN}"


class SimulatorWire:
    """Implements ``agent.update.ddi_needs.Wire`` over the simulator's rules.

    Attributes:
        twist: What becomes of honest answers.
        asked: Method and URL of all requests.
    """

    def __init__(self, shown: Resources) -> None:
        self._shown = shown
        self.twist: Twist = truth
        self.asked: list[tuple[str, str]] = []

    async def ask(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        max_bytes: int = 65_536,
    ) -> Answer:
        """Ask the simulator, and twist its answer."""
        self.asked.append((method, url))
        origin, path = url[: len(URL)], url[len(URL) :]
        path, _, query = path.partition("?")
        words = dict(word.partition("=")[::2] for word in query.split("&") if word)
        said = {name.title(): value for name, value in (headers or {}).items()}
        said["Authorization"] = f"TargetToken {self._shown.access.token}"
        ask = Ask(method, path, words, said, body or b"", origin)
        kind, _ = self._shown.find(ask)
        response = self._shown.answer(ask)
        raw = response.body if isinstance(response.body, bytes) else b""
        lower = {name.lower(): value for name, value in response.headers.items()}
        answer = self.twist(kind, Answer(response.status, lower, raw))
        return Answer(answer.status, answer.headers, answer.body[:max_bytes])

    async def close(self) -> None:
        """Nothing is open."""


class DdiBench(Bench):
    """A board with two pipelines of one model, ordered by a DDI server.

    Args:
        server: A real one; without, its rules are asked without HTTP.
        wire: Leads to it by other papers than its token.
        settings: Of [fleet.ddi].

    Attributes:
        shown: What the server shows; ``wire`` leads to it.
        client: Of this life.
    """

    def __init__(
        self,
        server: DdiServer | None = None,
        wire: Wire | None = None,
        **settings: object,
    ) -> None:
        self.shown = server.shown if server else Resources()
        self.shown.access.controller = BOARD.id
        self.url = server.url if server else URL
        self.simulated = SimulatorWire(self.shown)
        self.wire: Wire = wire or self.simulated
        if server and not wire:
            self.wire = HttpWire(server.url, _plain, _credentials, HURRY_S)
        self._runner = asyncio.Runner()
        self._table = replace(DdiSettings(url=self.url), **settings)
        super().__init__(orchestrator="ddi")

    def start(self) -> UpdatePoller:
        """Begin a life: what is kept, and nothing else, comes from the one before."""
        fleet = FleetSettings(ddi=self._table)
        self.settings = replace(self.settings, fleet=fleet)
        poller = super().start()
        self.client = DdiClient(
            self._table,
            BOARD.id,
            self.wire,
            poller.sources.ddi or DdiState(self.store),
            BoardErrands(poller, self.store, lambda: self.board),
            lambda: self.now,
            lambda: 0.5,
        )
        return poller

    def __enter__(self) -> Self:
        """Begin with version 1, ordered by the server."""
        self.settle(self.deploy(1), "FINISHED")
        return self

    def __exit__(self, *_: object) -> None:
        """End."""
        self.close()

    def close(self) -> None:
        """Let go of the server."""
        self._runner.run(self.wire.close())
        self._runner.close()

    # --- the server's side

    def publish(self, version: int) -> None:
        """Sign another version."""
        BUNDLES[MODEL, version] = self.repository.bundles[MODEL, version] = good_bundle(
            version
        )

    def deploy(self, version: int, *chunks: Chunk, **fields: str) -> Action:
        """Order a version, or anything instead."""
        honest = Chunk(metadata={TARGET_KEY: bundle_path(MODEL, version)})
        return self.shown.actions.add(chunks or [honest], **fields)

    # --- the board's side

    def rounds(self, times: int = 1) -> list[float]:
        """Poll and look so many times; return the pauses after the polls."""
        return self._runner.run(self._rounds(times))

    async def _rounds(self, times: int) -> list[float]:
        """Poll and look in one loop, as the daemon's tasks do."""
        pauses = []
        for _ in range(times):
            await self.poller.look()
            pauses.append(await self.client.poll())
            self.now += pauses[-1]
        return pauses

    def settle(self, action: Action, status: str, rounds: int = 20) -> list[float]:
        """Go on until the server thinks so of an action."""
        pauses: list[float] = []
        for _ in range(rounds):
            pauses += self.rounds()
            if action.status == status:
                return pauses
        raise AssertionError(
            f"{action.status}, {action.said}: {self.client.snapshot()}"
        )
