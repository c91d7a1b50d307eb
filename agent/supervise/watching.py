"""What one pipeline's monitors are told, and what they say.

Words: a *watch* is what is known of one model version's monitor, over all its workers.

The rules this module keeps:
 * Each Load is preceded by its Watch. Alarms that were active are handed to the next
   worker of the committed version, and to nobody else: a candidate begins innocent.
 * What a worker reports is clamped and rate-limited; a lie changes what is shown of
   that worker's model, and nothing else.
 * A profile that cannot be used never keeps a model from running.
 * A variant that stands in for the committed one is not watched: profile, baseline and
   alarms are of one variant, and a board that has to do less does that less as well.
"""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NoReturn, Protocol

from msgspec.structs import replace

from agent.core.installed import Installed
from agent.core.manifest import Manifest
from agent.core.messages import Anchored, Watch, Watched
from agent.core.profile import MAX_PROFILE_BYTES
from agent.core.protect_settings import IntegritySettings
from agent.core.reasons import Reason
from agent.core.watch_totals import (
    active_alarms,
    add,
    confirmed_alarms,
    rest,
    rise,
    transitions,
    unwatched_states,
    with_anchor,
)
from agent.core.watching import (
    Alarm,
    AnchorState,
    ModelWatch,
    Monitored,
)
from agent.errors import RequestRefusedError
from agent.settings import MonitorSettings
from agent.supervise.allowance import Allowance
from agent.supervise.baselines import BaselineStore, KeptBaselines, NoStore
from agent.supervise.kept_alarms import AlarmStore, KeptAlarms, active
from agent.supervise.placing import Placed
from agent.supervise.watch_lines import WatchLines

NOTHING = Monitored()
REPORTS, REPORTS_S = 50, 5.0  # one a second, and one for each change of an alarm
# Written to flash: once after commissioning, and once for a worker that began anew.
WRITES, WRITES_S = 4, 3600.0
KEPT_VERSIONS = 8  # that no load is of: twice what metrics show
KEPT_GENERATIONS = 4  # a candidate, and those before a death or a swap
OVER = 1.5  # times its share a monitor may take before that is worth a line...
OVER_REPORTS = 5  # ...so often in a row: it widens its steps by itself


def no_clock() -> float:
    """The time nobody told."""
    return 0.0


class WatchStore(BaselineStore, AlarmStore, Protocol):
    """Where everything lasts that monitors know of a board."""


@dataclass(frozen=True, slots=True)
class Monitoring:
    """How models are watched.

    Attributes:
        settings: Table ``[monitor]``.
        store: Where this board's baselines and alarms last.
        clock: Unix seconds.
        integrity: Table ``[integrity]``; None checks nothing.
    """

    settings: MonitorSettings = field(default_factory=MonitorSettings)
    store: WatchStore = field(default_factory=NoStore)
    clock: Callable[[], float] = no_clock
    integrity: IntegritySettings | None = None


@dataclass(slots=True)
class _Watch:
    """What is known of one model version's monitor.

    Attributes:
        generation: Of the load that reports now; ``live`` is its last report, and
            ``before`` what all loads before it said.
        total: Both together.
        states: What the daemon itself knows about an anchor.
        over: Reports in a row above the budget.
        told: The profile was told to be unusable.
    """

    generation: int = 0
    before: Monitored = NOTHING
    live: Monitored = NOTHING
    total: Monitored = NOTHING
    states: tuple[AnchorState, ...] = ()
    last_alarm: dict[tuple[str, str], float] = field(default_factory=dict)
    window_at: float = 0.0
    over: int = 0
    told: bool = False


class Watching:
    """Everything about the monitors of one pipeline.

    Args:
        pipeline: Its name.
        monitoring: How models are watched.

    Attributes:
        settings: Table ``[monitor]``; a change counts from the next load on.
    """

    def __init__(self, pipeline: str, monitoring: Monitoring) -> None:
        self.settings = monitoring.settings
        self._clock = monitoring.clock
        self._baselines = KeptBaselines(pipeline, monitoring.store)
        self._alarms = KeptAlarms(pipeline, monitoring.store)
        self._lines = WatchLines(pipeline)
        self._reports = Allowance(REPORTS, REPORTS_S)
        self._writes = Allowance(WRITES, WRITES_S)
        self._watches: dict[tuple[str, int], _Watch] = {}
        self._loads: dict[int, Placed] = {}
        self._committed: Placed | None = None

    # --- what monitors are told

    async def order(self, generation: int, placed: Placed) -> Watch:
        """Return how the model of a Load is to be watched."""
        watch = self._watches.setdefault(_key(placed.installed), _Watch())
        if self._is_another(placed):  # nor is anything heard of such a load
            watch.states = unwatched_states("another variant stands in")
            return Watch(generation, cpu_share=0.0)
        self._loads[generation] = placed
        self._forget_loads()
        self._forget_watches()
        if why := self._unwatched(placed.bundle.manifest):
            watch.states = unwatched_states(why)
            return Watch(generation, cpu_share=0.0)
        profile = self._usable_profile(placed, watch)
        site = await self._baselines.find(_variant(placed))
        await self._alarms.load()
        if self._is_committed(placed):
            self._recall(placed, watch)
        latched = tuple(
            (anchor, scope)
            for anchor, scope in active_alarms(watch.total)
            if anchor != "site" or site  # what it was about is gone
            if self._is_committed(placed)
        )
        return Watch(
            generation,
            profile,
            site,
            latched,
            self.settings.cpu_share,
            self.settings.site_samples,
            self.settings.privacy,
            self._baselines.number,
            tuple(it for it in confirmed_alarms(watch.total) if it in latched),
        )

    def commit(self, placed: Placed | None) -> None:
        """Note what is durable; of baselines, that and the one before are kept."""
        before, self._committed = self._committed, placed
        if placed is not None and (watch := self._watches.get(_key(placed.installed))):
            self._keep_alarms(placed, watch)
        if before is None or placed is None or _variant(before) == _variant(placed):
            return
        self._baselines.retain({_variant(before), _variant(placed)})

    async def begin_anew(self, placed: Placed | None) -> int:
        """Forget this board's baselines: those of other models are as old.

        Returns:
            The number of the collection that begins: for who collects now.

        Raises:
            RequestRefusedError: ``no_model``, ``watching_off``.
            DeviceError: They cannot be removed.
        """
        if placed is None:
            raise RequestRefusedError("no model answers", reason=Reason.NO_MODEL)
        if why := self._unwatched(placed.bundle.manifest):
            raise RequestRefusedError(why, reason=Reason.WATCHING_OFF)
        await self._baselines.clear()
        self._writes = Allowance(WRITES, WRITES_S)
        self._lines.tell(logging.INFO, "monitor.commissioning", _whose(placed))
        return self._baselines.number

    # --- what they say

    def take(self, message: Watched | Anchored) -> None:
        """Take in what a worker says about a model that it was given to load."""
        placed = self._loads.get(message.generation)
        if placed is None:
            return
        if isinstance(message, Anchored):
            self._keep(placed, message)
        elif self._reports.take():
            self._note(placed, message)

    def snapshot(self, running: Installed | None) -> tuple[ModelWatch, ...]:
        """Return what is known of every version that was watched.

        Args:
            running: What answers, or what is to answer again once there is a worker.
        """
        now = _key(running) if running else None
        return tuple(
            _show(key, watch, runs=key == now)
            for key, watch in self._watches.items()
            if key == now or watch.total.samples
        )

    async def run(self) -> NoReturn:
        """Write baselines and alarms to the disk as they come, until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._alarms.run())
            await self._baselines.run()

    def _note(self, placed: Placed, message: Watched) -> None:
        """Add a report to what was said before, and tell what has changed."""
        watch = self._watches[_key(placed.installed)]
        if message.generation < watch.generation:
            return  # the last words of a worker, or of a load, that is over
        if message.generation > watch.generation:
            watch.generation = message.generation
            watch.before, watch.live = watch.total, NOTHING
        known = watch.total
        watch.live = rise(watch.live, message.monitored)
        watch.total = add(watch.before, watch.live)
        whose = _whose(placed)
        for change in transitions(known, watch.total):
            if change.event == "drift.alarm":
                about = (change.alarm.anchor, change.alarm.scope)
                watch.last_alarm[about] = self._clock()
            self._lines.tell_transition(whose, change, watch.total)
        self._keep_alarms(placed, watch)
        if watch.total.windows > known.windows:
            watch.window_at = self._clock()
        self._tell_budget(watch, whose)
        for state in watch.total.anchors:
            if not state.valid and state.reason == Reason.PROFILE:
                self._tell_invalid(watch, whose, state)

    def _keep(self, placed: Placed, message: Anchored) -> None:
        """Keep a baseline that is complete, but none of what an operator ended."""
        site = message.site
        if message.number != self._baselines.number:
            return
        if not site or not self._writes.take():
            return
        self._baselines.put(_variant(placed), site)
        facts = {**_whose(placed), "bytes": len(site)}
        self._lines.tell(logging.INFO, "monitor.anchored", facts)

    def _recall(self, placed: Placed, watch: _Watch) -> None:
        """Go on with the alarms of the daemon before: they are no news, and hold."""
        for kept in self._alarms.take(_variant(placed)):
            sure = kept.confirmed
            alarm = Alarm(kept.anchor, kept.scope, active=True, confirmed=sure)
            before = watch.total.alarms
            watch.total = replace(watch.total, alarms=(*before, alarm))
            watch.last_alarm[kept.anchor, kept.scope] = kept.at

    def _keep_alarms(self, placed: Placed, watch: _Watch) -> None:
        """Let the disk know which alarms of the committed model are active."""
        if not self._is_committed(placed):
            return
        kept = active(watch.total.alarms, watch.last_alarm)
        self._alarms.put(_variant(placed), kept)

    def _usable_profile(self, placed: Placed, watch: _Watch) -> bytes:
        """Return the profile to send; nothing where no record can hold it."""
        profile = placed.bundle.profile
        watch.states = ()
        if len(profile) <= MAX_PROFILE_BYTES:
            return profile
        what = f"it has {len(profile)} bytes, at most {MAX_PROFILE_BYTES} are read"
        state = AnchorState("shipped", valid=False, reason=Reason.PROFILE, detail=what)
        watch.states = (state,)
        self._tell_invalid(watch, _whose(placed), state)
        return b""

    def _tell_invalid(
        self, watch: _Watch, whose: dict[str, object], state: AnchorState
    ) -> None:
        """Say once in a daemon's life that a profile cannot be used."""
        if not watch.told:
            watch.told = True
            why = {"anchor": state.anchor, "detail": state.detail}
            facts = {**whose, "reason": state.reason, **why}
            self._lines.tell(logging.WARNING, "monitor.invalid", facts)

    def _tell_budget(self, watch: _Watch, whose: dict[str, object]) -> None:
        """Say that a monitor takes more than it may, once it does so for a while."""
        share, allowed = watch.live.share, self.settings.cpu_share
        watch.over = watch.over + 1 if share > OVER * allowed else 0
        if watch.over == OVER_REPORTS:
            facts = {**whose, "share": round(share, 4), "cpu_share": allowed}
            self._lines.tell(logging.WARNING, "monitor.over_budget", facts)

    def _forget_loads(self) -> None:
        """Forget old loads, but the newest of the committed model.

        It goes on for months, and each candidate that was refused is a load, too.
        """
        newest = sorted(self._loads)
        mine = [it for it in newest if self._is_committed(self._loads[it])]
        for old in set(newest[:-KEPT_GENERATIONS]) - set(mine[-1:]):
            del self._loads[old]

    def _forget_watches(self) -> None:
        """Forget what was said of old versions; no load is theirs any more."""
        loaded = {_key(placed.installed) for placed in self._loads.values()}
        if self._committed is not None:
            loaded.add(_key(self._committed.installed))
        old = [key for key in self._watches if key not in loaded]
        for key in old[:-KEPT_VERSIONS]:
            del self._watches[key]

    def _unwatched(self, manifest: Manifest) -> str:
        """Return why a model is not watched, or nothing."""
        if not self.settings.cpu_share:
            return "monitor.cpu_share is 0"
        if manifest.monitor.keep == "nothing":
            return "monitor.keep of its manifest is nothing"
        return ""

    def _is_committed(self, placed: Placed) -> bool:
        """Whether a model is what this pipeline runs, and no candidate."""
        durable = self._committed
        return durable is not None and _key(durable.installed) == _key(placed.installed)

    def _is_another(self, placed: Placed) -> bool:
        """Whether another variant stands in for what was committed."""
        durable = self._committed or placed
        return placed.stands_in and _variant(durable) != _variant(placed)


def _show(key: tuple[str, int], watch: _Watch, *, runs: bool) -> ModelWatch:
    """Return one version's watch as others see it."""
    shown = watch.total if runs else rest(watch.total)
    for state in watch.states if runs else ():
        shown = with_anchor(shown, state)
    return ModelWatch(*key, shown, dict(watch.last_alarm), watch.window_at)


def _key(installed: Installed) -> tuple[str, int]:
    """Return whose monitor it is."""
    return installed.model, installed.version


def _whose(placed: Placed) -> dict[str, object]:
    """Return the fields of a log line that say whose monitor it is."""
    model, version = _key(placed.installed)
    return {"model": model, "version": version}


def _variant(placed: Placed) -> str:
    """Return the digest of the variant that runs: what its baseline is known by."""
    manifest = placed.bundle.manifest
    return manifest.variant(placed.installed.variant).sha256
