"""The composition root: builds everything, owns the one TaskGroup, clock and signals.

The rules this module keeps:
 * Workers are spawned before anything else is imported or read: their imports take
   longest, and boot needs nothing but the store.
 * A committed model starts from its verified bytes alone; the repository is looked at
   afterwards, and its absence stops updates only.
 * SIGTERM and SIGINT drain the workers, then end everything with one exception.
"""

import asyncio
import logging
import random
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from agent import RELEASED_S, __version__
from agent.core.installed import Board, Installed
from agent.core.readings import BoardReadings
from agent.core.reasons import Reason
from agent.core.snapshot import AgentSnapshot, UpdateSnapshot
from agent.errors import BundleRefusedError, DeviceError
from agent.settings import PipelineSettings, Settings
from agent.store import Store
from agent.supervise.pipeline import Pipeline
from agent.supervise.placing import Placed
from agent.supervise.trials import PipelineTrials
from agent.supervise.worker_process import own_resident_bytes
from agent.trust.bundle import open_bundle
from agent.trust.client import TrustedRepository
from agent.update import Supply, Surroundings, UpdatePoller

log = logging.getLogger(__name__)
# The first look at the repository waits for the first answers, but not for ever: an
# unplugged camera must not keep a board from its updates.
FIRST_LOOK_S = 3.0
READY_POLL_S = 0.05
READ_AGAIN_S = 10.0  # a mount that comes late, a permission that was mended
READ_BOARD_S = 1.0  # 0.6 ms each; a `board` source of 1/s gets a new reading each time


class Shutdown(Exception):  # noqa: N818 - it is no error: it ends the TaskGroup
    """Ends the daemon's TaskGroup after the workers were drained."""


class Daemon:
    """Everything that runs in the daemon's process.

    Args:
        settings: The whole agent.toml.
        store: The open state directory; ``state_dir`` is where it lies.
        root: Bytes of the provisioned root.json; empty without a repository.
        socket: Path of the unix socket.
        announce: Called once with what listens: a line for people.
    """

    def __init__(
        self,
        settings: Settings,
        store: Store,
        state_dir: Path,
        *,
        root: bytes,
        socket: Path,
        announce: Callable[[str], None],
    ) -> None:
        self._settings = settings
        self._store = store
        self._state_dir = state_dir
        self._root = root
        self._socket = socket
        self._announce = announce
        self._stop_asked = asyncio.Event()
        self._unread: set[str] = set()  # pipelines whose model could not be read
        self._pipelines = {
            table.name: self._pipeline(table) for table in settings.pipeline
        }
        self._update: Callable[[], UpdateSnapshot] = UpdateSnapshot
        self._metrics: Callable[[str], tuple[str, bytes]] | None = None
        self._readings: Callable[[], BoardReadings] = BoardReadings

    async def run(self) -> None:
        """Run until SIGTERM or SIGINT; the workers end their samples first.

        Raises:
            ExceptionGroup: A task ended unexpectedly; everything else was ended too.
        """
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.ask_to_stop)
        try:
            async with asyncio.TaskGroup() as group:
                for pipeline in self._pipelines.values():
                    group.create_task(pipeline.run())
                await asyncio.sleep(0)  # the workers are being spawned
                poller = self._poller()
                await poller.recover()
                self._boot()
                group.create_task(self._watch_board())
                group.create_task(self._serve())
                following = group.create_task(self._follow_updates(poller))
                group.create_task(self._read_again())
                group.create_task(self._stop(following))
        except* Shutdown:
            log.info("agent.stopped")

    def ask_to_stop(self) -> None:
        """Do what SIGTERM does."""
        self._stop_asked.set()

    # --- what the listener shows

    def snapshot(self) -> AgentSnapshot:
        """Return the agent as of now; cheap, no waiting."""
        pipelines = tuple(it.snapshot() for it in self._pipelines.values())
        engines: dict[str, str] = {}
        for pipeline in self._pipelines.values():
            engines |= pipeline.engines
        return AgentSnapshot(
            version=__version__,
            engines=engines,
            pipelines=pipelines,
            update=self._update(),
            daemon_rss_bytes=own_resident_bytes(),
        )

    def metrics(self, accept: str) -> tuple[str, bytes]:
        """Return content type and body of a scrape."""
        if self._metrics is None:
            return "text/plain", b""
        return self._metrics(accept)

    # --- parts

    def _pipeline(self, table: PipelineSettings) -> Pipeline:
        """Build one pipeline's supervisor."""
        return Pipeline(
            table,
            self._settings.supervise,
            delegates=self._settings.delegate,
            read_board=self._read_board,
            crash_loop=self._set_aside,
        )

    def _boot(self) -> None:
        """Give every pipeline the model the store says is committed."""
        for name in self._pipelines:
            self._start_pipeline(name)

    def _start_pipeline(self, name: str) -> None:
        """Give one pipeline its committed model; one that cannot be read waits."""
        pipeline = self._pipelines[name]
        self._unread.discard(name)
        try:
            placed = self._committed(name, pipeline.settings.model)
        except DeviceError as err:
            # The disk, not the bytes: the others start, and it is read again later.
            log.warning(
                "model.unreadable",
                extra={"pipeline": name, "reason": err.reason, "detail": str(err)},
            )
            self._unread.add(name)
            return
        if placed is not None:
            pipeline.start_with(placed)

    async def _read_again(self) -> None:
        """Try again, now and then, what could not be read."""
        while True:
            await asyncio.sleep(READ_AGAIN_S)
            for name in tuple(self._unread):
                self._start_pipeline(name)

    def _committed(self, name: str, model: str) -> Placed | None:
        """Open what is committed; bytes that rotted fall back to the previous ones.

        Raises:
            DeviceError: The disk does not let it be read.
        """
        slots = self._store.slots(name)
        for installed in (slots.active, slots.previous):
            if installed is None or installed.model != model:
                break
            try:
                return self._placed(installed)
            except BundleRefusedError as err:
                log.warning(
                    "model.rotten",
                    extra={"pipeline": name, "reason": err.reason, "detail": str(err)},
                )
                self._fall_back(name, Reason.DIGEST)
        return None

    def _fall_back(self, name: str, reason: Reason) -> Installed | None:
        """Let the store move to the previous model; a full disk only delays that."""
        try:
            return self._store.fall_back(name, reason)
        except DeviceError as err:
            log.warning(
                "store.not_written",
                extra={"pipeline": name, "reason": err.reason, "detail": str(err)},
            )
            return self._store.slots(name).active

    def _placed(self, installed: Installed) -> Placed:
        """Open a committed bundle: hashed before it is parsed."""
        content = self._store.open_object(installed.sha256)
        bundle = open_bundle(content, max_bytes=len(content))
        bundle.manifest.variant(installed.variant)
        return Placed(bundle, installed)

    async def _set_aside(self, name: str, reason: str) -> Placed | None:
        """A model killed its workers in a row: the previous one takes over, if any."""
        failed = self._store.slots(name).active
        installed = self._fall_back(name, Reason.CRASH_LOOP)
        log.warning(
            "model.kept" if installed == failed else "model.set_aside",
            extra={
                "pipeline": name,
                "reason": Reason.CRASH_LOOP,
                "died_of": reason,
                "now": f"{installed.model} {installed.version}" if installed else "-",
            },
        )
        try:
            return self._committed(name, self._pipelines[name].settings.model)
        except DeviceError:
            self._unread.add(name)
            return None

    def _read_board(self) -> Sequence[float]:
        """Return the board's newest readings, for ``board`` sources."""
        return self._readings().vector()

    async def _watch_board(self) -> None:
        """Keep the board's readings at hand."""
        from agent.board.readings import BoardReader, BoardWatch
        from agent.telemetry.exposition import Exposition

        watch = BoardWatch(BoardReader(self._state_dir), READ_BOARD_S)
        exposition = Exposition()
        self._readings = lambda: watch.readings

        def metrics(accept: str) -> tuple[str, bytes]:
            return exposition.render(self.snapshot(), self._readings(), accept)

        self._metrics = metrics
        await watch.run()

    async def _serve(self) -> None:
        """Listen on loopback and on the unix socket."""
        from agent.endpoint.local import LocalEndpoint

        endpoint = LocalEndpoint(self, self._settings.local.listen, self._socket)
        await endpoint.open()
        bound = endpoint.bound()
        self._announce(f"http://{bound[0]}:{bound[1]}" if bound else str(self._socket))
        await endpoint.run()

    def _poller(self) -> UpdatePoller:
        """Build what follows the repository; nothing of it is read yet."""
        settings = self._settings
        poller = UpdatePoller(
            settings,
            Supply(self._repository(), self._factories()),
            Surroundings(
                store=self._store,
                trials=PipelineTrials(self._pipelines, settings.delegate),
                opener=open_bundle,
                board=self._board,
                clock=time.time,  # noqa: TID251 - the daemon owns the clock
                draw=random.random,
            ),
        )
        self._update = poller.snapshot
        return poller

    def _repository(self) -> TrustedRepository | None:
        """The fleet's repository, if the settings name one."""
        if not self._settings.update.repository:
            return None
        return TrustedRepository(
            metadata_dir=self._state_dir / "tuf" / "fleet",
            repository=self._settings.update.repository,
            root=self._root,
            notes=self._store,
            build_time=RELEASED_S,
        )

    def _factories(self) -> dict[str, Callable[[], TrustedRepository]]:
        """The repository slices shipped with the system, by pipeline."""

        def opener(name: str, slice_path: str) -> Callable[[], TrustedRepository]:
            return lambda: TrustedRepository(
                metadata_dir=self._state_dir / "tuf" / f"factory-{name}",
                repository=slice_path,
                root=self._root,
                notes=self._store,
                build_time=RELEASED_S,
                factory=True,
            )

        return {
            table.name: opener(table.name, table.factory)
            for table in self._settings.pipeline
            if table.factory
        }

    async def _follow_updates(self, poller: UpdatePoller) -> None:
        """Look at the repository now and then, and carry out what it wants."""
        await self._first_answers()
        await poller.run()

    async def _first_answers(self) -> None:
        """Wait until every pipeline with a model answers, a few seconds at most."""
        deadline = time.monotonic() + FIRST_LOOK_S
        while time.monotonic() < deadline:
            reasons = [it.snapshot().reason for it in self._pipelines.values()]
            if all(reason in (Reason.NONE, Reason.NO_MODEL) for reason in reasons):
                return
            await asyncio.sleep(READY_POLL_S)

    def _board(self) -> Board:
        """Return what admission asks about this board, as of now."""
        from agent.board.hardware import board_now

        table = self._settings.board
        name = table.id or self._store.board_id()
        return board_now(name, table.hardware, self._state_dir)

    async def _stop(self, following: asyncio.Task[None]) -> None:
        """Drain the workers when asked to, then end everything."""
        await self._stop_asked.wait()
        log.info("agent.stopping")
        following.cancel()  # a look at the repository may take as long to end
        async with asyncio.TaskGroup() as group:
            for pipeline in self._pipelines.values():
                group.create_task(pipeline.stop())
        raise Shutdown
