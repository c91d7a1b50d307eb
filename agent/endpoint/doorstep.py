"""Handshakes that are under way: bounded, and evenly shared between addresses.

Whoever connects and says nothing may wait here for ``HANDSHAKE_S``; who comes when
there is no room displaces the oldest of the address that has the most. An operator
behind the same address as an attacker (NAT) is still served, because a handshake that
goes on takes milliseconds and the attacker's own newcomers displace the attacker.
"""

import asyncio
from collections import Counter

HANDSHAKE_S = 2.0  # three round trips over a satellite
MAX_HANDSHAKES = 32  # asyncio keeps 256 KiB for each: 8 MB
MAX_PER_ADDRESS = 16


class Doorstep:
    """The handshakes of one listener, oldest first."""

    def __init__(self) -> None:
        self._waiting: dict[asyncio.Task[None], str] = {}

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self._waiting)

    def add(self, task: asyncio.Task[None], address: str) -> None:
        """Let a newcomer in; where there is no room the oldest one has to leave."""
        counts = Counter(self._waiting.values())
        if counts[address] >= MAX_PER_ADDRESS:
            self._end_oldest(address)
        elif len(self._waiting) >= MAX_HANDSHAKES:
            self._end_oldest(counts.most_common(1)[0][0])
        self._waiting[task] = address
        task.add_done_callback(self._forget)

    def _end_oldest(self, address: str) -> None:
        """End the oldest handshake of an address."""
        oldest = next(task for task, at in self._waiting.items() if at == address)
        del self._waiting[oldest]
        oldest.cancel()

    def _forget(self, task: asyncio.Task[None]) -> None:
        """A handshake has ended."""
        self._waiting.pop(task, None)
