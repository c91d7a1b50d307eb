"""Telling a hang from an idle source, from two looks at a statistics block.

>>> first = note_progress(None, seq=5, turn_ns=0, busy_since_ns=100, now_ns=100)
>>> later = note_progress(first, seq=5, turn_ns=0, busy_since_ns=100, now_ns=900)
>>> is_hung(later, now_ns=900, deadline_ns=500)
True
>>> is_hung(later, now_ns=500, deadline_ns=500)
False
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a loop was seen, and since when it has been there (ns, monotonic)."""

    seq: int
    turn_ns: int
    busy_since_ns: int
    since_ns: int


def note_progress(
    last: Progress | None, *, seq: int, turn_ns: int, busy_since_ns: int, now_ns: int
) -> Progress:
    """Return the new sighting; ``since_ns`` stays while nothing has moved.

    A loop at full speed shows neither a turn nor a sample in flight in most copies, but
    its sequence number moves; an idle one moves ``turn_ns``.
    """
    if last is not None and (last.seq, last.turn_ns, last.busy_since_ns) == (
        seq,
        turn_ns,
        busy_since_ns,
    ):
        return last
    return Progress(seq, turn_ns, busy_since_ns, now_ns)


def is_hung(progress: Progress, *, now_ns: int, deadline_ns: int) -> bool:
    """Whether one sample, or one look at the source, takes longer than allowed."""
    since_ns = progress.busy_since_ns or progress.since_ns
    return now_ns - since_ns > deadline_ns
