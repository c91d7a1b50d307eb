"""The watcher of one loaded model: when to look, what that cost, and when to say so.

It is called by the turn, on the loop's thread, after a sample was answered, counted and
passed on: a look is part of no duration, and delays only the sample after it. What is
seen is the eye's (``agent.worker.watch_build``).

The rules this module keeps:
 * A sample that is not looked at costs one comparison with ``due``.
 * Whatever fails here costs no sample: it is logged once, watching ends, and says so.
 * Reports are immutable, and handed over by reference; the loop never waits for them.
 * Where nothing was seen, nothing is reported; nor is what the daemon cannot read: it
   would end the worker for a statistic of a bad profile that is no number.
"""

import logging
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from msgspec.structs import replace

from agent.core.messages import Anchored, Watched, parse_from_child, render_message
from agent.core.reasons import Reason
from agent.core.watching import AnchorState, Monitored
from agent.worker.samples import Arrays, InputError, OutputError
from agent.worker.watch_pace import NEVER, Pace

log = logging.getLogger(__name__)
REPORT_NS = 1_000_000_000  # a page is drawn once a second, Prometheus asks less often
# An alarm is reported at once; but scores that dance around a threshold are no flood:
# the daemon breaks off with a worker that says 100 things a second.
HURRY_NS = 100_000_000


class Eye(Protocol):
    """What sees: features, detectors and what they have found so far."""

    @property
    def interval(self) -> int:
        """One in so many samples should be looked at."""

    def look(
        self, seq: int, inputs: Arrays, outputs: Arrays, index: int, score: float
    ) -> bool:
        """Look at one answered sample; True if that is to be reported at once."""

    def say(self) -> Monitored:
        """Say what was seen, without what only the watcher knows."""

    def baseline(self) -> bytes | None:
        """Return a baseline that was just completed, to be kept; None otherwise."""

    def commission(self) -> None:
        """Forget this board's baseline and collect another."""


class Blind:
    """The eye of a model that cannot be watched: it says why."""

    interval = NEVER

    def __init__(self, detail: str, said: Monitored | None = None) -> None:
        state = AnchorState("shipped", valid=False, reason=Reason.INTERNAL)
        # Counters and latched alarms stay as they were: nobody knows better now.
        before = said or Monitored()
        self._said = replace(
            before,
            anchors=(replace(state, detail=detail[:500]),),
            scores=(),
            features=(),
        )

    def look(
        self, seq: int, inputs: Arrays, outputs: Arrays, index: int, score: float
    ) -> bool:
        """See nothing."""
        del seq, inputs, outputs, index, score
        return False

    def say(self) -> Monitored:
        """Say why nothing is seen, beside what was seen before."""
        return self._said

    def baseline(self) -> bytes | None:
        """Have none."""
        return None

    def commission(self) -> None:
        """Collect nothing."""


@dataclass(frozen=True, slots=True)
class Clocks:
    """The clocks of a watcher, in nanoseconds.

    Attributes:
        now: Time that passes, for rates and the budget.
        spent: CPU time of this thread: who waits for the GIL or for a core while it
            looks does not spend anything. It costs 0.3 us, ``now`` 0.05.
    """

    now: Callable[[], int] = time.perf_counter_ns
    spent: Callable[[], int] = time.thread_time_ns


Say = Callable[[Watched | Anchored], None]


@dataclass(frozen=True, slots=True)
class Rules:
    """What the daemon said about watching.

    Attributes:
        generation: Of the model's load.
        privacy: Counts of answers, and features, are reported as they were when the
            last window closed: live ones tell who was there when.
        number: Of the collection of a baseline that it begins with.
    """

    generation: int
    privacy: bool = False
    number: int = 0


class Watcher:
    """Watches one loaded model.

    Args:
        rules: What the daemon said.
        eye: What sees.
        pace: Decides when to look.
        say: Takes reports; never waits.
        clocks: Read around each look.

    Attributes:
        due: Number of the sample that is looked at next, in a list, so that the turn
            reads it fast and others may bring it forward.
    """

    def __init__(
        self, rules: Rules, eye: Eye, pace: Pace, say: Say, clocks: Clocks
    ) -> None:
        self._rules = rules
        self._eye = eye
        self._pace = pace
        self._say = say
        self._clocks = clocks
        self.due = [NEVER if isinstance(eye, Blind) else 0]
        self._visited = 0  # number of the last sample that was due
        self._busy_ns = 0  # of all samples up to that
        self._samples = 0
        self._invalid: Counter[str] = Counter()
        self._number = self._ordered = rules.number
        self._shown = Monitored()  # privacy: as of the last closed window
        self._hurry = False
        self._news = False  # something that was not reported yet
        self._looks_said = 0  # as of the last report, whose share is of these looks
        self._rested = True  # the last report's share is that of a pause
        self._reported_at = clocks.now()
        self._reported_spent = 0
        # Composed beside the model that still answers: the loop only passes it on.
        self._first: Watched | None = self._compose(eye.say(), self._reported_at)

    def begin(self) -> None:
        """Say what there is to compare with; called when the model begins to answer."""
        if self._first is not None:
            self._say(self._first)
            self._first = None

    def look(
        self,
        seq: int,
        busy_ns: int,
        inputs: Arrays,
        outputs: Arrays,
        index: int,
        score: float,
    ) -> None:
        """Look at the sample that was due, if it is affordable, and choose the next.

        Args:
            seq: The sample's number.
            busy_ns: How long all samples so far kept the loop.
            inputs: What the model was given; ``outputs`` its answer, stored values.
            outputs: See above.
            index: The answer's label, -1 without; ``score`` its score.
            score: See above.
        """
        try:
            pace, spent = self._pace, self._clocks.spent
            now_ns = self._clocks.now()
            self._busy_ns, self._visited = busy_ns, seq
            if not pace.may_look(seq, now_ns, busy_ns):
                self.due[0] = pace.later()
                return
            began_ns = spent()
            if self._ordered != self._number:
                # A baseline that completes until here is still one of the old number.
                self._number = self._ordered
                self._eye.commission()
            self._hurry |= self._eye.look(seq, inputs, outputs, index, score)
            self._samples += 1
            self._news = True
            pace.pay(spent() - began_ns)
            self.due[0] = pace.next_due(self._eye.interval)
            self._report_if_due(now_ns)
        except Exception as err:  # noqa: BLE001 - watching is worth no sample: it ends, logged
            self._end(err)

    def fail(self, seq: int, err: Exception) -> None:
        """Count a sample that became no answer; in a storm only some do more."""
        wrong = _what_is_wrong(err)
        if wrong:
            self._invalid[wrong] += 1
            self._news = True
        if seq >= self.due[0]:
            self._guard(lambda: self._visit(seq))

    def rest(self) -> None:
        """Called while no sample comes: the next one is due as if none had been missed.

        What a fast source made wide would otherwise last for minutes on a slow one.
        """
        self._guard(self._rest)

    def commission(self, number: int) -> None:
        """Collect another baseline from the next look on; any thread may ask.

        Args:
            number: Of that collection: another than the last one's.
        """
        self._ordered = number

    def finish(self) -> None:
        """Say the last word; no look may follow, nor run."""
        if self._news:
            self._guard(self._report)

    def _rest(self) -> None:
        """Bring a look forward that is overdue, and report what was not yet."""
        now_ns = self._clocks.now()
        # Not in every pause: gaps would be what pauses make them.
        if self.due[0] != NEVER and self._pace.overdue(now_ns):
            soon = self._visited + self._eye.interval
            self.due[0] = min(self.due[0], soon)
        # Once more after the last news: else a busy second's share is shown for hours.
        if self._news or not self._rested:
            self._report_if_due(now_ns)

    def _visit(self, seq: int) -> None:
        """Come by without looking: choose the next sample, and report."""
        now_ns = self._clocks.now()
        self._visited = seq
        self._pace.may_look(seq, now_ns, self._busy_ns)
        self.due[0] = self._pace.next_due(self._eye.interval)
        self._report_if_due(now_ns)

    def _report_if_due(self, now_ns: int) -> None:
        """Report once a second, and sooner where an alarm changed."""
        if now_ns - self._reported_at >= (HURRY_NS if self._hurry else REPORT_NS):
            began_ns = self._clocks.spent()
            self._report()
            self._pace.pay(self._clocks.spent() - began_ns, look=False)

    def _report(self) -> None:
        """Hand over what was seen so far, and a baseline once there is one."""
        now_ns, spent_ns = self._clocks.now(), self._pace.spent_ns
        self._say(self._compose(self._eye.say(), now_ns))
        looked = self._samples > self._looks_said
        self._rested = not looked or spent_ns == self._reported_spent
        self._looks_said = self._samples
        self._reported_at, self._reported_spent = now_ns, spent_ns
        self._hurry = self._news = False
        baseline = self._eye.baseline()
        if baseline is not None:
            self._say(Anchored(self._rules.generation, baseline, self._number))

    def _compose(self, said: Monitored, now_ns: int) -> Watched:
        """Join what the eye says with what only the watcher knows."""
        spent_ns = self._pace.spent_ns
        passed_ns = max(1, now_ns - self._reported_at)
        invalid = self._invalid + Counter(said.invalid)
        whole = replace(
            said,
            samples=self._samples,
            interval=self._pace.spacing,
            spent_ns=spent_ns,
            share=(spent_ns - self._reported_spent) / passed_ns,
            invalid=dict(invalid),
        )
        return _readable(Watched(self._rules.generation, self._veiled(whole)))

    def _veiled(self, said: Monitored) -> Monitored:
        """Return what may be shown of it."""
        if not self._rules.privacy:
            return said
        if said.windows != self._shown.windows:
            self._shown = said
        shown = self._shown
        return replace(
            said,
            predictions=shown.predictions,
            confidence=shown.confidence,
            confidence_sum=shown.confidence_sum,
            accuracy=shown.accuracy,
            features=shown.features,
        )

    def _guard(self, act: Callable[[], None]) -> None:
        """Do something that must not end the loop."""
        try:
            act()
        except Exception as err:  # noqa: BLE001 - watching is worth no sample: it ends, logged
            self._end(err)

    def _end(self, err: Exception) -> None:
        """Look no more, and say why."""
        self.due[0] = NEVER
        if isinstance(self._eye, Blind):
            return
        log.warning(
            "the model is not watched any more: %s: %s",
            type(err).__name__,
            err,
            extra={"reason": Reason.INTERNAL},
        )
        self._eye = Blind(f"{type(err).__name__}: {err}", self._last_said())
        self._guard(self._report)

    def _last_said(self) -> Monitored | None:
        """Return what the eye can still say, if it can."""
        try:
            said = replace(self._eye.say(), scores=(), features=())
            return _readable(Watched(self._rules.generation, said)).monitored
        except Exception:  # noqa: BLE001 - the failure that ended it was logged
            return None


def _readable(report: Watched) -> Watched:
    """Return a report as the daemon will read it, some 50 us a second.

    Raises:
        DeviceError: It cannot: a number is none, or beyond what can be said.
    """
    parse_from_child(render_message(report))
    return report


def _what_is_wrong(err: Exception) -> str:
    """Return the word for a bad sample, empty where the sample was not the reason."""
    if isinstance(err, InputError):
        return err.wrong
    return "nan" if isinstance(err, OutputError) else ""
