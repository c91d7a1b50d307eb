"""What a rollout at work needs of others: who shows it, and who opens waves."""

from concurrent.futures import Future
from dataclasses import dataclass
from typing import Literal, Protocol

from agent.cli.fleet_sight import Sight
from agent.core.waves import BoardCourse, Course, Decision


class View(Protocol):
    """Who is shown how it goes."""

    def decided(self, course: Course, decision: Decision, now: float) -> None:
        """Show a decision that was written down."""
        ...

    def changed(self, name: str, board: BoardCourse, now: float) -> None:
        """Show that a board stands elsewhere."""
        ...

    def draw(self, course: Course, decision: Decision, now: float) -> None:
        """Draw everything anew."""
        ...


class Opener(Protocol):
    """Lets boards begin that take their orders from a signed repository."""

    def open_wave(self, course: Course) -> int:
        """Let the wave under way begin; return the generation that says so."""
        ...

    def check(self, course: Course) -> None:
        """Look whether somebody else said something else since."""
        ...

    def close(self, course: Course) -> None:
        """Let no more boards begin by themselves, unless all may."""
        ...


@dataclass(frozen=True, slots=True)
class Task:
    """What a thread does with one board."""

    kind: Literal["look", "deliver", "back"]
    future: "Future[Sight] | Future[str] | Future[None]"
    began_at: float = 0.0
