"""Waiting that can be broken off from another thread."""

from threading import Event

from agent.core.reasons import Reason
from agent.errors import DeviceError


class Patience:
    """Pauses of several threads, which one of them ends for all."""

    def __init__(self) -> None:
        self._ended = Event()

    def pause(self, seconds: float) -> None:
        """Wait.

        Raises:
            DeviceError: ``stopping``: it was broken off.
        """
        if self._ended.wait(seconds):
            raise DeviceError("broken off", reason=Reason.STOPPING)

    def end(self) -> None:
        """Break off every wait, and those to come."""
        self._ended.set()
