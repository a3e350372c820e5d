"""A device's share of the noise, and what the sum of all of them promises."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from pocketfleet.training.draws import draw_key, normal
from pocketfleet.training.privacy.accountant import epsilon_of_rho
from pocketfleet.training.privacy.distributed_gaussian import DistributedGaussian, share_stddev
from pocketfleet.training.privacy.dp_library import dp_library
from pocketfleet.training.privacy.random_bits import keyed_bits

dp_accounting = dp_library()

SIZE = 1000
PLAN = DistributedGaussian(max_norm=1.0, step=0.01, share_stddev=0.05, size=SIZE)


@given(st.floats(1e-3, 1e3), st.sampled_from([1e-4, 0.01, 1.0]), st.integers(1, 400), st.integers(0, 2**32))
def test_a_rounded_vector_is_no_longer_than_stated(scale: float, step: float, size: int, seed: int) -> None:
    plan = DistributedGaussian(max_norm=1.0, step=step, share_stddev=1.0, size=size)
    vector = normal(draw_key(seed, "vector"), size) * scale
    found = plan.rounded(vector, keyed_bits(seed)("rounding", 0))
    assert found.dtype == np.int64
    assert float(np.linalg.norm(found.astype(float))) <= plan.rounded_norm
    clipped = vector * min(1.0, 1.0 / float(np.linalg.norm(vector)))
    # Each coordinate is one of its two neighbours on the grid.
    assert bool((np.abs(found - clipped / step) < 1.0 + 1e-9).all())


def test_rounding_keeps_the_mean() -> None:
    vector = np.full(50, 0.1234)
    plan = DistributedGaussian(max_norm=10.0, step=0.1, share_stddev=1.0, size=50)
    rounds = [plan.decode(plan.rounded(vector, keyed_bits(3)("rounding", number))) for number in range(400)]
    # 0.1234 lies 0.234 of a step above 0.1; 20,000 draws have a spread of 0.1 * sqrt(0.234 * 0.766 / 20,000) = 3e-4.
    # Drawing a rounding again where it is too long leans towards shorter ones, here by nothing that shows.
    assert float(np.mean(rounds)) == pytest.approx(0.1234, abs=4 * 3e-4)


def test_a_sum_has_the_noise_of_all_shares() -> None:
    devices, noise = 40, []
    for device in range(devices):
        encoded = PLAN.encode(np.zeros(SIZE), keyed_bits(6)("share", device))
        noise.append(encoded)
    total = PLAN.decode(np.sum(noise, axis=0)) / (0.05 * math.sqrt(devices))
    assert stats.kstest(total, "norm").pvalue > 1e-3
    assert 1e-3 < stats.chi2.cdf(float(np.square(total).sum()), SIZE) < 1.0 - 1e-3
    assert int(np.abs(np.sum(noise, axis=0)).max()) <= PLAN.largest(devices)


def test_the_share_is_what_makes_the_sum_the_noise_wanted() -> None:
    assert share_stddev(1.2, 2.0, devices=16) == pytest.approx(0.6)


def test_rho_is_that_of_a_gaussian_where_the_grid_is_fine() -> None:
    fine = DistributedGaussian(max_norm=1.0, step=1e-6, share_stddev=share_stddev(2.0, 1.0, devices=30), size=SIZE)
    # One Gaussian of multiplier z is 1 / (2 z ** 2) zero-concentrated (Bun and Steinke 2016, arXiv:1605.02065).
    assert fine.rho(30) == pytest.approx(1.0 / 8.0, rel=1e-3)
    # With fewer devices there is less noise.
    assert fine.rho(15) == pytest.approx(2.0 / 8.0, rel=1e-3)


def test_a_coarse_grid_costs_what_the_paper_says() -> None:
    coarse = DistributedGaussian(max_norm=1.0, step=0.5, share_stddev=0.25, size=4)
    # By hand, the paper's theorem 1 for n = 2, sigma / gamma = 0.5, d = 4, c / gamma = 2:
    # norm = min(2 + 2, sqrt(4 + 1 + sqrt(2 * 0.5) * (2 + 1))) = sqrt(8); tau = 10 exp(-2 pi^2 * 0.25 / 2).
    tau = 10.0 * math.exp(-2.0 * math.pi**2 * 0.25 * 0.5)
    epsilon = math.sqrt(8.0) / (math.sqrt(2.0) * 0.5) + tau * 2.0
    assert coarse.rounded_norm == pytest.approx(math.sqrt(8.0))
    assert coarse.rho(2) == pytest.approx(epsilon**2 / 2.0)


def test_epsilon_of_rho_is_the_librarys() -> None:
    accountant = dp_accounting.rdp.RdpAccountant()
    accountant.compose(dp_accounting.ZCDpEvent(0.125))
    assert epsilon_of_rho(0.125, delta=1e-6) == accountant.get_epsilon(1e-6)
    # And not far above what one Gaussian of that rho costs exactly.
    exact = dp_accounting.get_epsilon_gaussian(2.0, 1e-6)
    assert exact < epsilon_of_rho(0.125, delta=1e-6) < 1.1 * exact


@pytest.mark.parametrize("changed", [{"step": 0.0}, {"max_norm": math.inf}, {"share_stddev": -1.0}, {"beta": 1.0}])
def test_what_is_no_plan_is_refused(changed: dict[str, float]) -> None:
    given = {"max_norm": 1.0, "step": 0.1, "share_stddev": 1.0, "beta": 0.5} | changed
    (name,) = changed
    with pytest.raises(ValueError, match=f"{name} must be"):
        DistributedGaussian(size=3, **given)


def test_a_vector_of_another_size_is_refused() -> None:
    with pytest.raises(ValueError, match=r"a vector must have 1000 finite coordinates, got shape \(3,\)"):
        PLAN.encode(np.zeros(3), keyed_bits(1)("share", 0))
    with pytest.raises(ValueError, match="1000 finite coordinates"):
        PLAN.encode(np.full(SIZE, np.nan), keyed_bits(1)("share", 0))
