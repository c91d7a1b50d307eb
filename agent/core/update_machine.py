"""What happens next to an update: one table, and one function that reads it.

The rules this module keeps:
 * Nothing here waits, reads a clock or touches the disk. ``step`` maps a phase and an
   event to the next phase and the actions that lead there.
 * A model answers samples only in PROBATION, and only after its bytes were fetched,
   verified, staged, examined and shadowed, in that order.
 * The durable ``active`` pointer moves in ``COMMIT`` and nowhere else. Power loss at
   any other moment therefore *is* the rollback: ``RESTARTED`` only has to tidy up.
 * ``DISCARD`` comes last on every way back to IDLE, so nothing that runs is discarded.
 * A pair that is not in the table is a programming error, never bad input.

>>> step(Phase.IDLE, Event.ORDERED).phase.name
'FETCHING'
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Annotated

from msgspec import Meta, Struct

from agent.core.installed import Installed
from agent.errors import IllegalTransitionError


class Phase(StrEnum):
    """Where an update is; the value is the label of ``tinyward_update_phase``."""

    IDLE = "IDLE"
    FETCHING = "FETCHING"
    VERIFYING = "VERIFYING"
    STAGING = "STAGING"
    PREFLIGHT = "PREFLIGHT"
    SHADOWING = "SHADOWING"
    PROBATION = "PROBATION"
    COMMITTING = "COMMITTING"
    ROLLING_BACK = "ROLLING_BACK"


# Trials that may last: looks at the repository go on meanwhile, and may end them by
# the event FAILED (revoked, superseded, an operator's wish).
LONG = frozenset({Phase.SHADOWING, Phase.PROBATION})


class Event(StrEnum):
    """What moves an update on: the end of an action, or what came from outside."""

    ORDERED = "ORDERED"
    FETCHED = "FETCHED"
    VERIFIED = "VERIFIED"
    STAGED = "STAGED"
    EXAMINED = "EXAMINED"
    SHADOWED = "SHADOWED"
    TRIAL_PASSED = "TRIAL_PASSED"
    COMMITTED = "COMMITTED"
    RESTORED = "RESTORED"
    FAILED = "FAILED"
    RESTARTED = "RESTARTED"


class Action(StrEnum):
    """What the caller of ``step`` has to perform.

    FETCH brings bytes of the signed length and hash to this disk, VERIFY opens them
    and compares them with what was signed, STAGE makes them durable, EXAMINE is
    preflight, SHADOW feeds copies of samples to the candidate, SWAP_IN lets it answer,
    WATCH judges its answers, COMMIT moves the durable pointer, ADOPT tells the
    supervisor so, SWAP_BACK lets the active model answer again, DISCARD removes every
    object that no pipeline refers to.
    """

    FETCH = "FETCH"
    VERIFY = "VERIFY"
    STAGE = "STAGE"
    EXAMINE = "EXAMINE"
    SHADOW = "SHADOW"
    SWAP_IN = "SWAP_IN"
    WATCH = "WATCH"
    COMMIT = "COMMIT"
    ADOPT = "ADOPT"
    SWAP_BACK = "SWAP_BACK"
    DISCARD = "DISCARD"


class Job(Struct, frozen=True, forbid_unknown_fields=True):
    """The update that is under way, as it is saved before each row's actions.

    Attributes:
        sha256: Digest of the bundle, as the ``targets`` role signed it.
        phase: Where the machine was when this was saved.
        attempts: Trials of these bytes that began, this one included, and came to no
            verdict: the agent or the board died of them, or others were in the way.
        installed: What COMMIT writes; known from preflight on.
        id: Number of its report.
        source: Whose desired state it carries out, and ``generation`` which of it.
        began_at: Unix seconds.
        rollback: An operator goes back to ``previous``: it was on trial before, so it
            is neither shadowed nor on probation, and holds against ``source``.
        factory: It came with the system.
    """

    pipeline: str
    model: str
    version: int
    sha256: str
    phase: Phase = Phase.IDLE
    attempts: Annotated[int, Meta(ge=0)] = 0
    installed: Installed | None = None
    id: int = 0
    source: str = ""
    generation: int = 0
    began_at: float = 0.0
    rollback: bool = False
    factory: bool = False


@dataclass(frozen=True, slots=True)
class Step:
    """One row of the table: where to go and what to do on the way."""

    phase: Phase
    actions: tuple[Action, ...] = ()


_HOME = Step(Phase.IDLE, (Action.DISCARD,))
_BACK = Step(Phase.ROLLING_BACK, (Action.SWAP_BACK,))

TRANSITIONS: Mapping[tuple[Phase, Event], Step] = MappingProxyType(
    {
        # The way up: each phase ends with the event that earns the next one.
        (Phase.IDLE, Event.ORDERED): Step(Phase.FETCHING, (Action.FETCH,)),
        (Phase.FETCHING, Event.FETCHED): Step(Phase.VERIFYING, (Action.VERIFY,)),
        (Phase.VERIFYING, Event.VERIFIED): Step(Phase.STAGING, (Action.STAGE,)),
        (Phase.STAGING, Event.STAGED): Step(Phase.PREFLIGHT, (Action.EXAMINE,)),
        (Phase.PREFLIGHT, Event.EXAMINED): Step(Phase.SHADOWING, (Action.SHADOW,)),
        (Phase.SHADOWING, Event.SHADOWED): Step(
            Phase.PROBATION, (Action.SWAP_IN, Action.WATCH)
        ),
        (Phase.PROBATION, Event.TRIAL_PASSED): Step(Phase.COMMITTING, (Action.COMMIT,)),
        (Phase.COMMITTING, Event.COMMITTED): Step(
            Phase.IDLE, (Action.ADOPT, Action.DISCARD)
        ),
        # The way down: before SWAP_IN there is only rubbish to discard.
        (Phase.FETCHING, Event.FAILED): _HOME,
        (Phase.VERIFYING, Event.FAILED): _HOME,
        (Phase.STAGING, Event.FAILED): _HOME,
        (Phase.PREFLIGHT, Event.FAILED): _HOME,
        (Phase.SHADOWING, Event.FAILED): _HOME,
        # From SWAP_IN on the active model has to answer again first.
        (Phase.PROBATION, Event.FAILED): _BACK,
        (Phase.COMMITTING, Event.FAILED): _BACK,
        (Phase.ROLLING_BACK, Event.RESTORED): _HOME,
        # The candidate's worker may be dead already; its supervisor starts the active.
        (Phase.ROLLING_BACK, Event.FAILED): _HOME,
        # Power came back: nothing of a trial survives, so there is nothing to undo.
        (Phase.IDLE, Event.RESTARTED): _HOME,
        (Phase.FETCHING, Event.RESTARTED): _HOME,
        (Phase.VERIFYING, Event.RESTARTED): _HOME,
        (Phase.STAGING, Event.RESTARTED): _HOME,
        (Phase.PREFLIGHT, Event.RESTARTED): _HOME,
        (Phase.SHADOWING, Event.RESTARTED): _HOME,
        (Phase.PROBATION, Event.RESTARTED): _HOME,
        (Phase.ROLLING_BACK, Event.RESTARTED): _HOME,
        # The trial was passed and COMMIT is idempotent, so it is simply done again.
        (Phase.COMMITTING, Event.RESTARTED): Step(Phase.COMMITTING, (Action.COMMIT,)),
    }
)


def step(phase: Phase, event: Event) -> Step:
    """Return the next phase and the actions that lead there.

    Raises:
        IllegalTransitionError: The table has no row for this pair (``internal``).
    """
    try:
        return TRANSITIONS[phase, event]
    except KeyError:
        raise IllegalTransitionError(
            f"{event.name} while {phase.name}", reason="internal"
        ) from None


def render_diagram() -> str:
    """Return the table as a Mermaid ``stateDiagram-v2``, for the README.

    ``RESTARTED`` comes back to IDLE from nearly everywhere; those rows are one note.
    """
    return "\n".join(["stateDiagram-v2", "    [*] --> IDLE", *_arrows(), *_note()])


def _arrows() -> Iterator[str]:
    """One arrow for each row that the note does not stand for."""
    for (phase, event), taken in TRANSITIONS.items():
        if (event, taken) != (Event.RESTARTED, _HOME):
            actions = ", ".join(taken.actions)
            yield f"    {phase} --> {taken.phase}: {event} / {actions}"


def _note() -> Iterator[str]:
    """The phases from which a restart only tidies up."""
    phases = [
        phase
        for (phase, event), taken in TRANSITIONS.items()
        if (event, taken) == (Event.RESTARTED, _HOME)
    ]
    yield "    note right of IDLE"
    yield f"        RESTARTED / {', '.join(_HOME.actions)}, from"
    yield f"        {', '.join(phases)}"
    yield "    end note"
