"""Metrics as text: one frozen snapshot in, what a Prometheus scrape wants out.

The rules this module keeps:
 * Rendering takes at most a twentieth of the loop's time, however many ask: what one
   scrape was given is given again for twenty times as long as it took, some 20 ms.
 * Counters are those of the moment but for that; nothing is computed ahead.
 * What is left out for want of room is said: as a metric, and once in the log.
"""

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from agent.core.discretion import Discretion
from agent.core.readings import BoardReadings
from agent.core.snapshot import AgentSnapshot
from agent.settings import MonitorSettings
from agent.telemetry.budget import OWN_SERIES, SeriesBudget
from agent.telemetry.collect import collect
from agent.telemetry.estimate import Expected, expected_families
from agent.telemetry.families import Families, Part
from agent.telemetry.feature_names import FeatureNames
from agent.telemetry.ranks import describe_rank
from agent.telemetry.text import CONTENT_TYPES, Format, Renderer, choose_format

log = logging.getLogger(__name__)
# A scrape that takes 1 ms is good for 20 ms: no Prometheus asks so often, and a test
# that counts and looks again finds what it counted.
KEPT_FOR = 20
# A render that was held up (a machine that slept, a core taken away) looks expensive;
# what it shows must not stay for minutes. The fastest Prometheus asks once a second.
KEPT_S = 1.0
Look = Callable[[], tuple[AgentSnapshot, BoardReadings]]


class Exposition:
    """Renders scrapes and times them: each one reports how long the last one took.

    Args:
        monitor: Table ``[monitor]``: how many series there may be, and privacy mode.
        clock: Seconds of a clock that never jumps.
    """

    def __init__(
        self,
        monitor: MonitorSettings | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._monitor = monitor or MonitorSettings()
        self._clock = clock
        self._renderer = Renderer()
        self._feature_names = FeatureNames()
        self._discretion = Discretion() if self._monitor.privacy else None
        self._took_s = 0.0
        self._budget = SeriesBudget(self._monitor.max_series)
        self._left_out: tuple[Part, ...] = ()
        self._kept: dict[Format, tuple[float, bytes]] = {}

    def foresee(self, models: Sequence[Expected]) -> None:
        """Say at start what will have no room, not when it is missed.

        Scrapes begin with what is decided here, and keep to it.

        Args:
            models: What answers in each pipeline, or soon will.
        """
        families = expected_families(models, self._monitor)
        self._say_left_out(self._budget.fit(families))

    def scrape(self, look: Look, accept: str) -> tuple[str, bytes]:
        """Return the content type and the body for one scrape.

        Args:
            look: Takes the snapshot and the board's readings, if they are needed.
            accept: The scraper's ``Accept`` header.
        """
        form = choose_format(accept)
        begun = self._clock()
        until, body = self._kept.get(form, (begun, b""))
        if begun >= until:
            body = self._render(*look(), form, begun)
            ended = self._clock()
            kept_s = min(KEPT_S, KEPT_FOR * (ended - begun))
            self._kept[form] = (ended + kept_s, body)
        return CONTENT_TYPES[form], body

    def render(
        self, snapshot: AgentSnapshot, board: BoardReadings, accept: str
    ) -> tuple[str, bytes]:
        """Return the content type and the body for this snapshot, rendered anew."""
        form = choose_format(accept)
        return CONTENT_TYPES[form], self._render(snapshot, board, form, self._clock())

    def _render(
        self, snapshot: AgentSnapshot, board: BoardReadings, form: Format, begun: float
    ) -> bytes:
        """Render, and remember how long it took."""
        body = self._renderer.render(self.families(snapshot, board), form)
        self._took_s = self._clock() - begun
        return body

    def families(self, snapshot: AgentSnapshot, board: BoardReadings) -> Families:
        """Return what a scrape shows: within the budget, and with privacy if wanted."""
        shown = tuple(map(self._feature_names.admit, snapshot.pipelines))
        if self._discretion is not None:
            shown = tuple(map(self._discretion.hide, shown))
        families = collect(replace(snapshot, pipelines=shown), board)
        families.add("tinyward_monitor_cpu_budget_ratio", self._monitor.cpu_share)
        families.add("tinyward_scrape_duration_seconds", self._took_s)
        left_out = self._budget.fit(families)
        self._say_left_out(left_out)
        tally = families.tally()
        missing = sum(tally[part] for part in left_out)
        series = sum(tally.values()) - missing + OWN_SERIES
        families.add("tinyward_series", series)
        families.add("tinyward_series_left_out", missing)
        return families

    def _say_left_out(self, parts: tuple[Part, ...]) -> None:
        """Say once what has no room, and once that all has."""
        if set(parts) == set(self._left_out):
            return
        self._left_out = parts
        what = ",".join(dict.fromkeys(describe_rank(it.rank) for it in parts))
        whose = ",".join(sorted({it.pipeline for it in parts if it.pipeline}))
        extra = {
            "what": what,
            "pipelines": whose,
            "max_series": self._monitor.max_series,
        }
        if parts:
            log.warning("metrics.left_out", extra=extra)
        else:
            log.info("metrics.complete", extra=extra)


def render_metrics(
    snapshot: AgentSnapshot, board: BoardReadings, accept: str
) -> tuple[str, bytes]:
    """Return the content type and the text of one scrape with default settings."""
    return Exposition().render(snapshot, board, accept)
