"""Notes kept in memory: what a board remembers between refreshes."""


class MemoryNotes:
    """Implements ``agent.trust.notes.Notes``.

    Attributes:
        saved: Everything that was saved, newest value only.
        saves: How often something was saved.
    """

    def __init__(self) -> None:
        self.saved: dict[str, bytes] = {}
        self.saves = 0

    def load_note(self, key: str) -> bytes | None:
        """Return what was saved under a key."""
        return self.saved.get(key)

    def save_note(self, key: str, value: bytes) -> None:
        """Save a value."""
        self.saves += 1
        self.saved[key] = value
