"""The control listener: the API over TLS 1.3, for peers with a client certificate.

The rules this module keeps:
 * Nothing of HTTP is read before TLS has named the peer.
 * Handshakes are few, short and evenly shared: a newcomer displaces the oldest one of
   the address that has the most. Connections that say nothing keep nobody out.
 * A certificate that cannot be used is logged and closes connections, until it can be:
   a board whose operators are locked out goes on to answer samples.
"""

import asyncio
import errno
import logging
import ssl
from collections.abc import Callable
from socket import SO_REUSEADDR, SOL_SOCKET, socket
from typing import NoReturn

from agent.core.reasons import Reason
from agent.endpoint.doorstep import HANDSHAKE_S, Doorstep
from agent.endpoint.needs import Facts
from agent.endpoint.peers import Peer, check_revoked, check_valid, identify
from agent.endpoint.rate import Rate
from agent.endpoint.routes import Api
from agent.endpoint.services import Services
from agent.endpoint.serving import Serving
from agent.endpoint.tls import Credentials
from agent.endpoint.visits import Visits
from agent.errors import DeviceError
from agent.settings import ControlSettings

log = logging.getLogger(__name__)
# asyncio keeps 256 KiB for each TLS connection: these take 8 MB if all are open.
MAX_VISITS = 24
MAX_VISITS_PER_PEER = 4
BACKLOG = 128
SHUTDOWN_S = 1.0  # a peer that does not say good-bye is left
# "Accepting failed, and may succeed soon": too many files, no memory.
OVERLOADED = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
OVERLOADED_S = 0.2
Factory = Callable[[], asyncio.Protocol]


class ControlEndpoint:
    """Listens for operators and fleet servers.

    Args:
        facts: What is shown.
        services: What can be done.
        settings: Address and files of ``[control]``.
        clock: Unix seconds; the system's time or the clock floor, whichever is later.
        rate: How often each certificate may ask.

    Attributes:
        visits: The connections that are open; ``doorstep`` those that shake hands.
    """

    def __init__(
        self,
        facts: Facts,
        services: Services,
        settings: ControlSettings,
        clock: Callable[[], float],
        rate: Rate | None = None,
    ) -> None:
        self._revoked = services.revoked
        self._clock = clock
        self._listen = settings.listen
        self._credentials = Credentials(settings, clock)
        self.visits = Visits(_identify, MAX_VISITS, MAX_VISITS_PER_PEER)
        api = Api(facts, services)
        self._serving = Serving(api, self.visits, self._judge, rate or Rate())
        self.doorstep = Doorstep()
        self._socket: socket | None = None

    def bound(self) -> tuple[str, int] | None:
        """Return the (host, port) it listens on; None before ``open``."""
        if self._socket is None:
            return None
        name: tuple[str, int] = self._socket.getsockname()[:2]
        return name

    async def run(self) -> NoReturn:
        """Listen until cancelled, then close.

        Raises:
            DeviceError: ``address``: the address cannot be used.
        """
        try:
            await self.open()
            factory = await self._serving.open()
            async with asyncio.TaskGroup() as group:
                await self._accept(group, factory)
        finally:
            await self.close()

    async def open(self) -> None:
        """Start to listen; what connects is answered once ``run`` runs.

        Raises:
            DeviceError: ``address``: the address cannot be used.
        """
        if self._socket is not None:
            return
        host, _, port = self._listen.rpartition(":")
        loop = asyncio.get_running_loop()
        try:
            found = await loop.getaddrinfo(host.strip("[]"), int(port))
            self._socket = _bind(found[0][0], found[0][4])
        except OSError as err:
            raise DeviceError(
                f"cannot listen on {self._listen}: {err.strerror or err}",
                reason=Reason.ADDRESS,
                todo="Choose a free address of this board in `control.listen`.",
            ) from err
        self._credentials.current()  # a wrong file is reported now, not to a client

    async def close(self) -> None:
        """Stop listening; what is being answered gets a second to end."""
        if self._socket is not None:
            self._socket.close()
        self._socket = None
        await self._serving.close()

    async def _accept(self, group: asyncio.TaskGroup, factory: Factory) -> NoReturn:
        """Let connections come to the doorstep, one after the other."""
        loop = asyncio.get_running_loop()
        while True:
            if self._socket is None:
                raise RuntimeError("accepts without listening")
            try:
                peer, address = await loop.sock_accept(self._socket)
            except OSError as err:
                if err.errno in OVERLOADED:
                    log.warning("control.overloaded", extra={"pause_s": OVERLOADED_S})
                    await asyncio.sleep(OVERLOADED_S)
                elif err.errno == errno.EBADF:
                    raise  # closed under us: everything else is one connection's end
                continue
            context = self._credentials.current()
            if context is None:
                peer.close()
                continue
            task = group.create_task(_greet(peer, context, factory))
            self.doorstep.add(task, address[0])
            # Also lets the new task begin: from here on it closes its socket itself.
            await asyncio.sleep(0)

    def _judge(self, peer: Peer) -> None:
        """Check a certificate as of now.

        Raises:
            RequestRefusedError: ``certificate``.
        """
        check_valid(peer, self._clock(), self._credentials.anchors)
        check_revoked(peer, self._revoked)


async def _greet(peer: socket, context: ssl.SSLContext, factory: Factory) -> None:
    """Shake hands; a peer that cannot, or does not in time, is left."""
    loop = asyncio.get_running_loop()
    try:
        await loop.connect_accepted_socket(
            factory,
            peer,
            ssl=context,
            ssl_handshake_timeout=HANDSHAKE_S,
            ssl_shutdown_timeout=SHUTDOWN_S,
        )
    except OSError as err:  # SSLError, timeouts and lost connections are some
        log.debug("control.handshake", extra={"detail": type(err).__name__})


def _identify(transport: asyncio.BaseTransport) -> Peer:
    """Name the peer of a TLS connection.

    Raises:
        ValueError: TLS let somebody in without a certificate.
    """
    tls: ssl.SSLObject = transport.get_extra_info("ssl_object")
    certificate = tls.getpeercert()
    der = tls.getpeercert(binary_form=True)
    if not certificate or der is None:
        raise ValueError("no client certificate")
    return identify(certificate, der)


def _bind(family: int, address: tuple[object, ...]) -> socket:
    """Return a socket that listens.

    Raises:
        OSError: The address cannot be used.
    """
    listener = socket(family)
    try:
        listener.setsockopt(SOL_SOCKET, SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(BACKLOG)
    except OSError:
        listener.close()
        raise
    listener.setblocking(False)
    return listener
