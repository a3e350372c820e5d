import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pocketfleet.training.draws import draw_key
from pocketfleet.training.privacy.secure_aggregation.fixed_point import FixedPoint
from pocketfleet.training.privacy.secure_aggregation.ring import from_ring, needed_ring_bytes, to_ring
from pocketfleet.training.privacy.secure_aggregation.settings import SecureSettings

GRID = FixedPoint(value_range=1.0, bits=8, max_weight=10, cohort=4)


@st.composite
def cohorts(draw: st.DrawFn) -> tuple[FixedPoint, np.ndarray, list[int]]:
    members, length = draw(st.integers(1, 9)), draw(st.integers(1, 6))
    grid = FixedPoint(
        value_range=draw(st.sampled_from([1e-6, 0.1, 1.0, 1000.0])),
        bits=draw(st.integers(2, 32)),
        max_weight=draw(st.sampled_from([1, 7, 100_000])),
        cohort=members + draw(st.integers(0, 3)),
    )
    inside = st.floats(-grid.value_range, grid.value_range, width=64)
    rows = draw(st.lists(st.lists(inside, min_size=length, max_size=length), min_size=members, max_size=members))
    weights = draw(st.lists(st.integers(0, grid.max_weight), min_size=members, max_size=members))
    return grid, np.array(rows), weights


@given(cohorts(), st.booleans())
@settings(deadline=None)
def test_the_mean_is_within_a_step_of_the_exact_one(
    cohort: tuple[FixedPoint, np.ndarray, list[int]], at_random: bool
) -> None:
    grid, rows, weights = cohort
    form = SecureSettings(vector_length=rows.shape[1] + 2, ring_bytes=grid.ring_bytes)
    total = np.zeros(form.vector_length, form.dtype)
    for place, (values, weight) in enumerate(zip(rows, weights, strict=True)):
        key = draw_key(1, "test rounding", place) if at_random else None
        total += to_ring(grid.encode(values, weight=weight, key=key), form)
    mean = grid.decode(from_ring(total & form.dtype.type(form.ring - 1), form))
    assert (mean.weight, mean.clipped) == (sum(weights), 0)
    exact = np.array(weights) @ rows / sum(weights) if sum(weights) else np.zeros(rows.shape[1])
    # Beside the rounding of float64 itself.
    allowed = grid.step * (1.0 if at_random else 0.5) + 1e-12 * grid.value_range
    assert np.abs(mean.values - exact).max() <= allowed


def test_ends_and_zero_are_whole_and_what_is_beyond_is_cut_and_counted() -> None:
    values = np.array([-1.0, 0.0, 1.0, 1.001, -50.0])
    assert GRID.encode(values, weight=3).tolist() == [3, 2, -381, 0, 381, 381, -381]
    assert GRID.encode(values, weight=0).tolist() == [0, 2, 0, 0, 0, 0, 0]


def test_rounding_at_random_keeps_the_mean() -> None:
    """Of 20,000 roundings of 0.3 steps: the mean's standard deviation is sqrt(0.3 * 0.7 / 20000) = 0.0032."""
    values = np.full(20_000, 0.3 * GRID.step)
    numbers = GRID.encode(values, weight=1, key=draw_key(5, "test rounding"))[2:]
    assert set(numbers.tolist()) == {0, 1}
    assert abs(numbers.mean() - 0.3) < 4 * 0.0032
    assert not GRID.encode(values, weight=1)[2:].any()


def test_the_ring_has_room_for_the_largest_sum_and_no_byte_more() -> None:
    """4 devices * weight 10 * 127 steps = 5080 < 2**15; 26 devices: 33,020 >= 2**15."""
    assert GRID.ring_bytes == 2
    assert FixedPoint(value_range=1.0, bits=8, max_weight=10, cohort=26).ring_bytes == 3
    form = SecureSettings(vector_length=3, ring_bytes=2)
    total = sum(to_ring(GRID.encode(np.array([-2.0]), weight=10), form) for _ in range(4))
    assert from_ring(total, form).tolist() == [40, 4, -5080]


@given(st.integers(1, 8), st.data())
def test_numbers_below_half_the_ring_come_back(ring_bytes: int, data: st.DataObject) -> None:
    half = 2 ** (8 * ring_bytes - 1)
    numbers = data.draw(st.lists(st.integers(-half, half - 1), min_size=1, max_size=5))
    form = SecureSettings(vector_length=len(numbers), ring_bytes=ring_bytes)
    vector = to_ring(np.array(numbers, np.int64), form)
    assert vector.dtype == form.dtype
    assert vector.tolist() == [number % form.ring for number in numbers]
    assert from_ring(vector, form).tolist() == numbers


@pytest.mark.parametrize(("largest", "ring_bytes"), [(1, 1), (127, 1), (128, 2), (2**31 - 1, 4), (2**31, 5)])
def test_the_least_ring(largest: int, ring_bytes: int) -> None:
    assert needed_ring_bytes(largest) == ring_bytes
    with pytest.raises(ValueError, match=r"below 2\*\*63, it can be 9223372036854775808"):
        needed_ring_bytes(2**63)


def test_many_cut_values_do_not_leave_the_ring() -> None:
    grid = FixedPoint(value_range=1.0, bits=2, max_weight=1, cohort=1)
    assert grid.encode(np.full(500, 9.0), weight=1)[:3].tolist() == [1, 1, 1]


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        ({"value_range": 0.0}, "value_range must be above 0 and finite, got 0.0"),
        ({"value_range": float("nan")}, "got nan"),
        ({"bits": 1}, "bits must be 2..32, got 1"),
        ({"max_weight": 0}, "max_weight must be 1.."),
        ({"cohort": 0}, "cohort must be 1.."),
        ({"bits": 32, "max_weight": 2**20, "cohort": 2**20}, r"below 2\*\*63"),
    ],
)
def test_grids_that_cannot_be_are_refused(wrong: dict[str, float], match: str) -> None:
    given = {"value_range": 1.0, "bits": 8, "max_weight": 1, "cohort": 2} | wrong
    with pytest.raises(ValueError, match=match):
        FixedPoint(**given)


def test_values_that_cannot_be_are_refused() -> None:
    with pytest.raises(ValueError, match=r"weight must be 0..10, got 11"):
        GRID.encode(np.zeros(1), weight=11)
    with pytest.raises(ValueError, match="must be finite"):
        GRID.encode(np.array([np.nan]), weight=1)
