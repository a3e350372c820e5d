"""The benchmark of secure aggregation, shrunken; and that it would notice a sum that is not one."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))

from secure_aggregation import check_sum, grid, leaves_before, met, one_round, plot, ring_vector

from pocketfleet.training.privacy.secure_aggregation.settings import SecureSettings


def test_a_small_round_is_summed_checked_and_drawn(tmp_path: Path) -> None:
    """Of 24 members, 3 leave, one before each stage: 22 are in the sum."""
    row = one_round(24, parameters=3_000, dropout_ratio=0.125)
    assert (row["in_sum"], row["degree"], row["threshold"], row["ring_bytes"]) == (22, 23, 13, 4)
    # 64 + 23 * 94 + 4 * 3002 + 24 * 34; 16 + 23 * 68 + 23 * 95 + 4 + 24 * 5.
    assert (row["member_up_bytes"], row["member_down_bytes"]) == (15_050, 3_889)
    assert met([row]) == {"upload": True}
    plot([row, row | {"members": 48}], tmp_path / "growth.png")
    assert (tmp_path / "growth.png").stat().st_size > 10_000


def test_members_leave_before_every_stage() -> None:
    leaves = leaves_before(1000, 0.05)
    assert np.bincount(leaves).tolist() == [950, 17, 17, 16]


def sums(members: int, settings: SecureSettings) -> np.ndarray:
    return np.sum([ring_vector(place, members, settings) for place in range(members)], axis=0, dtype=settings.dtype)


def test_a_sum_that_is_another_is_noticed() -> None:
    settings = SecureSettings(vector_length=12, ring_bytes=grid(5).ring_bytes)
    total = sums(5, settings) & settings.dtype.type(settings.ring - 1)
    check_sum(total, range(5), 5, settings)
    with pytest.raises(AssertionError, match="not the plain one"):
        check_sum(total, range(4), 5, settings)
    total[3] ^= 1
    with pytest.raises(AssertionError, match="not the plain one"):
        check_sum(total, range(5), 5, settings)


def test_a_mean_that_is_another_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Deltas that are not those that were masked: half of them."""
    import secure_aggregation as benchmark

    settings = SecureSettings(vector_length=12, ring_bytes=grid(5).ring_bytes)
    total = sums(5, settings) & settings.dtype.type(settings.ring - 1)
    kept = benchmark.delta
    encoded = {place: ring_vector(place, 5, settings) for place in range(5)}
    monkeypatch.setattr(benchmark, "ring_vector", lambda place, *_: encoded[place])
    monkeypatch.setattr(benchmark, "delta", lambda member, parameters: 0.5 * kept(member, parameters))
    with pytest.raises(AssertionError, match="off, a step is"):
        check_sum(total, range(5), 5, settings)


def row(members: int, *, wall_s: float, upload_ratio: float) -> dict[str, Any]:
    return {"members": members, "wall_s": wall_s, "upload_ratio": upload_ratio, "parameters": 100_000}


@pytest.mark.parametrize(
    ("rows", "holds"),
    [
        ([row(1000, wall_s=119.9, upload_ratio=1.5)], {"upload": True, "seconds": True}),
        ([row(1000, wall_s=120.1, upload_ratio=1.1)], {"upload": True, "seconds": False}),
        ([row(50, wall_s=1.0, upload_ratio=1.51), row(100, wall_s=1.0, upload_ratio=1.0)], {"upload": False}),
    ],
)
def test_what_is_met(rows: list[dict[str, Any]], holds: dict[str, bool]) -> None:
    assert met(rows) == holds
