"""A source that is not there: no samples, until its path has changed and settled."""

import os
from collections.abc import Callable
from itertools import count
from pathlib import Path

import pytest

from agent.core.reasons import Reason
from agent.errors import DeviceError
from agent.worker.sources.absent import AbsentSource, look_at


def hourly() -> Callable[[], float]:
    """Return a clock by which each look is due."""
    hours = count()
    return lambda: 3600.0 * next(hours)


def absent(path: Path | None) -> AbsentSource:
    """Return the place of a source, whose path looks as it did before."""
    before = look_at(path) if path else None
    return AbsentSource(Reason.SOURCE_MISSING, path, before, hourly())


def gone(source: AbsentSource) -> bool:
    """Whether the source asks for another worker now."""
    try:
        assert source.take(0.0) is None
    except DeviceError as err:
        return err.reason == Reason.SOURCE_MISSING
    return False


def test_a_path_that_appears(tmp_path: Path) -> None:
    """A file that still grows is waited for; then it is time for another worker."""
    path = tmp_path / "late.npy"
    source = absent(path)
    looks = [gone(source), gone(source)]
    for size in (1, 2):
        path.write_bytes(bytes(size))
        looks.append(gone(source))
    looks.append(gone(source))
    assert looks == [False, False, False, False, True]


def test_a_path_that_is_corrected(tmp_path: Path) -> None:
    """What cannot be read stays so until it is another file."""
    path = tmp_path / "wrong.txt"
    path.write_bytes(b"no samples")
    source = absent(path)
    looks = [gone(source), gone(source)]
    path.unlink()
    looks += [gone(source), gone(source)]
    path.write_bytes(b"others")
    looks += [gone(source), gone(source)]
    assert looks == [False, False, False, False, False, True]


def test_looks_are_rare(tmp_path: Path) -> None:
    """Within a second there is one look, whatever the loop asks."""
    path = tmp_path / "late.npy"
    source = AbsentSource(Reason.SOURCE_MISSING, path, None)
    path.write_bytes(b"here")
    assert [gone(source) for _ in range(20)] == [False] * 20


def test_nothing_to_look_at() -> None:
    """A pipe that cannot be read is closed; nothing will change."""
    source = absent(None)
    reading, writing = os.pipe()
    source.replace(reading)
    with pytest.raises(BrokenPipeError):
        os.write(writing, b"frame")
    os.close(writing)
    source.close()
    assert [gone(source) for _ in range(3)] == [False] * 3
    assert not source.ended
