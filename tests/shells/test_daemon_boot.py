"""The daemon's start from its store, where the disk does not play along."""

from pathlib import Path

import pytest

from agent.core.flow import BoardSource
from agent.core.installed import Slots
from agent.core.reasons import Reason
from agent.daemon import Daemon
from agent.errors import DeviceError
from agent.settings import PipelineSettings, Settings, UpdateSettings
from agent.store import Store
from tests.fakes.digits import digits, in_loop, place, running
from tests.fakes.stored import content

NAME = "digits"


class SulkingStore(Store):
    """A store whose disk cannot be read, or written, until it is told otherwise."""

    readable = False
    writable = True
    broken = False

    def slots(self, pipeline: str) -> Slots:
        """Read what is committed, or fail as a medium at its end does."""
        if self.broken:
            raise DeviceError("disk I/O error", reason=Reason.STATE)
        return super().slots(pipeline)

    def open_object(self, sha256: str) -> memoryview:
        """Read an object, or fail as a mount that comes late does."""
        if not self.readable:
            raise DeviceError("no such device", reason=Reason.PERMISSION)
        return super().open_object(sha256)

    def fall_back(self, pipeline: str, reason: str = Reason.CRASH_LOOP, revoked=()):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201 - as in Store
        if not self.writable:
            raise DeviceError("disk full", reason=Reason.DISK_FULL)
        return super().fall_back(pipeline, reason, revoked)


def build(store: Store, folder: Path) -> Daemon:
    """Return a daemon with one pipeline on a store."""
    table = PipelineSettings(NAME, NAME, BoardSource())
    settings = Settings(pipeline=(table,), update=UpdateSettings())
    return Daemon(
        settings,
        store,
        folder,
        root=b"",
        socket=folder / "socket",
        announce=lambda _: None,
    )


def committed(store: Store, *versions: int) -> None:
    """Bring in bundles and commit them, the newest last."""
    for version in versions:
        bundle = digits(version)
        placed = place(bundle)
        whole = bundle.golden.obj
        with store.stage(bundle.sha256, bundle.size) as staging:
            staging.write(memoryview(whole))
            staging.commit()
        store.commit(NAME, placed.installed)


@in_loop
async def test_a_model_that_cannot_be_read_is_read_again(tmp_path: Path) -> None:
    """A disk that comes late costs time, not the committed model."""
    store = SulkingStore.open(tmp_path / "state")
    try:
        committed(store, 1)
        daemon = build(store, tmp_path)
        daemon._models.boot()
        assert daemon._models._unread == {NAME}
        assert daemon.snapshot().pipelines[0].reason == Reason.NO_MODEL
        store.readable = True
        daemon._models.boot()
        active = daemon.snapshot().pipelines[0].active
        assert (active and active.version, daemon._models._unread) == (1, set())
    finally:
        store.close()


@in_loop
async def test_rotten_bytes_on_a_full_disk_fall_back_all_the_same(
    tmp_path: Path,
) -> None:
    """The previous model starts although the store cannot write that it does."""
    store = SulkingStore.open(tmp_path / "state")
    store.readable, store.writable = True, False
    try:
        committed(store, 1, 2)
        path = tmp_path / "state" / "obj" / digits(2).sha256
        path.chmod(0o600)
        path.write_bytes(content(2, digits(2).size))
        daemon = build(store, tmp_path)
        daemon._models.boot()
        active = daemon.snapshot().pipelines[0].active
        assert active is not None
        assert active.version == 1
    finally:
        store.close()


@in_loop
async def test_a_dead_worker_has_seen_no_candidate() -> None:
    """What a worker that is gone never saw is not to blame, and is tried again."""
    async with running() as bench:
        await bench.pipeline.swap_in(place(digits(1)))
        worker = bench.pipeline._worker
        assert worker is not None
        worker.kill()
        worker.gone = True
        with pytest.raises(DeviceError) as err:
            await bench.pipeline._placing.place(worker, place(digits(2)))
        assert err.value.reason == Reason.STARTING


@in_loop
async def test_a_crash_loop_on_a_disk_that_fails_ends_nothing(tmp_path: Path) -> None:
    """Neither the slots can be read nor a fall back written: it is read again later."""
    store = SulkingStore.open(tmp_path / "state")
    try:
        committed(store, 1)
        daemon = build(store, tmp_path)
        store.broken = True
        assert await daemon._models.after_crash_loop(NAME, Reason.CRASH) is None
        assert daemon._models._unread == {NAME}
    finally:
        store.close()
