"""Events: what was logged, kept for the page and for ``tinyward events``."""

from typing import Literal

from msgspec import Struct

Level = Literal["debug", "info", "warning", "error"]
KEPT = 500  # some 100 kB at most; the journal keeps all


class Event(Struct, frozen=True):
    """One line of the log.

    Attributes:
        id: Rises by one; a hole means that older ones were dropped.
        at: Unix seconds by the board's clock.
        name: ``update.refused``, ``drift.alarm``...
        fields: As in the log line.
    """

    id: int
    at: float
    level: Level
    name: str
    fields: dict[str, str] = {}
