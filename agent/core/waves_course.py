"""How far a rollout has come: what is durable about it and about each of its boards.

The rules this module keeps:
 * All of it survives the operator's machine: ``decide`` needs nothing else but the plan
   and the time, so that whoever reads it back decides the same.
 * A board's standing is what it said last; being out of reach changes none of it.
"""

from collections.abc import Mapping
from enum import StrEnum

from msgspec import Struct
from msgspec.structs import replace


class Standing(StrEnum):
    """Where one board is in a rollout."""

    NEW = "new"  # nobody has told it anything
    TOLD = "told"  # it was told, or is being told just now
    UPDATING = "updating"  # it has begun
    COMMITTED = "committed"  # it runs what it was told
    RUNS = "runs"  # it ran that before anybody told it
    FAILED = "failed"  # it refused, failed or rolled back; the reason says why
    OVERRULED = "overruled"  # somebody else told it something else since
    BACK = "back"  # rolled back by us


class Phase(StrEnum):
    """What a rollout does as a whole."""

    RUNNING = "running"
    PAUSED = "paused"
    ABORTED = "aborted"
    DONE = "done"


FLYING = frozenset({Standing.TOLD, Standing.UPDATING})


class Durable(Struct, frozen=True, forbid_unknown_fields=True):
    """Base of what is kept: immutable, and strict when read back."""


class Figures(Durable, frozen=True):
    """What one version in one pipeline has counted since its daemon began.

    Attributes:
        answered: Samples that ended ok.
        failed: Samples that failed.
        p95_ms: Of whole durations, 0 where nothing is known.
        critical: An alarm about its output is active.
        budget_ms: The p95 that its bundle declares, 0 where it declares none.
    """

    answered: int = 0
    failed: int = 0
    p95_ms: float = 0.0
    critical: bool = False
    budget_ms: float = 0.0


class Before(Durable, frozen=True):
    """A pipeline at the moment before its board was told.

    Attributes:
        active: Of the version that answered then.
        wanted: Of the wanted version, which may have run before.
        runs: What answered, ``kws 7``.
    """

    active: Figures = Figures()
    wanted: Figures = Figures()
    runs: str = ""


class Health(Durable, frozen=True):
    """How a board does since it runs what it was told; its worst pipeline counts.

    Attributes:
        samples: Ended since then, of the pipeline that has fewest.
        errors_share: Of these, failed.
        latency_ratio: p95 after over p95 before; 0 where either is not known.
        critical: An alarm about an output is active.
        p95_ms: After, of the pipeline whose ratio that is; ``before_ms`` before.
        timed: Samples behind ``p95_ms``.
        allowed_ms: A p95 up to this is not slow, whatever the ratio.
        silent: A pipeline has not ended a sample yet where it had before.
    """

    samples: int = 0
    errors_share: float = 0.0
    latency_ratio: float = 0.0
    critical: bool = False
    p95_ms: float = 0.0
    before_ms: float = 0.0
    timed: int = 0
    allowed_ms: float = 0.0
    silent: bool = False


class BoardCourse(Durable, frozen=True):
    """One board of a rollout.

    Attributes:
        reason: Why it failed; ``detail`` the same for people, or what it does just now.
        told: How often it was told.
        told_at: Unix seconds, as all moments; 0 for never.
        settled_at: When its standing became what it is, once nothing is under way.
        lost_at: Since when it does not answer; 0 while it does.
        seen_at: When the last look began that it answered; 0 for never.
        down_at: Since when a pipeline of it is not ready though it runs what it was
            told; 0 while all are. ``down`` says why.
        ready: ``generation``, ``mark`` and ``before`` are known: it can be told.
        generation: Of the desired state that it is told.
        mark: Its newest report before it was told: later ones are our doing.
        before: By pipeline.
        health: Since it committed.
    """

    standing: Standing = Standing.NEW
    reason: str = ""
    detail: str = ""
    told: int = 0
    told_at: float = 0.0
    settled_at: float = 0.0
    lost_at: float = 0.0
    seen_at: float = 0.0
    down_at: float = 0.0
    down: str = ""
    ready: bool = False
    generation: int = 0
    mark: int = 0
    before: dict[str, Before] = {}
    health: Health = Health()

    def is_lost(self, now: float, patience_s: float) -> bool:
        """Return whether it has been out of reach for too long."""
        # A clock that was set back loses nobody; ``wake`` counts from its new time.
        return bool(self.lost_at) and now - self.lost_at >= patience_s

    def is_under_way(self, now: float, patience_s: float) -> bool:
        """Return whether it was told, is not at an end, and is not given up."""
        return self.standing in FLYING and not self.is_lost(now, patience_s)


class LogRow(Durable, frozen=True):
    """One decision, when it was made, and why."""

    at: float
    act: str
    wave: int
    boards: tuple[str, ...] = ()
    reason: str = ""
    why: str = ""


class Course(Durable, frozen=True):
    """A rollout as far as it has come.

    Attributes:
        wave: Index of the wave that is under way.
        began_at: When this wave began, or went on after a pause; Unix seconds.
        awake_at: Since when somebody has worked on it without a break: nothing that was
            seen before that says how boards do now.
        reason: Why it is paused or aborted; ``why`` the same for people.
        retries: How often an operator had boards told once more.
        boards: By id, of the whole rollout.
        log: Every decision so far.
    """

    phase: Phase = Phase.RUNNING
    wave: int = 0
    began_at: float = 0.0
    awake_at: float = 0.0
    reason: str = ""
    why: str = ""
    retries: int = 0
    boards: dict[str, BoardCourse] = {}
    log: tuple[LogRow, ...] = ()

    def with_boards(self, news: Mapping[str, BoardCourse]) -> "Course":
        """Return the same with news of some boards."""
        known = {board: it for board, it in news.items() if board in self.boards}
        return replace(self, boards={**self.boards, **known}) if known else self


def is_settled(course: BoardCourse, now: float, patience_s: float) -> bool:
    """Return whether nothing more is to be expected of a board by itself."""
    if course.is_lost(now, patience_s):
        return True
    return course.standing not in FLYING and course.standing is not Standing.NEW
