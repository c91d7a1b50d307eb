"""What a child does once it is locked in: be a worker, a preflight or a shadow."""

import contextlib
import gc
import logging
import mmap
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from agent.core.child_lines import Line, render_line
from agent.core.flow import BoardSource, CommandSource, CountSink, FilesSource
from agent.core.messages import (
    Ask,
    Configure,
    Examine,
    Ready,
    Shadow,
    SourceState,
    Stopped,
)
from agent.core.reasons import Reason
from agent.core.statistics_block import BLOCK_BYTES, NEXT_SEQ
from agent.errors import AgentError, DeviceError
from agent.worker.channel import ChildChannel
from agent.worker.control import Control, candidate_builder
from agent.worker.engines import import_runtime
from agent.worker.loop import Loop
from agent.worker.runtimes import PACKAGES, available_engines
from agent.worker.sinks import build_sink
from agent.worker.slot import ModelSlot
from agent.worker.sources import Source, build_source
from agent.worker.sources.absent import AbsentSource, look_at
from agent.worker.statistics import StatisticsWriter
from agent.worker.turn import Sink
from agent.worker.watch_build import watcher_builder
from agent.worker.watch_report import Reporter

if TYPE_CHECKING:
    from agent.worker.receipts import Receipts

T = TypeVar("T", Ask, Examine, Shadow)
log = logging.getLogger(__name__)
# A thread that wants the GIL waits so long: the loop must get it back between two
# bytecodes of a candidate's construction. 5 ms is Python's default.
SWITCH_INTERVAL_S = 0.0001
THREAD_STACK_BYTES = 512 * 1024  # stacks count as data; Python's default is 8 MB


class LineFormatter(logging.Formatter):
    """Writes what the daemon's log shall say, in each line how grave it is."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the lines of one record."""
        reason = Reason(record.__dict__.get("reason", Reason.NONE))
        lines = super().format(record).splitlines()
        return "\n".join(render_line(Line(record.levelno, reason, it)) for it in lines)


def run_worker(control: int, block: int, locks: dict[str, str]) -> None:
    """Be the data plane of one pipeline until told to stop."""
    _settle()
    _claim_arithmetic()
    channel = ChildChannel(control)
    channel.send(_ready(locks))
    received = channel.receive()
    if received is None:
        return
    order, descriptors = received
    if not isinstance(order, Configure):
        sys.exit("the first message was no Configure")
    memory = mmap.mmap(block, BLOCK_BYTES)
    statistics = StatisticsWriter(memoryview(memory), order.first_seq)
    try:
        _work(channel, order, descriptors, statistics)
    except AgentError as err:
        channel.send(SourceState(Reason(err.reason), str(err), ended=True))
        sys.exit(str(err))
    channel.send(Stopped(statistics.words[NEXT_SEQ]))


def _work(
    channel: ChildChannel,
    order: Configure,
    descriptors: list[int],
    statistics: StatisticsWriter,
) -> None:
    """Build everything the settings name, then answer samples until stopped."""
    piped = isinstance(order.source, CommandSource | BoardSource)
    descriptor = descriptors.pop(0) if piped else None
    receipts = _receipts(order, descriptors, statistics)
    source, state = _open_source(order, descriptor)
    sinks = _sinks(order, descriptors)
    slot = ModelSlot(statistics)
    clock = time.time  # noqa: TID251 - this is the worker's composition root
    build = candidate_builder(order.pipeline, sinks, statistics, clock, receipts)
    reporter = Reporter(channel.send)
    watch = watcher_builder(reporter)
    control = Control(channel, slot, statistics, source, build, watch)
    threading.Thread(target=control.run, name="control", daemon=True).start()
    channel.send(state)
    ended = SourceState(Reason.NONE, ended=True)
    try:
        _loop(source, slot, statistics, lambda: channel.send(ended), receipts).run()
    finally:
        slot.finish()
        reporter.close()
    source.close()


def _receipts(
    order: Configure, descriptors: list[int], statistics: StatisticsWriter
) -> "Receipts | None":
    """Take what receipts need off the end of the descriptors, if any are given."""
    if order.receipts is None:
        return None
    # A worker that gives none does not even import what hashes.
    from agent.worker.receipts import open_receipts

    number = 2 if order.receipts.keep_one_in else 1
    taken = [descriptors.pop() for _ in range(number)][::-1]
    return open_receipts(order.receipts, order.pipeline, taken, statistics)


def _loop(
    source: Source,
    slot: ModelSlot,
    statistics: StatisticsWriter,
    on_end: Callable[[], None],
    receipts: "Receipts | None",
) -> Loop:
    """Return the loop: with a gate only where answers need receipts."""
    if receipts is None:
        return Loop(source, slot, statistics, on_end)
    from agent.worker.gated import GatedLoop

    return GatedLoop(source, slot, statistics, on_end, receipts.ring)


def _open_source(
    order: Configure, descriptor: int | None
) -> tuple[Source, SourceState]:
    """Open what the settings name; without it the worker lives on, for its model."""
    named = order.source
    path = Path(named.path).expanduser() if isinstance(named, FilesSource) else None
    before = look_at(path) if path else None
    try:
        # A recording goes on where the worker before this one ended.
        source = build_source(named, descriptor, start=order.first_seq - 1)
    except DeviceError as err:
        log.warning("no source: %s", err, extra={"reason": err.reason})
        if descriptor is not None:
            os.close(descriptor)
        reason = Reason(err.reason)
        return AbsentSource(reason, path, before), SourceState(reason, str(err))
    return source, SourceState(Reason.NONE)


def run_preflight(control: int, locks: dict[str, str]) -> None:
    """Try the pairs of one Examine message, report, and leave."""
    from agent.worker.preflight import examine  # a worker has no use for it

    channel = ChildChannel(control)
    if (first := _first_order(channel, locks, Examine)) is not None:
        examine(*first, channel.send)


def run_asked(control: int, locks: dict[str, str]) -> None:
    """Answer the inputs of one Ask message, and leave."""
    from agent.worker.asked import asked  # a worker has no use for it

    channel = ChildChannel(control)
    if (first := _first_order(channel, locks, Ask)) is not None:
        asked(*first, channel.send)


def run_shadow(control: int, locks: dict[str, str]) -> None:
    """Answer copies of live samples and report, until the daemon ends it."""
    from agent.worker.shadow import shadow  # a worker has no use for it

    channel = ChildChannel(control)
    if (first := _first_order(channel, locks, Shadow)) is not None:
        shadow(*first, channel.send)


def _first_order(
    channel: ChildChannel, locks: dict[str, str], kind: type[T]
) -> tuple[T, list[int]] | None:
    """Say that this child is ready; return its one order, None if the daemon left."""
    _settle()
    channel.send(_ready(locks))
    received = channel.receive()
    if received is None:
        return None
    order, descriptors = received
    if not isinstance(order, kind):
        sys.exit(f"the first message was no {kind.__name__}")
    return order, descriptors


def _settle() -> None:
    """Process-wide choices of a child: log lines to stderr, short GIL turns.

    The most wanted runtime is imported now, while the daemon still reads its store.
    """
    output = logging.StreamHandler(sys.stderr)
    output.setFormatter(LineFormatter())
    logging.basicConfig(level=logging.INFO, handlers=[output])
    threading.stack_size(THREAD_STACK_BYTES)
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    engines = available_engines()
    wanted = next((engine for engine in PACKAGES if engine in engines), None)
    if wanted:
        with contextlib.suppress(AgentError):  # the first load will say why not
            import_runtime(wanted)
    gc.collect()
    gc.freeze()  # what is imported now is never garbage: collections skip it


def _claim_arithmetic() -> None:
    """Have BLAS map its buffer now, so that it counts as imported.

    OpenBLAS maps 32 MB of addresses with the first product of two matrices, a monitor's
    or a spectrogram's, and ends the process where the data limit refuses them.
    """
    import numpy as np  # not before this process is locked in

    square = np.ones((8, 8))
    np.matmul(square, square)


def _ready(locks: dict[str, str]) -> Ready:
    """Say what holds, how big the imports are and which engines there are."""
    return Ready(os.getpid(), locks, _data_bytes(), available_engines())


def _data_bytes() -> int:
    """Return the size of this process's data segment (VmData)."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmData:"):
            return int(line.split()[1]) * 1024
    return 0


def _sinks(order: Configure, descriptors: list[int]) -> list[tuple[int, Sink]]:
    """Build the sinks that write, each with its number in the settings."""
    written = [
        (number, settings)
        for number, settings in enumerate(order.sinks)
        if not isinstance(settings, CountSink)
    ]
    return [
        (number, build_sink(settings, descriptor))
        for (number, settings), descriptor in zip(written, descriptors, strict=True)
    ]
