"""sd_notify(3): telling systemd that the daemon is ready, alive, reloading, stopping.

Written out, not linked: the manual page documents the protocol as stable and meant to
be implemented by services themselves. One datagram of ``KEY=value`` lines goes to the
AF_UNIX socket that ``$NOTIFY_SOCKET`` names; a name that begins with ``@`` is an
abstract one. ``$WATCHDOG_USEC`` and ``$WATCHDOG_PID`` are those of
sd_watchdog_enabled(3).

The rules this module keeps:
 * Nobody waits and nothing raises: without a listener it is a daemon on a terminal.
 * A datagram that the socket does not take is dropped; what changes the state of the
   unit is sent again before the next one, or a full queue would leave a daemon that
   is ready to be killed as one that never was.
 * The variables are taken out of the environment: a camera program that is linked with
   libsystemd could otherwise call itself the daemon.
"""

import os
import socket
import time
from collections import deque
from collections.abc import MutableMapping
from typing import Self

# systemd reads 4 kB of a datagram; lines longer than that say nothing to anyone.
MAX_STATUS_CHARS = 1000
OWED = 8  # a start, a few reloads and the end: more of it is news of yesterday
USEC = 1_000_000


class Notifier:
    """Sends the service manager what it has to know.

    Args:
        address: What ``$NOTIFY_SOCKET`` says; empty where nobody listens.
        watchdog_s: How often it wants to hear ``beat``; 0 where it does not.

    Attributes:
        listened: Whether anybody asked to be told.
        watchdog_s: See above: two thirds of it are the slack of whoever beats at the
            third.
    """

    def __init__(self, address: str = "", watchdog_s: float = 0.0) -> None:
        # Anything else is no AF_UNIX address that sd_notify(3) knows.
        self._address = address if address[:1] in ("/", "@") else ""
        self.listened = bool(self._address)
        self.watchdog_s = watchdog_s if self.listened else 0.0
        self._owed: deque[bytes] = deque(maxlen=OWED)
        self._socket: socket.socket | None = None

    @classmethod
    def take(cls, environment: MutableMapping[str, str], pid: int) -> Self:
        """Take the service manager's variables out of an environment.

        Args:
            environment: That of this process.
            pid: This process: a watchdog that is meant for another one is not ours.
        """
        address = environment.pop("NOTIFY_SOCKET", "")
        period = environment.pop("WATCHDOG_USEC", "")
        meant_for = environment.pop("WATCHDOG_PID", "")
        ours = meant_for in ("", str(pid))
        number = period.isascii() and period.isdigit() and ours
        return cls(address, int(period) / USEC if number else 0.0)

    def ready(self) -> None:
        """The start, or the reload, has ended: settings, store and listeners are up."""
        self._send("READY=1", owed=True)

    def reloading(self) -> None:
        """New settings are being applied, until ``ready``."""
        # Without the time systemd 253 takes no reload for the answer to its signal.
        now_usec = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        self._send(f"RELOADING=1\nMONOTONIC_USEC={now_usec}", owed=True)

    def stopping(self) -> None:
        """The end has begun."""
        self._send("STOPPING=1", owed=True)

    def extend(self, seconds: float) -> None:
        """Start, or stop, may take so many seconds more from now on.

        systemd only ever makes its deadline later by this, never earlier.
        """
        self._send(f"EXTEND_TIMEOUT_USEC={int(seconds * USEC)}", owed=True)

    def status(self, text: str) -> None:
        """Say in one line how things are, for ``systemctl status``."""
        line = "".join(it if it.isprintable() else " " for it in text)
        self._send(f"STATUS={line[:MAX_STATUS_CHARS]}", owed=False)

    def beat(self) -> None:
        """The daemon's own loop turns."""
        self._send("WATCHDOG=1", owed=False)

    def close(self) -> None:
        """Let the socket go; whoever tells more opens another."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _send(self, message: str, *, owed: bool) -> None:
        """Send a datagram after those that the socket did not take before."""
        if not self.listened:
            return
        datagram = message.encode()
        while self._owed and self._is_taken(self._owed[0]):
            self._owed.popleft()
        # What is not owed never stands in the queue, where it would push READY out.
        waits = bool(self._owed) or not self._is_taken(datagram)
        if waits and owed:
            self._owed.append(datagram)

    def _is_taken(self, datagram: bytes) -> bool:
        """Send one datagram; False where the socket is full or nobody is there."""
        path = self._address
        name = f"\0{path[1:]}" if path[0] == "@" else path
        try:
            if self._socket is None:
                kind = socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
                self._socket = socket.socket(socket.AF_UNIX, kind)
            # Kept: a daemon that is out of descriptors must be heard to live. And not
            # connected: whoever listens may have been started anew meanwhile.
            self._socket.sendto(datagram, os.fsencode(name))
        except (OSError, ValueError):  # a path with a NUL, or longer than 107 bytes
            return False
        return True
