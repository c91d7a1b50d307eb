"""The control thread: receives orders, builds candidates, never touches a sample.

The rules this module keeps:
 * A candidate is built beside the model that answers; the loop takes it between two
   samples; only then is the old one let go.
 * Every order is answered: Loaded or Refused, Swapped or Refused, also where memory
   ends or the code is wrong; the model that answers goes on.
"""

import logging
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

from agent.core.manifest import parse_manifest
from agent.core.messages import (
    Activate,
    Commission,
    Discard,
    Inspect,
    Load,
    Loaded,
    Message,
    NewSource,
    Refused,
    Shed,
    Stop,
    Swapped,
    Tapped,
    ToChild,
    Untap,
    Watch,
)
from agent.core.messages import Tap as TapOrder
from agent.core.reasons import Reason
from agent.core.statistics_block import section_start
from agent.errors import AgentError
from agent.worker.channel import ChildChannel
from agent.worker.integrity import Integrity, watched
from agent.worker.model import LoadedModel, load_model
from agent.worker.shedding import (
    answers,
    build_constant_turn,
    constant_model,
    thin_turn,
)
from agent.worker.slot import Candidate, ModelSlot
from agent.worker.statistics import StatisticsWriter
from agent.worker.tap import Tap
from agent.worker.turn import Sink, Turn, build_emit, build_turn
from agent.worker.watch import Watcher
from agent.worker.watch_build import BuildWatcher, unwatched

if TYPE_CHECKING:  # what is switched off is not imported
    from agent.worker.inspection import Inspection

log = logging.getLogger(__name__)
SWAP_S = 60.0  # longer than any sample's deadline; the daemon gives up before


class Replaceable(Protocol):
    """A source whose program can be started again."""

    def replace(self, descriptor: int) -> None:
        """Read from a new pipe from now on."""


class Receipting(Protocol):
    """Gives receipts; see ``agent.worker.receipts``."""

    def of(self, model: LoadedModel) -> LoadedModel:
        """Return a model that gives one for each of its inferences."""


class Build(Protocol):
    """Binds a loaded model to a section, the sinks, a listener and a watcher."""

    def __call__(
        self,
        model: LoadedModel,
        section: int,
        tap: Tap | None = None,
        watcher: Watcher | None = None,
    ) -> Candidate:
        """Return it as something that the slot can take."""


class Control:
    """Performs the daemon's orders in the second thread."""

    def __init__(
        self,
        channel: ChildChannel,
        slot: ModelSlot,
        statistics: StatisticsWriter,
        source: Replaceable | None,
        build: Build,
        watch: BuildWatcher = unwatched,
    ) -> None:
        self._channel = channel
        self._slot = slot
        self._statistics = statistics
        self._source = source
        self._build = build
        self._watch = watch
        self._integrity = Integrity(slot, channel.send)
        self._ordered: Watch | None = None  # for the Load that follows
        self._candidate: Candidate | None = None
        self._inspection: Inspection | None = None  # of the candidate

    def run(self) -> None:
        """Perform orders until told to stop, or until the daemon is gone."""
        while True:
            received = self._channel.receive()
            if received is None:
                # PDEATHSIG kills us as well; this covers a closed channel alone.
                os._exit(1)
            order, descriptors = received
            answer = self._perform(order, descriptors)
            if answer is not None:
                self._channel.send(answer)
            if isinstance(order, Stop):
                return

    def _perform(self, order: ToChild, descriptors: list[int]) -> Message | None:
        """Perform one order; return what to answer."""
        match order:
            case Load():
                return self._load(order, descriptors[0])
            case Activate():
                return self._activate(order)
            case TapOrder():
                return self._listen(order, descriptors[0])
            case Untap():
                return self._tap(order.generation, None)
            case NewSource() if self._source is not None:
                self._source.replace(descriptors[0])
            case Stop():
                self._slot.stop()
            case _:
                return self._note(order)
        return None

    def _note(self, order: ToChild) -> Message | None:
        """Perform an order that no sample waits for; most have no answer."""
        match order:
            case Discard():
                self._candidate = self._inspection = None
                self._slot.unwatch()
            case Watch():
                self._ordered = order
            case Commission():
                self._commission(order)
            case Shed():
                self._shed(order)
            case Inspect():
                self._integrity.follow(order)
            case _:
                return Refused(0, Reason.INTERNAL, f"unexpected {order!r:.80}")
        return None

    def _load(self, order: Load, descriptor: int) -> Message:
        """Build the candidate; the model that answers goes on meanwhile."""
        started_ns = time.perf_counter_ns()
        self._candidate = self._inspection = None
        self._slot.watch()
        try:
            before = self._integrity.look()
            manifest = parse_manifest(order.manifest)
            model = load_model(
                order.generation,
                manifest,
                order.variant,
                order.executor,
                descriptor,
                order.sha256,
            )
            answering = self._slot.wanted
            section = 1 - answering.section if answering else 0
            watcher = self._watch(self._watch_order(order), model)
            checks = self._integrity.inspect(model, descriptor, before)
            watcher = watched(checks, watcher)
            self._candidate = self._build(model, section, watcher=watcher)
            self._inspection = checks
        except Exception as err:  # noqa: BLE001 - the thread's boundary: it is reported
            self._slot.unwatch()
            return _refused(order.generation, err)
        finally:
            os.close(descriptor)
        seconds = (time.perf_counter_ns() - started_ns) / 1e9
        return Loaded(order.generation, seconds)

    def _watch_order(self, order: Load) -> Watch | None:
        """Return how the model is to be watched, if the daemon has said that."""
        ordered, self._ordered = self._ordered, None
        if ordered is None or ordered.generation != order.generation:
            return None
        return ordered

    def _commission(self, order: Commission) -> None:
        """Pass an operator's order on to whoever watches the model it is for."""
        for candidate in (self._slot.wanted, self._candidate):
            if candidate is None or candidate.model.generation != order.generation:
                continue
            if candidate.watcher is not None:
                candidate.watcher.commission(order.number)

    def _shed(self, order: Shed) -> None:
        """Answer less, or all again, from the next sample on.

        A loop that does not take it is stuck, which the daemon sees by itself.
        """
        if order != self._slot.shed:
            self._slot.shed = order
            if (answering := self._slot.wanted) is not None:
                self._slot.exchange(replace(answering), SWAP_S)

    def _activate(self, order: Activate) -> Message:
        """Let the candidate answer, let the old model go, and report the pause."""
        candidate = self._candidate
        if candidate is None or candidate.model.generation != order.generation:
            return Refused(order.generation, Reason.INTERNAL, "it is not loaded")
        self._candidate = None
        before = self._slot.wanted
        if not self._slot.exchange(candidate, SWAP_S):
            return Refused(order.generation, Reason.HANG, "the loop did not take it")
        _end_tap(before)
        checks, self._inspection = self._inspection, None
        self._integrity.attend(checks)
        if before is not None and before.watcher is not None:
            before.watcher.finish()
        del before
        # No collection: nothing of a model is part of a cycle, so the last reference
        # to the old one has just gone; a collection would hold the loop for 2 ms.
        del candidate
        gap_ns = self._slot.unwatch()
        return Swapped(order.generation, self._slot.first_seq, gap_ns)

    def _listen(self, order: TapOrder, descriptor: int) -> Message:
        """Let somebody listen to what answers, through a ring."""
        try:
            tap = Tap(descriptor, order.every)
        except (OSError, ValueError) as err:
            what = f"no ring: {err}"
            return Refused(order.generation, Reason.INTERNAL, what)
        return self._tap(order.generation, tap)

    def _tap(self, generation: int, tap: Tap | None) -> Message:
        """Let somebody listen to what answers from now on, or nobody."""
        before = self._slot.wanted
        if before is None or before.tap is tap:
            if tap is not None:
                tap.close()
                return Refused(generation, Reason.NO_MODEL, "nothing answers")
            return Tapped(generation)
        other = self._build(before.model, before.section, tap, before.watcher)
        if not self._slot.exchange(other, SWAP_S):
            return Refused(generation, Reason.HANG, "the loop did not take it")
        _end_tap(before)
        return Tapped(generation)


def _end_tap(replaced: Candidate | None) -> None:
    """Let the ring of a turn go that the loop does not use any more."""
    if replaced is not None and replaced.tap is not None:
        replaced.tap.close()


def _refused(generation: int, err: Exception) -> Refused:
    """Say why a candidate was not built; what nobody foresaw is also logged."""
    if isinstance(err, AgentError):
        return Refused(generation, Reason(err.reason), str(err))
    if isinstance(err, MemoryError):
        return Refused(generation, Reason.MEMORY, f"no memory: {err}")
    log.error("the candidate was not built", exc_info=err)
    return Refused(generation, Reason.INTERNAL, f"{type(err).__name__}: {err}"[:300])


def candidate_builder(
    pipeline: str,
    sinks: Sequence[tuple[int, Sink]],
    statistics: StatisticsWriter,
    wall_clock: Callable[[], float],
    receipts: Receipting | None = None,
) -> Build:
    """Return what binds a loaded model to its section, its sinks, and who attends.

    The candidate is the model as it was loaded, whatever answers in its turns: that is
    how the slot knows that one turn follows another of the same model.
    """

    def build(
        model: LoadedModel,
        section: int,
        tap: Tap | None = None,
        watcher: Watcher | None = None,
    ) -> Candidate:
        start = section_start(section)
        emit = build_emit(model, pipeline, sinks, statistics, wall_clock)
        asked = model if receipts is None else receipts.of(model)

        def begin(shed: Shed) -> Turn:
            if not answers(shed):
                said = constant_model(model, shed.safe_output)
                say = build_emit(said, pipeline, sinks, statistics, wall_clock)
                return build_constant_turn(shed, statistics, start, say)
            if tap is not None:
                return tap.build_turn(
                    asked, statistics, start, emit, watcher, shed.every
                )
            turn = build_turn(asked, statistics, start, emit, watcher)
            return thin_turn(turn, shed.every, model, statistics, start)

        return Candidate(model, begin, section, tap, watcher)

    return build
