"""A guard before every connection: few at once, small ones, and none for long.

The rules this module keeps:
 * One connection carries one request and lives ``LIFE_S`` at most, whatever its peer
   does: who sends one byte a minute, or reads none, is cut off like all others. Only
   what follows the live page may stay longer, and that has an end of its own.
 * A request is a line and some headers, ``MAX_REQUEST_BYTES`` together, no body.
 * At most ``MAX_CONNECTIONS`` at once; the next one is told so and closed.
"""

import asyncio
from collections.abc import Callable
from typing import cast

LIFE_S = 10.0  # Prometheus' own scrape timeout
MAX_REQUEST_BYTES = 16 * 1024  # a scraper sends 300; a browser with cookies 4,000
MAX_CONNECTIONS = 64  # file descriptors and buffers stay for the agent's own work
CLOSED_BUSY = (
    b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 10\r\n"
    b"Connection: close\r\nContent-Length: 0\r\n\r\n"
)
CLOSED_LARGE = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\n"
    b"Connection: close\r\nContent-Length: 0\r\n\r\n"
)


class Gate:
    """Counts the connections of one listener.

    Attributes:
        life_s: How long a connection may last.
        places: How many may be open at once.
    """

    def __init__(
        self, *, life_s: float = LIFE_S, places: int = MAX_CONNECTIONS
    ) -> None:
        self.life_s = life_s
        self.places = places
        self.taken = 0

    def guard(
        self, protocol: Callable[[], asyncio.Protocol]
    ) -> Callable[[], asyncio.Protocol]:
        """Return a protocol factory that puts a guard before each protocol."""
        return lambda: Guard(self, protocol)


class Guard(asyncio.Protocol):
    """Passes a connection on to the protocol behind it, within the gate's limits."""

    def __init__(self, gate: Gate, protocol: Callable[[], asyncio.Protocol]) -> None:
        self._gate = gate
        self._protocol = protocol
        self._inner: asyncio.Protocol | None = None
        self._transport: asyncio.Transport | None = None
        self._end: asyncio.TimerHandle | None = None
        self._bytes = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Let the connection in if there is a place, and set its end."""
        self._transport = cast("asyncio.Transport", transport)
        if self._gate.taken >= self._gate.places:
            self._refuse(CLOSED_BUSY)
            return
        self._gate.taken += 1
        loop = asyncio.get_running_loop()
        self._end = loop.call_later(self._gate.life_s, self._transport.abort)
        self._inner = self._protocol()
        self._inner.connection_made(transport)

    def data_received(self, data: bytes) -> None:
        """Pass bytes on, up to the limit."""
        self._bytes += len(data)
        if self._bytes > MAX_REQUEST_BYTES:
            self._refuse(CLOSED_LARGE)
        elif self._inner is not None:
            self._inner.data_received(data)

    def stay(self, seconds: float) -> None:
        """Let the connection live for so long from now on."""
        if self._end is not None and self._transport is not None:
            self._end.cancel()
            loop = asyncio.get_running_loop()
            self._end = loop.call_later(seconds, self._transport.abort)

    def eof_received(self) -> bool | None:
        """Pass the end of the peer's bytes on."""
        return self._inner.eof_received() if self._inner is not None else None

    def pause_writing(self) -> None:
        """Tell the protocol that its peer reads too slowly."""
        if self._inner is not None:
            self._inner.pause_writing()

    def resume_writing(self) -> None:
        """Tell the protocol that its peer has caught up."""
        if self._inner is not None:
            self._inner.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        """Free the place."""
        if self._end is None:
            return
        self._end.cancel()
        self._gate.taken -= 1
        if self._inner is not None:
            self._inner.connection_lost(exc)

    def _refuse(self, answer: bytes) -> None:
        """Say why and close; what the peer still sends is not read."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.pause_reading()
            self._transport.write(answer)
            self._transport.close()
