"""Whose turn it is with the update machine: looks wait for it, operators do not."""

import asyncio


class Turn:
    """At most one holds it. Touched by the loop alone."""

    def __init__(self) -> None:
        self._vacant = asyncio.Event()
        self._vacant.set()

    @property
    def taken(self) -> bool:
        """Whether somebody has it."""
        return not self._vacant.is_set()

    def take(self) -> bool:
        """Take it and return True, where nobody has it."""
        if self.taken:
            return False
        self._vacant.clear()
        return True

    def give_back(self) -> None:
        """Let the next one have it."""
        self._vacant.set()

    async def __aenter__(self) -> None:
        """Wait for it and take it."""
        while not self.take():
            await self._vacant.wait()

    async def __aexit__(self, *_error: object) -> None:
        """Give it back."""
        self.give_back()
