"""Following a board from a request to its end: phases as they pass, then the outcome.

The rules this module keeps:
 * A board that is out of reach for a while is waited for: it restarts, or its network
   does, and the update goes on there without us.
 * Nothing is decided here; ``agent.cli.outcome`` says what it all means.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from agent.cli.board_answers import IDLE, State, Updates
from agent.cli.board_link import BoardLink
from agent.cli.outcome import Outcome, is_idle, is_settled, judge
from agent.cli.plain_text import plain
from agent.core.reasons import Reason
from agent.core.updates import Progress, Report
from agent.errors import AgentError

POLL_S = 0.5  # twice a second looks live; a board allows five times that
# At first more often: a small model is fetched and tried within a second or two.
EAGER_S, EAGER_POLL_S = 2.0, 0.1
# A look begins within a moment of the doorbell; one that does not was not needed.
UNTOUCHED_S = 10.0
LOST_S = 60.0  # a board that restarts is back in 10 s, a router in 60 s


class Watcher(Protocol):
    """Who is shown what goes on."""

    def show(self, progress: Progress | None) -> None:
        """Show the update that is under way; None while the board looks."""
        ...

    def say(self, text: str) -> None:
        """Say one line."""
        ...


@dataclass(frozen=True, slots=True)
class Mark:
    """The board at the moment before it was asked: what is newer is our doing."""

    state: State
    newest_id: int


class Follower:
    """Follows one board.

    Args:
        link: The board.
        watcher: Who is shown what goes on.
        pause: Waits some seconds; raises to break off.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        link: BoardLink,
        watcher: Watcher,
        pause: Callable[[float], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._link = link
        self._watcher = watcher
        self._pause = pause
        self._clock = clock
        self._lost_at: float | None = None
        self._began_at = 0.0
        self._told: set[int] = set()

    def mark(self) -> Mark:
        """Remember the board as it is now."""
        return Mark(self._link.state(), self._link.updates().newest_id())

    def follow_look(self, mark: Mark) -> list[Outcome]:
        """Wait until a look and what it led to have ended; return how.

        Raises:
            AgentError: The board was lost for too long, or broke off.
        """
        self._began_at = touched_at = self._clock()
        while True:
            seen = self._look_at()
            if seen is not None:
                state, updates = seen
                self._show(updates, mark)
                if not is_idle(state):
                    touched_at = self._clock()
                untouched = self._clock() - touched_at > UNTOUCHED_S
                if is_settled(mark.state, state) or (is_idle(state) and untouched):
                    newer = _newer(updates, mark)
                    return judge(mark.state, state, newer, updates.reports)
            self._wait()

    def follow_others(self, mark: Mark) -> None:
        """Wait until what others began has ended.

        Raises:
            AgentError: As ``follow_look``.
        """
        self._began_at = self._clock()
        while True:
            seen = self._look_at()
            if seen is not None:
                state, updates = seen
                self._show(updates, mark)
                if updates.progress is None and state.update.phase == IDLE:
                    return
            self._wait()

    def follow_rollback(self, mark: Mark, pipeline: str) -> list[Outcome]:
        """Wait until a rollback has ended; return how.

        Raises:
            AgentError: As ``follow_look``.
        """
        self._began_at = touched_at = self._clock()
        while True:
            seen = self._look_at()
            if seen is not None:
                _, updates = seen
                self._show(updates, mark)
                if updates.progress is not None:
                    touched_at = self._clock()
                ours = [r for r in _newer(updates, mark) if r.pipeline == pipeline]
                untouched = self._clock() - touched_at > UNTOUCHED_S
                ended = updates.progress is None and (ours or untouched)
                # The state was read before the report: what runs may be another.
                after = self._look_at() if ended else None
                if after is not None:
                    rows = judge(mark.state, after[0], ours)
                    return [row for row in rows if row.pipeline == pipeline]
            self._wait()

    def _show(self, updates: Updates, mark: Mark) -> None:
        """Show what goes on, and say what ended meanwhile."""
        for report in reversed(_newer(updates, mark)):
            if report.id not in self._told:
                self._told.add(report.id)
                why = f" [{report.reason}]" if report.reason else ""
                what = f"{report.pipeline}: {report.model} {report.version}"
                self._watcher.say(plain(f"{what} {report.result}{why}"))
        self._watcher.show(updates.progress)

    def _wait(self) -> None:
        """Wait until the next look, at first not for long."""
        eager = self._clock() - self._began_at < EAGER_S
        self._pause(EAGER_POLL_S if eager else POLL_S)

    def _look_at(self) -> tuple[State, Updates] | None:
        """Return what the board says; None while it is out of reach.

        The state is read first: where it says that nothing is under way, the reports
        that are read after it are complete.
        """
        try:
            state = self._link.state()
            updates = self._link.updates()
        except AgentError as err:
            # Only the way to it may fail: a board that refuses will go on refusing.
            now = self._clock()
            if (
                err.reason != Reason.UNREACHABLE
                or now - (self._lost_at or now) > LOST_S
            ):
                raise
            if self._lost_at is None:
                self._watcher.say("lost the board; waiting for it to come back")
                self._lost_at = now
            return None
        self._lost_at = None
        return state, updates


def _newer(updates: Updates, mark: Mark) -> Sequence[Report]:
    """Return the reports since a moment, newest first."""
    since = [report for report in updates.reports if report.id > mark.newest_id]
    return sorted(since, key=lambda report: -report.id)
