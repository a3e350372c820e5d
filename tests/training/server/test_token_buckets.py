import pytest

from pocketfleet.training.server import token_buckets
from pocketfleet.training.server.token_buckets import TokenBuckets


def test_a_bucket_empties_and_fills_at_its_rate() -> None:
    buckets = TokenBuckets(per_s=0.5, burst=2)
    assert [buckets.take("a", now_s=0.0) for _ in range(3)] == [0.0, 0.0, 2.0]
    assert buckets.take("b", now_s=0.0) == 0.0
    # Half a second's worth has come: one and a half are missing.
    assert buckets.take("a", now_s=1.0) == 1.0
    assert buckets.empty("a", now_s=1.0) == 1.0
    assert buckets.take("a", now_s=2.0) == 0.0
    # Never more than it holds, however long nobody asked.
    assert [buckets.take("a", now_s=1000.0) for _ in range(3)] == [0.0, 0.0, 2.0]


def test_no_rate_is_no_limit() -> None:
    buckets = TokenBuckets(per_s=0.0, burst=1)
    assert {buckets.take("a", now_s=0.0) for _ in range(100)} == {0.0}
    assert buckets.empty("a", now_s=0.0) == 0.0


def test_who_was_heard_of_longest_ago_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(token_buckets, "_MOST", 2)
    buckets = TokenBuckets(per_s=1.0, burst=1)
    for key in ("a", "b", "a", "c"):
        buckets.take(key, now_s=0.0)
    assert buckets.empty("b", now_s=0.0) == 0.0
    assert buckets.empty("a", now_s=0.0) > 0.0
