"""A control listener with real TLS on loopback, and clients that send anything."""

import asyncio
import json
import socket
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agent.endpoint.control import ControlEndpoint
from agent.endpoint.rate import Rate
from agent.endpoint.services import Services
from agent.settings import ControlSettings
from tests.fakes.fleet_ca import FleetCA, Leaf, client_context
from tests.fakes.operations import MemoryDesk, MemoryIdentity, MemoryInbox
from tests.fakes.snapshots import FixedFacts

WAIT_S = 60.0  # nothing here takes that long; a stuck test should say so all the same


@dataclass
class Reply:
    """One HTTP answer."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:  # noqa: ANN401 - JSON is
        """Return the body, parsed."""
        return json.loads(self.body)


@dataclass
class Peer:
    """A client that sends exactly the bytes it is told."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def send(self, raw: bytes) -> None:
        """Send some bytes."""
        self.writer.write(raw)
        await self.writer.drain()

    async def reply(self, *, head: bool = False) -> Reply:
        """Read one answer."""
        raw = await self.reader.readuntil(b"\r\n\r\n")
        first, *rest = raw.decode("latin-1").rstrip("\r\n").split("\r\n")
        headers = dict(line.split(": ", 1) for line in rest)
        length = 0 if head else int(headers.get("Content-Length", 0))
        body = await self.reader.readexactly(length)
        return Reply(int(first.split()[1]), headers, body)

    async def ended(self) -> bytes:
        """Return what still comes until the other side ends the connection."""
        parts = []
        with suppress(ConnectionError, ssl.SSLError):
            while part := await self.reader.read(65_536):
                parts.append(part)
        return b"".join(parts)

    def close(self) -> None:
        """Cut the connection."""
        self.writer.transport.abort()


@dataclass
class Bench:
    """An open control listener, what stands behind it, and a CA for its clients."""

    folder: Path
    ca: FleetCA
    facts: FixedFacts = field(default_factory=FixedFacts)
    desk: MemoryDesk = field(default_factory=MemoryDesk)
    inbox: MemoryInbox = field(default_factory=MemoryInbox)
    identity: MemoryIdentity = field(default_factory=MemoryIdentity)
    revoked: list[str] = field(default_factory=list)
    clock: Callable[[], float] = time.time  # noqa: TID251 - as the daemon has it
    earliest: Callable[[], float] = lambda: 0.0
    services: Services | None = None
    rate: Rate | None = None
    endpoint: ControlEndpoint = field(init=False)

    def __post_init__(self) -> None:
        self.settings = ControlSettings(
            listen="127.0.0.1:0",
            certificate=str(self.folder / "board.pem"),
            key=str(self.folder / "board.key"),
            client_ca=str(self.folder / "clients.pem"),
        )
        self.give(self.ca.board("board-1"), self.ca)
        self.operator = self.ca.role("operator")
        self.observer = self.ca.role("observer")
        self.scraper = self.ca.role("scraper")

    def give(self, leaf: Leaf, clients: FleetCA) -> None:
        """Write the board's files."""
        (self.folder / "board.key").write_bytes(leaf.key.read_bytes())
        (self.folder / "board.pem").write_bytes(leaf.pem)
        (self.folder / "clients.pem").write_bytes(clients.pem)

    @property
    def port(self) -> int:
        """Where it listens."""
        bound = self.endpoint.bound()
        assert bound is not None
        return bound[1]

    async def silent(self) -> Peer:
        """Connect and say nothing, not even TLS."""
        return Peer(*await asyncio.open_connection("127.0.0.1", self.port))

    async def peer(
        self, leaf: Leaf | None, context: ssl.SSLContext | None = None
    ) -> Peer:
        """Connect and shake hands."""
        tls = context or client_context(self.ca, leaf)
        return Peer(*await asyncio.open_connection("127.0.0.1", self.port, ssl=tls))

    async def ask(
        self,
        leaf: Leaf,
        asked: str,
        body: bytes = b"",
        headers: Mapping[str, str] | None = None,
    ) -> Reply:
        """Ask one thing on a connection of its own: ``asked`` is "METHOD /path"."""
        peer = await self.peer(leaf)
        try:
            await peer.send(request(asked, body, headers))
            return await peer.reply(head=asked.startswith("HEAD"))
        finally:
            peer.close()

    async def put_json(self, leaf: Leaf, asked: str, value: object) -> Reply:
        """Ask with a JSON body."""
        headers = {"Content-Type": "application/json"}
        return await self.ask(leaf, asked, json.dumps(value).encode(), headers)


def request(
    asked: str, body: bytes = b"", headers: Mapping[str, str] | None = None
) -> bytes:
    """Return a request as bytes."""
    lines = {"Host": "board", **(headers or {})}
    if body or not asked.startswith("GET"):
        lines.setdefault("Content-Length", str(len(body)))
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    return f"{asked} HTTP/1.1\r\n{head}\r\n".encode() + body


def bench(folder: Path, **parts: Any) -> Bench:  # noqa: ANN401 - fields of Bench
    """Return a bench whose listener is not open yet."""
    (folder / "board").mkdir(exist_ok=True)
    return Bench(folder / "board", FleetCA(folder), **parts)


@asynccontextmanager
async def listening(made: Bench, wait_s: float = WAIT_S) -> AsyncIterator[Bench]:
    """Open the listener; close it in the end."""
    services = made.services or Services(
        made.desk, made.inbox, made.identity, lambda: made.revoked
    )
    made.endpoint = ControlEndpoint(
        made.facts, services, made.settings, made.clock, made.rate, made.earliest
    )
    async with asyncio.timeout(wait_s), asyncio.TaskGroup() as group:
        await made.endpoint.open()
        task = group.create_task(made.endpoint.run())
        try:
            yield made
        finally:
            task.cancel()


def run(story: Callable[[], Awaitable[None]]) -> None:
    """Run one story in a loop of its own."""

    async def main() -> None:
        await story()

    asyncio.run(main())


def deaf_socket(port: int) -> socket.socket:
    """Return a connection that takes a few bytes only."""
    peer = socket.socket()
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    peer.connect(("127.0.0.1", port))
    return peer
