"""Updates as others see them: what is wanted and why not yet, what goes on, what was.

These values cross folders: the plan makes decisions, the runner progress, the store
keeps reports; listeners, the command line and metrics show them.
"""

from typing import Literal

from msgspec import Struct

from agent.core.targets import Wanted

State = Literal["runs", "ordered", "waits", "refused", "unassigned"]


class Decision(Struct, frozen=True):
    """What the plan says about one pipeline, and why.

    Attributes:
        state: ``runs`` as desired, ``ordered`` (it starts now, or is under way),
            ``waits`` (for a time, a window, an operator, or to be tried again),
            ``refused`` (it will not start until something changes), ``unassigned``
            (nobody says what should run).
        desired: What is wanted, where anyone says so.
        source: Who says so: the path of a desired state, ``push`` or ``ddi``.
        generation: Counts that source's publications.
        reason: Why it does not run yet; empty for ``runs`` and ``ordered``.
        detail: The same for people: ``waits for window until 2026-11-22 22:00 UTC``.
        until: Unix seconds at which the reason will have passed, 0 where nobody knows.
    """

    pipeline: str
    state: State
    desired: Wanted | None = None
    source: str = ""
    generation: int = 0
    reason: str = ""
    detail: str = ""
    until: float = 0.0


class Progress(Struct, frozen=True):
    """The update that is under way.

    Attributes:
        id: Its number, the same as that of its report.
        phase: Name of the phase it is in.
        done_bytes: Fetched so far, of ``total_bytes``.
        began_at: Unix seconds.
    """

    id: int
    pipeline: str
    model: str
    version: int
    sha256: str
    phase: str
    done_bytes: int = 0
    total_bytes: int = 0
    began_at: float = 0.0


class Report(Struct, frozen=True):
    """How one update ended; kept durably, and for the fleet to be told.

    Attributes:
        id: Rises by one with each update of this board.
        source: Who wanted it, and ``generation`` which of their publications.
        result: ``committed``, ``refused``, ``failed``, ``rolled_back`` or
            ``interrupted``.
        reason: Why it was not committed; ``detail`` for people.
        began_at: Unix seconds, as ``ended_at``.
    """

    id: int
    pipeline: str
    model: str
    version: int
    sha256: str
    source: str
    generation: int
    result: str
    reason: str = ""
    detail: str = ""
    began_at: float = 0.0
    ended_at: float = 0.0


class Hold(Struct, frozen=True):
    """An operator's rollback: this source has to say something else to be heard.

    Attributes:
        source: Whose desired state it was that the operator overruled.
        generation: What it said then; under no other one it is held.
    """

    pipeline: str
    source: str
    generation: int


class SetAside(Struct, frozen=True):
    """Bytes that are not tried again on this board, why, and since when (Unix s)."""

    sha256: str
    reason: str
    at: float = 0.0
