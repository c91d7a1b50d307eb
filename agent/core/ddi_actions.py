"""What becomes of a DDI server's action: pure transitions of what is kept of it."""

from dataclasses import dataclass

from agent.core.ddi import Record
from agent.core.targets import GroupFile, Wanted


@dataclass(frozen=True, slots=True)
class Prefetch:
    """What may be fetched although it may not be tried yet.

    Attributes:
        window: Only in it, ``HH:MM-HH:MM[ local]``; empty: any time.
    """

    generation: int
    pipelines: dict[str, Wanted]
    window: str = ""


def desired(record: Record, window: str = "") -> GroupFile | None:
    """Return the desired state that a record stands for, None where it wants nothing.

    What must not start yet makes it ``paused``.

    Args:
        record: What is kept.
        window: ``fleet.ddi.window``: when what the server calls ``attempt`` may start.
    """
    del window
    if not record.runs:
        return None
    return GroupFile(generation=max(record.generation, 1), pipelines=dict(record.runs))


def prefetch(record: Record, window: str = "") -> Prefetch | None:
    """Return what may be fetched now although ``desired`` is paused, or None."""
    del record, window
    return None
