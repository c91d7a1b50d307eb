"""A DDI server on loopback: real HTTP, hawkBit's rules, one board, and lies on demand.

Tests script it from their own thread (``deploy``, ``cancel``, ``replace``, ``change``,
``revoke_token``, ``lose_feedback``) and read what was asked of it. A *lie* stands
between a kind of resource and the honest answer; see ``ddi_lies``.

The rules this module keeps:
 * It answers what hawkBit would, with hawkBit's statuses; that this is not our own
   opinion is held by foreign clients that drive it (``tests/foreign``).
 * Everything that was asked is kept, with its headers: who got a token is visible.
"""

import asyncio
import json
import ssl
import threading
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Self

from aiohttp import web

from tests.fakes.certificates import Pair
from tests.fakes.ddi_access import Access, verified_client
from tests.fakes.ddi_actions import Action, Artifact, Chunk, Json
from tests.fakes.ddi_resources import Ask, Resources

TARGET_KEY = "tuf.target"  # metadata of a module that names a signed bundle
Honest = Callable[[], web.Response]
Lie = Callable[[web.Request, Honest], Awaitable[web.StreamResponse]]
START_S = 20.0
STOP_S = 0.1  # what drips or stalls need not be waited for


@dataclass
class Asked:
    """A request as it came.

    Attributes:
        kind: Which resource (see ``DdiServer.lie``); ``other`` for none of DDI's.
        status: Of the honest answer; 0 if that was not given.
    """

    method: str
    path: str
    kind: str
    headers: dict[str, str]
    body: bytes
    status: int = 0

    @property
    def json(self) -> Json:
        """Return the body."""
        found: Json = json.loads(self.body)
        return found


class DdiServer:
    """A server of one tenant that knows one board.

    Args:
        access: Who is let in.
        tls: Its certificate, if it speaks TLS.
        clients: CA file of client certificates that the proxy before it demands.
        sleep: What it says about polling.

    Attributes:
        shown: What the board is shown, by the rules.
        asked: Every request, in order.
    """

    def __init__(
        self,
        access: Access | None = None,
        *,
        tls: Pair | None = None,
        clients: str = "",
        sleep: str = "00:05:00",
    ) -> None:
        self.shown = Resources(access or Access(), sleep)
        self.asked: list[Asked] = []
        self._context = _context(tls, clients) if tls else None
        self._port = 0
        self._lies: dict[str, list[Lie]] = {}
        self._lock = threading.RLock()
        self._listens = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()))
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None

    # --- life

    @property
    def url(self) -> str:
        """Where it is."""
        return f"{'https' if self._context else 'http'}://127.0.0.1:{self._port}"

    def __enter__(self) -> Self:
        """Start, and return when it listens."""
        self._thread.start()
        assert self._listens.wait(START_S)
        return self

    def __exit__(self, *_: object) -> None:
        """Stop: whoever waits for an answer gets none."""
        assert self._loop is not None
        assert self._stop is not None
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(START_S)

    # --- the script

    def start_afresh(self) -> None:
        """Forget everything: another server at the same address."""
        with self._lock:
            self.shown.__dict__.update(Resources().__dict__)
            self._lies.clear()
            self.asked.clear()

    def deploy(
        self,
        target: str = "",
        artifacts: Sequence[Artifact] = (),
        *,
        confirm: bool = False,
        **fields: str,
    ) -> Action:
        """Order a signed bundle by its path; more fields as in ``Action``."""
        metadata = {TARGET_KEY: target} if target else {}
        if confirm:
            fields["status"] = "WAIT_FOR_CONFIRMATION"
        return self.order(Chunk(metadata=metadata, artifacts=artifacts), **fields)

    def order(self, *chunks: Chunk, **fields: str) -> Action:
        """Order any chunks."""
        with self._lock:
            return self.shown.actions.add(chunks, **fields)

    def cancel(self, action: Action, *, at_once: bool = False) -> None:
        """Cancel an action; ``at_once`` as an operator who forces it."""
        with self._lock:
            self.shown.actions.cancel(action, at_once=at_once)

    def replace(self, target: str, *, at_once: bool = False) -> Action:
        """Order something else instead; ``at_once`` is hawkBit's "autoclose"."""
        with self._lock:
            for action in self.shown.actions.every:
                self.shown.actions.cancel(action, at_once=at_once)
            return self.deploy(target)

    def change(self, action: Action, **fields: str) -> None:
        """Open a window, force what was an attempt: the link changes with it."""
        with self._lock:
            for name, value in fields.items():
                setattr(action, name, value)

    def revoke_token(self, *, revoked: bool = True) -> None:
        """Let the board in no more, or again."""
        with self._lock:
            self.shown.access.revoked = revoked

    def lie(self, kind: str, *lies: Lie | None) -> None:
        """Answer a kind of resource by lies, one after the other; the last one stays.

        ``None`` is the honest answer. Kinds: ``poll configData deploymentBase feedback
        cancelAction cancelFeedback confirmationBase confirmationFeedback installedBase
        artifact``.
        """
        with self._lock:
            self._lies[kind] = [it or _tell_the_truth for it in lies]

    def lose_feedback(self, times: int = 1, *, taken: bool = False) -> None:
        """Lose so many posts, or (``taken``) only the answers to them."""
        self.lie("feedback", *[_lost_answer if taken else _lost] * times, None)

    def tell_the_truth(self) -> None:
        """End all lies."""
        with self._lock:
            self._lies.clear()

    # --- looking

    def kinds(self) -> list[str]:
        """Return the kinds of what was asked, in order."""
        return [it.kind for it in list(self.asked)]

    def count(self, kind: str) -> int:
        """Return how often a kind was asked for."""
        return self.kinds().count(kind)

    # --- HTTP

    async def _serve(self) -> None:
        """Listen until stopped."""
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        application = web.Application()
        application.router.add_route("*", "/{path:.*}", self._answer)
        # A lie that never ends ends with whoever listens to it.
        runner = web.AppRunner(
            application, shutdown_timeout=STOP_S, handler_cancellation=True
        )
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=self._context)
        await site.start()
        self._port = runner.addresses[0][1]
        self._listens.set()
        await self._stop.wait()
        await runner.cleanup()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        """Answer a request, honestly or not."""
        ask = Ask(
            request.method,
            request.path,
            dict(request.query),
            request.headers,
            await request.read(),
            str(request.url.origin()),
            verified_client(request.get_extra_info("ssl_object")),
        )
        kind, status = self.shown.find(ask)[0], 0

        def honest() -> web.Response:
            nonlocal status
            with self._lock:
                response = self.shown.answer(ask)
            status = response.status
            return response

        came = Asked(
            request.method, request.path_qs, kind, dict(request.headers), ask.body
        )
        self.asked.append(came)
        response = await self._next_lie(kind)(request, honest)
        came.status = status
        return response

    def _next_lie(self, kind: str) -> Lie:
        """Return what answers the next request of a kind."""
        with self._lock:
            lies = self._lies.get(kind) or [_tell_the_truth]
            return lies.pop(0) if len(lies) > 1 else lies[0]


def _context(tls: Pair, clients: str) -> ssl.SSLContext:
    """Return how TLS is spoken."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tls.certificate, tls.key)
    if clients:
        context.load_verify_locations(clients)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


async def _tell_the_truth(request: web.Request, honest: Honest) -> web.StreamResponse:
    """Answer honestly."""
    del request
    return honest()


async def _lost(request: web.Request, honest: Honest) -> web.StreamResponse:
    """Take nothing, and hang up."""
    del honest
    return hang_up(request)


async def _lost_answer(request: web.Request, honest: Honest) -> web.StreamResponse:
    """Take it, and hang up."""
    honest()
    return hang_up(request)


def hang_up(request: web.Request) -> web.Response:
    """End a connection without an answer; what is returned goes nowhere."""
    if request.transport is not None:
        request.transport.abort()
    return web.Response()
