"""Noise has the spread that the promise counts on, in every coordinate."""

import numpy as np
import pytest
import torch
from scipy import stats

from pocketfleet.training.privacy.gaussian_noise import noised
from pocketfleet.training.privacy.random_bits import keyed_bits

TENSORS = {"b": torch.full((300, 100), 2.0), "a": torch.zeros(20_000, dtype=torch.float64)}


def test_noise_is_gaussian_of_its_spread_in_all_tensors() -> None:
    found = noised(TENSORS, stddev=0.3, bits=keyed_bits(4)("privacy_noise", 1))
    assert {name: (value.shape, value.dtype) for name, value in found.items()} == {
        name: (value.shape, torch.float64) for name, value in TENSORS.items()
    }
    for name, value in found.items():
        noise = ((value - TENSORS[name]) / 0.3).numpy().ravel()
        assert stats.kstest(noise, "norm").pvalue > 1e-3
        # Squares over the variance are chi-square with n degrees of freedom.
        assert 1e-3 < stats.chi2.cdf(float(np.square(noise).sum()), len(noise)) < 1.0 - 1e-3
        # And from coordinate to coordinate nothing is alike: the correlation's spread is 1 / sqrt(n).
        assert abs(float(np.corrcoef(noise[:-1], noise[1:])[0, 1])) < 4.0 / np.sqrt(len(noise))
    noise = [(found[name] - TENSORS[name]).numpy().ravel()[:20_000] for name in TENSORS]
    assert abs(float(np.corrcoef(*noise)[0, 1])) < 4.0 / np.sqrt(20_000)


def test_the_order_of_the_tensors_does_not_matter() -> None:
    turned = dict(reversed(TENSORS.items()))
    one = noised(TENSORS, stddev=1.0, bits=keyed_bits(4)("privacy_noise", 1))
    other = noised(turned, stddev=1.0, bits=keyed_bits(4)("privacy_noise", 1))
    assert all(torch.equal(one[name], other[name]) for name in TENSORS)


def test_no_noise_takes_no_bits() -> None:
    def bits(count: int) -> np.ndarray:
        raise AssertionError(count)

    found = noised(TENSORS, stddev=0.0, bits=bits)
    assert torch.equal(found["b"], TENSORS["b"].double())


@pytest.mark.parametrize("shape", [(), (0,), (1,), (2, 3)])
def test_any_shape(shape: tuple[int, ...]) -> None:
    found = noised({"w": torch.zeros(shape)}, stddev=1.0, bits=keyed_bits(4)("privacy_noise", 1))
    assert found["w"].shape == shape
