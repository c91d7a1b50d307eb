"""Connections of known peers: few for each, and none that only holds its place.

A visit stands between the connection and aiohttp's protocol. TLS has named the peer
before a visit begins; on the unix socket the peer is the daemon's own user.

The rules this module keeps:
 * A peer that has all its places and comes again displaces its own oldest visit that
   waits for a request, and where all places are taken anybody's: half-sent headers
   hold no place against anybody, and what is being answered is not cut off.
 * A request's line and headers come within ``FIRST_S`` (``IDLE_S`` after an earlier
   answer) and take ``MAX_HEAD_BYTES`` together.
 * Every state has its end: who reads no answer, or sends more than was asked for, is
   cut off as well.
"""

import asyncio
from collections.abc import Callable, Iterator
from typing import cast

from agent.endpoint.guard import CLOSED_BUSY, CLOSED_LARGE
from agent.endpoint.peers import Peer

FIRST_S = 2.0  # the request follows the handshake at once; one lost packet is 1 s
IDLE_S = 10.0  # a client that reads an answer, or sends one piece after the other
LINGER_S = 2.0  # an answer given before the whole body came has to arrive
REQUEST_S = 300.0  # bodies have their own deadline; a slow disk may take minutes
# What a client has on its way when it is told no: an upload's piece, and buffers.
MAX_LINGER_BYTES = 2 * 1024 * 1024
MAX_HEAD_BYTES = 16 * 1024  # a client sends 300; a browser with cookies 4,000
HEAD_END = b"\r\n\r\n"

Identify = Callable[[asyncio.BaseTransport], Peer]


class Visits:
    """The connections of one listener.

    Args:
        identify: Names the peer of a connection that has begun, or raises
            ``ValueError``.
        places: How many may be open at once; with TLS each takes 0.3 MB.
        per_peer: How many of them one certificate may have.
    """

    def __init__(self, identify: Identify, places: int, per_peer: int) -> None:
        self.identify = identify
        self.places = places
        self.per_peer = per_peer
        self._open: dict[asyncio.BaseProtocol, Visit] = {}

    def __len__(self) -> int:
        """Return how many are open."""
        return len(self._open)

    def __iter__(self) -> "Iterator[Visit]":
        """Return those that are open, oldest first."""
        return iter(list(self._open.values()))

    def of(self, protocol: asyncio.BaseProtocol) -> "Visit | None":
        """Return the visit before one of aiohttp's protocols; None once it has left."""
        return self._open.get(protocol)

    def begin(
        self, protocol: Callable[[], asyncio.Protocol]
    ) -> Callable[[], asyncio.Protocol]:
        """Return a protocol factory that puts a visit before each protocol."""
        return lambda: Visit(self, protocol)

    def admit(self, visit: "Visit", inner: asyncio.BaseProtocol) -> bool:
        """Give a visit its place, if there is one or one can be made."""
        rivals = [it for it in self if it.peer.key == visit.peer.key]
        full = len(self._open) >= self.places
        if full or len(rivals) >= self.per_peer:
            rivals = rivals if len(rivals) >= self.per_peer else list(self)
            waiting = next((it for it in rivals if it.waiting), None)
            if waiting is None:
                return False
            waiting.leave()
        self._open[inner] = visit
        return True

    def end(self, inner: asyncio.BaseProtocol) -> None:
        """Free a place."""
        self._open.pop(inner, None)

    def abort(self) -> None:
        """Cut all connections."""
        for visit in self:
            visit.leave()


class Visit(asyncio.Protocol):
    """One connection.

    Attributes:
        peer: Who is at the other side.
        waiting: It waits for a request's headers, or for the rest of them.
    """

    peer: Peer

    def __init__(
        self, visits: Visits, protocol: Callable[[], asyncio.Protocol]
    ) -> None:
        self.waiting = True
        self._visits = visits
        self._protocol = protocol
        self._inner: asyncio.Protocol | None = None
        self._transport: asyncio.Transport | None = None
        self._end: asyncio.TimerHandle | None = None
        self._lingers = False
        self._bytes = 0  # of a request's head, or of what comes after its answer
        self._tail = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Let the peer in if there is a place."""
        self._transport = cast("asyncio.Transport", transport)
        try:
            self.peer = self._visits.identify(transport)
        except (ValueError, KeyError):  # a certificate that its CA made of nonsense
            self._transport.abort()
            return
        inner = self._protocol()
        if not self._visits.admit(self, inner):
            self._refuse(CLOSED_BUSY)
            return
        self._inner = inner
        self._end_after(FIRST_S)
        self._inner.connection_made(transport)

    def data_received(self, data: bytes) -> None:
        """Pass bytes on; count those of a request's headers, and those too many."""
        if self._inner is None:
            return
        self._bytes += len(data)
        if self._lingers and self._bytes > MAX_LINGER_BYTES:
            self.leave()
            return
        if self.waiting and not self._read_head(data):
            self._refuse(CLOSED_LARGE)
            return
        self._inner.data_received(data)

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
        if self._end is not None:
            self._end.cancel()
        if self._inner is not None:
            self._visits.end(self._inner)
            self._inner.connection_lost(exc)

    def began(self) -> None:
        """A whole request is here, and is being answered."""
        self.waiting = False
        self._end_after(REQUEST_S)

    def ended(self, *, whole: bool) -> None:
        """The answer is written; ``whole`` says that all of the body was read."""
        self.waiting, self._lingers = whole, not whole
        self._bytes, self._tail = 0, b""
        self._end_after(IDLE_S if whole else LINGER_S)

    def leave(self) -> None:
        """Cut the connection and free its place at once."""
        if self._inner is not None:
            self._visits.end(self._inner)
        if self._transport is not None:
            self._transport.abort()

    def _read_head(self, data: bytes) -> bool:
        """Look for the headers' end; say whether they are small enough."""
        seen = self._tail + data
        if HEAD_END in seen:
            # What follows may be a body: its reader bounds that.
            self.began()
            return True
        self._tail = seen[-len(HEAD_END) + 1 :]
        return self._bytes <= MAX_HEAD_BYTES

    def _end_after(self, seconds: float) -> None:
        """Set when the connection is cut unless something happens."""
        if self._end is not None:
            self._end.cancel()
        if self._transport is not None:
            loop = asyncio.get_running_loop()
            self._end = loop.call_later(seconds, self.leave)

    def _refuse(self, answer: bytes) -> None:
        """Say why and close; what the peer still sends is not read."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.pause_reading()
            self._transport.write(answer)
            self._transport.close()
            self._end_after(LINGER_S)
