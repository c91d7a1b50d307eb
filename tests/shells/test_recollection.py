"""Recollection: who joins in the middle answers as if it had been there all along."""

from collections.abc import Sequence

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace as with_fields

from agent.core.manifest import StateLink
from agent.core.steps import Window
from agent.worker.recollection import SETTLED, Recollection
from agent.worker.samples import Array, Sample
from tests.fakes.tiny_models import loaded, manifest
from tests.fakes.windows import WindowedModel


@given(
    length=st.integers(1, 8),
    hop=st.integers(1, 8),
    first=st.integers(0, 20),
    gaps=st.sets(st.integers(0, 60), max_size=3),
)
def test_windows_are_those_of_the_active_model(
    *, length: int, hop: int, first: int, gaps: set[int]
) -> None:
    """Wherever it joins and whatever it misses: each window it answers is the same.

    Where it has seen enough since the last gap, it answers whenever the other does.
    """
    active, late = WindowedModel(length, hop), WindowedModel(length, hop)
    follower = Recollection(late.model, remembers=True)
    since = 0
    for seq in range(60):
        row = np.array([seq], np.float32)
        expected = active.model.preprocess(row)
        if seq < first or seq in gaps:
            since = 0
            continue
        since += 1
        found = follower.follow(seq, row, answered=expected is not None)
        if expected is None:
            continue
        assert (found is not None) == (since >= length)
        if found is not None:
            assert found[0].tolist() == expected[0].tolist()


@given(st.lists(st.integers(1, 7), min_size=10, max_size=40), st.integers(0, 5))
def test_windows_of_chunks(sizes: Sequence[int], first: int) -> None:
    """Samples of several rows: the last rows are the same, however they came."""
    active, late = WindowedModel(6, 4, "rows"), WindowedModel(6, 4, "rows")
    follower = Recollection(late.model, remembers=True)
    row = since = 0
    for seq, size in enumerate(sizes):
        chunk: Array = np.arange(row, row + size, dtype=np.float32)[:, None]
        row += size
        expected = active.model.preprocess(chunk)
        if seq < first:
            continue
        since += size
        found = follower.follow(seq, chunk, answered=expected is not None)
        if expected is not None:
            assert (found is not None) == (since >= 6)
        if expected is not None and found is not None:
            assert found[0].tolist() == expected[0].tolist()


def test_a_state_has_to_settle() -> None:
    """A recurrent model is no equal before it has forgotten how it began."""
    with loaded(manifest("streaming"), "streaming") as model:
        follower = Recollection(model, remembers=True)
        spec = model.variant.inputs[0]
        given_sample: Sample = np.ones(spec.shape, spec.dtype)
        settled = []
        for seq in [*range(1, SETTLED + 3), *range(100, 100 + SETTLED + 2)]:
            follower.follow(seq, given_sample, answered=True)
            settled.append(follower.settled)
    once = [False] * SETTLED + [True, True]
    assert settled == once + once


def test_a_model_that_remembers_nothing_is_not_reset() -> None:
    """Gaps mean nothing to it, and nothing is kept."""
    model = WindowedModel(1, 1)
    follower = Recollection(model.model, remembers=False)
    for seq in (5, 90, 7):
        assert follower.follow(seq, np.zeros(1, np.float32), answered=True) is not None
        assert follower.settled
    assert model.resets == 0


def test_what_is_kept_is_bounded() -> None:
    """No window is longer than its rows, and none keeps more bytes than allowed."""
    model = WindowedModel(100, 1).model
    follower = Recollection(model, remembers=True, max_kept_bytes=40)
    for seq in range(1, 50):
        follower.follow(seq, np.zeros(2, np.float32), answered=True)
    assert len(follower._kept) == 5


def test_links_and_windows_are_what_is_remembered() -> None:
    """The manifest says it."""
    plain = manifest("quantised")
    assert not plain.remembers
    assert with_fields(plain, preprocess=(Window(),)).remembers
    assert with_fields(plain, state=(StateLink("a", "b"),)).remembers


def test_nobody_begins_again_unasked() -> None:
    """While the active model is silent, too, a silent window is as it should be."""
    model = WindowedModel(4, 4)
    follower = Recollection(model.model, remembers=True)
    for seq in range(1, 20):
        follower.follow(seq, np.zeros(1, np.float32), answered=False)
    assert model.resets == 0
    follower.follow(30, np.zeros(1, np.float32), answered=False)
    assert model.resets == 1
