"""Attack 44 on the control listener: whoever is slow, silent or many keeps nobody out.

Each attack runs while a legitimate operator asks; the target is an answer within 2 s.
"""

import asyncio
import gc
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from agent.endpoint import bodies, control, doorstep, visits
from agent.endpoint.services import Services
from tests.fakes.control_bench import Bench, Peer, bench, listening, request, run
from tests.fakes.fleet_ca import Leaf, client_context
from tests.fakes.operations import MemoryDesk
from tests.fakes.snapshots import FixedFacts

SERVED_S = 2.0  # the target
TOLERANCE = 5.0  # on a machine that does other things as well
DIGEST = "ab" * 32


@asynccontextmanager
async def closing(peers: list[Peer]) -> AsyncIterator[list[Peer]]:
    """Cut connections in the end."""
    try:
        yield peers
    finally:
        for peer in peers:
            peer.close()


async def is_served(made: Bench) -> None:
    """Ask as a legitimate operator would, on a new connection."""
    async with asyncio.timeout(SERVED_S * TOLERANCE):
        assert (await made.ask(made.operator, "GET /v1/state")).status == 200


async def until(condition: Callable[[], bool]) -> None:
    """Wait for what another task brings about."""
    while not condition():  # noqa: ASYNC110 - nobody signals plain state
        await asyncio.sleep(0.01)


def test_44_two_hundred_silent_connections(tmp_path: Path) -> None:
    """Connections that begin no handshake hold no place, even from the same address."""

    async def story() -> None:
        async with listening(bench(tmp_path)) as made, closing([]) as silent:
            for _ in range(200):
                silent.append(await made.silent())
            assert len(made.endpoint.doorstep) <= doorstep.MAX_HANDSHAKES
            await is_served(made)
            # Each is left after its time, and nothing of it stays.
            await until(lambda: len(made.endpoint.doorstep) == 0)

    run(story)


def test_44_a_handshake_that_stalls(tmp_path: Path) -> None:
    """Half a ClientHello is cut off like silence."""

    async def story() -> None:
        async with listening(bench(tmp_path)) as made:
            peer = await made.silent()
            await peer.send(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03")
            await is_served(made)
            assert await peer.ended() == b""
            peer.close()

    run(story)


def test_44_sixty_half_sent_headers_of_one_certificate(tmp_path: Path) -> None:
    """One certificate has four places; the others are for others."""

    async def story() -> None:
        async with listening(bench(tmp_path)) as made, closing([]) as slow:
            context = client_context(made.ca, made.observer)
            for _ in range(60):
                slow.append(await made.peer(None, context))
                await slow[-1].send(b"GET /v1/state HTTP/1.1\r\nHost: x\r\nX-Sl")
            assert len(made.endpoint.visits) <= control.MAX_VISITS_PER_PEER
            await is_served(made)
            await until(lambda: len(made.endpoint.visits) == 0)

    run(story)


def test_44_half_sent_headers_of_the_same_certificate(tmp_path: Path) -> None:
    """A stolen certificate's half-sent headers give way to its owner's requests."""

    async def story() -> None:
        async with listening(bench(tmp_path)) as made, closing([]) as slow:
            for _ in range(control.MAX_VISITS_PER_PEER):
                slow.append(await made.peer(made.operator))
                await slow[-1].send(b"GET /v1/state HT")
            await is_served(made)

    run(story)


def test_44_a_full_house_of_certificates(tmp_path: Path) -> None:
    """With every place taken by half-sent headers, the next one is let in at once."""

    async def story() -> None:
        async with listening(bench(tmp_path)) as made, closing([]) as slow:
            for number in range(control.MAX_VISITS // control.MAX_VISITS_PER_PEER):
                leaf = made.ca.role("observer", f"observer-{number}")
                for _ in range(control.MAX_VISITS_PER_PEER):
                    slow.append(await made.peer(leaf))
                    await slow[-1].send(b"GET /v1/state HT")
            assert len(made.endpoint.visits) <= control.MAX_VISITS
            await is_served(made)

    run(story)


def test_44_busy_connections_are_not_displaced(tmp_path: Path) -> None:
    """A fifth connection of a certificate whose four are being answered gets 503."""

    async def story() -> None:
        async with listening(bench(tmp_path)) as made, closing([]) as busy:
            head = {"Content-Length": "100000"}
            asked = f"PUT /v1/uploads/{DIGEST}?path=targets/x"
            for _ in range(control.MAX_VISITS_PER_PEER):
                peer = await made.peer(made.operator)
                await peer.send(request(asked, b"", head))
                busy.append(peer)
            taken = made.endpoint.visits
            await until(lambda: sum(not it.waiting for it in taken) == len(busy))
            fifth = await made.ask(made.operator, "GET /v1/state")
            assert (fifth.status, fifth.headers["Retry-After"]) == (503, "10")
            assert (await made.ask(made.observer, "GET /v1/state")).status == 200

    run(story)


async def drip(peer: Peer, every_s: float) -> None:
    """Send one byte now and then until the other side has enough."""
    with suppress(ConnectionError, OSError):
        while not peer.writer.is_closing():
            await peer.send(b"x")
            await asyncio.sleep(every_s)


async def answer_to_drips(made: Bench, leaf: Leaf, asked: str) -> bytes:
    """Announce a body, drip it, and return what comes until the connection ends."""
    peer = await made.peer(leaf)
    headers = {"Content-Type": "application/json", "Content-Length": "60000"}
    await peer.send(request(asked, b"", headers))
    async with asyncio.TaskGroup() as group:
        dripping = group.create_task(drip(peer, 0.2))
        answer = await peer.ended()
        dripping.cancel()
    peer.close()
    return answer


def test_44_dripped_bodies_are_cut_off(tmp_path: Path) -> None:
    """A few bytes a second: told so where a body is wanted, and left in any case."""
    wanted = ["PUT /v1/desired", f"PUT /v1/uploads/{DIGEST}?path=targets/x"]
    unwanted = ["POST /v1/updates", "GET /v1/state"]

    async def story() -> None:
        async with listening(bench(tmp_path)) as made, asyncio.TaskGroup() as group:
            leaf = made.ca.role("operator", "slow")
            answers = {
                asked: group.create_task(answer_to_drips(made, leaf, asked))
                for asked in (*wanted, *unwanted)
            }
            await is_served(made)
            async with asyncio.timeout(bodies.GRACE_S * TOLERANCE):
                for asked, task in answers.items():
                    answer = await task
                    said = (b" 408 " in answer, b"too_slow" in answer)
                    assert said == ((True, True) if asked in wanted else (False, False))
            await until(lambda: len(made.endpoint.visits) == 0)

    run(story)


def test_44_a_thousand_dripped_headers_bytes(tmp_path: Path) -> None:
    """Header bytes do not buy time: the request has to be whole by its deadline."""

    async def story() -> None:
        async with listening(bench(tmp_path)) as made:
            peer = await made.peer(made.operator)
            await peer.send(b"GET /v1/state HTTP/1.1\r\n")
            async with asyncio.TaskGroup() as group:
                dripping = group.create_task(drip(peer, 0.05))
                async with asyncio.timeout(visits.FIRST_S * TOLERANCE):
                    assert await peer.ended() == b""
                dripping.cancel()
            peer.close()

    run(story)


class LargeFacts(FixedFacts):
    """Facts with metrics that no buffer takes at once."""

    def metrics(self, accept: str) -> tuple[str, bytes]:
        """Return 20 MB."""
        del accept
        return "text/plain", b"#" * 20_000_000


def test_44_a_client_that_reads_nothing(tmp_path: Path) -> None:
    """An answer that nobody takes holds its buffer for seconds, not for ever."""

    async def story() -> None:
        async with listening(bench(tmp_path, facts=LargeFacts())) as made:
            sock = socket.socket()
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            sock.setblocking(False)
            loop = asyncio.get_running_loop()
            await loop.sock_connect(sock, ("127.0.0.1", made.port))
            context = client_context(made.ca, made.operator)
            reader, writer = await asyncio.open_connection(
                sock=sock, ssl=context, server_hostname="127.0.0.1", limit=1024
            )
            writer.write(request("GET /metrics"))
            del reader
            await until(lambda: len(made.endpoint.visits) == 1)
            await until(lambda: len(made.endpoint.visits) == 0)
            writer.transport.abort()
            await is_served(made)

    run(story)


@pytest.mark.parametrize(
    "raw",
    [
        b"GET /v1/state HTTP/1.1\r\nX: " + b"x" * 20_000,
        b"GET /" + b"x" * 20_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 5_000 + b"\r\n",
        b"\x00" * 20_000,
        b"GET / HTTP/9.9\r\nHost: x\r\n\r\n",
        b"GET /v1/state HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"GET /v1/state HTTP/1.1\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ],
    ids=["header", "path", "headers", "zeros", "version", "length", "two", "http2"],
)
def test_52_what_is_no_request(raw: bytes, tmp_path: Path) -> None:
    """Too large or no HTTP: a 4xx or nothing, the connection ends, others go on."""

    async def story() -> None:
        async with listening(bench(tmp_path)) as made:
            peer = await made.peer(made.operator)
            await peer.send(raw)
            answer = await peer.ended()
            assert answer == b"" or answer.split()[1] in {b"400", b"431"}
            assert b" 200 " not in answer
            peer.close()
            await is_served(made)

    run(story)


def test_44_smuggled_requests_are_not_answered(tmp_path: Path) -> None:
    """Two lengths that contradict each other end the connection."""

    async def story() -> None:
        async with listening(bench(tmp_path)) as made:
            peer = await made.peer(made.operator)
            inner = request("POST /v1/rollback", b"{}")
            lengths = {"Content-Length": "4", "Transfer-Encoding": "chunked"}
            await peer.send(request("POST /v1/updates", b"", lengths) + inner)
            assert b" 202 " not in await peer.ended()
            assert made.desk.asked == []
            peer.close()

    run(story)


def test_44_memory_stays_bounded(tmp_path: Path) -> None:
    """After floods of every kind no connection, task or buffer is left."""

    async def flood(made: Bench) -> None:
        async with closing([]) as peers:
            for _ in range(20):
                peers.append(await made.silent())
                peers.append(await made.peer(made.observer))
                await peers[-1].send(b"PUT /v1/desired HTTP/1.1\r\nContent-Length: 9")
            await is_served(made)

    async def story() -> None:
        async with listening(bench(tmp_path)) as made:
            for _ in range(3):
                await flood(made)
            await until(lambda: len(made.endpoint.visits) == 0)
            await until(lambda: len(made.endpoint.doorstep) == 0)
            gc.collect()
            left = [it for it in gc.get_objects() if isinstance(it, visits.Visit)]
            assert len(left) <= control.MAX_VISITS
            assert len(asyncio.all_tasks()) < 10

    run(story)


class PatientDesk(MemoryDesk):
    """A desk that looks until it is told to stop."""

    def __init__(self) -> None:
        super().__init__()
        self.enough = asyncio.Event()

    async def look(self, operator: str) -> None:
        """Look for as long as it takes."""
        await super().look(operator)
        await self.enough.wait()


async def pour(peer: Peer, content: bytes, times: int, sent: list[int]) -> None:
    """Send something again and again, as fast as the other side reads it."""
    for _ in range(times):
        await peer.send(content)
        sent.append(len(content))


async def until_still(sent: list[int], task: asyncio.Task[None]) -> None:
    """Wait until no more is sent."""
    still, before = 0, -1
    while still < 20 and not task.done():
        await asyncio.sleep(0.01)
        still, before = (still + 1, before) if len(sent) == before else (0, len(sent))


def test_44_requests_behind_one_that_takes_long_are_not_read(tmp_path: Path) -> None:
    """They would be parsed and kept, a gigabyte in seconds: that is aiohttp < 3.14."""

    async def story() -> None:
        desk = PatientDesk()
        made = bench(tmp_path, services=Services(desk))
        async with listening(made), closing([]) as peers:
            peers.append(await made.peer(made.operator))
            await peers[-1].send(request("POST /v1/updates"))
            await until(lambda: bool(desk.asked))
            sent: list[int] = []
            flood = pour(peers[-1], request("GET /x") * 1000, 1000, sent)
            task = asyncio.create_task(flood)  # noqa: TID251 - a client of this test
            await until(lambda: bool(sent))
            await until_still(sent, task)
            assert 0 < sum(sent) < 16 * 2**20  # kernels and TLS hold a few MB
            await is_served(made)
            task.cancel()
            desk.enough.set()

    run(story)


def test_it_stops_while_it_is_attacked(tmp_path: Path) -> None:
    """Silent, half-sent and dripped connections do not delay the agent's end."""

    async def story() -> None:
        made = bench(tmp_path)
        async with closing([]) as peers:
            async with listening(made):
                for _ in range(10):
                    peers.append(await made.silent())
                peers.append(await made.peer(made.operator))
                head = {"Content-Length": "100"}
                await peers[-1].send(request("PUT /v1/desired", b"", head))
                await until(lambda: len(made.endpoint.visits) == 1)
                loop = asyncio.get_running_loop()
                began = loop.time()
            assert loop.time() - began < SERVED_S * TOLERANCE

    run(story)
