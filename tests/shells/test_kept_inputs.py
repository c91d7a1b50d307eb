"""Kept inputs on the disk: sealed, bounded, the oldest go first."""

import logging
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.audit.kept import MAX_WAITING, KeptFolder, KeptInputs
from agent.core.audit_events import AuditEvent
from agent.core.kept import seal_context
from agent.core.kept_gaps import NOT_KEPT, Gap, find_gaps
from agent.core.reasons import Reason
from agent.core.receipts import name_word
from agent.errors import SettingsError

KB = 1000


def seal(content: bytes, info: bytes) -> bytes:
    """Stand for a seal: it can be told which content and context it is of."""
    return info + b"|" + content[::-1]


def keeper(folder: Path, quota_kb: float = 100.0) -> KeptInputs:
    """Return what keeps, in a folder that is not there yet."""
    return KeptInputs(folder / "kept", quota_kb / KB, "pi-1", seal)


def test_what_is_kept_is_bound_and_sealed(tmp_path: Path) -> None:
    """The file is what the seal made of content and context, for its owner alone."""
    kept = keeper(tmp_path)
    kept.keep("door", 7, b"content")
    kept.close()
    context = seal_context("pi-1", name_word("door"), 7)
    assert KeptFolder(kept.folder).read(7) == seal(b"content", context)
    (path,) = kept.folder.iterdir()
    assert path.stat().st_mode & 0o777 == 0o600
    assert kept.folder.stat().st_mode & 0o777 == 0o700


@given(st.lists(st.integers(1, 30), min_size=1, max_size=12))
def test_the_newest_that_fit_stay(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int]
) -> None:
    """Never more than the quota, and never an older one without those after it."""
    kept = keeper(tmp_path_factory.mktemp("quota"), quota_kb=50.0)
    for seq, size in enumerate(sizes):
        kept.keep("door", seq, bytes(size * KB))
    kept.close()
    there = KeptFolder(kept.folder).seqs(0, len(sizes))
    assert there == list(range(there[0], len(sizes)))
    whole = sum(path.stat().st_size for path in kept.folder.iterdir())
    assert whole <= 50 * KB


def test_a_quota_goes_on_after_a_restart(tmp_path: Path) -> None:
    """What lies there counts; half of a file, from a loss of power, goes."""
    for seq in range(4):
        kept = keeper(tmp_path, quota_kb=25.0)
        kept.keep("door", seq, bytes(10 * KB))
        kept.close()
    (tmp_path / "kept" / f"{9:020d}.kept.tmp").write_bytes(b"half")
    kept = keeper(tmp_path, quota_kb=25.0)
    kept.keep("door", 4, bytes(10 * KB))
    kept.close()
    assert KeptFolder(tmp_path / "kept").seqs(0, 100) == [3, 4]
    assert {3, 4} == {int(path.stem) for path in (tmp_path / "kept").iterdir()}


def test_what_never_fits_removes_nothing(tmp_path: Path) -> None:
    """A sample above the whole quota is counted, and the others stay."""
    kept = keeper(tmp_path, quota_kb=20.0)
    kept.keep("door", 1, bytes(KB))
    kept.keep("door", 2, bytes(21 * KB))
    kept.close()
    assert KeptFolder(kept.folder).seqs(0, 100) == [1]
    assert kept.skipped == 1
    (facts,) = kept.untold(at_once=True)
    assert facts == {"pipeline": "door", "runs_0": "2"}


def test_a_slow_disk_holds_nobody_up(tmp_path: Path) -> None:
    """What comes faster than it is written is counted, and memory is bounded."""
    free = threading.Event()

    def slow(content: bytes, info: bytes) -> bytes:
        del info
        assert free.wait(60)
        return content

    kept = KeptInputs(tmp_path / "kept", 1.0, "pi-1", slow)
    for seq in range(MAX_WAITING + 10):
        kept.keep("door", seq, b"x")
    assert kept.skipped == 10
    kept.miss(2)  # in the ring of a worker, before they came here
    assert kept.skipped == 12
    free.set()
    kept.close()
    told = find_gaps(AuditEvent(NOT_KEPT, 0.0, it) for it in kept.untold(at_once=True))
    assert told == [Gap(name_word("door"), MAX_WAITING, MAX_WAITING + 9)]
    assert kept.untold(at_once=True) == []
    assert list(range(MAX_WAITING)) == KeptFolder(kept.folder).seqs(0, 1000)


def test_a_disk_that_does_not_play_along_is_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Each lost sample is counted; inference does not notice."""
    (tmp_path / "kept").write_text("no directory")
    kept = keeper(tmp_path)
    with caplog.at_level(logging.WARNING):
        for seq in range(3):
            kept.keep("door", seq, b"x")
        kept.close()
    assert kept.skipped == 3
    assert kept.untold(at_once=True) == [{"pipeline": "door", "runs_0": "0-2"}]
    assert [record.message for record in caplog.records] == ["audit.not_kept"]


def test_a_key_that_cannot_be_used_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """An owner's key that no library takes keeps nothing, in words of ours."""

    def refuse(content: bytes, info: bytes) -> bytes:
        del content, info
        raise SettingsError("a point of small order", reason=Reason.SETTINGS)

    kept = KeptInputs(tmp_path / "kept", 1.0, "pi-1", refuse)
    with caplog.at_level(logging.WARNING):
        kept.keep("door", 1, b"x")
        kept.close()
    assert [it.__dict__["reason"] for it in caplog.records] == [Reason.SETTINGS]
    assert KeptFolder(kept.folder).seqs(0, 9) == []
