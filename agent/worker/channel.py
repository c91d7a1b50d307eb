"""The child's end of the control socket: whole records, descriptors beside them."""

import socket

from agent.core.messages import (
    MAX_DESCRIPTORS,
    MAX_MESSAGE_BYTES,
    Message,
    ToChild,
    parse_to_child,
    render_message,
)


class ChildChannel:
    """Blocking records to and from the daemon.

    ``send`` may be called from any thread (one record is one system call); ``receive``
    belongs to one thread.
    """

    def __init__(self, descriptor: int) -> None:
        self._socket = socket.socket(fileno=descriptor)
        self._socket.setblocking(True)

    def send(self, message: Message) -> None:
        """Send one record; a daemon that is gone is noticed by ``receive``."""
        try:
            self._socket.send(render_message(message))
        except BrokenPipeError:
            return

    def receive(self) -> tuple[ToChild, list[int]] | None:
        """Wait for the next record; None when the daemon has closed the channel."""
        record, descriptors, _, _ = socket.recv_fds(
            self._socket, MAX_MESSAGE_BYTES, MAX_DESCRIPTORS
        )
        if not record:
            return None
        return parse_to_child(record), list(descriptors)
