"""When a version passes, worked out by hand."""

import math
from dataclasses import replace

import pytest

from pocketfleet.training.release_verdict import Measured, ReleasePlan, failing, verdict_of

PLAN = ReleasePlan(
    seed=1,
    evaluation_reports=2,
    canary_ratio=0.0,
    canary_reports=1,
    over_selection=1.0,
    minimum_ratio=0.5,
    report_within_s=10.0,
    deadline_s=100.0,
)


def measured(*rows: tuple[int, float, float]) -> list[Measured]:
    return [Measured(num_held_out=count, tried=tried, released=released) for count, tried, released in rows]


def test_means_are_over_examples() -> None:
    verdict = verdict_of(measured((1, 1.0, 2.0), (3, 3.0, 2.0)), PLAN)
    assert (verdict.reports, verdict.tried, verdict.released) == (2, 2.5, 2.0)
    assert failing(verdict, PLAN) == "worse"


def test_who_holds_much_counts_for_so_many_at_most() -> None:
    rows = measured((1, 1.0, 2.0), (10**15, 4.0, 2.0))
    # Both count for one example: (1 + 4) / 2.
    assert verdict_of(rows, replace(PLAN, max_held_out=1)).tried == 2.5


@pytest.mark.parametrize(
    ("tried", "released", "changed", "reason"),
    [
        (1.0, 1.0, {}, None),
        (1.01, 1.0, {}, "worse"),
        (1.01, 1.0, {"tolerance_ratio": 0.02}, None),
        # A ratio of the size, also of a metric below zero.
        (-0.99, -1.0, {"tolerance_ratio": 0.02}, None),
        (-0.97, -1.0, {"tolerance_ratio": 0.02}, "worse"),
        (0.9, 1.0, {"bound": 0.8}, "beyond_bound"),
        (0.8, 1.0, {"bound": 0.8}, None),
        (0.9, 0.8, {"lower_is_better": False}, None),
        (0.7, 0.8, {"lower_is_better": False}, "worse"),
        (0.7, 0.8, {"lower_is_better": False, "tolerance_ratio": 0.2}, None),
        (0.9, 0.8, {"lower_is_better": False, "bound": 0.95}, "beyond_bound"),
        (math.nan, 1.0, {}, "worse"),
        (math.inf, math.inf, {}, "worse"),
        (-math.inf, 1.0, {}, "worse"),
        (1e301, 1e302, {}, "worse"),
        (5.0, math.nan, {}, None),
        (math.nan, math.nan, {"lower_is_better": False}, "worse"),
    ],
)
def test_what_passes(tried: float, released: float, changed: dict[str, float], reason: str | None) -> None:
    plan = replace(PLAN, **changed)
    verdict = verdict_of(measured((2, tried, released), (2, tried, released)), plan)
    assert failing(verdict, plan) == reason


def test_one_device_without_a_number_is_enough() -> None:
    assert failing(verdict_of(measured((100, 0.0, 1.0), (1, math.inf, 1.0)), PLAN), PLAN) == "worse"


def test_large_values_and_weights_stay_numbers() -> None:
    verdict = verdict_of(measured(*[(2**53, 1e300, -1e300)] * 7), PLAN)
    assert verdict.tried == pytest.approx(1e300)
    assert verdict.released == pytest.approx(-1e300)
