"""Local listener: what it answers, to whom, and how it fends off bad peers."""

import asyncio
import json
import socket
import stat
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from agent.core.reasons import Reason
from agent.endpoint.guard import MAX_REQUEST_BYTES, Gate
from agent.endpoint.local import LocalEndpoint
from agent.errors import DeviceError
from agent.settings import MonitorSettings
from agent.telemetry.exposition import Exposition
from tests.fakes.snapshots import FixedFacts, agent, pipeline

EVERYTHING = MonitorSettings(max_series=100_000)  # an answer of megabytes
WAIT_S = 30.0  # nothing here takes a second; a stuck test should say so all the same


@dataclass
class Reply:
    """One HTTP answer, and that the connection was closed after it."""

    status: int
    headers: dict[str, str]
    body: bytes


@dataclass
class Peer:
    """A client that sends exactly the bytes it is told."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def send(self, raw: bytes) -> None:
        """Send some bytes."""
        self.writer.write(raw)
        await self.writer.drain()

    async def reply(self) -> Reply:
        """Read until the other side closes; parse what came."""
        raw = await self.reader.read()
        self.writer.close()
        head, _, body = raw.partition(b"\r\n\r\n")
        first, *rest = head.decode().split("\r\n")
        pairs = [line.split(": ", 1) for line in rest]
        return Reply(int(first.split()[1]), dict(pairs), body)


@dataclass
class Listener:
    """An open endpoint and the ways to it."""

    endpoint: LocalEndpoint
    path: Path

    async def tcp(self) -> Peer:
        """Connect over TCP."""
        bound = self.endpoint.bound()
        assert bound is not None
        return Peer(*await asyncio.open_connection(*bound))

    async def unix(self) -> Peer:
        """Connect over the unix socket."""
        return Peer(*await asyncio.open_unix_connection(str(self.path)))

    async def ask(self, path: str, *headers: str) -> Reply:
        """Send one GET over TCP with these headers."""
        peer = await self.tcp()
        lines = "".join(f"{line}\r\n" for line in headers)
        await peer.send(f"GET {path} HTTP/1.1\r\n{lines}\r\n".encode())
        return await peer.reply()

    async def get(self, path: str, accept: str = "*/*", *, unix: bool = False) -> Reply:
        """Send one GET."""
        peer = await (self.unix() if unix else self.tcp())
        request = (
            f"GET {path} HTTP/1.1\r\nHost: x\r\nAccept: {accept}\r\n"
            "Connection: close\r\n\r\n"
        )
        await peer.send(request.encode())
        return await peer.reply()


@asynccontextmanager
async def listening(
    tmp_path: Path, facts: FixedFacts | None = None, gate: Gate | None = None
) -> AsyncIterator[Listener]:
    """Open an endpoint on a free port and a socket; close it in the end."""
    path = tmp_path / "control.sock"
    endpoint = LocalEndpoint(facts or FixedFacts(), "127.0.0.1:0", path, gate)
    async with asyncio.timeout(WAIT_S):
        await endpoint.open()
        try:
            yield Listener(endpoint, path)
        finally:
            await endpoint.close()


async def until(condition: Callable[[], bool]) -> None:
    """Wait for what another task brings about."""
    while not condition():  # noqa: ASYNC110 -- nobody signals plain state
        await asyncio.sleep(0.001)


def accepts(path: Path) -> bool:
    """Say whether somebody listens on a unix socket."""
    with socket.socket(socket.AF_UNIX) as peer:
        return peer.connect_ex(str(path)) == 0


def run(story: Callable[[], Awaitable[None]]) -> None:
    """Run one story in a loop of its own."""

    async def main() -> None:
        await story()

    asyncio.run(main())


def test_metrics_are_served_in_the_format_asked_for(tmp_path: Path) -> None:
    """Text by default, OpenMetrics for who accepts it."""

    async def story() -> None:
        async with listening(tmp_path) as listener:
            text = await listener.get("/metrics")
            modern = await listener.get(
                "/metrics", "application/openmetrics-text; version=1.0.0"
            )
        assert text.status == modern.status == 200
        assert text.headers["Content-Type"].startswith("text/plain; version=0.0.4")
        assert modern.headers["Content-Type"].startswith("application/openmetrics-text")
        assert b"tinyward_build_info" in text.body
        assert modern.body.endswith(b"# EOF\n")

    run(story)


OPEN_PATHS = ("/metrics", "/healthz", "/readyz")
LANGUAGE = "Accept-Language: en"


@pytest.mark.parametrize(
    ("status", "headers"),
    [
        # Prometheus 3, a load balancer, curl: by whatever name.
        (200, ("Host: board7.fleet.example:9797", "User-Agent: Prometheus/3.5.0")),
        (200, ("Host: board7.fleet.example", "X-Prometheus-Scrape-Timeout-Seconds: 5")),
        (200, ("Host: x", "User-Agent: kube-probe/1.33", "Accept-Encoding: gzip")),
        # A person who looks at it.
        (200, ("Host: 127.0.0.1:9797", LANGUAGE, "User-Agent: Mozilla/5.0 (X11)")),
        (200, ("Host: localhost", LANGUAGE, "Sec-Fetch-Site: none")),
        (200, ("Host: localhost:1", LANGUAGE, "Origin: http://localhost:1")),
        # A page whose own name was made to point here: same-origin to the browser,
        # which says so over TLS and to localhost only.
        (421, ("Host: evil.example:9797", LANGUAGE)),
        (421, ("Host: evil.example:9797", "Accept-Language:")),
        (421, ("Host: evil.example", "User-Agent: Mozilla/5.0 (X11; Linux x86_64)")),
        (421, ("Host: evil.example", "Referer: http://evil.example/")),
        (421, ("Host: evil.example", "Sec-Fetch-Site: same-origin")),
        (421, ("Host: evil.example", "Sec-Fetch-Mode: cors")),
        (421, ("Host: evil.example", "Sec-Fetch-Dest: empty")),
        (421, ("Host: evil.example:1", "Origin: http://evil.example:1")),
        # Another site's page.
        (403, ("Host: 127.0.0.1:9797", "Sec-Fetch-Site: cross-site")),
        (403, ("Host: localhost", "Sec-Fetch-Site: same-site")),
        (403, ("Host: 127.0.0.1:9797", "Origin: http://evil.example")),
        (403, ("Host: localhost:9797", "Origin: null")),
    ],
)
def test_browsers_read_it_by_its_own_name_only(
    tmp_path: Path, status: int, headers: tuple[str, ...]
) -> None:
    """Programs by any; what is refused shows nothing of the board."""

    async def story() -> None:
        async with listening(tmp_path) as listener:
            for path in OPEN_PATHS:
                reply = await listener.ask(path, *headers)
                assert (path, reply.status) == (path, status)
                assert (b"error" in reply.body) == (status != 200)
                assert len(reply.body) < 100 or status == 200

    run(story)


def test_healthz_is_ok_even_if_nothing_is_ready(tmp_path: Path) -> None:
    """Health is the daemon's; readiness is the pipelines'."""
    facts = FixedFacts(agent(pipeline(ready=False, reason="crash")))

    async def story() -> None:
        async with listening(tmp_path, facts) as listener:
            health = await listener.get("/healthz")
            ready = await listener.get("/readyz")
        assert (health.status, health.body) == (200, b"ok\n")
        assert ready.status == 503

    run(story)


def test_readyz_says_what_is_not_ready(tmp_path: Path) -> None:
    """The body names each pipeline and the reason."""
    gate = pipeline("gate", ready=False, reason="no_model")
    facts = FixedFacts(agent(pipeline("door"), gate))

    async def story() -> None:
        async with listening(tmp_path, facts) as listener:
            reply = await listener.get("/readyz")
        assert json.loads(reply.body) == {
            "ready": False,
            "pipelines": {
                "door": {"ready": True, "reason": ""},
                "gate": {"ready": False, "reason": "no_model"},
            },
        }

    run(story)


def test_readyz_is_200_once_all_are_ready(tmp_path: Path) -> None:
    """The answer follows the snapshot, not what was true at the start."""
    facts = FixedFacts(agent(pipeline(ready=False)))

    async def story() -> None:
        async with listening(tmp_path, facts) as listener:
            before = await listener.get("/readyz")
            facts.shown = agent(pipeline(ready=True))
            after = await listener.get("/readyz")
        assert (before.status, after.status) == (503, 200)

    run(story)


def test_state_is_for_the_socket_only(tmp_path: Path) -> None:
    """The unix socket shows everything; the TCP port does not know the path."""

    async def story() -> None:
        async with listening(tmp_path) as listener:
            shown = await listener.get("/v1/state", unix=True)
            hidden = await listener.get("/v1/state")
            metrics = await listener.get("/metrics", unix=True)
        assert (shown.status, hidden.status, metrics.status) == (200, 404, 200)
        state = json.loads(shown.body)
        assert state["pipelines"]["door"]["worker"]["pid"] == 4711
        assert state["update"]["last_refusal"]["reason"] == "signature"

    run(story)


def test_the_socket_is_private_and_removed(tmp_path: Path) -> None:
    """0600 while it listens; gone when it has closed."""

    async def story() -> None:
        async with listening(tmp_path) as listener:
            mode = listener.path.stat().st_mode
            assert stat.S_ISSOCK(mode)
            assert stat.S_IMODE(mode) == 0o600
        assert not listener.path.exists()

    run(story)


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
def test_nothing_but_reading_is_a_method(method: str, tmp_path: Path) -> None:
    """Anything else is told so and changes nothing."""

    async def story() -> None:
        async with listening(tmp_path) as listener:
            peer = await listener.tcp()
            await peer.send(f"{method} /metrics HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            reply = await peer.reply()
        assert (reply.status, reply.headers["Allow"]) == (405, "GET,HEAD")

    run(story)


@pytest.mark.parametrize("path", ["/metrics", "/healthz", "/readyz"])
def test_head_asks_for_everything_but_the_body(path: str, tmp_path: Path) -> None:
    """Probes that only want the status get that of GET, its length, and no body."""

    async def story() -> None:
        async with listening(tmp_path) as listener:
            replies = []
            for method in ("GET", "HEAD"):
                peer = await listener.tcp()
                await peer.send(f"{method} {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
                replies.append(await peer.reply())
        got, headed = replies
        assert (headed.status, headed.body) == (got.status, b"")
        assert headed.headers["Content-Length"] != "0"

    run(story)


def test_errors_repeat_nothing_of_the_request(tmp_path: Path) -> None:
    """A path is not echoed: what a peer sends stays out of answers."""

    async def story() -> None:
        async with listening(tmp_path) as listener:
            reply = await listener.get("/<script>secret")
        assert reply.status == 404
        assert json.loads(reply.body) == {"error": "Not Found"}

    run(story)


@pytest.mark.parametrize(
    "raw",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET\r\n\r\n",
        b"GET /metrics HTTP/9.9\r\n\r\n",
        b"GET /metrics HTTP/1.1\r\nHost x\r\n\r\n",
        b"GET /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"\x00" * 100 + b"\r\n\r\n",
    ],
    ids=["tls", "no path", "version", "header", "length", "zeros"],
)
def test_what_is_no_http_is_refused(raw: bytes, tmp_path: Path) -> None:
    """A broken request gets 400 or nothing, and the next one is answered."""

    async def story() -> None:
        async with listening(tmp_path, gate=Gate(life_s=1.0)) as listener:
            peer = await listener.tcp()
            await peer.send(raw)
            answer = await peer.reader.read()
            peer.writer.close()
            assert answer == b"" or answer.split()[1] == b"400"
            assert (await listener.get("/healthz")).status == 200

    run(story)


def test_one_connection_carries_one_request(tmp_path: Path) -> None:
    """A second request on the same connection is not answered."""

    async def story() -> None:
        async with listening(tmp_path) as listener:
            peer = await listener.tcp()
            await peer.send(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n" * 2)
            raw = await peer.reader.read()
            peer.writer.close()
        assert raw.count(b"HTTP/1.1 200") == 1
        assert b"Connection: close" in raw

    run(story)


def test_a_large_request_is_cut_off(tmp_path: Path) -> None:
    """Headers beyond the limit end the connection before they fill the memory."""

    async def story() -> None:
        async with listening(tmp_path) as listener:
            peer = await listener.tcp()
            await peer.send(b"GET /healthz HTTP/1.1\r\nX: " + b"x" * MAX_REQUEST_BYTES)
            reply = await peer.reply()
        assert reply.status == 431

    run(story)


def test_an_endless_body_is_cut_off(tmp_path: Path) -> None:
    """A body nobody asked for is neither kept nor waited for."""

    async def story() -> None:
        async with listening(tmp_path, gate=Gate(life_s=5.0)) as listener:
            peer = await listener.tcp()
            head = b"POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 99999\r\n\r\n"
            await peer.send(head)
            reply = await peer.reply()
        assert reply.status == 405

    run(story)


def test_a_slow_client_loses_its_place(tmp_path: Path) -> None:
    """Who sends a byte now and then is cut off, and its place is free again."""

    async def story() -> None:
        gate = Gate(life_s=0.2, places=1)
        async with listening(tmp_path, gate=gate) as listener:
            peer = await listener.tcp()
            await peer.send(b"G")
            with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
                await peer.reader.readexactly(1)
            peer.writer.close()
            assert (await listener.get("/healthz")).status == 200

    run(story)


def test_a_client_that_reads_nothing_loses_its_place(tmp_path: Path) -> None:
    """An answer that nobody takes does not hold its buffer for ever."""
    facts = FixedFacts(
        agent(*(pipeline(f"p{n}") for n in range(200))), Exposition(EVERYTHING)
    )

    async def story() -> None:
        gate = Gate(life_s=0.5)
        async with listening(tmp_path, facts, gate) as listener:
            bound = listener.endpoint.bound()
            assert bound is not None
            deaf = socket.socket()
            deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            deaf.setblocking(False)
            loop = asyncio.get_running_loop()
            await loop.sock_connect(deaf, bound)
            await loop.sock_sendall(deaf, b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
            await until(lambda: gate.taken > 0)
            await until(lambda: gate.taken == 0)
            deaf.close()

    run(story)


def test_a_full_house_is_told_so(tmp_path: Path) -> None:
    """Beyond the limit a peer gets 503 at once; a place that is freed is taken."""

    async def story() -> None:
        gate = Gate(places=2)
        async with listening(tmp_path, gate=gate) as listener:
            sitting = [await listener.tcp(), await listener.tcp()]
            await until(lambda: gate.taken == 2)
            refused = await listener.get("/healthz")
            assert (refused.status, refused.headers["Retry-After"]) == (503, "10")
            sitting[0].writer.close()
            await until(lambda: gate.taken < 2)
            assert (await listener.get("/healthz")).status == 200
            sitting[1].writer.close()

    run(story)


def test_many_scrapes_leave_no_place_taken(tmp_path: Path) -> None:
    """Each connection frees its place, however many there were."""

    async def story() -> None:
        gate = Gate(places=4)
        async with listening(tmp_path, gate=gate) as listener:
            for _ in range(20):
                assert (await listener.get("/readyz")).status == 200
            await until(lambda: gate.taken == 0)

    run(story)


def test_an_address_in_use_is_named(tmp_path: Path) -> None:
    """The operator reads which address and why."""

    async def story() -> None:
        async with listening(tmp_path) as listener:
            bound = listener.endpoint.bound()
            assert bound is not None
            listen = f"{bound[0]}:{bound[1]}"
            second = LocalEndpoint(FixedFacts(), listen, tmp_path / "second.sock")
            with pytest.raises(DeviceError, match=listen) as caught:
                await second.open()
            await second.close()
        assert caught.value.reason == Reason.ADDRESS

    run(story)


def test_a_socket_in_use_is_left_alone(tmp_path: Path) -> None:
    """A second daemon neither takes over nor removes the first one's socket."""

    async def story() -> None:
        async with listening(tmp_path) as listener:
            second = LocalEndpoint(FixedFacts(), "", listener.path)
            with pytest.raises(DeviceError, match="another daemon") as caught:
                await second.open()
            await second.close()
            assert (await listener.get("/healthz", unix=True)).status == 200
        assert caught.value.reason == Reason.ADDRESS

    run(story)


def test_an_abandoned_socket_is_taken_over(tmp_path: Path) -> None:
    """After kill -9 the file is still there; the next start works."""
    left = socket.socket(socket.AF_UNIX)
    left.bind(str(tmp_path / "control.sock"))
    left.close()

    async def story() -> None:
        async with listening(tmp_path) as listener:
            assert (await listener.get("/healthz", unix=True)).status == 200

    run(story)


def test_a_file_in_the_way_is_kept(tmp_path: Path) -> None:
    """What is no socket is somebody's file."""
    path = tmp_path / "control.sock"
    path.write_text("mine")

    async def story() -> None:
        endpoint = LocalEndpoint(FixedFacts(), "", path)
        with pytest.raises(DeviceError, match="a file of this name"):
            await endpoint.open()
        await endpoint.close()

    run(story)
    assert path.read_text() == "mine"


@pytest.mark.parametrize("name", ["missing/control.sock", "x" * 200])
def test_an_impossible_socket_is_named(name: str, tmp_path: Path) -> None:
    """A directory that is not there, or a path too long for the kernel."""

    async def story() -> None:
        endpoint = LocalEndpoint(FixedFacts(), "", tmp_path / name)
        with pytest.raises(DeviceError) as caught:
            await endpoint.open()
        await endpoint.close()
        assert caught.value.reason == Reason.ADDRESS

    run(story)


def test_it_listens_until_cancelled(tmp_path: Path) -> None:
    """``run`` opens, serves, and closes when its task is cancelled."""
    path = tmp_path / "control.sock"
    endpoint = LocalEndpoint(FixedFacts(), "", path)

    async def story() -> None:
        async with asyncio.timeout(WAIT_S), asyncio.TaskGroup() as group:
            task = group.create_task(endpoint.run())
            await until(lambda: accepts(path))
            reply = await Listener(endpoint, path).get("/healthz", unix=True)
            assert reply.status == 200
            assert endpoint.bound() is None
            task.cancel()
        assert not path.exists()

    run(story)
