"""A recording that goes on: a new worker's first sample is the one after the last."""

from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core.flow import FilesSource
from agent.worker.samples import InputError
from agent.worker.sources import build_source
from agent.worker.sources.recorded import RecordedSource

MUCH = 40


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a folder with three files, 2 + 1 (damaged) + 3 samples."""
    path = tmp_path_factory.mktemp("recording")
    np.save(path / "a.npy", np.arange(2.0).reshape(2, 1))
    (path / "b.npy").write_bytes(b"no array")
    np.save(path / "c.npy", np.arange(10.0, 13.0).reshape(3, 1))
    return path


def taken(source: RecordedSource) -> list[float | str]:
    """Return the first samples of a source, ``bad`` for those it cannot read."""
    found: list[float | str] = []

    def one() -> bool:
        try:
            sample = source.take(0.0)
        except InputError:
            found.append("bad")
            return True
        if isinstance(sample, np.ndarray):
            found.append(float(sample[0]))
        return sample is not None

    for _ in islice(iter(one, False), MUCH):
        pass
    source.close()
    return found


@given(start=st.integers(0, 30), loop=st.booleans(), memory=st.booleans())
def test_goes_on_where_it_ended(
    folder: Path, start: int, *, loop: bool, memory: bool
) -> None:
    """From sample ``start`` on everything is as in one go, damaged ones included."""
    settings = FilesSource(str(folder), loop=loop, memory=memory)
    whole = [0.0, 1.0, "bad", 10.0, 11.0, 12.0]
    expected = (whole * MUCH if loop else whole)[start:][:MUCH]
    source = build_source(settings, None, start)
    assert isinstance(source, RecordedSource)
    assert taken(source) == expected
