import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pocketfleet.training.codec.random_k import chosen, kept_count, spread, unbiased_factor
from pocketfleet.training.draws import draw_key, permutation


@given(st.integers(0, 400), st.integers(0, 400), st.integers(0, 2**63 - 1))
def test_the_kept_are_the_first_of_the_seeds_permutation(length: int, count: int, seed: int) -> None:
    count = min(count, length)
    expected = np.sort(permutation(draw_key(seed, "random_k"), length)[:count])
    assert (chosen(length, count=count, seed=seed) == expected).all()


@pytest.mark.parametrize(
    ("length", "ratio", "count"), [(10, 0.1, 1), (10, 0.11, 2), (61_706, 0.05, 3_086), (7, 1.0, 7), (0, 0.5, 0)]
)
def test_the_count_is_rounded_up(length: int, ratio: float, count: int) -> None:
    assert kept_count(length, ratio) == count


def test_each_coordinate_is_kept_as_often_and_the_scaled_mean_is_the_vector() -> None:
    length, count, seeds = 40, 10, 4_000
    kept = np.zeros(length)
    for seed in range(seeds):
        kept[chosen(length, count=count, seed=seed)] += 1
    # Binomial of 4,000 draws at 1/4: a spread of 27; five of them.
    assert np.abs(kept - seeds / 4).max() < 5 * np.sqrt(seeds * 0.25 * 0.75)
    assert unbiased_factor(length, count) == 4.0


def test_what_is_not_kept_is_zero() -> None:
    values = np.array([3.0, -2.0], dtype=np.float32)
    assert spread(values, np.array([1, 4]), length=6).tolist() == [0.0, 3.0, 0.0, 0.0, -2.0, 0.0]
