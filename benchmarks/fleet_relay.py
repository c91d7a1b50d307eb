"""The network between boards and their server: it counts, forgets, cuts and fails.

The rules this module keeps:
 * What passes is not looked into: it counts the bytes of both directions as TCP carries
   them, TLS records and handshakes included, TCP's and IP's own headers not.
 * A connection that nothing passed on for ``IDLE_S`` simulated seconds is closed, as
   nginx does by default; nginx itself counts real seconds, which hardly pass here.
 * The server learns which connection it is (PROXY protocol), so that each line of its
   log has a simulated time.
"""

import asyncio
import random
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import cast

# tcpi_segs_out and tcpi_segs_in of struct tcp_info in linux/tcp.h.
_SEGMENTS, _SEGMENTS_AT, _INFO_BYTES = struct.Struct("=II"), 136, 144
_GOODBYES = 4  # FIN and ACK of both ends, which follow after we asked
IDLE_S = 75.0  # keepalive_timeout of nginx, unless it is told otherwise


@dataclass(slots=True)
class Passed:
    """One connection: when it began (simulated s), and what it carried.

    Attributes:
        segments: TCP's, both ways, as the kernel counted them; 0 where the connection
            was not closed for being idle.
    """

    at_s: float
    up_bytes: int = 0
    down_bytes: int = 0
    segments: int = 0


@dataclass(slots=True)
class Weather:
    """How bad a network is; what is drawn is drawn for each connection anew.

    Attributes:
        refused: Share of connections that are cut as they begin.
        cut_bytes: The others end after so many bytes from the server, drawn from
            (least, most); None for never.
    """

    refused: float = 0.0
    cut_bytes: tuple[int, int] | None = None


@dataclass(slots=True)
class Ledger:
    """All connections of a network, by their number; shared by its relays.

    Attributes:
        refused: When a connection found nobody, simulated s.
    """

    passed: list[Passed] = field(default_factory=list)
    refused: list[float] = field(default_factory=list)
    cuts: int = 0


class Relay:
    """One way to the server.

    Attributes:
        weather: May be changed at any time.
        port: Where boards connect.
    """

    def __init__(self, ledger: Ledger, seed: int) -> None:
        self.ledger = ledger
        self.weather = Weather()
        self.port = 0
        self.upstream = 0
        self.draw = random.Random(seed)  # noqa: S311 - a simulation that can be repeated
        self._server: asyncio.Server | None = None

    async def open(self, upstream: int) -> None:
        """Listen, always on the same port, and pass everything on to a server."""
        self.upstream = upstream
        loop = asyncio.get_running_loop()
        make: Callable[[], _Near] = lambda: _Near(self)  # noqa: E731 - a factory
        self._server = await loop.create_server(
            make, "127.0.0.1", self.port, backlog=1024
        )
        self.port = self._server.sockets[0].getsockname()[1]

    async def shut(self) -> None:
        """Listen no longer, and let boards find nobody."""
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()
            self._server = None


class _Near(asyncio.Protocol):
    """The end of a connection that a board holds."""

    def __init__(self, relay: Relay) -> None:
        self._relay = relay
        self._loop = asyncio.get_running_loop()
        self._far: _Far | None = None
        self._waiting = bytearray()
        self._idle: asyncio.TimerHandle | None = None
        self._left: int | None = None
        self.own: asyncio.Transport | None = None
        self.passed = Passed(self._loop.time())

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Number the connection, and look for the server."""
        self.own = cast("asyncio.Transport", transport)
        relay, weather = self._relay, self._relay.weather
        if relay.draw.random() < weather.refused:
            relay.ledger.refused.append(self.passed.at_s)
            self.own.abort()
            return
        if weather.cut_bytes is not None:
            self._left = relay.draw.randint(*weather.cut_bytes)
        number = len(relay.ledger.passed)
        relay.ledger.passed.append(self.passed)
        self._task = self._loop.create_task(self._connect(number))

    async def _connect(self, number: int) -> None:
        """Connect to the server and say which connection this is."""
        try:
            _, far = await self._loop.create_connection(
                lambda: _Far(self), "127.0.0.1", self._relay.upstream
            )
        except OSError:
            self.end()
            return
        far.write(f"PROXY TCP4 {address(number)} 127.0.0.1 9 9\r\n".encode())
        far.write(bytes(self._waiting))
        self._far = far
        self._rest()

    def data_received(self, content: bytes) -> None:
        """Pass on what the board says."""
        self.passed.up_bytes += len(content)
        if self._far is None:
            self._waiting += content
        else:
            self._far.write(content)
        self._rest()

    def take(self, content: bytes) -> None:
        """Pass on what the server says, until the network cuts it."""
        if self.own is None or self.own.is_closing():
            return
        if self._left is not None:
            content = content[: self._left]
            self._left -= len(content)
        self.passed.down_bytes += len(content)
        self.own.write(content)
        if self._left == 0:
            self._relay.ledger.cuts += 1
            self.own.close()
        self._rest()

    def connection_lost(self, error: Exception | None) -> None:
        """Let go of the server as well."""
        del error
        if self._idle is not None:
            self._idle.cancel()
        if self._far is not None:
            self._far.close()

    def end(self) -> None:
        """Close, when everything was passed on."""
        if self.own is not None:
            self.own.close()

    def _rest(self) -> None:
        """Close, unless something passes within ``IDLE_S``."""
        if self._idle is not None:
            self._idle.cancel()
        self._idle = self._loop.call_later(IDLE_S, self._end_idle)

    def _end_idle(self) -> None:
        """Close what nobody uses, and ask the kernel what it cost."""
        if self.own is not None:
            own: socket.socket = self.own.get_extra_info("socket")
            raw = own.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _INFO_BYTES)
            sent, received = _SEGMENTS.unpack_from(raw, _SEGMENTS_AT)
            self.passed.segments = sent + received + _GOODBYES
        self.end()


class _Far(asyncio.Protocol):
    """The end of a connection that the server holds."""

    def __init__(self, near: _Near) -> None:
        self._near = near
        self._own: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep it."""
        self._own = cast("asyncio.Transport", transport)

    def write(self, content: bytes) -> None:
        """Send."""
        if self._own is not None and not self._own.is_closing():
            self._own.write(content)

    def close(self) -> None:
        """Let go."""
        if self._own is not None:
            self._own.close()

    def data_received(self, content: bytes) -> None:
        """Pass on what the server says."""
        self._near.take(content)

    def connection_lost(self, error: Exception | None) -> None:
        """The server has closed."""
        del error
        self._near.end()


def address(number: int) -> str:
    """Spell a connection's number as an address.

    >>> address(258), number_of(address(258))
    ('10.0.1.2', 258)
    """
    return f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"


def number_of(spelled: str) -> int:
    """Return the number that ``address`` spelled."""
    _, high, middle, low = spelled.split(".")
    return int(high) << 16 | int(middle) << 8 | int(low)
