"""Targets over HTTP (Prometheus http_sd), read anew when the inventory changes.

The rules this module keeps:
 * An inventory that is wrong is answered with 503: Prometheus keeps the targets it has,
   and counts the failure (``prometheus_sd_http_failures_total``).
 * Only a name of this machine is answered: a web page that lets its own name point here
   (DNS rebinding) reads nothing.
 * Connections are few and short, as on a board (``agent.endpoint.guard``): a request
   that never ends is cut off, and cannot keep Prometheus out for long.
"""

import asyncio
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path
from socket import gethostname

import click
from aiohttp import web

from agent.core.addresses import Place
from agent.core.reasons import Reason
from agent.endpoint.guard import Gate
from agent.endpoint.origins import is_own_name, own_names
from agent.errors import AgentError, DeviceError

Stamp = tuple[int, int, int]
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
LEAVE_S = 1.0  # a target list is written at once; the guard ends the rest anyway


class Targets:
    """What is answered: the inventory's targets, as of its last change.

    Args:
        inventory: The file.
        render: Reads it and returns its targets as JSON; raises ``SettingsError``.
    """

    def __init__(self, inventory: Path, render: Callable[[], str]) -> None:
        self._inventory = inventory
        self._render = render
        # By which another machine's Prometheus calls this one, if it may.
        self._names = own_names(gethostname())
        self._stamp: Stamp | None = None
        self._text = ""

    def text(self) -> str:
        """Return the targets as JSON.

        Raises:
            SettingsError: The inventory is wrong, or gone.
        """
        stamp = self._look()
        if stamp is None or stamp != self._stamp:
            self._text, self._stamp = self._render(), stamp
        return self._text

    def _look(self) -> Stamp | None:
        """Return what changes with the file; None where it cannot be seen."""
        try:
            seen = self._inventory.stat()
        except OSError:
            return None
        return seen.st_mtime_ns, seen.st_size, seen.st_ino

    async def answer(self, request: web.Request) -> web.Response:
        """Answer Prometheus."""
        if not is_own_name(request.headers.get("Host"), self._names):
            return web.Response(status=421, text="not by this name\n")
        try:
            text = self.text()
        except AgentError as err:
            click.echo(f"error: {err} [{err.reason}]", err=True)
            return web.Response(status=503, text=f"{err}\n")
        return web.Response(text=text, content_type="application/json")


def serve_targets(inventory: Path, render: Callable[[], str], place: Place) -> None:
    """Answer until Ctrl-C or SIGTERM.

    Args:
        inventory: The file, whose changes are seen.
        render: Reads it and returns its targets as JSON.
        place: Where to listen; port 0 for any that is free.

    Raises:
        DeviceError: It cannot be listened there.
    """
    asyncio.run(_serve(Targets(inventory, render), place))


async def _serve(targets: Targets, place: Place) -> None:
    """Listen, say where, and wait for the end."""
    app = web.Application(middlewares=[_close_after])
    app.router.add_get("/", targets.answer)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=LEAVE_S)
    await runner.setup()
    try:
        server = await _listen(runner, place)
        ended = asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, ended.set)
        await ended.wait()
        server.close()
    finally:
        await runner.cleanup()


@web.middleware
async def _close_after(request: web.Request, handler: Handler) -> web.StreamResponse:
    """End the connection with its answer: the guard counts by connection."""
    response = await handler(request)
    response.force_close()
    return response


async def _listen(runner: web.AppRunner, place: Place) -> asyncio.Server:
    """Listen behind a guard, and say where."""
    if runner.server is None:
        raise DeviceError("aiohttp built no server", reason=Reason.INTERNAL)
    guarded = Gate().guard(runner.server)
    try:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(guarded, place.host, place.port)
    except OSError as err:
        raise DeviceError(
            f"cannot listen on {place}: {err.strerror or err}",
            reason=Reason.ADDRESS,
            todo="Choose another port, or end what listens there.",
        ) from err
    port = server.sockets[0].getsockname()[1]
    click.echo(f"serving targets on http://{Place(place.host, port)}/", err=True)
    return server
