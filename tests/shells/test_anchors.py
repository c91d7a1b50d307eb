"""Baselines on disk: whole or not at all, and never in a model's way."""

import errno
import logging
import os
import stat
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent.core.profile import MAX_PROFILE_BYTES
from agent.core.watching import ANCHORS, SCOPES, KeptAlarm
from agent.errors import DeviceError
from agent.store.anchors import (
    MAX_ALARMS_BYTES,
    MAX_BASELINES,
    MAX_FILE_BYTES,
    Anchors,
)
from agent.store.atomic import Disk
from agent.supervise.watching import WatchStore

ONE, TWO = "1" * 64, "2" * 64
BOTH = {ONE: b"first", TWO: b"second \x00\xff"}
STEPS = ("create", "write", "sync", "rename", "sync_directory")


class FullDisk(Disk):
    """A disk whose write fails as a full one's does."""

    def write(self, descriptor: int, content: memoryview) -> None:
        """Fail."""
        del descriptor, content
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


class UnreadableDisk(Disk):
    """A disk that lets nothing be opened."""

    def open_regular(self, path: Path) -> int:
        """Fail for want of descriptors."""
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE), str(path))


class NotedDisk(Disk):
    """A disk that notes its steps."""

    def __init__(self) -> None:
        self.steps: list[str] = []

    def __getattribute__(self, name: str) -> object:
        """Note the steps that durability is made of."""
        if name in STEPS:
            self.steps.append(name)
        return super().__getattribute__(name)


def path_of(state_dir: Path) -> Path:
    """Return where the baselines of ``door`` lie."""
    return state_dir / "anchors" / "door.json"


def spoil(state_dir: Path, content: bytes) -> Anchors:
    """Return anchors whose file holds something else."""
    anchors = Anchors(state_dir)
    anchors.save("door", BOTH)
    path_of(state_dir).write_bytes(content)
    return anchors


def test_they_are_what_supervision_needs(tmp_path: Path) -> None:
    """Anchors fit the Protocol; mypy checks the same."""
    store: WatchStore = Anchors(tmp_path)
    assert store.load("door") == {}


def test_what_was_saved_is_loaded(tmp_path: Path) -> None:
    """By another life of the daemon, too, in the order they came; each pipeline has
    its own."""
    Anchors(tmp_path).save("door", BOTH)
    Anchors(tmp_path).save("gate", {ONE: b"other"})
    assert list(Anchors(tmp_path).load("door").items()) == list(BOTH.items())
    assert Anchors(tmp_path).load("gate") == {ONE: b"other"}
    assert Anchors(tmp_path).load("hall") == {}


@given(
    st.dictionaries(
        st.text("0123456789abcdef", min_size=64, max_size=64),
        st.binary(min_size=1, max_size=200),
        max_size=6,
    )
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_newest_survive(tmp_path: Path, baselines: dict[str, bytes]) -> None:
    """Law: ``load`` returns the last ``MAX_BASELINES`` that were saved."""
    Anchors(tmp_path).save("door", baselines)
    kept = dict(list(baselines.items())[-MAX_BASELINES:])
    assert Anchors(tmp_path).load("door") == kept


def test_the_largest_fit(tmp_path: Path) -> None:
    """As many as are kept, as large as they may be, fit the file's limit."""
    large = {f"{k:064x}": bytes([k]) * MAX_PROFILE_BYTES for k in range(MAX_BASELINES)}
    Anchors(tmp_path).save("door", large)
    assert path_of(tmp_path).stat().st_size <= MAX_FILE_BYTES
    assert Anchors(tmp_path).load("door") == large


def test_it_is_private_and_durable(tmp_path: Path) -> None:
    """0600 in a folder of 0700; written aside, synced, renamed, synced."""
    disk = NotedDisk()
    Anchors(tmp_path, disk).save("door", BOTH)
    path = path_of(tmp_path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    order = ["sync_directory", "create", "write", "sync", "rename", "sync_directory"]
    assert disk.steps == order
    assert [it.name for it in path.parent.iterdir()] == ["door.json"]


def test_nothing_to_keep_leaves_no_file(tmp_path: Path) -> None:
    """Removing what is there, or is not, is the same."""
    anchors = Anchors(tmp_path)
    anchors.save("door", {})
    assert not (tmp_path / "anchors").exists()
    anchors.save("door", BOTH)
    anchors.save("door", {})
    anchors.save("door", {})
    assert list((tmp_path / "anchors").iterdir()) == []
    assert anchors.load("door") == {}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x00" * 100,
        b"null",
        b"[" * 100_000,
        b'{"schema": 2, "baselines": []}',
        b'{"schema": 1, "baselines": [], "more": 1}',
        b'{"baselines": [{"variant": "../x", "sha256": "' + b"0" * 64 + b'"}]}',
        b" " * (MAX_FILE_BYTES + 1),
    ],
)
def test_what_is_no_file_of_ours_is_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, content: bytes
) -> None:
    """Damaged, of another schema, foreign or too large: a warning, and nothing."""
    with caplog.at_level(logging.WARNING):
        assert spoil(tmp_path, content).load("door") == {}
    assert caplog.messages == ["monitor.anchor_damaged"]


@given(st.binary(max_size=500))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_bytes_are_no_error(tmp_path: Path, content: bytes) -> None:
    """Law: ``load`` raises for no content at all."""
    assert spoil(tmp_path, content).load("door") == {}


def test_a_flipped_bit_costs_one_baseline(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """What is not what its digest says is left out; the other is kept."""
    Anchors(tmp_path).save("door", BOTH)
    tree = msgspec.json.decode(path_of(tmp_path).read_bytes())
    tree["baselines"][0]["site"] = "AAAA"
    path_of(tmp_path).write_bytes(msgspec.json.encode(tree))
    with caplog.at_level(logging.WARNING):
        assert Anchors(tmp_path).load("door") == {TWO: BOTH[TWO]}
    assert caplog.messages == ["monitor.anchor_damaged"]


@pytest.mark.parametrize("kind", ["link", "pipe", "folder"])
def test_what_is_no_file_is_not_read(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    """A link is not followed, a pipe is not waited for; saving replaces a link."""
    (tmp_path / "anchors").mkdir()
    path = path_of(tmp_path)
    Anchors(tmp_path).save("other", BOTH)
    if kind == "link":
        path.symlink_to(tmp_path / "anchors" / "other.json")
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        path.mkdir()
    with caplog.at_level(logging.WARNING):
        assert Anchors(tmp_path).load("door") == {}
    assert caplog.messages == ["monitor.anchor_damaged"]
    if kind == "link":
        Anchors(tmp_path).save("door", {ONE: b"mine"})
        assert Anchors(tmp_path).load("other") == BOTH


def test_what_cannot_be_opened_is_collected_anew(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A process without descriptors goes on without its baselines."""
    Anchors(tmp_path).save("door", BOTH)
    with caplog.at_level(logging.WARNING):
        assert Anchors(tmp_path, UnreadableDisk()).load("door") == {}
    assert caplog.messages == ["monitor.anchor_damaged"]


def test_a_full_disk_keeps_what_was_there(tmp_path: Path) -> None:
    """It is said with its reason, and leaves nothing half-written behind."""
    Anchors(tmp_path).save("door", {ONE: b"old"})
    with pytest.raises(DeviceError) as caught:
        Anchors(tmp_path, FullDisk()).save("door", BOTH)
    assert caught.value.reason == "disk_full"
    assert Anchors(tmp_path).load("door") == {ONE: b"old"}
    assert [it.name for it in (tmp_path / "anchors").iterdir()] == ["door.json"]


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    """A file that has the folder's name is no trace, but an error of the disk's."""
    (tmp_path / "anchors").write_bytes(b"")
    with pytest.raises(DeviceError):
        Anchors(tmp_path).save("door", BOTH)
    assert Anchors(tmp_path).load("door") == {}


ALARMS = (KeptAlarm("shipped", "input", 1.5), KeptAlarm("site", "stuck"))
alarms = st.builds(
    KeptAlarm, st.sampled_from(ANCHORS), st.sampled_from(SCOPES), st.floats(0, 1e12)
)


@given(st.lists(alarms, max_size=10).map(tuple))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_alarms_that_were_saved_are_loaded(
    tmp_path: Path, kept: tuple[KeptAlarm, ...]
) -> None:
    """Law: as they were, with the variant; none leave no file, and no variant."""
    Anchors(tmp_path).save_alarms("door", ONE, kept)
    assert Anchors(tmp_path).load_alarms("door") == (ONE if kept else "", kept)
    assert (tmp_path / "anchors" / "door.alarms").exists() == bool(kept)


def test_alarms_and_baselines_do_not_touch_each_other(tmp_path: Path) -> None:
    """Removing one leaves the other; each pipeline has its own."""
    anchors = Anchors(tmp_path)
    anchors.save("door", BOTH)
    anchors.save_alarms("door", ONE, ALARMS)
    anchors.save("door", {})
    assert anchors.load_alarms("door") == (ONE, ALARMS)
    assert anchors.load_alarms("gate") == ("", ())
    anchors.save("door", BOTH)
    anchors.save_alarms("door", ONE, ())
    assert anchors.load("door") == BOTH


def test_the_most_alarms_fit(tmp_path: Path) -> None:
    """Every scope of both anchors, at the longest of moments."""
    every = tuple(KeptAlarm(a, s, 1795000000.123456) for a in ANCHORS for s in SCOPES)
    Anchors(tmp_path).save_alarms("door", ONE, every)
    path = tmp_path / "anchors" / "door.alarms"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert path.stat().st_size < MAX_ALARMS_BYTES
    assert Anchors(tmp_path).load_alarms("door") == (ONE, every)


@given(st.binary(max_size=500) | st.just(b" " * (MAX_ALARMS_BYTES + 1)))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_damaged_alarms_are_none(tmp_path: Path, content: bytes) -> None:
    """Law: no content is an error."""
    (tmp_path / "anchors").mkdir(exist_ok=True)
    (tmp_path / "anchors" / "door.alarms").write_bytes(content)
    assert Anchors(tmp_path).load_alarms("door") == ("", ())


def test_a_flipped_bit_raises_no_alarm(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """What is not what its digest says is left out, with a warning."""
    Anchors(tmp_path).save_alarms("door", ONE, ALARMS)
    path = tmp_path / "anchors" / "door.alarms"
    path.write_bytes(path.read_bytes().replace(b"input", b"stuck"))
    with caplog.at_level(logging.WARNING):
        assert Anchors(tmp_path).load_alarms("door") == ("", ())
    assert caplog.messages == ["monitor.anchor_damaged"]
