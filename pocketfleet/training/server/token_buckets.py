"""How often somebody may do something: a bucket of tokens each, refilled at a steady rate."""

import math
from collections import OrderedDict

__all__ = ["TokenBuckets"]

# Who was heard of longest ago is forgotten first: their bucket would be full again, or they are too many to count.
_MOST = 200_000


class TokenBuckets:
    """A bucket by key.

    Args:
        per_s: tokens that come a second; 0: no limit.
        burst: tokens that a bucket holds.
    """

    def __init__(self, *, per_s: float, burst: int) -> None:
        self._per_s = per_s
        self._burst = float(burst)
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()  # tokens, and when

    def take(self, key: str, *, now_s: float) -> float:
        """Take a token; returns 0, or after how many seconds there is one."""
        if self._per_s == 0.0:
            return 0.0
        tokens, since_s = self._buckets.pop(key, (self._burst, now_s))
        tokens = min(self._burst, tokens + (now_s - since_s) * self._per_s)
        short = tokens < 1.0
        self._buckets[key] = (tokens if short else tokens - 1.0, now_s)
        while len(self._buckets) > _MOST:
            self._buckets.popitem(last=False)
        return (1.0 - tokens) / self._per_s if short else 0.0

    def empty(self, key: str, *, now_s: float) -> float:
        """After how many seconds a token is there, without taking it; 0: now."""
        tokens, since_s = self._buckets.get(key, (self._burst, now_s))
        missing = 1.0 - tokens - (now_s - since_s) * self._per_s
        return max(0.0, missing / self._per_s) if self._per_s and math.isfinite(missing) else 0.0
