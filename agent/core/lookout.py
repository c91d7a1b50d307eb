"""The lookout of one pipeline: from snapshots and readings to signals.

The rules this module keeps:
 * Only what is the committed model's own counts. What a candidate does, late answers,
   deaths and drift alike, is its probation's business: it must not hold back a
   pipeline that it leaves in a minute. A stand-in that dies gives way to what was
   committed, which is help enough.
 * Counters that fall, another model or another budget begin their window anew.
 * While a measure keeps the model from answering, or another variant answers for it,
   its monitor sees nothing: what it said last is no news, until it has looked again
   for ``REVIEW_S``.
"""

from collections import deque
from collections.abc import Sequence

from agent.core.degradation import Measure
from agent.core.histogram import count_above
from agent.core.readings import BoardReadings
from agent.core.reasons import Reason
from agent.core.sensors import LostSensors, believable
from agent.core.signals import Drift, Signals
from agent.core.snapshot import PipelineSnapshot
from agent.core.statistics_block import OK, Section
from agent.core.watching import SEVERITIES, ModelWatch

# Late answers: long enough for 20 of them at one in three seconds, and half of the
# patience, so that it can be seen in time that less work has helped.
WINDOW_S = 60.0
CRASHES_S = 600.0  # as [degrade] says
REVIEW_S = 60.0  # some windows of a monitor that sees a sample a second
DEATHS = (Reason.CRASH, Reason.HANG, Reason.OOM)
_NS_PER_MS = 1e6
_WITHOUT_MODEL = {Measure.ABSTAIN, Measure.SAFE_OUTPUT}


class Growth:
    """How much counters grew within the last ``span_s``.

    >>> growth = Growth(10.0)
    >>> [growth.add(at_s, total) for at_s, total in ((0, 5), (6, 7), (12, 9))]
    [(0,), (2,), (4,)]
    """

    def __init__(self, span_s: float) -> None:
        self._span_s = span_s
        self._seen: deque[tuple[float, tuple[int, ...]]] = deque()

    def add(self, now_s: float, *totals: int) -> tuple[int, ...]:
        """Note what counters say now; return how much they grew."""
        seen = self._seen
        if seen and any(a < b for a, b in zip(totals, seen[-1][1], strict=True)):
            self.clear()
        if not seen or seen[-1][1] != totals:
            seen.append((now_s, totals))
        # The oldest kept is what they were when the span began: the second one would
        # forget what grew between the two.
        while len(seen) > 1 and seen[1][0] <= now_s - self._span_s:
            seen.popleft()
        return tuple(a - b for a, b in zip(totals, seen[0][1], strict=True))

    def clear(self) -> None:
        """Begin anew with the next totals."""
        self._seen.clear()


class Lookout:
    """Remembers of one pipeline what a single look cannot tell."""

    def __init__(self) -> None:
        self._answers = Growth(WINDOW_S)
        self._crashes = Growth(CRASHES_S)
        self._judged: tuple[object, ...] = ()
        self._deaths: int | None = None  # all that were seen
        self._own = 0  # those of them that count
        self._tried = False  # what answered last was a candidate
        self._withheld_until_s = float("-inf")
        self._lost = LostSensors()

    def see(
        self,
        now_s: float,
        pipeline: PipelineSnapshot,
        board: BoardReadings,
        measures: Sequence[Measure] = (),
    ) -> Signals:
        """Return the signals of one look.

        Args:
            now_s: When, by a monotonic clock.
            pipeline: The pipeline as of now.
            board: The board's newest readings.
            measures: What is in force in the pipeline.
        """
        if _WITHOUT_MODEL.intersection(measures) or _is_another(pipeline):
            self._withheld_until_s = now_s + REVIEW_S
        sensor, celsius = hottest(board)
        lost = self._lost.see(now_s, believable(board))
        answers, late = self._count_late(now_s, pipeline)
        crashes = self._count_crashes(now_s, pipeline)
        reviewed = now_s >= self._withheld_until_s
        told = reviewed and pipeline.state != "candidate"
        if pipeline.state != "none":
            self._tried = pipeline.state == "candidate"
        return Signals(
            now_s=now_s,
            celsius=celsius,
            sensor=sensor,
            lost=lost,
            throttled=tuple(kind for kind, holds in board.throttled if holds),
            memory_available_bytes=board.memory_available_bytes,
            memory_stalled_percent=board.memory_stalled_percent,
            answers=answers,
            late=late,
            crashes=crashes,
            drift=judge_watch(pipeline.active_watch()) if told else "none",
        )

    def _count_late(self, now_s: float, pipeline: PipelineSnapshot) -> tuple[int, int]:
        """Return the answers within the window, and those over the budget."""
        active = pipeline.active
        if active is None or pipeline.state == "candidate":
            self._answers.clear()
            return 0, 0
        budget_ms = pipeline.budgets_ms.get(active.version)
        judged = (active.model, active.version, budget_ms)
        if judged != self._judged:
            self._answers.clear()
            self._judged = judged
        section = _section_of(pipeline)
        if section is None or budget_ms is None:
            return 0, 0
        late = count_above(section.stages[-1].buckets, budget_ms * _NS_PER_MS)
        grown = self._answers.add(now_s, section.outcomes[OK], late)
        return grown[0], grown[1]

    def _count_crashes(self, now_s: float, pipeline: PipelineSnapshot) -> int:
        """Return the deaths within ten minutes that no candidate is to blame for.

        A worker that dies while a candidate answers is counted when it is buried,
        which may be after the next one has begun: what answered last decides.
        """
        deaths = sum(pipeline.restarts.get(reason, 0) for reason in DEATHS)
        deaths -= pipeline.stand_in_deaths
        before = deaths if self._deaths is None else self._deaths
        if not self._tried:
            self._own += max(0, deaths - before)
        self._deaths = deaths
        return self._crashes.add(now_s, self._own)[0]


def hottest(board: BoardReadings) -> tuple[str, float]:
    """Return name and temperature of the hottest sensor that can be believed.

    >>> hottest(BoardReadings(temperatures=(("soc", 50.0), ("odd", 2000.0))))
    ('soc', 50.0)
    >>> hottest(BoardReadings(temperatures=(("CPU-therm", 50.0), ("PMIC-Die", 100.0))))
    ('CPU-therm', 50.0)
    """
    known = [(celsius, sensor) for sensor, celsius in believable(board).items()]
    celsius, sensor = max(known, default=(float("nan"), ""))
    return sensor, celsius


def judge_watch(watch: ModelWatch | None) -> Drift:
    """Return what a monitor's alarms amount to: the worst of them."""
    if watch is None:
        return "none"
    active = [it for it in watch.monitored.alarms if it.active]
    if any(SEVERITIES[it.scope] == "critical" for it in active):
        return "critical"
    if any(it.confirmed for it in active):
        return "confirmed"
    return "warning" if active else "none"


def _is_another(pipeline: PipelineSnapshot) -> bool:
    """Whether another variant answers than the one that is watched."""
    active, stand_in = pipeline.active, pipeline.stand_in
    return bool(active and stand_in and active.variant != stand_in.variant)


def _section_of(pipeline: PipelineSnapshot) -> Section | None:
    """Return what the model that answers has counted, if it has."""
    active = pipeline.active
    for counts in reversed(pipeline.counts):
        if active and (counts.model, counts.version) == (active.model, active.version):
            return counts.section
    return None
