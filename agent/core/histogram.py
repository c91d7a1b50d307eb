"""Latency histograms with fixed bounds: exact Prometheus buckets, fine percentiles.

160-odd fine buckets: 16 linear ones of 625 ns up to 10 us, then 8 for each octave up
to 5.24 s, then one for the rest. Every eighth fine bound is a bound of the 20 exported
buckets (10 us * 2**k), so those are exact; percentiles err by at most 1/8 octave.

Laws: ``bucket_index`` is monotone; ``bucket_bound_ns(bucket_index(d)) >= d``;
``quantile`` lies within the bounds of its bucket; ``merge`` is commutative.

>>> bucket_index(1), bucket_index(10_000), bucket_index(10_001)
(0, 15, 16)
>>> quantile([0] * 15 + [4] + [0] * (BUCKETS - 16), 0.5) <= 10_000
True
"""

from collections.abc import Sequence

UNIT_NS = 625  # 10 us / 16: exported bounds fall on fine ones
EXPORTED = 20  # bounds 10 us * 2**k, k = 0..19; the last is 5.24 s
_REST = 16 + 8 * (EXPORTED - 1)  # the last bucket, which has no upper bound
SHORT = 16 * UNIT_NS  # up to here a bucket is a division: what the loop inlines
BUCKETS = 16 + 8 * (EXPORTED - 1) + 1  # linear, 8 per octave, the rest


def bucket_index(duration_ns: int) -> int:
    """Return the fine bucket of a duration; anything <= 0 falls into the first."""
    units = (duration_ns - 1) // UNIT_NS
    if units < 16:
        return max(0, units)
    bits = units.bit_length()
    index = (bits - 3) * 8 + ((units >> (bits - 4)) & 7)
    return index if index < _REST else _REST  # noqa: FURB136 - min() costs 50 ns here


def bucket_bound_ns(index: int) -> float:
    """Return the inclusive upper bound of a fine bucket; infinite for the last."""
    if index >= BUCKETS - 1:
        return float("inf")
    if index < 16:
        return (index + 1) * UNIT_NS
    octave, eighth = divmod(index - 16, 8)
    return float(UNIT_NS * ((16 + 2 * (eighth + 1)) << octave))


def exported_buckets(counts: Sequence[int]) -> list[tuple[float, int]]:
    """Return ``(upper bound in seconds, cumulative count)`` of 20 buckets and +Inf."""
    rows: list[tuple[float, int]] = []
    total = 0
    start = 0
    for k in range(EXPORTED):
        end = 16 + 8 * k
        total += sum(counts[start:end])
        start = end
        rows.append((10e-6 * 2**k, total))
    rows.append((float("inf"), total + sum(counts[start:])))
    return rows


def quantile(counts: Sequence[int], share: float) -> float:
    """Return the ``share`` quantile in ns, linear within its bucket; NaN if empty."""
    total = sum(counts)
    if total == 0:
        return float("nan")
    rank = share * total
    seen = 0
    for index, count in enumerate(counts):
        if count and seen + count >= rank:
            low = bucket_bound_ns(index - 1) if index else 0.0
            high = bucket_bound_ns(index)
            if high == float("inf"):
                return low
            return low + (high - low) * max(0.0, rank - seen) / count
        seen += count
    return bucket_bound_ns(len(counts) - 2)


def count_above(counts: Sequence[int], duration_ns: float) -> int:
    """Return how many observations were longer than a duration, surely.

    Those of the bucket that holds it are not counted: it says nothing about them.

    >>> count_above([1] * BUCKETS, 5.24e9), count_above([1] * BUCKETS, 1e18)
    (1, 0)
    """
    return sum(counts[bucket_index(int(duration_ns)) + 1 :])


def merge(left: Sequence[int], right: Sequence[int]) -> list[int]:
    """Return the histogram of both sets of observations together."""
    return [a + b for a, b in zip(left, right, strict=True)]
