"""The client's memory at work: what is kept, saved before anyone is told of it.

The rules this module keeps:
 * Saved first: the machine is asked to look, and the server is told, only what a power
   cut cannot take back.
 * The machine looks again exactly when what it may do has changed, or when a failure
   has waited long enough; these attempts are counted, and paced by full jitter.
 * An action has its last word after all that was under way of it has ended.
"""

from collections.abc import Callable

from agent.core.ddi import Action, Record
from agent.core.ddi_actions import (
    Offer,
    Prefetch,
    desired,
    exchange,
    hold,
    leave,
    left,
    may_start,
    prefetch,
    reopen,
    restart,
)
from agent.core.ddi_progress import (
    Seen,
    cut_short,
    done_part,
    failing,
    gave_up,
    is_partly_committed,
    observe,
    strike,
)
from agent.core.fleet_settings import DdiSettings
from agent.core.targets import GroupFile
from agent.update.ddi_needs import Errands, Kept
from agent.update.pace import Pace

# Attempts begin seconds apart and end an hour apart: the twelfth is some hours later.
MAX_RETRY_S = 3600.0


class Book:
    """Keeps the record and what follows from it.

    Attributes:
        record: What is kept.
    """

    def __init__(
        self,
        settings: DdiSettings,
        kept: Kept,
        errands: Errands,
        clock: Callable[[], float],
        draw: Callable[[], float],
    ) -> None:
        self.record = Record()
        self._settings = settings
        self._kept = kept
        self._errands = errands
        self._clock = clock
        self._draw = draw
        self._loaded = False
        self._retry_at = 0.0
        self._attempts = Pace(MAX_RETRY_S, draw)
        self._attempts_of = 0  # generation whose failures are paced

    @property
    def now_ms(self) -> int:
        """Unix milliseconds."""
        return int(self._clock() * 1000)

    def open(self) -> None:
        """Load what was kept, once; what was begun before is resumed.

        Raises:
            DeviceError: The store cannot be read or written.
        """
        if not self._loaded:
            self.record = self._kept.load()
            self._loaded = True
            self.keep(restart(self.record, self.now_ms))

    def keep(self, record: Record) -> None:
        """Save a record that changed; let the machine look if that concerns it.

        Raises:
            DeviceError: The store cannot be written.
        """
        if record == self.record:
            return
        self._kept.save(record)
        before, self.record = self._wanted(), record
        if self._wanted() != before:
            self._errands.look()

    async def look(self) -> None:
        """Take note of what the machine did, and let failures be tried again.

        Raises:
            DeviceError: The store cannot be read or written.
        """
        action = self.record.open
        if action is None or action.leaving:
            return
        seen = self._seen()
        record = observe(self.record, seen, self.now_ms)
        due = self._is_due(record, seen)
        if due:
            record = strike(record, seen, self._settings.attempts)
        self.keep(record)
        if record.open is not None and record.open.leaving:
            await self.let_go()
        elif due and record.open is not None:
            self._errands.look()

    def weigh(self) -> None:
        """Let the board's own condition hold what the server leaves to it.

        Asked once a poll, not more often: a sensor at its limit goes to and fro.

        Raises:
            DeviceError: The store cannot be read or written.
        """
        action = self.record.open
        if action is not None and not action.leaving:
            waits = "attempt" in {action.download, action.update}
            reason = self._errands.facts().battery_or_heat if waits else ""
            self.keep(hold(self.record, reason))

    async def let_go(self) -> None:
        """End what is under way of the action that is leaving; it has been saved.

        Raises:
            DeviceError: The store cannot be read or written.
        """
        action = self.record.open
        if action is None or not action.leaving:
            return
        nothing = await self._errands.withdraw(action.generation)
        self.keep(self._without(action, committed=not nothing))

    async def exchange(self, offer: Offer) -> None:
        """Let the open action, under the same id, want something else.

        Raises:
            DeviceError: The store cannot be read or written.
        """
        action = self.record.open
        if action is None:
            return
        self.keep(leave(self.record, "superseded"))
        await self._errands.withdraw(action.generation)
        # Else the board would go back by itself where it has come along already.
        done = done_part(self.record, self._seen())
        self.keep(exchange(self.record, offer, done))

    def is_partly_committed(self) -> bool:
        """Return whether something of the open action was committed: it goes on.

        Raises:
            DeviceError: The store cannot be read.
        """
        return is_partly_committed(self.record, self._seen())

    def is_watched(self) -> bool:
        """Return whether the machine may do something that the server has to know."""
        action = self.record.open
        if action is None or action.leaving:
            return False
        return action.said != "downloaded" or may_start(action)

    def _without(self, action: Action, *, committed: bool) -> Record:
        """Return the record after all has ended of the action that is leaving."""
        seen, now_ms = self._seen(), self.now_ms
        if action.leaving == "gave_up":
            return gave_up(self.record, seen, now_ms)
        committed = committed or is_partly_committed(self.record, seen)
        after = left(self.record, committed=committed, now_ms=now_ms)
        after = observe(after, seen, now_ms)
        if after.open is None:
            return after
        if action.leaving == "superseded":
            return cut_short(after, seen, now_ms)
        # Its commit came first: what is left of it goes on.
        return reopen(after)

    def _is_due(self, record: Record, seen: Seen) -> bool:
        """Whether something failed, and has waited long enough to be tried again."""
        action = record.open
        if action is None or not failing(record, seen):
            self._retry_at = 0.0
            return False
        if self._attempts_of != action.generation:
            self._attempts_of = action.generation
            self._attempts = Pace(MAX_RETRY_S, self._draw)
            self._retry_at = 0.0
        # A clock that was set back (a board without one, before NTP) costs no years.
        now = self._clock()
        due = self._retry_at = min(self._retry_at, now + 2 * MAX_RETRY_S)
        if due == 0.0 or now >= due:
            self._retry_at = now + self._attempts.after(failed=True)
        return 0.0 < due <= now

    def _seen(self) -> Seen:
        """Return the machine's facts as the core takes them."""
        facts = self._errands.facts()
        return Seen(
            tuple(facts.decisions),
            facts.progress,
            tuple(facts.reports),
            facts.fetched,
        )

    def _wanted(self) -> tuple[GroupFile | None, Prefetch | None]:
        """Return all of the record that is the machine's business."""
        window = self._settings.window
        return desired(self.record, window), prefetch(self.record, window)
