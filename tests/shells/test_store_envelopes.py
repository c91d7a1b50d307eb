"""Envelopes on the disk: whole or absent, whatever ends the life that writes them."""

import errno
from contextlib import suppress
from pathlib import Path

import pytest

from agent.core.reasons import Reason
from agent.core.sealing import MAX_ENVELOPE_BYTES
from agent.errors import BundleRefusedError, DeviceError, RequestRefusedError
from agent.store import Store
from agent.store.slice_path import check_slice_path
from tests.fakes.disks import SteppedDisk, fail_at
from tests.fakes.stored import installed

SHA = installed(1).sha256


def test_a_board_without_sealed_models_has_no_folder(tmp_path: Path) -> None:
    """What is not used leaves no trace; collecting does not mind."""
    store = Store.open(tmp_path)
    store.collect()
    assert store.load_envelope(SHA) is None
    assert not (tmp_path / "envelope").exists()
    store.save_envelope(SHA, b"envelope")
    found = tmp_path / "envelope" / SHA
    assert (found.read_bytes(), found.stat().st_mode & 0o777) == (b"envelope", 0o600)
    store.close()


def test_the_same_again_wears_no_flash(tmp_path: Path) -> None:
    """Each start of an update saves what opened it; the disk is not touched."""
    disk = SteppedDisk()
    store = Store.open(tmp_path, disk)
    store.save_envelope(SHA, b"envelope")
    done = len(disk.steps)
    store.save_envelope(SHA, b"envelope")
    assert disk.steps[done:] == ["open"] or not disk.steps[done:]
    store.close()


def test_an_envelope_is_the_old_or_the_new_one(tmp_path: Path) -> None:
    """Whichever step fails: it is read back whole, and the next time it is replaced."""
    for number in range(1, 12):
        disk = SteppedDisk()
        store = Store.open(tmp_path / str(number), disk)
        store.save_envelope(SHA, b"old")
        step = len(disk.steps) + number
        disk.before = fail_at(step, errno.ENOSPC, ever_after=False)
        with suppress(DeviceError):
            store.save_envelope(SHA, b"renewed")
        disk.before = lambda _number: None
        assert store.load_envelope(SHA) in {b"old", b"renewed"}
        store.save_envelope(SHA, b"renewed")
        assert store.load_envelope(SHA) == b"renewed"
        store.collect([SHA])
        names = [path.name for path in (tmp_path / str(number) / "envelope").iterdir()]
        assert names == [SHA]
        store.close()


def test_what_is_no_file_of_ours_is_no_envelope(tmp_path: Path) -> None:
    """A link, a folder or an endless file in its place: there is none."""
    store = Store.open(tmp_path)
    store.save_envelope(SHA, b"envelope")
    place = tmp_path / "envelope" / SHA
    place.unlink()
    place.symlink_to("/etc/passwd")
    assert store.load_envelope(SHA) is None
    place.unlink()
    place.write_bytes(bytes(MAX_ENVELOPE_BYTES + 1))
    assert store.load_envelope(SHA) is None
    store.save_envelope(SHA, b"envelope")
    assert store.load_envelope(SHA) == b"envelope"
    store.close()


def test_envelopes_count_towards_the_quota(tmp_path: Path) -> None:
    """They are rubbish where their object is: collecting makes room."""
    store = Store.open(tmp_path, quota_bytes=1000)
    store.save_envelope(SHA, bytes(900))
    store.make_room(200)
    assert store.load_envelope(SHA) is None
    store.save_envelope(SHA, bytes(900))
    with pytest.raises(DeviceError) as caught:
        store.make_room(200, SHA)
    assert caught.value.reason == Reason.QUOTA
    store.close()


def test_a_slice_may_carry_envelopes() -> None:
    """Of three segments, as long as an envelope may be; nothing else of that name."""
    check_slice_path("envelopes/kws/8/pi-0042", MAX_ENVELOPE_BYTES)
    with pytest.raises(BundleRefusedError) as caught:
        check_slice_path("envelopes/kws/8/pi-0042", MAX_ENVELOPE_BYTES + 1)
    assert caught.value.reason == Reason.TOO_LARGE
    for path in (
        "envelopes/kws/8",
        "envelopes/kws/8/a/b",
        "envelopes/../8/pi",
        "x/k/8/p",
    ):
        with pytest.raises(RequestRefusedError):
            check_slice_path(path, 80)
