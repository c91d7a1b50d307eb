"""The meter's file: whatever tears or rots, a whole state comes back, or none."""

from pathlib import Path

import pytest

from agent.audit.files import Folder
from agent.audit.meter_file import FILE_BYTES, MARK_AT, NAME, SLOT_BYTES, MeterFile
from agent.audit.meter_usage import MAX_BYTES, UsageFile
from agent.core.meter import MAX_ROWS, MeterState, UsageRow, Window
from agent.core.reasons import Reason
from agent.errors import DeviceError

FULL = MeterState(
    window=Window(2**50, 2**64 - 1),
    bought=2**53 - 1,
    used=2**53 - 1,
    reserved=2**53 - 1,
    rows=tuple(UsageRow(491_000, f"{n:064x}", 2**53 - 1) for n in range(MAX_ROWS)),
)


def opened(home: Path, boot: str = "one") -> MeterFile:
    """Return the file as a start of the daemon opens it, in a boot of the kernel."""
    (home / "boot").write_text(boot, encoding="ascii")
    return MeterFile(Folder(home), home / "boot")


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    """The newest state comes back, the largest one included, from one file."""
    assert opened(tmp_path).load() is None
    file = opened(tmp_path)
    for used in range(5):
        file.save(MeterState(used=used))
    assert MeterState(used=4) == opened(tmp_path).load()
    again = opened(tmp_path)
    again.load()
    again.save(FULL)
    assert opened(tmp_path).load() == FULL
    assert (tmp_path / NAME).stat().st_size == FILE_BYTES
    assert (tmp_path / NAME).stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("length", [0, 1, 40, 52, 60, 100])
def test_a_torn_write_leaves_the_state_before(tmp_path: Path, length: int) -> None:
    """Of the write under way any part may be there: the one before it counts."""
    file = opened(tmp_path)
    file.save(MeterState(used=1))
    whole = (tmp_path / NAME).read_bytes()
    file.save(MeterState(used=2))
    torn = bytearray(whole)
    after = (tmp_path / NAME).read_bytes()
    changed = 0  # the second state lies in the first slot
    torn[changed : changed + length] = after[changed : changed + length]
    (tmp_path / NAME).write_bytes(torn)
    assert opened(tmp_path).load() in {MeterState(used=1), MeterState(used=2)}
    if length < 52:
        assert MeterState(used=1) == opened(tmp_path).load()


def test_a_flipped_bit_is_found(tmp_path: Path) -> None:
    """In either slot: the other one counts; in both: the file is refused."""
    file = opened(tmp_path)
    file.save(MeterState(used=1))
    file.save(MeterState(used=2))
    good = (tmp_path / NAME).read_bytes()
    for place in (10, 30, 60):
        raw = bytearray(good)
        raw[place] ^= 4
        (tmp_path / NAME).write_bytes(raw)
        assert MeterState(used=1) == opened(tmp_path).load()
        raw[SLOT_BYTES + place] ^= 4
        (tmp_path / NAME).write_bytes(raw)
        with pytest.raises(DeviceError) as refused:
            opened(tmp_path).load()
        assert refused.value.reason == Reason.STATE


def test_a_state_goes_on_in_the_other_slot(tmp_path: Path) -> None:
    """After a restart the newer slot is not the one that is written over."""
    file = opened(tmp_path)
    for used in (1, 2, 3):
        file.save(MeterState(used=used))
        again = opened(tmp_path)
        again.load()
        again.save(MeterState(used=used + 10))
        raw = bytearray((tmp_path / NAME).read_bytes())
        newest = (2 * used) % 2 * SLOT_BYTES
        raw[newest + 60] ^= 1
        file = opened(tmp_path)
        assert MeterState(used=used + 10) == file.load()


def test_a_mark_counts_in_its_boot(tmp_path: Path) -> None:
    """It is there after a death of the process, and not after one of the machine."""
    file = opened(tmp_path)
    assert file.marked() is None
    file.save(MeterState())
    assert file.marked() is None
    file.mark(77)
    assert opened(tmp_path).marked() == 77
    assert opened(tmp_path, boot="two").marked() is None
    raw = bytearray((tmp_path / NAME).read_bytes())
    raw[MARK_AT + 30] ^= 1
    (tmp_path / NAME).write_bytes(raw)
    assert opened(tmp_path).marked() is None
    nameless = MeterFile(Folder(tmp_path), tmp_path / "none")
    nameless.mark(5)
    assert nameless.marked() is None


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    """Whoever can place a link there does not choose what is written over."""
    (tmp_path / "other").write_bytes(b"precious")
    (tmp_path / NAME).symlink_to(tmp_path / "other")
    with pytest.raises(DeviceError):
        opened(tmp_path).save(MeterState())
    assert (tmp_path / "other").read_bytes() == b"precious"


def row(hour: int, count: int = 1) -> UsageRow:
    """Return a row."""
    return UsageRow(hour, "ab" * 32, count)


def test_a_row_counts_once(tmp_path: Path) -> None:
    """Rows that were kept before a crash, and once more after it, count once."""
    usage = UsageFile(Folder(tmp_path))
    assert usage.rows() == []
    usage.add(0, [row(1), row(2)])
    usage.add(1, [row(2, 5), row(3)])
    assert [row(1), row(2, 5), row(3)] == usage.rows()


def test_lines_that_are_torn_or_changed_are_passed_over(tmp_path: Path) -> None:
    """What follows them is read all the same."""
    usage = UsageFile(Folder(tmp_path))
    usage.add(0, [row(1), row(2)])
    path = tmp_path / "meter.usage"
    path.write_bytes(path.read_bytes()[:-20])
    usage.add(2, [row(3)])
    assert [row(1), row(3)] == usage.rows()
    path.write_bytes(path.read_bytes().replace(b"[3,", b"[9,"))
    assert [row(1)] == usage.rows()
    path.write_bytes(b"\xff[[[[" * 1000 + b"\n")
    assert usage.rows() == []


def test_the_older_half_goes(tmp_path: Path) -> None:
    """A file stays within its bounds, and keeps what is new."""
    usage = UsageFile(Folder(tmp_path))
    many = MAX_BYTES // 90
    usage.add(0, [row(hour) for hour in range(many)])
    usage.add(many, [row(many)])
    kept = usage.rows()
    assert row(many) == kept[-1]
    assert many // 4 < len(kept) <= many
    assert (tmp_path / "meter.usage").stat().st_size < MAX_BYTES * 1.2
