"""The control listener: the API over TLS 1.3, for peers with a client certificate.

The rules this module keeps:
 * Nothing of HTTP is read before TLS has named the peer.
 * Handshakes are few, short and evenly shared: a newcomer displaces the oldest one of
   the address that has the most. Connections that say nothing keep nobody out.
 * A certificate that cannot be used is logged and closes connections, until it can be:
   a board whose operators are locked out goes on to answer samples. So it does while
   it waits for an address (DHCP, a name's server) that comes later than itself.
 * Who was let in by a CA that is not pinned any more leaves when the file is read.
"""

import asyncio
import errno
import logging
import ssl
from collections.abc import Callable, Sequence
from contextlib import suppress
from socket import SO_REUSEADDR, SOL_SOCKET, gaierror, socket
from typing import NoReturn

from agent.core.reasons import Reason
from agent.endpoint.doorstep import HANDSHAKE_S, Doorstep
from agent.endpoint.needs import Facts
from agent.endpoint.peers import (
    Anchor,
    Peer,
    check_pinned,
    check_revoked,
    check_valid,
    identify,
    is_pinned,
)
from agent.endpoint.rate import Rate
from agent.endpoint.routes import Api
from agent.endpoint.services import Services
from agent.endpoint.serving import Serving
from agent.endpoint.tls import Credentials, chain_of
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
# "This board has no such address, and may soon have it"; a name is resolved anew.
ABSENT = (errno.EADDRNOTAVAIL, errno.ENETDOWN, errno.ENODEV)
ADDRESS_S = 5.0  # DHCP takes seconds, a mobile network half a minute
Factory = Callable[[], asyncio.Protocol]


class ControlEndpoint:
    """Listens for operators and fleet servers.

    Args:
        facts: What is shown.
        services: What can be done.
        settings: Address and files of ``[control]``.
        clock: Unix seconds; the system's time, or the certificate floor if that is
            later: what has ended by then is refused.
        rate: How often each certificate may ask.
        earliest: Unix seconds; a system clock before that is wrong as well (the clock
            floor): then nobody's certificate is too young.

    Attributes:
        visits: The connections that are open; ``doorstep`` those that shake hands.
        address_s: How long an address is waited for before it is tried again.
    """

    def __init__(
        self,
        facts: Facts,
        services: Services,
        settings: ControlSettings,
        clock: Callable[[], float],
        rate: Rate | None = None,
        earliest: Callable[[], float] = lambda: 0.0,
    ) -> None:
        self.address_s = ADDRESS_S
        self._revoked = services.revoked
        self._clock = clock
        self._listen = settings.listen
        self._credentials = Credentials(settings, clock, earliest)
        self._pinned: Sequence[Anchor] = ()
        self.visits = Visits(_identify, MAX_VISITS, MAX_VISITS_PER_PEER)
        api = Api(facts, services)
        self._serving = Serving(api, self.visits, self._judge, rate or Rate())
        self.doorstep = Doorstep()
        self._socket: socket | None = None
        self._waits = False  # for its address

    def bound(self) -> tuple[str, int] | None:
        """Return the (host, port) it listens on; None before ``open``."""
        if self._socket is None:
            return None
        name: tuple[str, int] = self._socket.getsockname()[:2]
        return name

    async def run(self, announce: Callable[[str, int], None] | None = None) -> NoReturn:
        """Listen until cancelled, then close.

        Args:
            announce: Called with host and port once it listens.

        Raises:
            DeviceError: ``address``: the address cannot be used.
        """
        try:
            await self.open()
            await self._wait_for_address()
            if announce is not None and (bound := self.bound()):
                announce(*bound)
            factory = await self._serving.open()
            async with asyncio.TaskGroup() as group:
                await self._accept(group, factory)
        finally:
            await self.close()

    async def open(self) -> None:
        """Start to listen; what connects is answered once ``run`` runs.

        An address that this board does not have yet is left to ``run``, which waits.

        Raises:
            DeviceError: ``address``: the address cannot be used, now or later.
        """
        if self._socket is not None:
            return
        self._context()  # a wrong file is reported now, not to a client
        host, _, port = self._listen.rpartition(":")
        loop = asyncio.get_running_loop()
        try:
            found = await loop.getaddrinfo(host.strip("[]"), int(port))
            self._socket = _bind(found[0][0], found[0][4])
        except OSError as err:
            detail = f"cannot listen on {self._listen}: {err.strerror or err}"
            if err.errno not in ABSENT and not isinstance(err, gaierror):
                raise DeviceError(
                    detail,
                    reason=Reason.ADDRESS,
                    todo="Choose a free address of this board in `control.listen`.",
                ) from err
            if not self._waits:
                facts = {"reason": Reason.ADDRESS, "detail": detail}
                log.warning("control.no_address", extra=facts)
            self._waits = True

    async def _wait_for_address(self) -> None:
        """Try again until it listens; samples are answered meanwhile."""
        while self._socket is None:
            await asyncio.sleep(self.address_s)
            # Who takes the port in between may let it go again; models go on.
            with suppress(DeviceError):
                await self.open()
        if self._waits:
            log.info("control.address", extra={"detail": self._listen})

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
            context = self._context()
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
        self._context()
        check_pinned(peer, self._pinned)
        behind = self._credentials.behind()
        check_valid(peer, self._clock(), self._pinned, behind=behind)
        check_revoked(peer, self._revoked)

    def _context(self) -> ssl.SSLContext | None:
        """Return what a new connection needs; the files may have changed."""
        context = self._credentials.current()
        if self._pinned != self._credentials.anchors:
            self._pinned = self._credentials.anchors
            for visit in self.visits:
                if not is_pinned(visit.peer, self._pinned):
                    visit.leave()
        return context


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
    chain = chain_of(tls)
    if not chain:
        raise ValueError("no CA vouches for the client certificate")
    return identify(certificate, der, chain)


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
