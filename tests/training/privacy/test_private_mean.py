"""A round's mean with noise on it: what is divided by what, and what the noise is drawn from."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from pocketfleet.training.privacy.accountant import Accountant
from pocketfleet.training.privacy.clipping import AdaptiveClipping
from pocketfleet.training.privacy.privacy_plan import PrivacyPlan
from pocketfleet.training.privacy.private_mean import PrivateMean
from pocketfleet.training.privacy.private_run import PrivateRun
from pocketfleet.training.privacy.random_bits import keyed_bits, secret_bits
from pocketfleet.training.update import Update

SIZE = 50_000
MEAN = Update({"w": torch.full((SIZE,), 0.25, dtype=torch.float64)}, {})
NORMS = np.array([0.5, 3.0, 1.0, 9.0, 0.1])
ALL = np.ones(5, np.bool_)


def private(*, noise: float = 1.5, adaptive: AdaptiveClipping | None = None) -> PrivateMean:
    return PrivateMean(noise_multiplier=noise, max_norm=2.0, adaptive=adaptive, bits=keyed_bits(9))


def test_noise_is_on_the_sum_and_the_sum_is_divided_by_the_reports() -> None:
    of = private()
    found, state = of.step(MEAN, norms=NORMS, finite=ALL, version=1, state=of.init())
    # Noise of 1.5 * 2 on the sum of five: 0.6 on their mean.
    noise = (found.delta["w"] - 0.25).numpy() / 0.6
    assert stats.kstest(noise, "norm").pvalue > 1e-3
    assert 1e-3 < stats.chi2.cdf(float(np.square(noise).sum()), SIZE) < 1.0 - 1e-3
    assert of.norm_of(state) == 2.0


def test_an_update_that_is_no_number_adds_zeros_and_counts() -> None:
    quiet = private(noise=0.0)
    finite = np.array([True, False, True, True, False])
    found, _ = quiet.step(MEAN, norms=NORMS, finite=finite, version=1, state=quiet.init())
    # Three updates of mean 0.25 and two of zeros.
    np.testing.assert_allclose(found.delta["w"].numpy(), 0.15, rtol=1e-15)


def test_noise_is_drawn_again_for_its_version_alone() -> None:
    of = private()
    one, again, other = (
        of.step(MEAN, norms=NORMS, finite=ALL, version=version, state=of.init())[0].delta["w"] for version in (1, 1, 2)
    )
    assert torch.equal(one, again)
    assert abs(float(np.corrcoef(one.numpy(), other.numpy())[0, 1])) < 4.0 / math.sqrt(SIZE)
    secret = PrivateMean(noise_multiplier=1.5, max_norm=2.0, adaptive=None, bits=secret_bits())
    two = [secret.step(MEAN, norms=NORMS, finite=ALL, version=1, state=secret.init())[0].delta["w"] for _ in range(2)]
    assert not torch.equal(*two)


def test_an_adaptive_bound_moves_and_takes_its_share_of_the_noise() -> None:
    adaptive = AdaptiveClipping(target_quantile=0.5, learning_rate=0.2, count_stddev=1.0)
    of = private(adaptive=adaptive)
    found, state = of.step(MEAN, norms=NORMS, finite=ALL, version=1, state=of.init())
    # 1 / sqrt(1 / 2.25 - 1 / 4) = 2.268 in place of 1.5.
    assert of.update_multiplier == pytest.approx((1 / 2.25 - 1 / 4) ** -0.5)
    assert float(found.delta["w"].std()) == pytest.approx(of.update_multiplier * 2.0 / 5.0, rel=0.02)
    bits = keyed_bits(9)("privacy_count", 1)
    assert of.norm_of(state) == adaptive.next_norm(2.0, norms=NORMS, counted=ALL, bits=bits)


def test_a_run_counts_what_its_devices_have_given_away() -> None:
    accountant = Accountant(accounting="participations", noise_multiplier=1.5, delta=1e-6)
    run = PrivateRun(PrivacyPlan(mean=private(), accountant=accountant), devices=4)
    assert run.figures == {"epsilon": 0.0, "clip_norm": 2.0}
    small = Update({"w": torch.zeros(3, dtype=torch.float64)}, {})

    def take(*device: int, version: int) -> float:
        count = len(device)
        run.take(
            small,
            device=np.array(device, dtype=np.int64),
            norms=np.ones(count),
            finite=np.ones(count, np.bool_),
            version=version,
        )
        return run.figures["epsilon"]

    once, still = take(0, 1, version=1), take(2, 3, version=2)
    twice = take(1, 2, version=3)
    # Who is in a second round has given away more; others' rounds cost nothing.
    assert once == still == accountant.epsilon(rounds=1, participations=1)
    assert twice == accountant.epsilon(rounds=3, participations=2) > once
    again = PrivateRun(PrivacyPlan(mean=private(), accountant=accountant), devices=4)
    again.restore(run.state())
    assert (again.figures, again.participations, again.max_norm) == (run.figures, 2, 2.0)
