"""What an interrupted download leaves on a real disk, and what may be planted there."""

import errno
import hashlib
import json
import os
import threading
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path

import pytest

from agent.core.reasons import Reason
from agent.errors import BundleRefusedError, DeviceError
from agent.store import Store
from agent.store.atomic import Disk
from agent.store.parts import KEEP_S, MAX_KEPT
from agent.store.staging import SYNC_BYTES
from tests.fakes.disks import SteppedDisk, fail_at
from tests.fakes.stored import content, installed, list_files

NOW = 1_790_000_000.0
SIZE = 5000
PATIENCE_S = 30.0
GRACE_S = 0.2  # in which a thread that does not wait would be done


class Clock:
    """A clock that tests move."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        """Return Unix seconds."""
        return self.now


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """Give the path of a state directory."""
    return tmp_path / "state"


@pytest.fixture
def clock() -> Clock:
    """Give a clock."""
    return Clock()


def interrupt(state: Path, clock: Clock, version: int = 1, count: int = 2000) -> str:
    """Open a store, fetch so many bytes, lose the network, close the store."""
    store = Store.open(state, clock=clock)
    sha256 = installed(version).sha256
    with store.stage(sha256, SIZE) as staging:
        staging.remember('"e1"')
        staging.write(memoryview(content(version))[:count])
        staging.close(keep=True)
    store.close()
    return sha256


def kept(state: Path, clock: Clock, version: int = 1) -> tuple[int, str]:
    """Return how many bytes of a version can be resumed, and its ETag; keep them."""
    store = Store.open(state, clock=clock)
    staging = store.stage(installed(version).sha256, SIZE)
    assert staging.kept == content(version)[: len(staging.kept)]
    told = (len(staging.kept), staging.tag)
    staging.close(keep=True)
    store.close()
    return told


def test_it_survives_a_restart(state: Path, clock: Clock) -> None:
    """Bytes and ETag are there in the next life, private, and become the object."""
    sha256 = interrupt(state, clock)
    assert list_files(state) == [f"part/{sha256}", f"part/{sha256}.resume"]
    modes = {oct(path.stat().st_mode & 0o777) for path in (state / "part").iterdir()}
    assert modes == {"0o600"}
    assert kept(state, clock) == (2000, '"e1"')
    store = Store.open(state, clock=clock)
    with store.stage(sha256, SIZE) as staging:
        staging.write(memoryview(content(1))[2000:])
        staging.commit()
    assert store.open_object(sha256) == content(1)
    store.close()
    assert list_files(state) == [f"obj/{sha256}"]


def test_a_power_cut_costs_a_few_megabytes(state: Path, clock: Clock) -> None:
    """Without any goodbye: what was synced every few MB is resumed."""
    body = content(1, 3 * SYNC_BYTES)
    sha256 = hashlib.sha256(body).hexdigest()
    store = Store.open(state, clock=clock)
    staging = store.stage(sha256, len(body))
    for start in range(0, 2 * SYNC_BYTES + 500_000, 250_000):
        staging.write(memoryview(body)[start : start + 250_000])
    store.close()  # and the staging is never told
    store = Store.open(state, clock=clock)
    with store.stage(sha256, len(body)) as resumed:
        count = len(resumed.kept)
        assert 2 * SYNC_BYTES <= count <= 2 * SYNC_BYTES + 500_000
        assert resumed.kept == body[:count]
        resumed.write(memoryview(body)[count:])
        resumed.commit()
    store.close()


@pytest.mark.parametrize(("age_s", "count"), [(KEEP_S, 2000), (KEEP_S + 1, 0)])
def test_after_days_it_goes(
    state: Path, clock: Clock, age_s: float, count: int
) -> None:
    """What was left a week ago is rubbish."""
    interrupt(state, clock)
    clock.now += age_s
    assert kept(state, clock)[0] == count


def test_a_clock_that_steps_back_loses_nothing(state: Path, clock: Clock) -> None:
    """A board that starts in 1970 may go on."""
    interrupt(state, clock)
    clock.now = 0.0
    assert kept(state, clock)[0] == 2000


def test_only_the_newest_are_kept(state: Path, clock: Clock) -> None:
    """Two interrupted bundles at most, whatever the network does."""
    for version in (1, 2, 3):
        clock.now += 10
        interrupt(state, clock, version)
    assert len(list_files(state)) == 2 * MAX_KEPT
    assert [kept(state, clock, version)[0] for version in (1, 2, 3)] == [0, 2000, 2000]


def test_other_bytes_in_a_part_are_found(state: Path, clock: Clock) -> None:
    """A part that rotted is refused at COMMIT, and the next try begins anew."""
    sha256 = interrupt(state, clock)
    with (state / "part" / sha256).open("r+b") as file:
        file.write(b"rotten")
    store = Store.open(state, clock=clock)
    with store.stage(sha256, SIZE) as staging:
        staging.write(memoryview(content(1))[2000:])
        with pytest.raises(BundleRefusedError) as caught:
            staging.commit()
        assert caught.value.reason == Reason.DIGEST
        staging.close(keep=True)
    store.close()
    assert list_files(state) == []


def test_a_restarted_download_is_not_vouched_for(state: Path, clock: Clock) -> None:
    """Other bytes under another ETag, then death: the old note is gone first."""
    sha256 = interrupt(state, clock)
    store = Store.open(state, clock=clock)
    staging = store.stage(sha256, SIZE)
    staging.restart()
    staging.remember('"e2"')
    staging.write(memoryview(b"other bytes"))
    store.close()
    assert kept(state, clock) == (0, "")


@pytest.mark.parametrize("tag", ["x" * 300, "a\r\nX-Evil: 1", "\x00", "ü"])
def test_a_tag_that_no_header_may_have_is_forgotten(
    state: Path, clock: Clock, tag: str
) -> None:
    """What a server calls its bytes goes into a later request, so it is checked."""
    store = Store.open(state, clock=clock)
    with store.stage(installed(1).sha256, SIZE) as staging:
        staging.remember(tag)
        assert staging.tag == ""
    store.close()


@pytest.mark.parametrize("error", [errno.EIO, errno.ENOSPC])
def test_62_after_a_failed_sync_nothing_is_resumed(
    state: Path, clock: Clock, error: int
) -> None:
    """Linux forgets what it could not write: the part is thrown away."""
    disk = SteppedDisk()
    store = Store.open(state, disk, clock=clock)
    staging = store.stage(installed(1).sha256, SIZE)
    staging.write(memoryview(content(1))[:1000])
    disk.before = fail_at(len(disk.steps) + 1, error, ever_after=False)
    staging.close(keep=True)
    assert list_files(state) == []
    staging = store.stage(installed(1).sha256, SIZE)
    disk.before = fail_at(len(disk.steps) + 1, error, ever_after=False)
    with pytest.raises(DeviceError):
        staging.write(memoryview(content(1))[:1000])
    staging.close(keep=True)
    staging.close()
    assert list_files(state) == []
    store.close()


PLANTED = ["link", "hardlink", "pipe", "folder", "note_link", "note_pipe", "short"]


@pytest.mark.parametrize("kind", PLANTED)
def test_67_a_planted_part_is_never_followed(
    state: Path, clock: Clock, kind: str
) -> None:
    """Whatever lies in the place of a part or its note: not read, not written."""
    sha256 = interrupt(state, clock)
    part, note = state / "part" / sha256, state / "part" / f"{sha256}.resume"
    outside = state.parent / "precious"
    outside.write_bytes(content(1))
    plant(kind, part, note, outside)
    store = Store.open(state, clock=clock)
    if kind == "folder":
        with pytest.raises(DeviceError):
            store.stage(sha256, SIZE)
    else:
        with store.stage(sha256, SIZE) as staging:
            assert bytes(staging.kept) == b""
            staging.write(memoryview(content(1)))
            staging.commit()
        assert store.open_object(sha256) == content(1)
        assert (state / "obj" / sha256).stat().st_nlink == 1
    store.close()
    assert outside.read_bytes() == content(1)


def plant(kind: str, part: Path, note: Path, outside: Path) -> None:
    """Put something else in the place of a part or of its note."""
    place = note if kind.startswith("note") else part
    if kind == "short":
        os.truncate(part, 3000)
        return
    place.unlink()
    if kind.endswith("hardlink"):
        place.hardlink_to(outside)
    elif kind.endswith("link"):
        place.symlink_to(outside)
    elif kind.endswith("pipe"):
        os.mkfifo(place)
    else:
        place.mkdir()


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{}",
        b"\xff",
        b"[" * 5000,
        json.dumps({"length": SIZE, "synced": SIZE + 1, "tag": "", "at": NOW}).encode(),
        json.dumps({"length": SIZE, "synced": -1, "tag": "", "at": NOW}).encode(),
        json.dumps({"length": 9, "synced": 1, "tag": "", "at": NOW}).encode(),
    ],
)
def test_a_note_without_sense_is_none(state: Path, clock: Clock, raw: bytes) -> None:
    """A note that rotted: the download begins anew."""
    sha256 = interrupt(state, clock)
    (state / "part" / f"{sha256}.resume").write_bytes(raw)
    assert kept(state, clock) == (0, "")


def test_67_an_object_with_a_second_name_is_copied(state: Path, clock: Clock) -> None:
    """Who keeps another name of an object cannot change what is mapped from it."""
    sha256 = interrupt(state, clock, count=SIZE)
    store = Store.open(state, clock=clock)
    with store.stage(sha256, SIZE) as staging:
        staging.commit()
    second = state.parent / "second"
    second.hardlink_to(state / "obj" / sha256)
    opened = store.open_object(sha256)
    second.chmod(0o600)
    second.write_bytes(b"changed")
    assert opened == content(1)
    assert store.open_object(sha256) == content(1)
    assert (state / "obj" / sha256).stat().st_nlink == 1
    store.close()


def test_what_is_being_written_is_not_tidied(state: Path, clock: Clock) -> None:
    """Keeping one part, or making room, leaves another that is open alone."""
    store = Store.open(state, clock=clock, quota_bytes=3 * SIZE)
    writing = store.stage(installed(9).sha256, SIZE)
    for version in (1, 2, 3):
        with store.stage(installed(version).sha256, SIZE // 4) as staging:
            staging.write(memoryview(b"x"))
            staging.close(keep=True)
    store.make_room(2 * SIZE - 200)
    writing.write(memoryview(content(9)))
    writing.commit()
    writing.close()
    assert store.open_object(installed(9).sha256) == content(9)
    store.close()


def test_64_what_is_promised_was_synced_first(state: Path, clock: Clock) -> None:
    """The note about bytes is written after they reached the medium, and atomically."""
    disk = SteppedDisk()
    store = Store.open(state, disk, clock=clock)
    staging = store.stage(installed(1).sha256, SIZE)
    staging.write(memoryview(content(1))[:1000])
    disk.steps.clear()
    staging.close(keep=True)
    store.close()
    written = ["create part", "write", "sync", "rename part part"]
    synced = [step for step in disk.steps if not step.startswith("remove")]
    assert synced == ["sync", *written, "sync_directory part"]


def test_67_a_part_planted_meanwhile_is_not_followed(state: Path, clock: Clock) -> None:
    """A part exchanged for a name of another file while the daemon runs: replaced."""
    sha256 = interrupt(state, clock)
    outside = state.parent / "precious"
    outside.write_bytes(content(1))
    store = Store.open(state, clock=clock)
    (state / "part" / sha256).unlink()
    (state / "part" / sha256).hardlink_to(outside)
    with store.stage(sha256, SIZE) as staging:
        assert bytes(staging.kept) == b""
        staging.write(memoryview(bytes(SIZE)))
    store.close()
    assert outside.read_bytes() == content(1)


class SlowDisk(Disk):
    """A card whose syncs wait for a word, once armed.

    Attributes:
        armed: Whether they do; ``syncing`` is set when one begins, ``done`` ends it.
    """

    def __init__(self) -> None:
        self.armed = False
        self.syncing, self.done = threading.Event(), threading.Event()

    def sync(self, descriptor: int) -> None:
        """Wait, then sync."""
        if self.armed:
            self.syncing.set()
            assert self.done.wait(PATIENCE_S)
        super().sync(descriptor)


def test_two_threads_that_close_it_close_it_once(state: Path, clock: Clock) -> None:
    """Who comes while it is being synced waits: no descriptor is closed twice."""
    disk = SlowDisk()
    store = Store.open(state, disk, clock=clock)
    staging = store.stage(installed(1).sha256, SIZE)
    staging.write(memoryview(content(1))[:100])
    disk.armed = True
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(staging.close, keep=True)
        assert disk.syncing.wait(PATIENCE_S)
        second = pool.submit(staging.close)
        early, _ = wait([second], timeout=GRACE_S)
        disk.done.set()
        first.result(PATIENCE_S)
        second.result(PATIENCE_S)
    disk.armed = False
    assert not early
    resumed = store.stage(installed(1).sha256, SIZE)
    assert bytes(resumed.kept) == content(1)[:100]
    resumed.close()
    store.close()


def test_what_is_kept_for_later_makes_no_room(state: Path, clock: Clock) -> None:
    """Neither whole nor in part, unless whoever asks may take it."""
    store = Store.open(state, clock=clock, quota_bytes=3 * SIZE)
    with store.stage(installed(1).sha256, SIZE) as whole:
        whole.write(memoryview(content(1)))
        whole.commit()
    with store.stage(installed(2).sha256, SIZE) as part:
        part.write(memoryview(content(2))[:100])
        part.close(keep=True)
    keep = {installed(1).sha256, installed(2).sha256}
    with pytest.raises(DeviceError) as caught:
        store.make_room(2 * SIZE, installed(3).sha256, keep)
    assert caught.value.reason == Reason.QUOTA
    assert store.has_object(installed(1).sha256)
    with store.stage(installed(2).sha256, SIZE) as part:
        assert len(part.kept) == 100
        part.close(keep=True)
    store.make_room(3 * SIZE, installed(3).sha256)
    assert not store.has_object(installed(1).sha256)
    store.close()
