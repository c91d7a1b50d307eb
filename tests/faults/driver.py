"""One life of a board: it opens its state, recovers, looks once, and closes.

Everything is real but the trial: store, TUF client, update machine. A life tells how
it went through a descriptor, so that whoever killed it knows that too.

The rules this module keeps:
 * A life may be spoiled on purpose (``Variant``): what the oracle has to catch.
 * What ends it otherwise than by an error of our own tree is told as a crash.
"""

import asyncio
import os
import signal
import traceback
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Literal, Self

import msgspec
from msgspec import Struct

from agent.core.installed import Installed
from agent.core.updates import Hold, Report
from agent.errors import AgentError
from agent.store import Staging, Store
from agent.store.atomic import Disk
from agent.store.state import unnoticed
from agent.store.store import QUOTA_BYTES, no_clock
from tests.faults.scenes import Scene
from tests.update.real_board import RealBoard

Variant = Literal[
    "right", "object_after_commit", "object_not_synced", "envelope_after_commit"
]


class Told(Struct):
    """What a life said.

    Attributes:
        refused: Reason of the error that ended it, our own; empty without one.
        results: ``result reason`` of the updates that ended.
        answers: Version that answered in the end.
        active: Version that was durable in the end.
        crash: Traceback of anything else.
    """

    refused: str = ""
    results: list[str] = []
    answers: int = 0
    active: int = 0
    crash: str = ""


class LateStore(Store):
    """Wrong on purpose: names an object only after ``active`` points to it."""

    late: Callable[[], None] | None = None

    def stage(self, sha256: str, length: int) -> Staging:
        """Begin to bring in an object whose ``commit`` does nothing yet."""
        staging = super().stage(sha256, length)
        self.late = staging.commit
        staging.commit = _nothing  # type: ignore[method-assign] # wrong on purpose
        return staging

    def commit(
        self,
        pipeline: str,
        installed: Installed,
        report: Report | None = None,
        *,
        factory: bool = False,
        hold: Hold | None = None,
    ) -> None:
        """Move ``active``, then bring in what it points to."""
        super().commit(pipeline, installed, report, factory=factory, hold=hold)
        if self.late is not None:
            self.late()


class LateEnvelopes(Store):
    """Wrong on purpose: keeps an envelope only after ``active`` needs it."""

    late: Callable[[], None] | None = None

    def save_envelope(self, sha256: str, content: bytes) -> None:
        """Keep nothing yet."""
        self.late = partial(super().save_envelope, sha256, content)

    def commit(
        self,
        pipeline: str,
        installed: Installed,
        report: Report | None = None,
        *,
        factory: bool = False,
        hold: Hold | None = None,
    ) -> None:
        """Move ``active``, then keep what opens it."""
        super().commit(pipeline, installed, report, factory=factory, hold=hold)
        if self.late is not None:
            self.late()


class ForgetfulDisk(Disk):
    """Wrong on purpose: never waits for the content of an object."""

    def sync(self, descriptor: int) -> None:
        """Sync everything else."""
        if Path(f"/proc/self/fd/{descriptor}").readlink().parent.name != "part":
            super().sync(descriptor)


class UnsyncedStore(Store):
    """Wrong on purpose: a store on a forgetful disk."""

    @classmethod
    def open(
        cls,
        state_dir: Path,
        disk: Disk | None = None,
        *,
        quota_bytes: int = QUOTA_BYTES,
        clock: Callable[[], float] = no_clock,
        migrating: Callable[[], None] = unnoticed,
    ) -> Self:
        """Open a state directory."""
        disk = disk or ForgetfulDisk()
        return super().open(
            state_dir,
            disk,
            quota_bytes=quota_bytes,
            clock=clock,
            migrating=migrating,
        )


KINDS: dict[Variant, type[Store]] = {
    "right": Store,
    "object_after_commit": LateStore,
    "object_not_synced": UnsyncedStore,
    "envelope_after_commit": LateEnvelopes,
}


def live(scene: Scene, state: Path, told: int, variant: Variant = "right") -> None:
    """Live once, and write what happened to the descriptor ``told``."""
    said = Told()
    try:
        _look(scene, state, said, KINDS[variant])
    except AgentError as err:
        said.refused = str(err.reason)
    except Exception:  # noqa: BLE001 - told, and judged by the oracle
        said.crash = traceback.format_exc()
    os.write(told, msgspec.json.encode(said))


def _look(scene: Scene, state: Path, said: Told, kind: type[Store]) -> None:
    """Open, recover, look once; SIGTERM ends the look as it ends the daemon's."""
    board = RealBoard(scene.path, scene.root, str(state), kind)
    said.answers = _active(board)
    try:
        with suppress(asyncio.CancelledError):
            asyncio.run(_until_stopped(board))
        said.results = [
            f"{result} {reason}".strip()
            for (result, reason), count in board.poller.snapshot().results.items()
            for _ in range(count)
        ]
        said.answers = _answering(board, said.answers)
        said.active = _active(board)
    finally:
        board.close()


async def _until_stopped(board: RealBoard) -> None:
    """Recover and look; a SIGTERM cancels it."""
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    await board.poller.recover()
    await board.poller.look()


def _active(board: RealBoard) -> int:
    """Return the durable version, 0 for none."""
    active = board.store.slots("door").active
    return active.version if active else 0


def _answering(board: RealBoard, before: int) -> int:
    """Return the version that the trials were told to let answer last."""
    answers = committed = before
    for what, _, version in board.trials.calls:
        if what == "swap_in":
            answers = version
        elif what == "commit":
            committed = version
        elif what == "swap_back":
            answers = committed
    return answers


def _nothing() -> None:
    """Do nothing."""
