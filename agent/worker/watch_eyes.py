"""What sees: the features of samples and the detectors behind them, as one.

The rules this module keeps: only ``agent.worker.watch_build`` imports it, when the
first model is to be watched.
"""

from msgspec.structs import replace

from agent.core.drift.features import FeatureReader
from agent.core.drift.monitor import Monitor, Setup
from agent.core.drift.reference import open_shipped
from agent.core.messages import Watch
from agent.core.watching import Monitored
from agent.worker.model import LoadedModel
from agent.worker.samples import Arrays


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


def open_eyes(order: Watch, model: LoadedModel) -> Eyes:
    """Return what sees; a bad profile or baseline is told by what it says.

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
        confirmed=order.confirmed,
    )
    return Eyes(reader, Monitor(setup))
