"""Building watchers: from the daemon's order and a loaded model to what looks.

The rules this module keeps:
 * No model is refused for its monitor: whatever fails here is a watcher that says why.
 * Where nothing may be spent or kept, there is no watcher at all.
"""

import logging
from collections.abc import Callable
from typing import Protocol

from msgspec.structs import replace

from agent.core.drift.features import FeatureReader
from agent.core.drift.monitor import Monitor, Setup
from agent.core.drift.reference import open_shipped
from agent.core.messages import Watch
from agent.core.reasons import Reason
from agent.core.watching import Monitored
from agent.worker.model import LoadedModel
from agent.worker.samples import Arrays
from agent.worker.watch import Blind, Clocks, Eye, Rules, Say, Watcher
from agent.worker.watch_pace import Pace

log = logging.getLogger(__name__)
BuildEye = Callable[[Watch, LoadedModel], Eye]
BuildWatcher = Callable[[Watch | None, LoadedModel], Watcher | None]


class Reports(Protocol):
    """Who passes reports on."""

    @property
    def say(self) -> Say:
        """Take a report; never waits."""

    def start(self) -> None:
        """Begin to pass them on; called again for each model."""


class Eyes:
    """A feature reader and a monitor as one: what sees."""

    def __init__(self, reader: FeatureReader, monitor: Monitor) -> None:
        self._reader = reader
        self._monitor = monitor

    @property
    def interval(self) -> int:
        """One in so many samples should be looked at."""
        return self._monitor.interval

    def look(
        self, seq: int, inputs: Arrays, outputs: Arrays, index: int, score: float
    ) -> bool:
        """Look at one answered sample; True if an alarm changed."""
        reader = self._reader
        values = reader.read(inputs, outputs, index, score)
        checksum = reader.checksum(inputs)
        return self._monitor.observe(values, index, reader.confidence, checksum, seq)

    def say(self) -> Monitored:
        """Say what was seen."""
        return replace(self._monitor.say(), invalid=dict(self._reader.invalid))

    def baseline(self) -> bytes | None:
        """Return a baseline that was just completed; None otherwise."""
        return self._monitor.baseline()

    def commission(self) -> None:
        """Forget this board's baseline and collect another."""
        self._monitor.commission()


def build_eye(order: Watch, model: LoadedModel) -> Eye:
    """Return what sees, as the order says; a bad profile or baseline is its to tell.

    Raises:
        Exception: Nothing can be looked at; the caller has to expect anything.
    """
    shipped = open_shipped(order.profile, model.manifest, model.variant)
    reader = shipped.reader
    setup = Setup(
        names=reader.names,
        columns=reader.columns,
        classes=reader.classes,
        shipped=shipped.reference,
        shipped_reason=shipped.reason,
        shipped_detail=shipped.detail,
        site=order.site,
        site_samples=order.site_samples,
        latched=order.latched,
    )
    return Eyes(reader, Monitor(setup))


def watcher_builder(
    reporter: Reports, clocks: Clocks | None = None, build: BuildEye = build_eye
) -> BuildWatcher:
    """Return what makes a watcher of an order and a model, or None.

    Args:
        reporter: Takes reports, once there is something to watch.
        clocks: Of the watchers; the real ones if left out.
        build: Makes what sees; tests have their own.
    """
    used = clocks or Clocks()

    def build_watcher(order: Watch | None, model: LoadedModel) -> Watcher | None:
        if order is None or not order.cpu_share > 0:
            return None
        if model.manifest.monitor.keep == "nothing":
            return None
        rules = Rules(model.generation, privacy=order.privacy)

        def watcher(eye: Eye) -> Watcher:
            pace = Pace(order.cpu_share, used.now())
            return Watcher(rules, eye, pace, reporter.say, used)

        try:
            reporter.start()
            return watcher(build(order, model))
        except Exception as err:  # noqa: BLE001 - the model is not refused for it: said, logged
            detail = f"{type(err).__name__}: {err}"
            facts = {"reason": Reason.INTERNAL}
            log.warning("the model is not watched: %s", detail, extra=facts)
            return watcher(Blind(detail))

    return build_watcher


def unwatched(order: Watch | None, model: LoadedModel) -> None:
    """Make no watcher."""
    del order, model
