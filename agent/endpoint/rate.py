"""How often each client may ask: a token bucket for each of them.

>>> rate = Rate(per_s=1.0, burst=2.0)
>>> [rate.take(b"a", 0.0), rate.take(b"a", 0.0), rate.take(b"a", 0.0)]
[0.0, 0.0, 1.0]
"""

from collections import OrderedDict

# Progress once a second, or a bundle in pieces of 1 MiB as fast as its disk: both
# stay below. A scraper asks every 15 s.
PER_S = 20.0
BURST = 60.0
MAX_CLIENTS = 256  # buckets that are kept; whoever was silent longest has a full one


class Rate:
    """Token buckets by client.

    Args:
        per_s: Requests a second that a client may make for ever.
        burst: Requests it may make at once.
    """

    def __init__(self, per_s: float = PER_S, burst: float = BURST) -> None:
        self._per_s = per_s
        self._burst = burst
        self._buckets: OrderedDict[bytes, tuple[float, float]] = OrderedDict()

    def take(self, client: bytes, now: float) -> float:
        """Count a request; return 0, or the seconds to wait before the next try."""
        tokens, at = self._buckets.pop(client, (self._burst, now))
        tokens = min(self._burst, tokens + (now - at) * self._per_s)
        short = 1.0 - tokens
        self._buckets[client] = (tokens if short > 0 else tokens - 1.0, now)
        if len(self._buckets) > MAX_CLIENTS:
            self._buckets.popitem(last=False)
        return max(0.0, short / self._per_s)
