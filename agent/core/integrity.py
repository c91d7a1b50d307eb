"""What follows when what runs is not what was verified: one decision, and its words.

A worker checks itself in three ways (``agent.worker.integrity``); a difference means
that memory, a driver or a processor did what nobody asked for. The first time the
worker is replaced, from the verified bytes; what repeats within ``WINDOW_S`` is the
board's or the model's own, and the version before takes over, as after a crash loop.

The rules this module keeps:
 * Pure: times are arguments, in seconds of a clock that never falls.
 * A board that has nothing else to run goes on, and says so: an answer that may be
   wrong and is marked is worth more than none, and stopping is the owner's choice.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Annotated, Literal, get_args

from msgspec import Meta, Struct

Check = Literal["source", "packed", "answers", "audit"]
CHECKS: tuple[Check, ...] = get_args(Check)
# A bit that flips by itself in the same model's memory twice in a day is no accident:
# field studies find a correctable error in some 8 % of modules a year (Schroeder 2009).
WINDOW_S = 86_400.0
Count = Annotated[int, Meta(ge=0, lt=2**62)]
Seconds = Annotated[float, Meta(ge=0, le=1e12)]
Said = Annotated[str, Meta(max_length=300)]


class Evidence(Struct, frozen=True, forbid_unknown_fields=True):
    """What a check found that should not be.

    Attributes:
        check: Which one.
        place: Offset in the model's file (``source``) or in its tensor's packed copy
            (``packed``), or the number of the known input.
        what: The tensor, input or sample, for people.
        expected: Digest of what was verified, or of the recorded answer.
        found: The same of what is there now.
        difference: Of an answer, in real units; 0 for memory.
    """

    check: Check
    place: Count = 0
    what: Said = ""
    expected: Said = ""
    found: Said = ""
    difference: Annotated[float, Meta(ge=0)] = 0.0


class Checked(Struct, frozen=True, forbid_unknown_fields=True):
    """What a worker's checks have done so far for one loaded model.

    Attributes:
        checks: Check -> how often it came to an end: whole passes over the memory,
            known inputs asked, samples audited. A check that cannot be made is absent.
        mismatches: Check -> how often it found a difference.
        bytes: Check -> bytes of memory that one pass covers.
        pass_s: Age of the last whole pass when this was said; None before the first.
        passed: Passes so far, each over all memory that is covered.
        tolerance: What an audit's answer may differ, in real units.
        skipped: Check -> why it is not made.
        thread: Of the operating system, so that others may lower its priority.
    """

    checks: dict[Check, Count] = {}
    mismatches: dict[Check, Count] = {}
    bytes: dict[Check, Count] = {}
    pass_s: Seconds | None = None
    passed: Count = 0
    tolerance: float = 0.0
    skipped: dict[Check, Said] = {}
    thread: Count = 0


class Answer(StrEnum):
    """What is done about a mismatch."""

    RESTART = "restart"
    ROLL_BACK = "roll_back"


@dataclass(frozen=True, slots=True)
class IntegrityView:
    """What others see of one pipeline's integrity.

    Attributes:
        wanted: Something is checked by the settings.
        now: Of the model that answers; None before its worker's first word.
        checks: Check -> ended, over all workers; ``mismatches`` likewise.
        last: The last evidence, None without; ``last_ago_s`` how long ago it was.
        answer: What was done about it.
        since_pass_s: Seconds since memory was last found whole; None before.
    """

    wanted: bool = False
    now: Checked | None = None
    checks: Mapping[Check, int] = field(default_factory=dict)
    mismatches: Mapping[Check, int] = field(default_factory=dict)
    last: Evidence | None = None
    last_ago_s: float = 0.0
    answer: str = ""
    since_pass_s: float | None = None


def answer_mismatch(before_s: float | None, now_s: float) -> Answer:
    """Return what to do about a mismatch of the committed model.

    Args:
        before_s: When the one before was found, None if there was none since another
            model was committed.
        now_s: Now, by the same clock.

    >>> answer_mismatch(None, 10.0)
    <Answer.RESTART: 'restart'>
    >>> answer_mismatch(10.0, 20.0)
    <Answer.ROLL_BACK: 'roll_back'>
    """
    if before_s is None or now_s - before_s > WINDOW_S:
        return Answer.RESTART
    return Answer.ROLL_BACK


def add_counts(
    left: Mapping[Check, int], right: Mapping[Check, int]
) -> dict[Check, int]:
    """Return the sums of two workers' counts.

    Law: the order does not matter, and an empty one changes nothing.

    >>> add_counts({"source": 1}, {"source": 2, "audit": 3})
    {'source': 3, 'audit': 3}
    """
    total = Counter(left)
    total.update(right)
    return dict(total)


def describe_evidence(evidence: Evidence) -> str:
    """Return evidence as one line for people.

    >>> describe_evidence(Evidence("source", 4096, "the file", "ab", "cd"))
    'source: the file at 4096: ab became cd'
    """
    if evidence.check in ("source", "packed"):
        return (
            f"{evidence.check}: {evidence.what} at {evidence.place}: "
            f"{evidence.expected} became {evidence.found}"
        )
    return (
        f"{evidence.check}: {evidence.what} {evidence.place} "
        f"differs by {evidence.difference:.4g}"
    )
