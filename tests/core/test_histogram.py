"""Histogram: the laws its docstring states, for any durations."""

from itertools import pairwise
from math import inf, isnan

from hypothesis import given
from hypothesis import strategies as st

from agent.core.histogram import (
    BUCKETS,
    EXPORTED,
    UNIT_NS,
    bucket_bound_ns,
    bucket_index,
    exported_buckets,
    merge,
    quantile,
)

durations = st.integers(min_value=-1000, max_value=20_000_000_000)
indices = st.integers(min_value=0, max_value=BUCKETS - 1)
histograms = st.lists(
    st.integers(min_value=0, max_value=1000), min_size=BUCKETS, max_size=BUCKETS
)


def counts_of(observed: list[int]) -> list[int]:
    """Return the histogram of some durations."""
    counts = [0] * BUCKETS
    for duration in observed:
        counts[bucket_index(duration)] += 1
    return counts


@given(st.lists(durations, min_size=2))
def test_bucket_index_is_monotone(observed: list[int]) -> None:
    """A longer duration never falls into an earlier bucket."""
    indices = [bucket_index(duration) for duration in sorted(observed)]
    assert indices == sorted(indices)


@given(durations)
def test_a_bucket_holds_what_falls_into_it(duration: int) -> None:
    """A duration lies above the bound before its bucket and not above its own."""
    index = bucket_index(duration)
    assert duration <= bucket_bound_ns(index)
    assert index == 0 or bucket_bound_ns(index - 1) < duration


@given(indices)
def test_a_bound_falls_into_its_own_bucket(index: int) -> None:
    """Bounds are inclusive, as Prometheus' are: one nanosecond more is the next."""
    bound = bucket_bound_ns(index)
    if bound == inf:
        assert index == BUCKETS - 1
    else:
        assert bucket_index(int(bound)) == index
        assert bucket_index(int(bound) + 1) == index + 1


def test_bounds_rise_by_an_eighth_of_an_octave() -> None:
    """Bounds rise strictly; beyond 10 us each one is at most an eighth above."""
    bounds = [bucket_bound_ns(index) for index in range(BUCKETS - 1)]
    assert all(low < high for low, high in pairwise(bounds))
    assert all(high <= low * 1.125 for low, high in pairwise(bounds[15:]))
    assert bounds[0] == UNIT_NS


@given(st.lists(durations))
def test_exported_buckets_are_exact(observed: list[int]) -> None:
    """Each exported bucket counts exactly the durations up to its bound."""
    rows = exported_buckets(counts_of(observed))
    for k, (bound_s, count) in enumerate(rows[:EXPORTED]):
        bound_ns = 10_000 * 2**k
        assert abs(bound_s - bound_ns / 1e9) < 1e-12
        assert count == sum(duration <= bound_ns for duration in observed)
    assert rows[-1] == (inf, len(observed))


@given(st.lists(durations, min_size=1), st.floats(min_value=0.01, max_value=1))
def test_quantile_lies_in_the_bucket_of_the_true_one(
    observed: list[int], share: float
) -> None:
    """The quantile lies within the bounds of the bucket that holds the true one."""
    counts = counts_of(observed)
    rank = share * len(observed)
    ordered = sorted(observed)
    true = next(d for number, d in enumerate(ordered, 1) if number >= rank)
    index = bucket_index(true)
    low = bucket_bound_ns(index - 1) if index else 0.0
    assert low <= quantile(counts, share) <= bucket_bound_ns(index)


@given(histograms, st.floats(min_value=0, max_value=1))
def test_quantile_is_finite_unless_empty(counts: list[int], share: float) -> None:
    """No histogram gives infinity; only an empty one gives NaN."""
    found = quantile(counts, share)
    assert isnan(found) == (sum(counts) == 0)
    assert isnan(found) or 0 <= found < inf


@given(histograms, st.floats(min_value=0, max_value=1), st.floats(0, 1))
def test_quantile_is_monotone(counts: list[int], one: float, two: float) -> None:
    """A larger share never has a smaller quantile."""
    low, high = sorted((one, two))
    assert sum(counts) == 0 or quantile(counts, low) <= quantile(counts, high)


@given(histograms, histograms)
def test_merge_is_commutative(left: list[int], right: list[int]) -> None:
    """The order of two histograms makes no difference."""
    assert merge(left, right) == merge(right, left)


@given(st.lists(durations), st.lists(durations))
def test_merge_is_the_histogram_of_both(one: list[int], two: list[int]) -> None:
    """Merging histograms equals observing everything at one place."""
    assert merge(counts_of(one), counts_of(two)) == counts_of(one + two)
