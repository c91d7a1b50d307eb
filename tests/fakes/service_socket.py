"""A service manager's notify socket: what a daemon says to it, kept in order.

The rules this module keeps:
 * It is a real AF_UNIX datagram socket, bound before the daemon starts; nobody reads
   it but the test, so a slow test loses nothing that the kernel has taken.
"""

import contextlib
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Self

from tests.fakes.daemon_process import DaemonProcess

RECEIVED_BYTES = 1024 * 1024  # hundreds of datagrams that a test has not read yet


class ServiceSocket:
    """Listens at a path, or at an abstract name that begins with ``@``.

    Attributes:
        address: What ``$NOTIFY_SOCKET`` is to say.
        said: Everything that was received, oldest first: one text a datagram.
    """

    def __init__(self, address: str | Path) -> None:
        self.address = str(address)
        self.said: list[str] = []
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVED_BYTES)
        self._socket.setblocking(False)
        abstract = self.address.startswith("@")
        self._socket.bind(f"\0{self.address[1:]}" if abstract else self.address)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop listening."""
        self._socket.close()

    def adopt(self, board: DaemonProcess, **variables: str) -> None:
        """Have a daemon be told of this socket when it starts."""
        given = {"NOTIFY_SOCKET": self.address, **variables}
        board.wrapper = ("env", *(f"{name}={value}" for name, value in given.items()))

    def read(self) -> list[str]:
        """Take in what has come; return everything so far."""
        with contextlib.suppress(BlockingIOError):
            while True:
                self.said.append(self._socket.recv(65_536).decode())
        return self.said

    def count(self, word: str) -> int:
        """Return how many datagrams begin with a word."""
        return sum(it.startswith(word) for it in self.read())

    def statuses(self) -> list[str]:
        """Return the status lines so far, oldest first."""
        prefix = "STATUS="
        return [it.removeprefix(prefix) for it in self.read() if it.startswith(prefix)]

    def wait(self, board: DaemonProcess, word: str, more: int = 1) -> None:
        """Wait until so many datagrams more than now begin with a word."""
        wanted = self.count(word) + more
        self.wait_for(board, lambda: self.count(word) >= wanted, word)

    def wait_for(
        self, board: DaemonProcess, condition: Callable[[], object], what: str
    ) -> None:
        """Wait until something holds while the daemon runs."""
        board.wait_for(condition, what)
