"""Building watchers: from the daemon's order and a loaded model to what looks.

The rules this module keeps:
 * No model is refused for its monitor: whatever fails here is a watcher that says why.
 * Where nothing may be spent or kept, there is no watcher at all.
"""

import logging
from collections.abc import Callable
from typing import Protocol

from agent.core.messages import Watch
from agent.core.reasons import Reason
from agent.core.watching import Alarm, Monitored
from agent.worker.model import LoadedModel
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


def build_eye(order: Watch, model: LoadedModel) -> Eye:
    """Return what sees; see ``agent.worker.watch_eyes.open_eyes``."""
    # Here, so that a worker that watches nothing does not even import the arithmetic.
    from agent.worker.watch_eyes import open_eyes

    return open_eyes(order, model)


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
        rules = Rules(model.generation, order.privacy, order.number)

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
            return watcher(Blind(detail, _latched(order)))

    return build_watcher


def _latched(order: Watch) -> Monitored:
    """Return what the worker before said of alarms: nobody has seen them clear."""
    alarms = (Alarm(anchor, scope, active=True) for anchor, scope in order.latched)
    return Monitored(alarms=tuple(alarms))


def unwatched(order: Watch | None, model: LoadedModel) -> None:
    """Make no watcher."""
    del order, model
