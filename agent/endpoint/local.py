"""The local listener: the page, ``/metrics``, ``/healthz``, ``/readyz``; plain HTTP.

On the unix socket, which only the daemon's user can open, also the whole API.

The rules this module keeps:
 * Over TCP: GET and HEAD only; no body is read; errors say ``{"error": ...}`` and
   nothing of the request. On the socket its user is the operator ``local``.
 * ``/healthz`` says that the daemon's loop turns; ``/readyz`` that every pipeline has
   answered with a verified model and its worker lives.
 * The page and its stream answer only to names that no stranger can own; the others to
   any name, but to a browser as the page does.
 * The socket is 0600 before it listens.
"""

import asyncio
import stat
from collections.abc import Awaitable, Callable
from pathlib import Path
from socket import AF_UNIX, SOCK_STREAM, gethostname, socket
from typing import NoReturn

from aiohttp import web

from agent.core.reasons import Reason
from agent.endpoint.guard import Gate, Guard
from agent.endpoint.live import Live
from agent.endpoint.needs import Facts
from agent.endpoint.origins import check_host, check_reader, check_scrape, own_names
from agent.endpoint.pages import answer_page
from agent.endpoint.peers import LOCAL, Peer
from agent.endpoint.problems import status_of
from agent.endpoint.routes import Api
from agent.endpoint.services import Services
from agent.endpoint.serving import Serving
from agent.endpoint.state import describe_readiness, is_ready, render_json
from agent.endpoint.visits import Visits
from agent.errors import DeviceError, RequestRefusedError

MAX_VISITS = 16  # of the command line, at once, on the unix socket
LEAVE_S = 1.0  # how long an answer under way may take when the agent stops
Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


class LocalEndpoint:
    """Listens on an address and on a unix socket.

    Args:
        facts: Where answers come from.
        listen: ``host:port`` (port 0: any free one, IPv6 in brackets), empty for none.
        socket_path: The unix socket.
        gate: Limits of the address.
        services: What can be done over the socket; without, it only shows.

    Attributes:
        live: What tells pages at the address.
    """

    def __init__(
        self,
        facts: Facts,
        listen: str,
        socket_path: Path,
        gate: Gate | None = None,
        services: Services | None = None,
    ) -> None:
        self._facts = facts
        self._listen = listen
        self._path = socket_path
        self._gate = gate or Gate()
        visits = Visits(lambda _: LOCAL, MAX_VISITS, MAX_VISITS)
        services = services or Services()
        api = Api(facts, services)
        # Strangers' viewers on the address take no operator's place on the socket.
        self.live = Live(facts, services)
        self._names = own_names(gethostname())
        self._serving = Serving(api, visits, _let_in)
        self._serving.extra = {"/healthz": self._healthz, "/readyz": self._readyz}
        self._serving.names = self._names
        self._servers: list[asyncio.Server] = []
        self._runners: list[web.AppRunner] = []
        self._inode = 0
        self._bound: tuple[str, int] | None = None

    def bound(self) -> tuple[str, int] | None:
        """Return the (host, port) it listens on; None before ``open`` or without."""
        return self._bound

    async def run(self) -> NoReturn:
        """Listen until cancelled, then close.

        Raises:
            DeviceError: ``address``: the address or socket cannot be used.
        """
        try:
            if not self._servers:
                await self.open()
            while True:
                await asyncio.get_running_loop().create_future()
        finally:
            await self.close()

    async def open(self) -> None:
        """Start to listen.

        Raises:
            DeviceError: ``address``: the address or socket cannot be used.
        """
        loop = asyncio.get_running_loop()
        if self._listen:
            host, _, port = self._listen.rpartition(":")
            factory = await self._protocols()
            try:
                server = await loop.create_server(factory, host.strip("[]"), int(port))
            except OSError as err:
                raise _unusable(self._listen, err) from err
            self._servers.append(server)
            self._bound = server.sockets[0].getsockname()[:2]
        factory = await self._serving.open()
        bound = _bind(self._path)
        self._inode = self._path.stat().st_ino
        self._servers.append(await loop.create_unix_server(factory, sock=bound))

    async def close(self) -> None:
        """Stop listening; what is being answered gets a second to end."""
        for server in self._servers:
            server.close()
        for runner in self._runners:
            await runner.cleanup()
        await self._serving.close()
        if self._servers and _inode(self._path) == self._inode:
            self._path.unlink(missing_ok=True)
        self._servers, self._runners, self._bound = [], [], None

    async def _protocols(self) -> Callable[[], asyncio.Protocol]:
        """Build what answers connections: aiohttp's protocol behind a guard."""
        app = web.Application(middlewares=[_close_after])
        app.router.add_get("/metrics", self._metrics)
        app.router.add_get("/healthz", self._healthz)
        app.router.add_get("/readyz", self._readyz)
        app.router.add_get("/", self._page)
        app.router.add_get("/v1/live", self._follow)
        app.on_shutdown.append(self.live.end)
        runner = web.AppRunner(
            app, access_log=None, shutdown_timeout=LEAVE_S, lingering_time=0.0
        )
        await runner.setup()
        self._runners.append(runner)
        server = runner.server
        if server is None:
            raise DeviceError("aiohttp built no server", reason=Reason.INTERNAL)
        return self._gate.guard(server)

    async def _metrics(self, request: web.Request) -> web.Response:
        """Answer a scrape in the format it asks for."""
        check_scrape(request, self._names)
        content_type, body = self._facts.metrics(request.headers.get("Accept", ""))
        return web.Response(body=body, headers={"Content-Type": content_type})

    async def _healthz(self, request: web.Request) -> web.Response:
        """The loop turns, or nobody would read this."""
        check_scrape(request, self._names)
        return web.Response(text="ok\n")

    async def _page(self, request: web.Request) -> web.StreamResponse:
        """Show the page, which only shows."""
        check_host(request, self._names)
        return answer_page(operator=False)

    async def _follow(self, request: web.Request) -> web.StreamResponse:
        """Stream to a page; its connection may live longer than others."""
        check_host(request, self._names)
        check_reader(request)
        guard = request.transport.get_protocol() if request.transport else None
        if isinstance(guard, Guard):
            guard.stay(self.live.life_s + self.live.slow_s)
        return await self.live.answer(request)

    async def _readyz(self, request: web.Request) -> web.Response:
        """Say what is not ready, and why."""
        check_scrape(request, self._names)
        agent = self._facts.snapshot()
        return _json(describe_readiness(agent), 200 if is_ready(agent) else 503)


def _let_in(peer: Peer) -> None:
    """Who can open the socket is let in."""
    del peer


@web.middleware
async def _close_after(request: web.Request, handler: Answer) -> web.StreamResponse:
    """One connection, one request; errors are JSON and repeat nothing of it."""
    response: web.StreamResponse
    try:
        response = await handler(request)
    except web.HTTPException as err:
        response = _json({"error": err.reason}, err.status)
        if "Allow" in err.headers:
            response.headers["Allow"] = err.headers["Allow"]
    except RequestRefusedError as err:
        response = _json({"error": str(err)}, status_of(err))
    response.headers["Server"] = "tinyward"
    response.force_close()
    return response


def _json(value: object, status: int) -> web.Response:
    """Return a JSON answer that nobody keeps."""
    return web.Response(
        body=render_json(value),
        status=status,
        content_type="application/json",
        headers={"Cache-Control": "no-store"},
    )


def _bind(path: Path) -> socket:
    """Bind a unix socket, 0600, where none is listening; an abandoned one is removed.

    Raises:
        DeviceError: ``address``: someone listens there, or it is no socket.
    """
    unused = socket(AF_UNIX, SOCK_STREAM)
    try:
        _remove_abandoned(path)
        unused.bind(str(path))
        path.chmod(0o600)  # before listen(): nobody can have connected yet
    except OSError as err:
        unused.close()
        raise _unusable(str(path), err) from err
    unused.setblocking(False)
    return unused


def _remove_abandoned(path: Path) -> None:
    """Remove the socket of a daemon that was killed.

    Raises:
        OSError: Someone listens there, or it is no socket.
    """
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise FileExistsError("there is a file of this name")
    with socket(AF_UNIX, SOCK_STREAM) as peer:
        peer.settimeout(LEAVE_S)
        try:
            peer.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
            return
    raise FileExistsError("another daemon listens there")


def _inode(path: Path) -> int:
    """Return the inode at a path; 0 without one."""
    try:
        return path.lstat().st_ino
    except OSError:
        return 0


def _unusable(address: str, err: OSError) -> DeviceError:
    """Return the error for an address that cannot be listened on."""
    return DeviceError(
        f"cannot listen on {address}: {err.strerror or err}", reason=Reason.ADDRESS
    )
