"""A board with a real store and a real TUF client; only the trials are scripted.

``python -m tests.update.real_board DIRECTORY`` dies by SIGKILL at one moment of an
update after the other, and prints what the next life found.
"""

import asyncio
import json
import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from agent.core.flow import FilesSource
from agent.core.installed import Board, Installed
from agent.core.protect_settings import SealSettings
from agent.core.update_machine import Job
from agent.core.updates import Hold, Report
from agent.settings import PipelineSettings, Settings, UpdateSettings
from agent.store import Store
from agent.trust.board_unsealer import BoardUnsealer
from agent.trust.bundle import Bundle, open_bundle
from agent.trust.client import TrustedRepository
from agent.update import Supply, Surroundings, UpdatePoller
from tests.fakes.bundle_factory import NOW
from tests.fakes.scripted_trials import ScriptedTrials

SEAL_KEY = "seal.key"  # beside the state, of boards that open sealed models
BOARD = Board("board-1", ("aarch64",), "0.1.0", 10**9, 10**9)


class RealBoard:
    """A board whose pipeline ``door`` runs ``kws``.

    Attributes:
        store: Open until ``close``.
        trials: Scripted.
        unsealer: Opens what is sealed for ``board-1``.
        poller: As the daemon would build it.
    """

    def __init__(
        self, path: Path, root: bytes, state: str = "state", kind: type[Store] = Store
    ) -> None:
        self.store = kind.open(path / state)
        seal = SealSettings(key=str(path.parent / SEAL_KEY))
        self.unsealer = BoardUnsealer(seal, BOARD.id)
        self.trials = ScriptedTrials()
        door = PipelineSettings(name="door", model="kws", source=FilesSource(path="x"))
        repository = TrustedRepository(
            metadata_dir=path / state / "metadata",
            repository=str(path / "repository"),
            root=root,
            notes=self.store,
            build_time=0.0,
        )
        self.poller = UpdatePoller(
            Settings(pipeline=(door,), update=UpdateSettings(groups=("all",))),
            Supply(repository),
            Surroundings(
                store=self.store,
                trials=self.trials,
                opener=open_bundle,
                board=lambda: BOARD,
                clock=lambda: NOW,
                draw=lambda: 0.5,
                unsealer=self.unsealer,
            ),
        )

    def look(self) -> None:
        """Recover, as after any start, and look once."""
        asyncio.run(self.poller.recover())
        asyncio.run(self.poller.look())

    def active(self) -> int:
        """Return the active version; its bytes are opened, as at every start."""
        active = self.store.slots("door").active
        if active is None:
            return 0
        assert self.opened(active).manifest.version == active.version
        return active.version

    def opened(self, kept: Installed) -> Bundle:
        """Open what is durable, with the envelope that is where it is sealed."""
        content = self.store.open_object(kept.sha256)
        if kept.sealed is None:
            return open_bundle(content, max_bytes=10**9)
        envelope = self.store.load_envelope(kept.sha256) or b""
        return self.unsealer.open(content, kept.sha256, kept.sealed, envelope)

    def close(self) -> None:
        """End this life."""
        self.store.close()


class DyingStore(Store):
    """A store that kills its process before or after its n-th change."""

    moment = 0
    seen = 0

    def save_job(self, job: Job) -> None:
        """Save a job, or die."""
        self._around(lambda: super(DyingStore, self).save_job(job))

    def commit(
        self,
        pipeline: str,
        installed: Installed,
        report: Report | None = None,
        *,
        factory: bool = False,
        hold: Hold | None = None,
    ) -> None:
        """Commit, or die."""
        self._around(
            lambda: super(DyingStore, self).commit(
                pipeline, installed, report, factory=factory, hold=hold
            )
        )

    def _around(self, change: Callable[[], None]) -> None:
        """Die before the change, make it, die after it; each is one moment."""
        self._live_or_die()
        change()
        self._live_or_die()

    def _live_or_die(self) -> None:
        """Count a moment."""
        type(self).seen += 1
        if self.seen == self.moment:
            os.kill(os.getpid(), signal.SIGKILL)


def main() -> None:
    """Die at every moment of the update from 1 to 2; print what was found, and ended.

    The directory holds a state with version 1, a repository that wants 2, its root.
    """
    path = Path(sys.argv[1])
    root = (path / "root.json").read_bytes()
    found = []
    for moment in range(1, 100):
        life = str(moment)
        shutil.copytree(path / "state", path / life)
        child = os.fork()
        if child == 0:
            DyingStore.moment = moment
            RealBoard(path, root, life, DyingStore).look()
            os._exit(0)
        _, status = os.waitpid(child, 0)
        if not os.WIFSIGNALED(status):
            break
        board = RealBoard(path, root, life)
        before = board.active()
        asyncio.run(board.poller.recover())
        recovered = board.active()
        assert board.trials.calls == []
        asyncio.run(board.poller.look())
        found.append([before, recovered, board.active()])
        assert board.store.version_floor("kws") == 2
        assert board.store.load_job() is None
        numbers = [report.id for report in board.store.reports()]
        assert len(set(numbers)) == len(numbers)
        assert board.store.reports()[0].result == "committed"
        board.close()
    sys.stdout.write(json.dumps(found))


if __name__ == "__main__":
    main()
