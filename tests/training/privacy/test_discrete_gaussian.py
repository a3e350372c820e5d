"""Whole numbers drawn as often as the discrete Gaussian says."""

import numpy as np
import pytest
from scipy import stats

from pocketfleet.training.privacy.discrete_gaussian import discrete_gaussian
from pocketfleet.training.privacy.random_bits import keyed_bits

COUNT = 100_000


def probabilities(sigma: float) -> tuple[np.ndarray, np.ndarray]:
    """Whole numbers and how probable each is, worked out by summing."""
    numbers = np.arange(-int(12 * sigma) - 3, int(12 * sigma) + 4)
    weights = np.exp(-np.square(numbers.astype(float)) / (2.0 * sigma**2))
    return numbers, weights / weights.sum()


@pytest.mark.parametrize("sigma", [0.25, 0.5, 1.0, 1.7, 3.0, 12.4, 100.0])
def test_frequencies_are_those_of_the_distribution(sigma: float) -> None:
    found = discrete_gaussian(sigma, COUNT, keyed_bits(11)("noise", 0))
    assert found.dtype == np.int64
    assert len(found) == COUNT
    numbers, expected = probabilities(sigma)
    counts = np.bincount(found - numbers[0], minlength=len(numbers))
    # A chi-square test needs some tens a cell: rarer numbers share one.
    often = expected * COUNT >= 50.0
    seen = np.append(counts[often], counts[~often].sum())
    wanted = np.append(expected[often], expected[~often].sum()) * COUNT
    if wanted[-1] < 5.0:
        assert seen[-1] < 30
        seen, wanted = seen[:-1], wanted[:-1] * seen[:-1].sum() / wanted[:-1].sum()
    assert len(seen) >= 2
    # A true sampler fails one seed in a thousand; this seed is fixed.
    assert stats.chisquare(seen, wanted).pvalue > 1e-3


def test_a_large_one_is_nearly_gaussian() -> None:
    found = discrete_gaussian(1e5, COUNT, keyed_bits(11)("noise", 1))
    assert stats.kstest(found / 1e5, "norm").pvalue > 1e-3
    # The variance of 100,000 is known to sqrt(2 / 100,000) = 0.45 %.
    assert float(np.var(found)) == pytest.approx(1e10, rel=4 * 0.0045)


def test_it_is_drawn_again_from_the_same_bits() -> None:
    one, other = (discrete_gaussian(3.0, 999, keyed_bits(2)("noise", 0)) for _ in range(2))
    np.testing.assert_array_equal(one, other)
    assert len(discrete_gaussian(3.0, 0, keyed_bits(2)("noise", 0))) == 0


@pytest.mark.parametrize("sigma", [0.0, -1.0, float("nan"), 1e9])
def test_what_it_cannot_draw_is_refused(sigma: float) -> None:
    with pytest.raises(ValueError, match="sigma must be above 0 and 67108864 at most, got"):
        discrete_gaussian(sigma, 1, keyed_bits(2)("noise", 0))
