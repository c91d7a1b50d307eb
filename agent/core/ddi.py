"""What a board keeps about a DDI server's actions, durably: the words of the client.

An *action* is the server's order to this board. What it wants becomes a desired state
of source ``ddi``, under a generation of our own: the plan and the update machine treat
it like any other. What the server is told waits in ``outbox`` until it has been taken.

Source: hawkBit, "Direct Device Integration API" (release 1.1.0).
"""

from typing import Annotated, Literal

from msgspec import Meta, field

from agent.core.manifest import MAX_VERSION, ModelName
from agent.core.targets import Strict, Wanted

SOURCE = "ddi"  # what decisions, reports and holds call it
MAX_OUTBOX = 64  # a server may be away for weeks; what an action ended with stays
MAX_PIPELINES = 64  # as many as a desired state names
MAX_ENDED = 64  # servers offer an action or two at a time

ActionId = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_-][A-Za-z0-9_.-]{0,63}$(?!\n)")]
Mode = Literal["skip", "attempt", "forced"]
Execution = Literal[
    "closed",
    "proceeding",
    "canceled",
    "scheduled",
    "rejected",
    "resumed",
    "downloaded",
    "download",
]
Finished = Literal["success", "failure", "none"]
# Which of the server's resources takes the feedback.
Resource = Literal["deploymentBase", "cancelAction", "confirmationBase"]


class Feedback(Strict, frozen=True):
    """One thing that the server has to be told.

    Attributes:
        resource: Where it is posted, below the controller's own path.
        execution: State of the action, or ``confirmed`` / ``denied``.
        action: Whose resource it is: of a cancellation its own id.
        reason: Our word for why; ``details`` are for people.
        at_ms: Unix milliseconds.
    """

    resource: Resource
    action: ActionId
    execution: Execution | Literal["confirmed", "denied"]
    finished: Finished = "none"
    reason: str = ""
    details: tuple[str, ...] = ()
    at_ms: int = 0

    @property
    def is_last(self) -> bool:
        """Whether it ends something: it is never dropped for a newer one."""
        # An answer to a question (may it be canceled, may it begin) is its end, too.
        asked = self.resource != "deploymentBase"
        return asked or self.execution in {"closed", "canceled"}


class Action(Strict, frozen=True):
    """The action that is open.

    Attributes:
        generation: Ours, of the desired state that it became.
        pipelines: What it wants.
        download: Whether bytes may come: ``attempt`` waits for the board's own window,
            ``forced`` does not, ``skip`` asks for none.
        update: Whether it may be tried and committed, likewise.
        window_open: The server's maintenance window is open, or there is none.
        said: The execution state that was reported last.
        failures: How often it failed for what may pass by itself.
        told: How many times something was said of it.
        held: Why this board had better not begin it now (``heat``), else empty.
        leaving: Why it is being withdrawn (``canceled``, ``superseded``, ``gave_up``),
            else empty: it is wanted no more, and what is under way of it has not ended.
        cancel: Id of the cancellation that asks for it.
        why: What it failed with, for its last word, where it was given up.
        since: The first generation that it had, where it went on under another one;
            else 0. What was committed under any of them was committed of it.
    """

    id: ActionId
    generation: Annotated[int, Meta(ge=1, le=MAX_VERSION)]
    pipelines: Annotated[
        dict[ModelName, Wanted], Meta(min_length=1, max_length=MAX_PIPELINES)
    ]
    download: Mode = "forced"
    update: Mode = "forced"
    window_open: bool = True
    said: str = ""
    failures: int = 0
    told: int = 0
    held: str = ""
    leaving: str = ""
    cancel: str = ""
    why: tuple[str, ...] = ()
    since: Annotated[int, Meta(ge=0, le=MAX_VERSION)] = 0

    @property
    def generations(self) -> range:
        """All that it had."""
        return range(self.since or self.generation, self.generation + 1)


class Ended(Strict, frozen=True):
    """An action that ended.

    Attributes:
        word: What the server was told of its end.
        gone: The server has stopped offering it since: it believed the word, and
            whoever offers that id again means something new.
    """

    id: ActionId
    word: Feedback
    gone: bool = False


class Record(Strict, frozen=True):
    """Everything that must outlast a power cut.

    Attributes:
        generation: The last one that was given.
        runs: What earlier actions brought, and is still wanted.
        open: The action under way.
        ended: The last actions that ended, newest last: not begun again.
        outbox: What the server has to be told, in this order.
        identity: Digest of the attributes that the server was told.
    """

    generation: Annotated[int, Meta(ge=0, le=MAX_VERSION)] = 0
    runs: Annotated[dict[ModelName, Wanted], Meta(max_length=MAX_PIPELINES)] = field(
        default_factory=dict
    )
    open: Action | None = None
    ended: Annotated[tuple[Ended, ...], Meta(max_length=MAX_ENDED)] = ()
    outbox: Annotated[tuple[Feedback, ...], Meta(max_length=MAX_OUTBOX)] = ()
    identity: str = ""
