"""How long a server may take: a deadline, a least speed, and an ear for "stop".

The rules this module keeps:
 * Every byte that arrives passes here, headers included: a server that sends one byte
   of a header each second is left like one that does so within a body.
 * Only waiting counts for the speed. A slow disk of ours is not the server's fault.
 * No wait is longer than a second without asking whether anybody still wants the rest.

A timeout for each read cannot do this: urllib3 waits for a full block, and the gap
between two bytes may stay below any timeout for ever.
"""

import io
import select
import socket
import ssl
import time
from collections import deque
from collections.abc import Callable
from typing import cast

from agent.core.reasons import Reason
from agent.trust.fetcher import TransportError, nobody_stops
from agent.trust.transport import Transport

TICK_S = 1.0  # how soon a download that nobody wants any more is noticed
_STEPS = 16  # of one window: how exactly it slides
_BUFFER_BYTES = 64 * 1024  # four TLS records


class Pace:
    """Judges one exchange after the other, always of one thread."""

    def __init__(
        self, transport: Transport, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._transport = transport
        self._clock = clock
        self.begin(nobody_stops)

    def begin(self, pulse: Callable[[], None]) -> None:
        """Start a new exchange; ``pulse`` raises when nobody wants it any more."""
        self._pulse = pulse
        self._ends_s = self._clock() + self._transport.deadline_s
        self._waited_s, self._taken = 0.0, 0
        self._marks: deque[tuple[float, int]] = deque([(0.0, 0)])

    def check(self, waited_s: float, taken: int) -> None:
        """Judge the exchange after a wait that brought some bytes, or none.

        Raises:
            TransportError: ``too_slow``.
        """
        self._pulse()
        self._waited_s += waited_s
        self._taken += taken
        if self._clock() > self._ends_s:
            raise TransportError(
                f"not done after {self._transport.deadline_s:g} s", Reason.TOO_SLOW
            )
        window_s, marks = self._transport.window_s, self._marks
        if self._waited_s - marks[-1][0] >= window_s / _STEPS:
            marks.append((self._waited_s, self._taken))
        # The newest mark that is a whole window old is where the window begins.
        while len(marks) > 1 and self._waited_s - marks[1][0] >= window_s:
            marks.popleft()
        began_s, before = marks[0]
        span_s, got = self._waited_s - began_s, self._taken - before
        if span_s >= window_s and got < self._transport.min_kbps * 1000 * span_s:
            raise TransportError(
                f"{got} bytes in {span_s:.1f} s, at least "
                f"{self._transport.min_kbps:g} kB/s expected",
                Reason.TOO_SLOW,
            )

    def over(self, sock: socket.socket) -> socket.socket:
        """Return a socket whose reads are judged."""
        return cast("socket.socket", _PacedSocket(sock, self))

    def wait(self, sock: socket.socket) -> None:
        """Return when something can be read, or the connection has ended."""
        # What TLS has decrypted already is not seen by poll().
        if isinstance(sock, ssl.SSLSocket) and sock.pending():
            return
        poll = select.poll()
        poll.register(sock, select.POLLIN)
        tick_s = min(TICK_S, self._transport.window_s / _STEPS)
        while True:
            began_s = self._clock()
            ready = poll.poll(tick_s * 1000)
            if ready:
                self.check(self._clock() - began_s, 0)
                return
            self.check(self._clock() - began_s, 0)


class _PacedSocket:
    """A connected socket for http.client: everything as it was, except reading."""

    def __init__(self, sock: socket.socket, pace: Pace) -> None:
        self._sock = sock
        self._pace = pace

    def __getattr__(self, name: str) -> object:
        return getattr(self._sock, name)

    def makefile(self, mode: str, *_: object, **__: object) -> io.BufferedReader:
        """Return what http.client reads an answer from."""
        del mode
        # A SocketIO, not the socket itself: it keeps the connection open until read.
        raw = cast("io.RawIOBase", self._sock.makefile("rb", buffering=0))
        return io.BufferedReader(
            _PacedReader(raw, self._sock, self._pace), _BUFFER_BYTES
        )


class _PacedReader(io.RawIOBase):
    """The reading end of a connection, judged by its pace."""

    def __init__(self, raw: io.RawIOBase, sock: socket.socket, pace: Pace) -> None:
        self._raw = raw
        self._sock = sock
        self._pace = pace

    def readable(self) -> bool:
        """Say that it can be read."""
        return True

    def readinto(self, buffer: memoryview) -> int | None:  # type: ignore[override]  # what BufferedReader passes
        """Wait within limits, then read what is there."""
        self._pace.wait(self._sock)
        taken = self._raw.readinto(buffer)
        self._pace.check(0.0, taken or 0)
        return taken

    def close(self) -> None:
        """Let go of the connection."""
        self._raw.close()
        super().close()
