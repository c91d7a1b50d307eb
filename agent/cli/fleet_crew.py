"""The hands of a rollout: what is asked of one board, in a thread of its own.

The rules this module keeps:
 * One board is asked by one thread at a time, and a connection is kept open only while
   the board is on its way: an operator's machine has a thousand descriptors.
 * Nothing is decided here.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from threading import Lock

from rich.console import Console

from agent.cli.board_link import BoardLink
from agent.cli.delivery import Delivery, Order
from agent.cli.fleet_return import Return
from agent.cli.fleet_sight import Reader, Sight
from agent.cli.plain_text import bytes_text
from agent.cli.slice_files import Slice
from agent.cli.update_view import BoardView, UpdateView
from agent.core.reasons import Reason
from agent.core.waves import BoardCourse
from agent.errors import RequestRefusedError


class Notes(BoardView):
    """What a delivery says about its board, kept for whoever draws the table."""

    def __init__(self, name: str, tell: Callable[[str, str], None]) -> None:
        super().__init__(UpdateView(Console(quiet=True)), name)
        self._board = name
        self._tell = tell

    def say(self, text: str) -> None:
        """Keep a line."""
        self._tell(self._board, text)

    def sending(self, done: int, total: int) -> None:
        """Keep how much of an upload the board has."""
        self._tell(self._board, f"sending, {bytes_text(done)} of {bytes_text(total)}")


@dataclass(slots=True)
class Crew:
    """Asks boards for one rollout.

    Attributes:
        links: By board.
        reader: Knows what is assigned.
        files: A slice to bring; None where boards fetch by themselves.
        pause: Waits some seconds; raises to break off.
        notes: What deliveries say just now, by board.
    """

    links: Mapping[str, BoardLink]
    reader: Reader
    files: Slice | None
    pause: Callable[[float], None]
    notes: dict[str, str] = field(default_factory=dict)
    _lock: Lock = field(default_factory=Lock)

    def look(self, board: str) -> Sight:
        """Return what a board says.

        The state is read first: where it says that nothing is under way, the reports
        that are read after it are complete.

        Raises:
            AgentError: It does not answer, or does not let us look.
        """
        link = self._link_again(board)
        state = link.state()
        updates = link.updates()
        pushed = link.desired() if self.reader.by_push else None
        return Sight(state, updates, pushed)

    def deliver(self, board: str, generation: int) -> None:
        """Tell a board: bring it what it needs, then order it, or ring its doorbell.

        Raises:
            AgentError: It refused, or was lost on the way.
        """
        delivery = Delivery(self.links[board], Notes(board, self._note), self.pause)
        order = Order(
            files=self.files,
            assign=self.reader.assign if self.reader.by_push else {},
            generation=generation if self.reader.by_push else 0,
            wait=False,
        )
        try:
            delivery.carry_out(order)
        except RequestRefusedError as err:
            # A board that looks already needs no doorbell.
            if err.reason != Reason.BUSY or self.reader.by_push:
                raise
        finally:
            self._note(board, "")

    def take_back(self, board: str, course: BoardCourse) -> str:
        """Let a board run again what ran before; return that, for people.

        Args:
            board: Which one.
            course: What this rollout has done to it.

        Raises:
            AgentError: It refused, or was lost on the way.
        """
        link = self._link_again(board)
        return Return(link, self.reader, self.pause, course).carry_out()

    def _link_again(self, board: str) -> BoardLink:
        """Return a board's link, also after what it waited for was broken off.

        Raises:
            DeviceError: ``stopping``: everybody is leaving.
        """
        link = self.links[board]
        link.go_on()
        # Asked afterwards: who leaves ends pauses first and links then, so that one
        # that is opened here in between is ended all the same.
        self.pause(0.0)
        return link

    def close(self, board: str) -> None:
        """Close a board's connection; the next question opens one again."""
        self.links[board].close()

    def break_off(self, board: str) -> None:
        """End what a board's thread waits for."""
        self.links[board].break_off()

    def _note(self, board: str, text: str) -> None:
        """Keep what a delivery says."""
        with self._lock:
            if text:
                self.notes[board] = text
            else:
                self.notes.pop(board, None)
