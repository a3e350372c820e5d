"""No update is longer than it may be, and the bound finds its quantile."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pocketfleet.errors import InputError
from pocketfleet.training.aggregation import MeanAggregator
from pocketfleet.training.draws import draw_key, normal
from pocketfleet.training.privacy.clipping import AdaptiveClipping, clip_factors
from pocketfleet.training.privacy.random_bits import keyed_bits
from pocketfleet.training.update import Update
from pocketfleet.training.update_norm import update_norms

ADAPTIVE = AdaptiveClipping(target_quantile=0.5, learning_rate=0.2, count_stddev=5.0)
VALUES = st.floats(-(2.0**66), 2.0**66, width=32)


@given(
    st.lists(st.lists(VALUES, min_size=3, max_size=3), min_size=1, max_size=5),
    st.floats(1e-6, 1e6),
)
def test_a_sum_of_clipped_updates_is_moved_by_one_no_further_than_the_bound(
    rows: list[list[float]], max_norm: float
) -> None:
    values = torch.tensor(rows, dtype=torch.float32)
    delta = {"a": values[:, :2], "b": values[:, 2:]}
    norms = update_norms(delta)
    factors = clip_factors(norms, max_norm)
    for row in range(len(rows)):
        mean = MeanAggregator()
        # One device alone: its mean is its contribution to a sum.
        weight = np.zeros(len(rows))
        weight[row] = 1.0
        mean.add_many(Update(delta, {}), weight=weight, scale=factors)
        part = mean.result().delta
        length = math.sqrt(sum(float(value.square().sum()) for value in part.values()))
        assert length <= max_norm * (1.0 + 1e-12)
        if norms[row] <= max_norm:
            # Not a bit is changed.
            np.testing.assert_array_equal(part["a"].numpy(), values[row, :2].double().numpy())
        else:
            assert length == pytest.approx(max_norm, rel=1e-12)
            cosine = sum(float(part[name] @ delta[name][row].double()) for name in part) / (length * norms[row])
            assert cosine == pytest.approx(1.0, abs=1e-9)


def test_what_is_no_number_counts_for_nothing() -> None:
    assert clip_factors(np.array([np.nan, np.inf, 2.0, 0.0]), 1.0).tolist() == [0.0, 0.0, 0.5, 1.0]
    assert clip_factors(np.array([3.0, 4.0]), np.array([1.0, np.inf])).tolist() == [1 / 3, 1.0]


def test_the_noise_is_divided_as_in_the_paper() -> None:
    # 1 / sqrt(1 / 0.8 ** 2 - 1 / 10 ** 2) = 0.8 / sqrt(1 - 0.0064)
    assert ADAPTIVE.update_multiplier(0.8) == pytest.approx(0.8 / math.sqrt(1 - 0.0064))
    # Two Gaussians of sensitivity 1 and 1/2, read together, are one whose inverse squares add up.
    both = ADAPTIVE.update_multiplier(0.8) ** -2 + (0.5 / 5.0) ** 2
    assert both**-0.5 == pytest.approx(0.8)
    assert ADAPTIVE.update_multiplier(0.0) == 0.0


def test_too_little_noise_on_the_count_is_refused() -> None:
    small = AdaptiveClipping(target_quantile=0.5, learning_rate=0.2, count_stddev=0.5)
    with pytest.raises(InputError, match=r"count_stddev must be above half the noise multiplier, 0.6, got 0.5"):
        small.update_multiplier(1.2)


def test_one_step_moves_the_bound_geometrically() -> None:
    norms, counted = np.array([1.0, 1.0, 1.0, 5.0]), np.ones(4, np.bool_)
    # Three of four are within the bound, a quarter more than the target: exp(-0.2 * 0.25).
    found = ADAPTIVE.next_norm(2.0, norms=norms, counted=counted, bits=None)
    assert found == pytest.approx(2.0 * math.exp(-0.05))
    # One that counts for nothing stands between: (0.5 + 0.5 - 0.5) / 4 + 0.5 = 0.625.
    counted[0] = False
    found = ADAPTIVE.next_norm(2.0, norms=norms, counted=counted, bits=None)
    assert found == pytest.approx(2.0 * math.exp(-0.2 * 0.125))


@pytest.mark.parametrize("quantile", [0.2, 0.5, 0.9])
def test_the_bound_finds_the_quantile(quantile: float) -> None:
    # Norms are exp(N(0, 1)): the quantile q is at exp(z_q), with z the normal quantile.
    expected = math.exp({0.2: -0.8416, 0.5: 0.0, 0.9: 1.2816}[quantile])
    adaptive = AdaptiveClipping(target_quantile=quantile, learning_rate=0.2, count_stddev=5.0)
    bound, seen = 0.01, []
    source = keyed_bits(1)
    for version in range(300):
        norms = np.exp(normal(draw_key(2, "norms", version), 100))
        bits = source("privacy_count", version)
        bound = adaptive.next_norm(bound, norms=norms, counted=np.ones(100, np.bool_), bits=bits)
        seen.append(math.log(bound))
    # From a hundredth of it: the mean of the last 150; noise of 5 in 100 and the sample leave some hundredths.
    assert math.exp(float(np.mean(seen[150:]))) == pytest.approx(expected, rel=0.1)


def test_the_count_is_noised_as_stated() -> None:
    norms, counted = np.full(40, 1.0), np.ones(40, np.bool_)
    shares = []
    for version in range(4000):
        bits = keyed_bits(5)("privacy_count", version)
        bound = ADAPTIVE.next_norm(1.0, norms=norms, counted=counted, bits=bits)
        shares.append(0.5 - math.log(bound) / 0.2)
    # All 40 are within: the share is 1 with noise of 5 / 40. The spread of 4,000 is known to 1 / sqrt(8,000) = 1.1 %.
    assert np.mean(shares) == pytest.approx(1.0, abs=4 * 0.125 / math.sqrt(4000))
    assert np.std(shares) == pytest.approx(0.125, rel=4 * 0.0112)
