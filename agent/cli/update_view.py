"""How a running update is shown: a line for each step that stays, and a live bar.

The rules this module keeps:
 * On a terminal the bar moves in place below the lines; elsewhere there are only the
   lines, so that a log shows the same story.
 * All of it goes to standard error; what a script reads is elsewhere.
"""

import time
from collections.abc import Callable
from threading import Lock
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.text import Text

from agent.cli.plain_text import bytes_text, plain
from agent.core import updates

BAR_WIDTH = 26  # description, bar, bytes and time fit 80 columns


class UpdateView:
    """The steps of several boards on one console.

    Args:
        console: Where to; ``stderr=True``.
        width: Of the longest board's name; 0 where there is only one board.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        console: Console,
        width: int = 0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._console = console
        self._width = width
        self._clock = clock
        self._lock = Lock()
        self._bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(BAR_WIDTH),
            TextColumn("{task.fields[amount]}"),
            TimeElapsedColumn(),
            console=console,
            transient=True,
        )

    def __enter__(self) -> Self:
        """Begin to draw."""
        if self._console.is_terminal:
            self._bars.start()
        return self

    def __exit__(self, *details: object) -> None:
        """Take the bars away; the lines stay."""
        if self._console.is_terminal:
            self._bars.stop()

    @property
    def several(self) -> bool:
        """Whether lines say which board they are about."""
        return self._width > 0

    def board(self, name: str = "") -> "BoardView":
        """Return the view of one board."""
        return BoardView(self, name)

    def line(self, board: str, text: str, since_s: float) -> None:
        """Print a line that stays."""
        lead = f"{plain(board):<{self._width}}  " if self._width else ""
        # Boards are served by several threads, and a line is one line.
        with self._lock:
            at = (f"{since_s:7.1f} s  ", "dim")
            self._console.print(Text.assemble(at, f"{lead}{text}"))

    def open_bar(self, description: str) -> TaskID:
        """Add a bar; it shows nothing before it was moved."""
        return self._bars.add_task(description, visible=False, amount="")

    def close_bar(self, bar: TaskID) -> None:
        """Take a bar away."""
        self._bars.remove_task(bar)

    def set_bar(self, bar: TaskID, description: str, done: int, total: int) -> None:
        """Move a bar; without a total it only shows that something goes on."""
        amount = f"{bytes_text(done)} of {bytes_text(total)}" if total else ""
        self._bars.update(
            bar,
            description=description,
            completed=done,
            total=total or None,
            amount=amount,
            visible=True,
        )

    def now(self) -> float:
        """Return monotonic seconds."""
        return self._clock()


class BoardView:
    """What one board does, as its follower and its upload tell it."""

    def __init__(self, view: UpdateView, name: str) -> None:
        self._view = view
        self._name = name
        self._began_s = view.now()
        self._last: tuple[object, ...] = ()
        self._bar: TaskID | None = None

    def say(self, text: str) -> None:
        """Print a line that stays."""
        self._view.line(self._name, text, self._view.now() - self._began_s)

    def sending(self, done: int, total: int) -> None:
        """Show how much of an upload the board has."""
        self._move("sending", done, total)

    def show(self, progress: updates.Progress | None) -> None:
        """Show the phase; a new one also gets a line."""
        if progress is None:
            self._move("looking", 0, 0)
            return
        phase = plain(progress.phase, 16)
        what = f"{progress.pipeline}: {progress.model} {progress.version}"
        if self._last != (progress.id, phase):
            self._last = (progress.id, phase)
            size = bytes_text(progress.total_bytes) if progress.total_bytes else ""
            note = f", {size}" if size and phase == "FETCHING" else ""
            self.say(f"{plain(what, 60)} {phase}{note}")
        # Only fetching has a known length; the other phases end when they end.
        fetching = phase == "FETCHING"
        total = progress.total_bytes if fetching else 0
        self._move(phase, progress.done_bytes if fetching else 0, total)

    def end(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._view.close_bar(self._bar)
            self._bar = None

    def _move(self, what: str, done: int, total: int) -> None:
        """Move this board's bar."""
        description = f"{self._name} {what}".strip()
        if self._bar is None:
            self._bar = self._view.open_bar(description)
        self._view.set_bar(self._bar, description, done, total)
