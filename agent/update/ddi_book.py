"""The client's memory at work: what is kept, saved before anyone is told of it.

The rules this module keeps:
 * Saved first: the machine is asked to look, and the server is told, only what a power
   cut cannot take back.
 * The machine looks again exactly when what it may do has changed, or when a failure
   has waited long enough; these attempts are counted, and paced by full jitter.
"""

from collections.abc import Callable

from agent.core.ddi import Record
from agent.core.ddi_actions import (
    Prefetch,
    desired,
    hold,
    left,
    may_start,
    prefetch,
    restart,
)
from agent.core.ddi_progress import Seen, cut_short, failing, observe, strike
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

    def look(self) -> None:
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
            record = strike(record, seen, self._settings.attempts, self.now_ms)
        self.keep(record)
        if due and record.open is not None:
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
        after = left(self.record, committed=not nothing, now_ms=self.now_ms)
        if after.open is not None:
            after = observe(after, self._seen(), self.now_ms)
            if after.open is not None and action.leaving == "superseded":
                after = cut_short(after, self._seen(), self.now_ms)
        self.keep(after)

    def is_watched(self) -> bool:
        """Return whether the machine may do something that the server has to know."""
        action = self.record.open
        if action is None or action.leaving:
            return False
        return action.said != "downloaded" or may_start(action)

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
        now, due = self._clock(), self._retry_at
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
