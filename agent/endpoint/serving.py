"""What stands between aiohttp and the API: who asks, how often, and what they may.

The rules this module keeps:
 * In this order: rate, certificate, role, body. Who may not ask is told so before
   anything of its body is read.
 * Whatever happens, the answer says it as a problem and the connection goes on or ends
   in a known state.
 * Orders are logged with who gave them and how they ended; reading is not.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection

from aiohttp import web
from aiohttp.typedefs import Middleware

from agent.core.reasons import Reason
from agent.endpoint.asks import Ask
from agent.endpoint.origins import check_host, check_order
from agent.endpoint.peers import Access, Peer, check_access
from agent.endpoint.problems import (
    answer_bug,
    answer_error,
    answer_http,
    answer_limited,
)
from agent.endpoint.rate import Rate
from agent.endpoint.routes import Api, Route
from agent.endpoint.state import render_json
from agent.endpoint.visits import IDLE_S, LINGER_S, Visits
from agent.errors import AgentError, DeviceError, RequestRefusedError

log = logging.getLogger(__name__)
LEAVE_S = 1.0  # how long an answer under way may take when the agent stops
Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Serving:
    """The API behind one listener.

    Args:
        api: What answers.
        visits: The listener's connections.
        judge: Raises ``RequestRefusedError`` for a peer that is not let in any more.
        rate: How often each peer may ask; None for as often as it likes.
    """

    def __init__(
        self,
        api: Api,
        visits: Visits,
        judge: Callable[[Peer], None],
        rate: Rate | None = None,
    ) -> None:
        self._api = api
        self._visits = visits
        self._judge = judge
        self._rate = rate
        self._runner: web.AppRunner | None = None
        # Paths beside the API's, which need no more than a connection.
        self.extra: dict[str, Answer] = {}
        # The board's names, where no certificate proves which one was meant.
        self.names: Collection[str] | None = None

    async def open(self) -> Callable[[], asyncio.Protocol]:
        """Return the protocol factory for the listener's connections."""
        app = web.Application(middlewares=[self._middleware()])
        app.on_shutdown.append(self._api.live.end)
        for route in self._api.routes():
            self._add(app, route.method, route.path, self._serve(route))
        for path, answer in self.extra.items():
            self._add(app, "GET", path, answer)
        self._runner = web.AppRunner(
            app,
            access_log=None,
            auto_decompress=False,  # a kilobyte would become a gigabyte
            keepalive_timeout=IDLE_S,
            lingering_time=LINGER_S,
            shutdown_timeout=LEAVE_S,
        )
        await self._runner.setup()
        server = self._runner.server
        if server is None:
            raise DeviceError("aiohttp built no server", reason=Reason.INTERNAL)
        return self._visits.begin(server)

    async def close(self) -> None:
        """End all connections; what is being answered gets a second."""
        if self._runner is not None:
            await self._runner.cleanup()
        self._visits.abort()
        self._runner = None

    def _add(self, app: web.Application, method: str, path: str, do: Answer) -> None:
        """Add a path; where it can be read, its headers alone can be as well."""
        for verb in ("GET", "HEAD") if method == "GET" else (method,):
            app.router.add_route(verb, path, do, expect_handler=_invite_later)

    def _middleware(self) -> Middleware:
        """Return what runs around every request."""

        @web.middleware
        async def around(request: web.Request, handler: Answer) -> web.StreamResponse:
            visit = self._visits.of(request.protocol)
            if visit is None:
                return answer_bug()  # it was cut off while this request waited
            visit.began()
            whole = False
            try:
                response = await self._answer(request, visit.peer, handler)
                whole = request.content.is_eof()
            finally:
                visit.ended(whole=whole)
            if not whole:
                response.force_close()
            response.headers["Server"] = "tinyward"
            response.headers["X-Content-Type-Options"] = "nosniff"
            return response

        return around

    async def _answer(
        self, request: web.Request, peer: Peer, handler: Answer
    ) -> web.StreamResponse:
        """Answer one request, come what may."""
        try:
            wait_s = self._wait_s(peer)
            if wait_s > 0:
                return answer_limited(wait_s)
            self._judge(peer)
            _check_expectation(request)
            return await handler(request)
        except AgentError as err:
            return answer_error(err, self._api.phase())
        except web.HTTPException as err:
            return answer_http(err)
        except ConnectionError:
            return _lost(self._api.phase())
        except Exception:  # a request's boundary: the daemon and its models go on
            log.exception("control.bug")
            return answer_bug()

    def _serve(self, route: Route) -> Answer:
        """Return what answers a route for who may, and logs orders."""

        async def serve(request: web.Request) -> web.StreamResponse:
            visit = self._visits.of(request.protocol)
            if visit is None:
                raise ConnectionResetError
            ask, reason = Ask(request, visit.peer), str(Reason.INTERNAL)
            try:
                check_access(ask.peer, route.access)
                self._check_place(request, route)
                value = await route.answer(ask)
                reason = ""
            except AgentError as err:
                reason = err.reason
                raise
            finally:
                if route.access is Access.OPERATE:
                    _log_order(route, ask.peer, reason)
            if isinstance(value, web.StreamResponse):
                return value
            return _show(value, route.status)

        return serve

    def _check_place(self, request: web.Request, route: Route) -> None:
        """Check that no other site's page speaks through a browser.

        Raises:
            RequestRefusedError: It does.
        """
        if route.access is Access.OPERATE:
            check_order(request, self.names)
        elif route.browser and self.names is not None:
            check_host(request, self.names)

    def _wait_s(self, peer: Peer) -> float:
        """Return how long a peer has to wait before it asks again."""
        if self._rate is None:
            return 0.0
        return self._rate.take(peer.key, asyncio.get_running_loop().time())


async def _invite_later(request: web.Request) -> None:
    """Leave ``Expect: 100-continue`` until we know that we want the body."""
    del request


def _check_expectation(request: web.Request) -> None:
    """Check that a client expects nothing else than to be asked for its body.

    Raises:
        HTTPExpectationFailed: It does.
    """
    if request.headers.get("Expect", "100-continue").lower() != "100-continue":
        raise web.HTTPExpectationFailed


def _log_order(route: Route, peer: Peer, reason: str) -> None:
    """Say who ordered what, and how that ended."""
    log.log(
        logging.DEBUG if route.quiet and not reason else logging.INFO,
        "control.order",
        extra={
            "operator": peer.name,
            "serial": peer.serial,
            "order": f"{route.method} {route.path}",
            "reason": reason,
        },
    )


def _show(value: object, status: int) -> web.Response:
    """Return a value as JSON that nobody keeps; None as an answer without a body."""
    kept = {"Cache-Control": "no-store"}
    if value is None:
        return web.Response(status=status, headers=kept)
    return web.Response(
        body=render_json(value),
        status=status,
        content_type="application/json",
        headers=kept,
    )


def _lost(phase: str) -> web.Response:
    """Return an answer that nobody reads: the peer has gone."""
    gone = RequestRefusedError("the peer has gone", reason=Reason.REQUEST)
    return answer_error(gone, phase)
