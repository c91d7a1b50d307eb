"""The stream behind the page: what is told, to how many, and when they go."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path
from typing import Any

from aiohttp import web

from agent.core.events import Event
from agent.core.reasons import Reason
from agent.core.snapshot import AgentSnapshot
from agent.endpoint.guard import Gate
from agent.endpoint.live import PER_PEER, PLACES, Live
from agent.endpoint.local import LocalEndpoint
from agent.endpoint.services import Services
from agent.errors import DeviceError
from tests.fakes.control_bench import bench
from tests.fakes.control_bench import listening as controlling
from tests.fakes.operations import MemoryDesk
from tests.fakes.shown import ASIDE, reports_of, shown_facts
from tests.fakes.snapshots import FixedFacts

WAIT_S = 30.0  # nothing here takes that long; a stuck test should say so all the same
Told = tuple[str, Any]


@dataclass
class Stream:
    """A viewer that reads the stream as browsers do."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def head(self) -> tuple[int, dict[str, str]]:
        """Read status and headers."""
        raw = (await self.reader.readuntil(b"\r\n\r\n")).decode()
        first, *rest = raw.rstrip().split("\r\n")
        return int(first.split()[1]), dict(line.split(": ", 1) for line in rest)

    async def next(self) -> Told:
        """Read one event of the stream: its name and its JSON."""
        size = int(await self.reader.readuntil(b"\r\n"), 16)
        if size == 0:
            return "end", None
        chunk = (await self.reader.readexactly(size + 2)).decode()
        name, data, *_ = chunk.split("\n")
        return name.removeprefix("event: "), json.loads(data.removeprefix("data: "))

    async def until(self, name: str) -> Any:  # noqa: ANN401 - JSON is
        """Read on to an event of a name; return what it says."""
        while True:
            found, told = await self.next()
            if found == name:
                return told
            assert found != "end"

    def close(self) -> None:
        """Leave."""
        self.writer.transport.abort()


@dataclass
class Board:
    """An open local endpoint."""

    endpoint: LocalEndpoint
    live: Live
    path: Path
    streams: list[Stream] = field(default_factory=list)

    async def view(
        self,
        query: str = "",
        method: str = "GET",
        headers: str = "Host: localhost\r\n",
        *,
        unix: bool = False,
    ) -> Stream:
        """Open the stream."""
        bound = self.endpoint.bound()
        assert bound is not None
        path = str(self.path)
        opening = asyncio.open_unix_connection(path) if unix else None
        stream = Stream(*await (opening or asyncio.open_connection(*bound)))
        asked = f"{method} /v1/live{query} HTTP/1.1\r\n{headers}\r\n"
        stream.writer.write(asked.encode())
        self.streams.append(stream)
        return stream


@asynccontextmanager
async def listening(
    tmp_path: Path,
    facts: FixedFacts,
    gate: Gate | None = None,
    life_s: float = 60.0,
    slow_s: float = 10.0,
) -> AsyncIterator[Board]:
    """Open an endpoint on a free port and a socket; close it in the end."""
    path = tmp_path / "s"
    endpoint = LocalEndpoint(facts, "127.0.0.1:0", path, gate, Services(MemoryDesk()))
    endpoint.live = Live(facts, Services(MemoryDesk()), life_s=life_s, slow_s=slow_s)
    async with asyncio.timeout(WAIT_S):
        await endpoint.open()
        board = Board(endpoint, endpoint.live, path)
        try:
            yield board
        finally:
            for stream in board.streams:
                stream.close()
            await endpoint.close()
            await asyncio.sleep(0)  # transports close in the loop's next turn


async def until(condition: Callable[[], bool]) -> None:
    """Wait for what another task brings about."""
    while not condition():  # noqa: ASYNC110 -- nobody signals plain state
        await asyncio.sleep(0.001)


def run(story: Callable[[], Awaitable[None]]) -> None:
    """Run one story in a loop of its own."""

    async def main() -> None:
        await story()

    asyncio.run(main())


def test_a_viewer_is_told_the_past_then_the_present(tmp_path: Path) -> None:
    """Trends first, then a state, then the events that are kept."""
    facts = shown_facts(2)

    async def story() -> None:
        async with listening(tmp_path, facts) as board:
            stream = await board.view()
            status, headers = await stream.head()
            told = [await stream.next() for _ in range(4)]
            assert status == 200
            assert headers["Content-Type"] == "text/event-stream; charset=utf-8"
            assert headers["Cache-Control"] == "no-store"
            assert [name for name, _ in told] == ["trend", "trend", "state", "events"]
            assert len(told[0][1]["points"]) == 450
            assert told[2][1]["board"] == "greenhouse-7"
            assert [row["id"] for row in told[3][1]] == [e.id for e in facts.logged]
            stream.close()

    run(story)


def test_a_page_that_comes_back_is_told_what_it_missed(tmp_path: Path) -> None:
    """``after`` and ``since`` leave out what it has; a smaller past begins anew."""
    facts = shown_facts()
    since = int(facts.points["digits"][-3].at)

    async def story() -> None:
        async with listening(tmp_path, facts) as board:
            stream = await board.view(f"?after=5&since={since}")
            await stream.head()
            assert len((await stream.until("trend"))["points"]) == 2
            assert [row["id"] for row in await stream.until("events")] == [6, 7]
            # An agent that began anew counts from one again.
            stream = await board.view("?after=900")
            await stream.head()
            assert (await stream.until("events"))[0]["id"] == 1
            lost = await board.view("?after=x")
            assert (await lost.head())[0] == 400

    run(story)


def test_events_come_at_once_with_a_state(tmp_path: Path) -> None:
    """What was logged is told together with how the board is after it."""
    facts = shown_facts()

    async def story() -> None:
        async with listening(tmp_path, facts) as board:
            stream = await board.view()
            await stream.head()
            await stream.until("events")
            facts.logged.append(Event(8, 5.0, "error", "worker.died", {"pid": "1"}))
            facts.shown = replace(facts.shown, board="changed")
            assert (await stream.until("state"))["board"] == "changed"
            told = await stream.until("events")
            assert [row["name"] for row in told] == ["worker.died"]

    run(story)


def test_headers_alone_can_be_asked_for(tmp_path: Path) -> None:
    """HEAD is answered at once, and holds no place."""

    async def story() -> None:
        async with listening(tmp_path, shown_facts()) as board:
            for unix in (False, True):
                stream = await board.view(method="HEAD", unix=unix)
                assert (await stream.head())[0] == 200
                assert await stream.reader.read() == b""
            assert board.live.viewers == 0

    run(story)


def test_viewers_are_few_and_places_are_given_back(tmp_path: Path) -> None:
    """The next one is told when to come again; who leaves makes room."""

    async def story() -> None:
        async with listening(tmp_path, shown_facts()) as board:
            sitting = [await board.view() for _ in range(PLACES)]
            for stream in sitting:
                await stream.head()
            status, headers = await (await board.view()).head()
            assert (status, headers["Retry-After"]) == (503, "10")
            # Strangers take no operator's place.
            assert (await (await board.view(unix=True)).head())[0] == 200
            sitting[0].close()
            await until(lambda: board.live.viewers < PLACES)
            assert (await (await board.view()).head())[0] == 200

    run(story)


def test_a_stream_outlives_other_answers_and_ends(tmp_path: Path) -> None:
    """The guard's limit is for scrapes; a stream has its own, and ends well."""

    async def story() -> None:
        gate = Gate(life_s=0.2)
        async with listening(tmp_path, shown_facts(), gate, life_s=1.0) as board:
            stream = await board.view()
            await stream.head()
            began, names = asyncio.get_running_loop().time(), []
            while (told := await stream.next())[0] != "end":
                names.append(told[0])
            assert asyncio.get_running_loop().time() - began > 0.5
            assert "state" in names
            await until(lambda: gate.taken == 0)

    run(story)


def test_who_reads_nothing_is_cut_and_nothing_piles_up(tmp_path: Path) -> None:
    """A deaf viewer gets no queue: states are left out, then its place is taken."""
    facts = shown_facts(8)
    facts.logged = [
        Event(i, 5.0, "info", "x", {"text": "y" * 20_000}) for i in range(1, 400)
    ]

    async def story() -> None:
        async with listening(tmp_path, facts, slow_s=0.5) as board:
            bound = board.endpoint.bound()
            assert bound is not None
            deaf = socket.socket()
            deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            deaf.setblocking(False)
            loop = asyncio.get_running_loop()
            await loop.sock_connect(deaf, bound)
            asked = b"GET /v1/live HTTP/1.1\r\nHost: localhost\r\n\r\n"
            await loop.sock_sendall(deaf, asked)
            await until(lambda: board.live.viewers == 1)
            await until(lambda: board.live.viewers == 0)
            deaf.close()

    run(story)


def test_a_board_that_stops_does_not_wait_for_viewers(tmp_path: Path) -> None:
    """Streams end with the listener, well before their time."""

    async def story() -> None:
        async with listening(tmp_path, shown_facts()) as board:
            streams = [await board.view(), await board.view(unix=True)]
            for stream in streams:
                await stream.head()
            await board.endpoint.close()
            assert board.live.viewers == 0

    run(story)


def test_nothing_is_made_while_nobody_looks(tmp_path: Path) -> None:
    """Without viewers no snapshot is taken; several share one."""
    taken = 0

    class Counted(FixedFacts):
        def snapshot(self) -> AgentSnapshot:
            nonlocal taken
            taken += 1
            return super().snapshot()

    shown = shown_facts()
    facts = Counted(shown=shown.shown, points=shown.points)

    async def story() -> None:
        async with listening(tmp_path, facts) as board:
            assert taken == 0
            streams = [await board.view() for _ in range(4)]
            for stream in streams:
                await stream.head()
                await stream.until("state")
            # Four who come within the same moment; a slow machine may need a second.
            assert taken <= 2

    run(story)


def test_a_store_that_cannot_be_read_leaves_stories_out(tmp_path: Path) -> None:
    """The page goes on without reports; it is told them again once they are there."""

    class Broken(MemoryDesk):
        def reports(self) -> list[Any]:
            raise DeviceError("input/output error", reason=Reason.STATE)

    facts = shown_facts()
    desk = MemoryDesk(done=reports_of(), aside=list(ASIDE))

    async def story() -> None:
        async with listening(tmp_path, facts) as board:
            for services, count in ((Services(Broken()), 0), (Services(desk), 2)):
                board.endpoint.live = Live(facts, services)
                stream = await board.view()
                await stream.head()
                state = await stream.until("state")
                assert len(state["update"]["reports"]) == count
                stream.close()

    run(story)


def test_a_name_that_strangers_can_own_is_misdirected(tmp_path: Path) -> None:
    """DNS rebinding: page and stream answer to addresses and our own name only."""

    async def story() -> None:
        async with listening(tmp_path, shown_facts()) as board:
            for unix in (False, True):
                evil = await board.view(headers="Host: evil.example\r\n", unix=unix)
                assert (await evil.head())[0] == 421
                none = await board.view(headers="Host:\r\n", unix=unix)
                assert (await none.head())[0] == 421
                own = f"Host: {socket.gethostname()}:80\r\n"
                named = await board.view(headers=own, unix=unix)
                assert (await named.head())[0] == 200

    run(story)


def test_another_site_opens_no_stream(tmp_path: Path) -> None:
    """It could not read one, but would hold its place."""
    sites = ("Sec-Fetch-Site: cross-site", "Origin: http://evil.example")

    async def story() -> None:
        async with listening(tmp_path, shown_facts()) as board:
            for site, unix in product(sites, (False, True)):
                headers = f"Host: localhost\r\n{site}\r\n"
                stream = await board.view(headers=headers, unix=unix)
                assert (await stream.head())[0] == 403

    run(story)


def test_a_certificate_has_few_streams_and_a_scraper_none(tmp_path: Path) -> None:
    """Two pages leave an operator's other connections for orders."""

    async def story() -> None:
        made = bench(tmp_path, facts=shown_facts())
        async with controlling(made):
            asked = b"GET /v1/live HTTP/1.1\r\nHost: board\r\n\r\n"
            streams = []
            for expected in (*[200] * PER_PEER, 503):
                peer = await made.peer(made.observer)
                await peer.send(asked)
                stream = Stream(peer.reader, peer.writer)
                assert (await stream.head())[0] == expected
                streams.append(stream)
            peer = await made.peer(made.scraper)
            await peer.send(asked)
            assert (await peer.reply()).status == 403
            for stream in streams:
                stream.close()

    run(story)


def test_a_stream_of_a_stopped_application_ends_itself() -> None:
    """``end`` is what aiohttp calls when it shuts down."""
    stopped = Live(shown_facts(), Services())
    asyncio.run(stopped.end(web.Application()))
    assert stopped.viewers == 0
