"""The composition root: builds everything, owns the one TaskGroup, clock and signals.

The rules this module keeps:
 * Workers are spawned before anything else is imported or read: their imports take
   longest, and boot needs nothing but the store.
 * A committed model starts from its verified bytes alone; the repository is looked at
   afterwards, and its absence stops updates only.
 * The daemon is ready once settings, store and listeners are up, whatever its pipelines
   lack: an unplugged camera must not keep a board from its updates.
 * SIGTERM and SIGINT drain the workers, then end everything with one exception.
"""

import asyncio
import logging
import random
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from agent.board.notify import Notifier
from agent.committed import CommittedModels
from agent.core.installed import Board
from agent.core.snapshot import AgentSnapshot, UpdateSnapshot
from agent.core.status_lines import describe_agent
from agent.facts import AgentFacts
from agent.fleet_link import FleetLink
from agent.lifeline import Lifeline, Notify
from agent.listeners import Listeners
from agent.proofs import Proofs
from agent.reload import Reload, Running
from agent.repositories import Repositories
from agent.settings import PipelineSettings, Settings
from agent.store import Anchors, Inbox, Store
from agent.supervise.degrading import Degrading
from agent.supervise.pipeline import Pipeline
from agent.supervise.trials import PipelineTrials
from agent.supervise.watching import Monitoring
from agent.trust.board_unsealer import BoardUnsealer
from agent.trust.bundle import open_bundle
from agent.trust.identity import own_identity
from agent.update import Desk, Surroundings, UpdatePoller

log = logging.getLogger(__name__)
# What a slow card may need for one step of the start: it reads 512 MB in 25 s.
STEP_S = 60.0
MEGABYTE = 1_000_000


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
        notify: Who starts, watches and stops this daemon; nobody unless told.
        read_settings: Reads the settings file anew, on SIGHUP.
    """

    def __init__(  # noqa: PLR0913 - what it runs, on what, and who is told
        self,
        settings: Settings,
        store: Store,
        state_dir: Path,
        *,
        root: bytes,
        socket: Path,
        announce: Callable[[str], None],
        notify: Notify | None = None,
        read_settings: Callable[[], bytes] | None = None,
    ) -> None:
        self._settings = settings
        self._store = store
        self._state_dir = state_dir
        board = self._board_id = settings.board.id or store.board_id()
        clock = self._certificate_time
        self._stop_asked = asyncio.Event()
        # A look at the repository may take as long to end as the workers, and a reload
        # would begin new ones.
        self._first_to_end: list[asyncio.Task[None]] = []
        self._pipelines: dict[str, Pipeline] = {}
        upload_bytes = int(settings.control.max_upload_mb * MEGABYTE)
        self._inbox = Inbox(state_dir, upload_bytes, make_room=store.make_room)
        known = self._known = Repositories(settings, store, state_dir, root)
        unsealer = self._unsealer = BoardUnsealer(settings.seal, board)
        committed = unsealer.for_committed()
        opened = (self._pipelines, known.revoked_bundles, committed)
        self._models = CommittedModels(store, *opened)
        self._anchors = Anchors(state_dir)
        self._proofs = Proofs(settings, state_dir, board, self._pipelines, clock)
        for table in settings.pipeline:
            self._pipelines[table.name] = self._pipeline(table, settings)
        self._identity = own_identity(settings, board, clock)
        shown = (self._update, settings.monitor, state_dir, board)
        self._facts = AgentFacts(self._pipelines, *shown)
        self._facts.follow_log(self._proofs.shown, self._proofs.shown_meter)
        self._degrading = self._ladders()
        self._listeners = Listeners(settings, socket, self._facts, announce)
        self._link = self._server(self._updates())
        self._lifeline = Lifeline(notify or Notifier(), self._describe)
        self._reload = self._reloads(read_settings)

    async def run(self) -> None:
        """Run until SIGTERM or SIGINT; the workers end their samples first.

        Raises:
            ExceptionGroup: A task ended unexpectedly; everything else was ended too.
        """
        ignore_events = self._facts.listen()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.ask_to_stop)
        loop.add_signal_handler(signal.SIGHUP, self._hang_up, sys.stderr.isatty())
        try:
            async with asyncio.TaskGroup() as group:
                for pipeline in self._pipelines.values():
                    group.create_task(pipeline.run())
                group.create_task(self._proofs.run())
                await asyncio.sleep(0)  # the workers are being spawned
                self._lifeline.starts("tidying up after the last life", STEP_S)
                await self._poller.recover()
                self._models.boot(
                    lambda it: self._lifeline.starts(
                        f"reading the model of {it}", STEP_S
                    )
                )
                group.create_task(self._facts.run())
                group.create_task(self._degrading.run())
                group.create_task(self._serve(group))
                group.create_task(self._lifeline.run())
                following = group.create_task(self._follow_updates())
                self._first_to_end.append(following)
                group.create_task(self._models.read_again())
                group.create_task(self._stop())
        except* Shutdown:
            log.info("agent.stopped")
        finally:
            ignore_events()

    def ask_to_stop(self) -> None:
        """Do what SIGTERM does."""
        self._lifeline.stopping()
        self._stop_asked.set()

    def ask_to_reload(self) -> None:
        """Look at the settings again, once the start has ended."""
        self._reload.ask()

    def _hang_up(self, on_terminal: bool) -> None:  # noqa: FBT001 - what a signal tells
        """Do what SIGHUP asks for: a reload, or the end where a terminal was closed."""
        if on_terminal and not sys.stderr.isatty():
            self.ask_to_stop()
        else:
            self.ask_to_reload()

    def poke(self) -> None:
        """Look at the repository now, and at what the fleet's server wants."""
        self._poller.poke()
        self._link.poke()

    # --- what the listener shows

    def snapshot(self) -> AgentSnapshot:
        """Return the agent as of now; cheap, no waiting."""
        return self._facts.snapshot()

    def _describe(self) -> str:
        """Return the line of ``systemctl status``."""
        agent, trends = self._facts.snapshot(), self._facts.trends()
        return describe_agent(agent, trends, self._reload.note)

    # --- parts

    @property
    def _poller(self) -> UpdatePoller:
        """What follows the desired state."""
        return self._link.poller

    def _pipeline(self, table: PipelineSettings, settings: Settings) -> Pipeline:
        """Build one pipeline's supervisor."""
        clock = time.time  # noqa: TID251 - the daemon owns the clock
        return Pipeline(
            table,
            settings.supervise,
            delegates=settings.delegate,
            read_board=self._read_board,
            crash_loop=self._models.after_crash_loop,
            monitoring=Monitoring(
                settings.monitor, self._anchors, clock, settings.integrity
            ),
            receipting=self._proofs.receipting(),
        )

    def _reloads(self, read: Callable[[], bytes] | None) -> Reload:
        """Build what follows the settings file; all that it changes is here already."""
        running = Running(
            self._pipelines,
            self._pipeline,
            self._models,
            self._known,
            self._poller,
            self._facts,
            self._store,
            self._proofs,
        )
        return Reload(self._settings, read, running, self._lifeline)

    def _ladders(self) -> Degrading:
        """Build what holds pipelines back; by the settings as they are then."""
        board = self._facts.readings
        found = Degrading(self._pipelines, board, lambda: self._reload.settings.degrade)
        self._facts.follow_ladders(found.states)
        return found

    def _read_board(self) -> Sequence[float]:
        """Return the board's newest readings, for ``board`` sources."""
        return self._facts.readings().vector()

    async def _serve(self, group: asyncio.TaskGroup) -> None:
        """Listen, and say that the start has ended; then settings may change."""
        from agent.endpoint.services import Services
        from agent.statements import build_statements

        parts = self._settings, self._store, self._poller
        services = Services(
            operations=Desk(*parts, self._commission, self._link.poke),
            # Without a root nothing that is brought in could ever be verified.
            uploads=self._inbox if self._settings.update.root else None,
            identity=self._identity,
            revoked=self._known.revoked_operators,
            statements=build_statements(self._proofs, self._identity),
            meter=self._proofs.metering,
            ledger=self._proofs.ledger(),
            kept=self._proofs.kept(),
        )
        await self._listeners.open_locally(services, group)
        await self._listeners.open_to_operators(
            services,
            group,
            self._certificate_time,
            lambda: self._poller.sources.clock_floor,
        )
        self._lifeline.ready()
        self._first_to_end.append(group.create_task(self._reload.run(group)))

    async def _commission(self, name: str) -> None:
        """Let a pipeline's baseline be collected anew."""
        await self._pipelines[name].commission()

    def _certificate_time(self) -> float:
        """What time it is for certificates: no online key can move it ahead."""
        return max(time.time(), self._known.certificate_floor())  # noqa: TID251 - ours

    def _updates(self) -> UpdatePoller:
        """Build what follows the desired state; nothing of it is read yet."""
        settings = self._settings
        board, ladder = self._facts.readings, self._degrading.state
        trials = PipelineTrials(
            self._pipelines,
            settings.delegate,
            board,
            ladder,
            lambda: self._reload.settings.degrade.hot_c,
            self._board_id,
        )
        return UpdatePoller(
            settings,
            self._known.supply(self._inbox.folder),
            Surroundings(
                store=self._store,
                trials=trials,
                opener=open_bundle,
                board=self._board,
                clock=time.time,  # noqa: TID251 - the daemon owns the clock
                draw=random.random,
                utc_offset=lambda now: time.localtime(now).tm_gmtoff,
                inbox=self._inbox,
                give_model=self._models.give,
                known_revoked=self._known.revoked_bundles,
                unsealer=self._unsealer,
                unopened=self._models.unopened,
            ),
        )

    def _server(self, poller: UpdatePoller) -> FleetLink:
        """Build the link to the fleet's server; nothing of it is imported yet."""
        return FleetLink(
            self._settings,
            self._board_id,
            poller,
            self._store,
            self._known.certificate_floor,
            self._board,
            self._facts.readings,
            lambda: self._reload.settings.degrade,
        )

    def _update(self) -> UpdateSnapshot:
        """Return what the poller says, and how long our certificate lasts."""
        ends = self._identity.expires() if self._identity else 0.0
        server = self._link.snapshot()
        return replace(self._poller.snapshot(), certificate_expires=ends, ddi=server)

    async def _follow_updates(self) -> None:
        """Look at the repository now and then, and carry out what is wanted."""
        await self._facts.first_answers()
        async with asyncio.TaskGroup() as group:
            group.create_task(self._poller.run())
            group.create_task(self._link.run())

    def _board(self) -> Board:
        """Return what admission asks about this board, as of now."""
        from agent.board.hardware import board_now

        hardware = self._reload.settings.board.hardware
        return board_now(self._board_id, hardware, self._state_dir)

    async def _stop(self) -> None:
        """Drain the workers when asked to, then end everything."""
        await self._stop_asked.wait()
        log.info("agent.stopping")
        for task in self._first_to_end:
            task.cancel()
        async with asyncio.TaskGroup() as group:
            for pipeline in self._pipelines.values():
                group.create_task(pipeline.stop())
        await self._proofs.close()
        raise Shutdown
