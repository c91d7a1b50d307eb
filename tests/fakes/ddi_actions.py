"""What a DDI server keeps of one board's actions, by hawkBit's rules.

The rules this module keeps:
 * An order that replaces another cancels that one first: the board is shown the oldest
   action that is active, and a cancel until it was answered.
 * ``closed`` ends an action, everything else is news of it; an action that ended takes
   no more (410), one that waits for a confirmation none yet (404).
 * A cancel is accepted by ``closed`` and refused by ``rejected``.

Source: hawkBit 1.1, DdiRootController, JpaControllerManagement.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Json = dict[str, Any]

MAX_ENTRIES = 1000  # status entries of an action: hawkBit's quota
OK, BAD_REQUEST, FORBIDDEN, NOT_FOUND, NOT_ALLOWED, GONE = 200, 400, 403, 404, 405, 410
CANCELLED = frozenset({"CANCELING", "CANCELED"})
# What hawkBit makes of an execution state that is not ``closed``.
STATES = {
    "canceled": "CANCELED",
    "rejected": "WARNING",
    "download": "DOWNLOAD",
    "downloaded": "DOWNLOADED",
    "proceeding": "RUNNING",
    "scheduled": "RUNNING",
    "resumed": "RUNNING",
}


class RefusedFeedbackError(Exception):
    """Feedback that a server does not take.

    Attributes:
        status: Of the answer.
    """

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


@dataclass(frozen=True)
class Artifact:
    """A file of a software module.

    Attributes:
        said_size: What is said of its length; None: the truth.
    """

    filename: str
    content: bytes
    said_size: int | None = None


@dataclass(frozen=True)
class Chunk:
    """A software module, as a board sees it."""

    name: str = "model"
    version: str = "1"
    metadata: Mapping[str, str] = field(default_factory=dict)
    artifacts: Sequence[Artifact] = ()


@dataclass(frozen=True)
class Entry:
    """What was said of an action.

    Attributes:
        said: Execution state, with the result behind it where there is one.
        status: What the server made of it.
    """

    resource: str
    said: str
    status: str
    details: tuple[str, ...] = ()
    code: int | None = None


@dataclass
class Action:
    """An order to a board.

    Attributes:
        download: ``skip``, ``attempt`` or ``forced``; so is ``update``.
        window: ``available``, ``unavailable``, or empty for none.
        status: hawkBit's word for how it stands.
        active: Whether anything is still expected of the board.
    """

    id: str
    chunks: Sequence[Chunk]
    download: str = "forced"
    update: str = "forced"
    window: str = ""
    status: str = "RUNNING"
    active: bool = True
    entries: list[Entry] = field(default_factory=list)

    @property
    def said(self) -> list[str]:
        """Return what the board said of it, in order."""
        return [it.said for it in self.entries if it.resource == "deploymentBase"]

    @property
    def waits(self) -> bool:
        """Whether it waits for a confirmation."""
        return self.status == "WAIT_FOR_CONFIRMATION"

    @property
    def is_cancelled(self) -> bool:
        """Whether it is or was being cancelled."""
        return self.status in CANCELLED

    @property
    def stamp(self) -> int:
        """Return a number that changes with what a board may do of it (``c=``)."""
        words = f"{self.download} {self.update} {self.window}"
        return sum(place * byte for place, byte in enumerate(words.encode(), 1))

    def take(self, body: Json) -> None:
        """Take feedback to the deployment.

        Raises:
            RefusedFeedbackError: It is malformed, or comes too early or too late.
        """
        entry = _read(body, "deploymentBase")
        if self.waits:
            raise RefusedFeedbackError(NOT_FOUND)
        if not self.active:
            raise RefusedFeedbackError(GONE)
        ends = entry.said.startswith("closed")
        self._note(entry, counted=not ends)
        if ends:
            self._end(entry.status)
        elif self.update == "skip" and not self.window and entry.said == "downloaded":
            self._end("DOWNLOADED")  # hawkBit's "download only"

    def take_cancel(self, body: Json) -> None:
        """Take feedback to a cancel.

        Raises:
            RefusedFeedbackError: It is malformed, or nothing is being cancelled.
        """
        entry = _read(body, "cancelAction")
        if not self.is_cancelled:
            raise RefusedFeedbackError(NOT_ALLOWED)
        self._note(entry, counted=not entry.said.startswith("closed"))
        if entry.said == "rejected" or entry.status == "ERROR":
            self.status = "RUNNING"
        elif entry.said.startswith("closed"):
            self._end("CANCELED")

    def confirm(self, body: Json) -> None:
        """Take an answer to the question whether to begin.

        Raises:
            RefusedFeedbackError: It is malformed, or was not asked for.
        """
        word = body.get("confirmation")
        if word not in {"confirmed", "denied"}:
            raise RefusedFeedbackError(BAD_REQUEST)
        if not self.active:
            raise RefusedFeedbackError(GONE)
        if not self.waits:
            raise RefusedFeedbackError(NOT_FOUND)
        details = tuple(map(str, body.get("details") or ()))
        self._note(Entry("confirmationBase", word, "", details), counted=True)
        if word == "confirmed":
            self.status = "RUNNING"

    def _note(self, entry: Entry, *, counted: bool) -> None:
        """Keep an entry.

        Raises:
            RefusedFeedbackError: There are too many.
        """
        if counted and len(self.entries) >= MAX_ENTRIES:
            raise RefusedFeedbackError(FORBIDDEN)
        self.entries.append(entry)

    def _end(self, status: str) -> None:
        """Expect nothing more."""
        self.status, self.active = status, False


class Actions:
    """All actions of one board.

    Attributes:
        every: Oldest first.
    """

    def __init__(self) -> None:
        self.every: list[Action] = []

    def add(self, chunks: Sequence[Chunk], **fields: str) -> Action:
        """Order something; fields as in ``Action``."""
        action = Action(str(len(self.every) + 1), chunks, **fields)  # type: ignore[arg-type]  # the str fields only
        self.every.append(action)
        return action

    def cancel(self, action: Action, *, at_once: bool = False) -> None:
        """Ask the board to cancel; ``at_once``: do not wait for its answer."""
        if action.active:
            action.status = "CANCELED" if at_once else "CANCELING"
            action.active = not at_once

    def due(self) -> Action | None:
        """Return the one that the board is shown."""
        return next((it for it in self.every if it.active), None)

    def installed(self) -> Action | None:
        """Return the last one that succeeded."""
        done = [it for it in self.every if it.status == "FINISHED"]
        return done[-1] if done else None

    def get(self, number: str) -> Action:
        """Return one.

        Raises:
            RefusedFeedbackError: There is none of that number.
        """
        for action in self.every:
            if action.id == number:
                return action
        raise RefusedFeedbackError(NOT_FOUND)


def _read(body: Json, resource: str) -> Entry:
    """Read a feedback's status.

    Raises:
        RefusedFeedbackError: It is malformed.
    """
    status = body.get("status")
    if not isinstance(status, dict) or not isinstance(status.get("result"), dict):
        raise RefusedFeedbackError(BAD_REQUEST)
    execution, finished = status.get("execution"), status["result"].get("finished")
    code, details = status.get("code"), status.get("details") or []
    told = isinstance(details, list) and all(isinstance(it, str) for it in details)
    timed = isinstance(body.get("timestamp", 0), int)
    fine = finished in {"success", "failure", "none"} and timed and told
    if not fine or not isinstance(code, int | None):
        raise RefusedFeedbackError(BAD_REQUEST)
    if execution == "closed":
        made = "ERROR" if finished == "failure" else "FINISHED"
        return Entry(resource, f"closed/{finished}", made, tuple(details), code)
    if execution not in STATES:
        raise RefusedFeedbackError(BAD_REQUEST)
    return Entry(resource, execution, STATES[execution], tuple(details), code)
