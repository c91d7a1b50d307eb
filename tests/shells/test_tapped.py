"""Records of tapped samples: what a worker renders is what a shadow parses."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays_of

from agent.worker.opinion import Opinion
from agent.worker.samples import Array, Sample
from agent.worker.tapped import Tapped, parse_record, render_record

dtypes = st.sampled_from(["f4", "f2", "f8", "i1", "u1", "i2", "i4", "i8", "?"])
arrays = dtypes.flatmap(
    lambda dtype: arrays_of.arrays(
        dtype, arrays_of.array_shapes(min_dims=0, max_dims=3, min_side=0)
    )
)
opinions = st.none() | st.builds(
    Opinion,
    task=st.sampled_from(["raw", "classification"]),
    labels=st.lists(st.text(max_size=5), max_size=3).map(tuple),
    score=st.floats(allow_nan=False),
    outputs=st.lists(arrays_of.arrays("f4", (2, 3)), max_size=2),
)


def same(one: Array, other: Array) -> bool:
    """Whether two arrays are the same to the bit, in shape and type as well."""
    alike = (one.dtype, one.shape) == (other.dtype, other.shape)
    return alike and one.tobytes() == other.tobytes()


@given(
    st.integers(0, 2**62),
    arrays | st.dictionaries(st.text(max_size=4), arrays, max_size=3),
    opinions,
    st.integers(0, 2**62),
)
def test_parse_undoes_render(
    seq: int, sample: Sample, opinion: Opinion | None, total_ns: int
) -> None:
    """``parse_record(b"".join(render_record(t)))`` is ``t`` again."""
    record = b"".join(render_record(Tapped(seq, sample, opinion, total_ns)))
    found = parse_record(record)
    assert (found.seq, found.total_ns) == (seq, total_ns)
    if isinstance(sample, dict):
        assert isinstance(found.sample, dict)
        assert list(found.sample) == list(sample)
        assert all(same(sample[key], found.sample[key]) for key in sample)
    else:
        assert isinstance(found.sample, np.ndarray)
        assert same(sample, found.sample)
    if opinion is None:
        assert found.opinion is None
        return
    assert found.opinion is not None
    assert found.opinion.labels == opinion.labels
    assert (found.opinion.task, found.opinion.score) == (opinion.task, opinion.score)
    pairs = zip(found.opinion.outputs, opinion.outputs, strict=True)
    assert all(same(one, other) for one, other in pairs)


def test_views_are_copied_as_they_look() -> None:
    """Every second row, upside down, in Fortran's order."""
    picture = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    for view in (picture[::2], picture[::-1], np.asfortranarray(picture)):
        record = b"".join(render_record(Tapped(1, view, None, 0)))
        found = parse_record(record).sample
        assert isinstance(found, np.ndarray)
        assert found.tolist() == view.tolist()


def test_only_numbers() -> None:
    """Objects are not carried from one process to another."""
    with pytest.raises(TypeError, match="only numbers"):
        render_record(Tapped(1, np.array(["text"]), None, 0))
