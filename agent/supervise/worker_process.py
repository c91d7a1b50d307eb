"""One worker process: orders it understands, answers awaited, its block read.

The rules this module keeps:
 * One order at a time; each has a deadline, and a worker that dies answers all.
 * The memory limit follows what is loaded: raised for a candidate, lowered after it.
"""

import asyncio
import contextlib
import logging
import os
import resource
from collections.abc import Callable, Sequence
from pathlib import Path

from agent.core.messages import (
    Activate,
    Anchored,
    Commission,
    Configure,
    FromChild,
    Inspect,
    Inspected,
    Load,
    Loaded,
    NewSource,
    Ready,
    Refused,
    Shed,
    SourceState,
    Stop,
    Stopped,
    Swapped,
    Tap,
    Tapped,
    Untap,
    Watch,
    Watched,
)
from agent.core.reasons import Reason
from agent.core.statistics_block import BLOCK_BYTES
from agent.errors import AgentError, DeviceError, TrialFailedError
from agent.supervise.allowance import Allowance
from agent.supervise.child import PROGRAM, Child, spawn_child
from agent.supervise.memfd import sealed_memfd, shared_memory
from agent.supervise.totals import BlockReader

log = logging.getLogger(__name__)
MB = 1024 * 1024
# A worker says a few words a minute, besides what it is asked for (an idle machine
# swaps 190 times a second): 100 messages a second are a flood.
MESSAGES, MESSAGES_S = 500, 5.0
STUCK = SourceState(Reason.SOURCE_SILENT, "a read that does not return", ended=True)
Report = Watched | Anchored | Inspected
STACKS_MB = 48  # stacks and arenas of the runtime's threads, beside the model itself


class WorkerProcess:
    """A worker that runs.

    Attributes:
        locks: Layers that hold (see ``agent.worker.locks``), once it is ready.
        engines: Engine name -> version, once it is ready.
        source: The last word about its source.
        gone: Its messages have ended, and so has it.
        on_watched: Told what its monitors, and its checks of itself, say.
        condemned: Why it must not answer any more, though it could.
    """

    def __init__(self, child: Child, block: BlockReader) -> None:
        self._child = child
        self.block = block
        self._answer: asyncio.Future[FromChild] | None = None
        self.loaded: set[bytes] = set()  # digests of the models that it was given
        self._asked = 0  # generation of the order that waits for its answer
        self.gone, self.condemned = False, Reason.NONE
        self._orders = asyncio.Lock()
        self._data_bytes = 0
        self.locks: dict[str, str] = {}
        self.engines: dict[str, str] = {}
        self.source = SourceState(Reason.STARTING)
        self.on_watched: Callable[[Report], None] = _unheard
        self._allowed = Allowance(MESSAGES, MESSAGES_S)

    @classmethod
    async def start(
        cls,
        name: str,
        readable: Sequence[Path],
        *,
        unlocked: bool = False,
        program: Sequence[str] = PROGRAM,
    ) -> "WorkerProcess":
        """Start the process; it is not ready yet.

        Raises:
            OSError: No process, memory or descriptor is left.
        """
        descriptor = shared_memory(f"statistics-{name}", BLOCK_BYTES)
        try:
            child = await spawn_child(
                "run",
                name=name,
                readable=readable,
                block=descriptor,
                unlocked=unlocked,
                program=program,
            )
            return cls(child, BlockReader(descriptor))
        finally:
            os.close(descriptor)

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._child.pid

    @property
    def last_words(self) -> str:
        """The last line it wrote to standard error."""
        return self._child.last_words

    @property
    def left_for(self) -> Reason:
        """What was wrong with its source, or its memory, so that it ended."""
        if self.condemned:
            return self.condemned
        return self.source.reason if self.source.ended else Reason.NONE

    def is_stopped(self) -> bool:
        """Whether a signal or a debugger has stopped it (proc_pid_stat(5), state T)."""
        return self._child.figures.is_stopped()

    def resident_bytes(self) -> int:
        """Return its resident memory, 0 if it is gone (proc_pid_statm(5))."""
        return self._child.figures.resident_bytes()

    async def ready(self) -> None:
        """Wait until it has locked itself in.

        Raises:
            TrialFailedError: It died before (``crash``).
        """
        message = await self._child.receive()
        if not isinstance(message, Ready):
            raise self._died()
        self.locks, self.engines = message.locks, message.engines
        self._data_bytes = message.data_bytes

    async def configure(self, order: Configure, descriptors: Sequence[int]) -> None:
        """Send the first order."""
        await self._child.send(order, descriptors)

    async def listen(self) -> None:
        """Pass its messages on until it ends; then whoever waits learns that.

        Raises:
            DeviceError: It sent what does not belong here, or too much (``crash``).
        """
        try:
            while (message := await self._child.receive()) is not None:
                if not self._allowed.take():
                    raise DeviceError(
                        "the worker floods the daemon", reason=Reason.CRASH
                    )
                self._take(message)
        finally:
            self.gone = True
            if self._answer is not None and not self._answer.done():
                self._answer.set_exception(self._died())

    async def load(self, order: Load, content: memoryview, deadline_s: float) -> Loaded:
        """Have a candidate built.

        Raises:
            TrialFailedError: It was refused, took too long or killed the worker.
        """
        try:
            descriptor = sealed_memfd(f"model-{order.variant}", content)
        except OSError as err:
            raise TrialFailedError(
                f"no memory for the candidate: {err}", reason=Reason.MEMORY
            ) from err
        try:
            self.loaded.add(bytes.fromhex(order.sha256))
            answer = await self._ask(order, deadline_s, descriptor)
        finally:
            os.close(descriptor)
        if not isinstance(answer, Loaded):
            raise TrialFailedError(
                f"the worker answered {answer!r:.80}", reason=Reason.INTERNAL
            )
        return answer

    async def activate(self, generation: int, deadline_s: float) -> Swapped:
        """Let the candidate answer from the next sample on.

        Raises:
            TrialFailedError: It was refused, took too long or killed the worker.
        """
        answer = await self._ask(Activate(generation), deadline_s)
        if not isinstance(answer, Swapped):
            raise TrialFailedError(
                f"the worker answered {answer!r:.80}", reason=Reason.INTERNAL
            )
        return answer

    async def tap(
        self, order: Tap | Untap, deadline_s: float, *descriptors: int
    ) -> None:
        """Let somebody listen to the samples, or nobody.

        Raises:
            TrialFailedError: It refused, took too long or died.
        """
        answer = await self._ask(order, deadline_s, *descriptors)
        if not isinstance(answer, Tapped):
            raise TrialFailedError(
                f"the worker answered {answer!r:.80}", reason=Reason.INTERNAL
            )

    async def tell(
        self, order: Watch | Commission | Shed | Inspect, deadline_s: float
    ) -> None:
        """Send an order that has no answer.

        Raises:
            TrialFailedError: It was not taken in time (``hang``), or cannot be sent.
        """
        try:
            async with self._orders, asyncio.timeout(deadline_s):
                await self._child.send(order)
        except TimeoutError as err:
            what = f"{type(order).__name__} was not taken in {deadline_s:.0f} s"
            raise TrialFailedError(what, reason=Reason.HANG) from err
        except DeviceError as err:
            raise TrialFailedError(str(err), reason=err.reason) from err

    async def replace_source(self, descriptor: int) -> None:
        """Hand over the new pipe of a restarted program.

        If that is impossible, the worker is ended: the next one gets the pipe.
        """
        try:
            await self._child.send(NewSource(), [descriptor])
        except DeviceError as err:
            log.warning("worker.no_source", extra={"detail": str(err)})
            self.kill()

    def limit_memory(self, declared_mb: float, content_bytes: int) -> None:
        """Allow imports + declared memory + 25 %, and the copies of model files."""
        limit = int((self._data_bytes + (declared_mb + STACKS_MB) * MB) * 1.25)
        soft = limit + 2 * content_bytes
        with contextlib.suppress(ProcessLookupError, PermissionError):
            resource.prlimit(
                self.pid, resource.RLIMIT_DATA, (soft, resource.RLIM_INFINITY)
            )

    async def stop(self, drain_s: float) -> None:
        """Let it finish its sample, in ``drain_s`` and no longer; then kill it."""
        with contextlib.suppress(TimeoutError, DeviceError):
            async with asyncio.timeout(drain_s):
                await self._child.send(Stop())
                await self._child.wait()
        self.kill()

    def blame(self, error: TrialFailedError) -> AgentError:
        """Return the error of whoever has to act: a missing source is no model's."""
        if not self.left_for:
            return error
        return DeviceError(
            f"the worker left for its source: {self.source.detail}",
            reason=self.left_for,
        )

    def condemn(self, reason: Reason) -> None:
        """End it at once for what it runs: the next one begins anew."""
        self.condemned = reason
        self.kill()

    def kill(self) -> None:
        """End it at once."""
        self._child.kill()

    async def close(self) -> int:
        """Make sure that it is gone; return its exit code (-N: signal N)."""
        return await self._child.close()

    def _take(self, message: FromChild) -> None:
        """Keep a message where it belongs; a late answer belongs nowhere.

        Raises:
            DeviceError: A worker does not send such a message (``crash``).
        """
        match message:
            case SourceState():
                self.source = message
            case Stopped():
                pass  # its end follows, and says the same
            case Watched() | Anchored() | Inspected():
                self.on_watched(message)
            case Loaded() | Swapped() | Tapped() | Refused():
                awaited = self._answer is not None and not self._answer.done()
                if awaited and message.generation == self._asked:
                    assert self._answer is not None  # noqa: S101 - typing
                    self._answer.set_result(message)
                    self._allowed.give_back()
            case _:
                raise DeviceError(
                    f"a worker sent {type(message).__name__}", reason=Reason.CRASH
                )

    async def _ask(
        self,
        order: Load | Activate | Tap | Untap,
        deadline_s: float,
        *descriptors: int,
    ) -> FromChild:
        """Send an order and wait for its answer.

        Raises:
            TrialFailedError: It was refused, took too long or killed the worker.
        """
        async with self._orders:
            if self.gone:
                raise self._died()
            self._asked = order.generation
            self._answer = asyncio.get_running_loop().create_future()
            try:
                async with asyncio.timeout(deadline_s):
                    await self._child.send(order, descriptors)
                    answer = await self._answer
            except TimeoutError as err:
                if self.source.reason is Reason.STARTING:
                    self.source = STUCK  # it takes no orders before it has its source
                raise TrialFailedError(
                    f"no answer to {type(order).__name__} in {deadline_s:.0f} s",
                    reason=Reason.HANG,
                ) from err
            except DeviceError as err:
                raise TrialFailedError(str(err), reason=err.reason) from err
        if isinstance(answer, Refused):
            raise TrialFailedError(answer.detail, reason=answer.reason)
        return answer

    def _died(self) -> TrialFailedError:
        """Return the error for everyone who waited for a dead worker."""
        words = self.last_words or "no word"
        return TrialFailedError(f"the worker died: {words}", reason=Reason.CRASH)


def _unheard(message: Report) -> None:
    """Hear nothing: nobody has asked yet."""
    del message


def own_resident_bytes() -> int:
    """Return the resident memory of this process (proc_pid_statm(5))."""
    text = Path("/proc/self/statm").read_text(encoding="ascii")
    return int(text.split()[1]) * resource.getpagesize()
