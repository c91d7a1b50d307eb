"""What monitors say, as log lines: one for each transition, none for each report.

The rules this module keeps:
 * A worker that lies writes ``LINES`` in ``LINES_S`` and no more; how many were left
   out is said with the next one.
"""

import logging
from collections.abc import Mapping

from agent.core.watch_totals import Transition
from agent.core.watching import SEVERITIES, Alarm, Monitored, is_compared
from agent.supervise.allowance import Allowance

log = logging.getLogger(__name__)
LINES, LINES_S = 30, 60.0  # ten alarms that are raised, confirmed and cleared at once
LEVELS = {"warning": logging.WARNING, "critical": logging.ERROR}


class WatchLines:
    """Writes the lines of one pipeline's monitors."""

    def __init__(self, pipeline: str) -> None:
        self._pipeline = pipeline
        self._allowed = Allowance(LINES, LINES_S)
        self._suppressed = 0

    def tell(self, level: int, event: str, facts: Mapping[str, object]) -> None:
        """Write a line about this pipeline."""
        whose = {"pipeline": self._pipeline}
        if not self._allowed.take():
            self._suppressed += 1
            return
        if self._suppressed:
            log.warning(
                "monitor.suppressed", extra={**whose, "lines": self._suppressed}
            )
            self._suppressed = 0
        log.log(level, event, extra={**whose, **facts})

    def tell_transition(
        self, whose: Mapping[str, object], change: Transition, now: Monitored
    ) -> None:
        """Write what became of an alarm, with what moved most."""
        alarm = change.alarm
        facts: dict[str, object] = {
            **whose,
            "anchor": alarm.anchor,
            "scope": alarm.scope,
            "detector": alarm.detector,
        }
        level = logging.INFO
        if change.event != "drift.cleared":
            level = LEVELS[SEVERITIES[alarm.scope]]
            facts |= _reading(change, now)
        self.tell(level, change.event, facts)


def _reading(change: Transition, now: Monitored) -> dict[str, object]:
    """Return the score that made a transition, and the feature that moved most."""
    alarm = change.alarm
    facts: dict[str, object] = {"score": round(alarm.score, 3)}
    if change.event == "drift.confirmed":
        facts = {"detector": "etable", "score": round(alarm.evidence, 3)}
    return facts | _moved(alarm, now)


def _moved(alarm: Alarm, now: Monitored) -> dict[str, object]:
    """Return the feature of what is compared that is farthest from its reference.

    None for what has no features: a class, a checksum.
    """
    features = [
        it
        for it in now.features
        if it.anchor == alarm.anchor and is_compared(it.feature, alarm.scope)
    ]
    if not features:
        return {}
    top = max(features, key=lambda it: abs(it.shift))
    return {"feature": top.feature, "shift": round(top.shift, 2)}
