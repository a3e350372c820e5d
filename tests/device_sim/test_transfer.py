import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pocketfleet.device_sim.transfer import (
    ROUND_TRIPS,
    Outage,
    Transfers,
    carry_transfers,
    fatal_loss_after_s,
    survived_losses,
    transfer_rate_factor,
    transfer_seconds,
)
from pocketfleet.errors import InputError

DEVICES = 20_000


def carried(
    devices: int = DEVICES,
    *,
    outage: Outage,
    losses_per_s: float,
    payload_bytes: float = 1e6,
    wakes: bool = True,
    seed: int = 1,
    first: int = 0,
) -> Transfers:
    """Transfers of 8 Mbit at 0.8 Mbit/s: 10 s of bits; a round trip of 50 ms, 0.3 s to wake up."""
    device = np.arange(first, first + devices)
    return carry_transfers(
        seed,
        "download",
        np.zeros(devices, dtype=np.int64),
        device,
        payload_bytes=np.full(devices, payload_bytes),
        bits_per_s=np.full(devices, 0.8e6),
        latency_s=np.full(devices, 0.05),
        losses_per_s=np.full(devices, losses_per_s),
        wake_s=np.full(devices, 0.3),
        wakes=np.full(devices, wakes),
        outage=outage,
    )


def test_a_transfer_is_round_trips_and_bits() -> None:
    # 1 MB = 8e6 bits at 8 Mbit/s is 1 s, at 80 Mbit/s 0.1 s; three round trips of 50 ms are 0.15 s.
    seconds = transfer_seconds(
        payload_bytes=1_000_000, bits_per_s=np.array([8e6, 80e6]), latency_s=np.array([0.05, 0.05])
    )
    np.testing.assert_allclose(seconds, [1.15, 0.25])
    empty = transfer_seconds(payload_bytes=0, bits_per_s=np.array([8e6]), latency_s=np.array([0.05]))
    np.testing.assert_allclose(empty, [0.15])


@pytest.mark.parametrize(("wakes", "expected_s"), [(True, 0.3 + 0.15 + 10.0), (False, 0.15 + 10.0)])
def test_a_radio_that_sleeps_wakes_up_first(wakes: bool, expected_s: float) -> None:
    found = carried(3, outage=Outage(), losses_per_s=0.0, wakes=wakes)
    np.testing.assert_allclose(found.seconds, expected_s)
    np.testing.assert_array_equal(found.lost_after_s, np.inf)
    np.testing.assert_array_equal(found.wake_s, 0.3 if wakes else 0.0)


def test_a_survived_loss_costs_its_outage_and_a_new_start() -> None:
    # A limit so long that no outage reaches it: exp(-1000 / 5) is nothing.
    outage = Outage(mean_s=5.0, limit_s=1000.0)
    found = carried(outage=outage, losses_per_s=0.2)
    # Over 10 s of bits 0.2 a second are 2 losses on average, each 5 s of outage and 0.45 s of a new start.
    added_s = found.seconds - (0.3 + 0.15 + 10.0)
    assert added_s.min() == 0.0
    # Variance of such a sum: 2 x E[(5 x + 0.45)^2] = 2 x (50 + 4.5 + 0.2) = 109; the mean's error is
    # sqrt(109 / 20000) = 0.074.
    assert added_s.mean() == pytest.approx(2 * (5.0 + 0.3 + ROUND_TRIPS * 0.05), abs=5 * 0.074)
    # No loss at all: exp(-2).
    assert np.mean(added_s == 0.0) == pytest.approx(np.exp(-2.0), abs=0.012)
    assert np.isinf(found.lost_after_s).all()


def test_an_outage_longer_than_the_limit_is_fatal() -> None:
    outage = Outage(mean_s=20.0, limit_s=20.0)
    found = carried(outage=outage, losses_per_s=0.1)
    lost = np.isfinite(found.lost_after_s)
    # Fatal losses come at 0.1 x exp(-1) a second: within 10 s of bits to 1 - exp(-0.3679) = 0.308 of transfers.
    assert lost.mean() == pytest.approx(1.0 - np.exp(-0.1 * np.exp(-1.0) * 10.0), abs=5 * 0.0033)
    # They give up a limit after the loss, and before the whole would be over.
    assert found.lost_after_s[lost].min() >= 0.3 + 0.15 + 20.0
    assert np.all(found.lost_after_s[lost] < found.seconds[lost])
    # The share of the seconds is the share of the bits: the mean of an exponential below 10 s, over 10 s.
    rate = 0.1 * np.exp(-1.0)
    mean_s = 1.0 / rate - 10.0 * np.exp(-10.0 * rate) / (1.0 - np.exp(-10.0 * rate))
    ratio = found.lost_after_s[lost] / found.seconds[lost]
    assert ratio.mean() == pytest.approx(mean_s / 10.0, abs=0.02)


def test_outages_before_a_fatal_loss_are_those_of_the_time_until_it() -> None:
    outage = Outage(mean_s=20.0, limit_s=20.0)
    found = carried(outage=outage, losses_per_s=0.1)
    lost = np.isfinite(found.lost_after_s)
    number, rates = np.zeros(DEVICES, dtype=np.int64), np.full(DEVICES, 0.1)
    fatal_s = fatal_loss_after_s(1, "download", number, np.arange(DEVICES), rates, outage=outage)[lost]
    added_s = found.lost_after_s[lost] - 0.45 - fatal_s - 20.0
    # Losses that are not fatal come 0.1 x (1 - exp(-1)) times a second, each with a new start of 0.45 s. Some 6,000
    # transfers have about 0.3 of them, of 8.9 s: their mean is known to about sqrt(0.3 x 110 / 6000) = 0.07 of 2.7 s.
    expected_s = 0.1 * (1.0 - np.exp(-1.0)) * fatal_s.mean() * (outage.survived_mean_s + 0.45)
    assert added_s.mean() == pytest.approx(expected_s, rel=0.12)


def test_without_a_limit_every_loss_ends_the_transfer_at_once() -> None:
    found = carried(outage=Outage(limit_s=0.0), losses_per_s=0.1)
    lost = np.isfinite(found.lost_after_s)
    # 1 - exp(-1) of the transfers; the others take what they take.
    assert lost.mean() == pytest.approx(1.0 - np.exp(-1.0), abs=5 * 0.0034)
    np.testing.assert_allclose(found.seconds[~lost], 10.45)
    moved_s = found.lost_after_s[lost] - 0.45
    np.testing.assert_allclose(found.lost_after_s[lost] / found.seconds[lost], moved_s / 10.0)


def test_thousands_of_outages_add_up_to_their_means() -> None:
    # 1000 losses a second over 10 s of bits; the outages beyond the first few last their mean.
    outage = Outage(mean_s=2.0, limit_s=1000.0)
    found = carried(20, outage=outage, losses_per_s=1000.0)
    assert found.seconds.mean() == pytest.approx(10.45 + 10_000 * (2.0 + 0.45), rel=0.01)


@given(mean_s=st.floats(0.5, 200.0), limit_s=st.floats(0.0, 300.0))
def test_survived_outages_are_within_the_limit_and_have_their_mean(mean_s: float, limit_s: float) -> None:
    outage = Outage(mean_s=mean_s, limit_s=limit_s)
    chance = (np.arange(20_000) + 0.5) / 20_000
    outages_s = outage.survived_s(chance)
    assert outages_s.max() <= limit_s * (1 + 1e-9) + 1e-9
    assert outages_s.mean() == pytest.approx(outage.survived_mean_s, rel=0.01, abs=1e-6)


def test_a_further_device_changes_no_other_transfer() -> None:
    outage = Outage(mean_s=10.0, limit_s=15.0)
    all_of_them = carried(400, outage=outage, losses_per_s=0.3)
    some = carried(150, outage=outage, losses_per_s=0.3, first=100)
    # Whoever is drawn with them: most of these have losses.
    assert np.mean(all_of_them.seconds > 10.45) > 0.5
    np.testing.assert_array_equal(some.seconds, all_of_them.seconds[100:250])
    np.testing.assert_array_equal(some.lost_after_s, all_of_them.lost_after_s[100:250])


def test_rates_vary_around_their_mean() -> None:
    devices = np.arange(DEVICES)
    factor = transfer_rate_factor(1, "download", 3, devices, 0.368)
    assert factor.shape == (DEVICES,)
    # Standard deviation 0.368; the mean's error is 0.368 / sqrt(20000) = 0.0026, the deviation's about as much.
    assert factor.mean() == pytest.approx(1.0, abs=5 * 0.0026)
    assert factor.std() == pytest.approx(0.368, abs=5 * 0.0035)
    assert not np.array_equal(factor, transfer_rate_factor(1, "download", 4, devices, 0.368))
    assert not np.array_equal(factor, transfer_rate_factor(1, "upload", 3, devices, 0.368))
    np.testing.assert_array_equal(factor[:7], transfer_rate_factor(1, "download", 3, devices[:7], 0.368))


def test_no_variation_is_a_factor_of_one() -> None:
    np.testing.assert_array_equal(transfer_rate_factor(1, "download", 0, np.arange(3), 0.0), [1.0, 1.0, 1.0])


def test_fatal_losses_are_exponential_and_never_without_a_rate() -> None:
    devices, every = np.arange(DEVICES), Outage(limit_s=0.0)
    after_s = fatal_loss_after_s(1, "upload", 2, devices, np.full(DEVICES, 0.01), outage=every)
    # Mean and standard deviation 1 / 0.01 = 100 s; the mean's error is 100 / sqrt(20000) = 0.7 s.
    assert after_s.mean() == pytest.approx(100.0, abs=5 * 0.7)
    # Half are lost by ln 2 x 100 s.
    assert np.mean(after_s < 69.315) == pytest.approx(0.5, abs=0.02)
    some = fatal_loss_after_s(1, "upload", 2, devices[:2], np.array([0.0, 0.01]), outage=every)
    assert some[0] == np.inf
    assert some[1] == after_s[1]


def test_losses_that_are_survived_are_counted_by_a_poisson_process() -> None:
    devices = np.arange(DEVICES)
    losses, outages_s = survived_losses(
        1,
        "upload",
        np.zeros(DEVICES, dtype=np.int64),
        devices,
        losses_per_s=np.full(DEVICES, 0.1),
        moving_s=np.full(DEVICES, 30.0),
        outage=Outage(mean_s=10.0, limit_s=1000.0),
    )
    # 3 on average, and 3 of variance; errors sqrt(3 / 20000) = 0.012, and of the variance about 0.03 + a little.
    assert losses.mean() == pytest.approx(3.0, abs=5 * 0.0123)
    assert losses.var() == pytest.approx(3.0, abs=0.2)
    np.testing.assert_array_equal(outages_s > 0.0, losses > 0.0)
    # exp(-3) 3 ** k / k! of devices have k losses; five standard deviations of at most 0.003.
    for count in range(6):
        share = np.exp(-3.0) * 3.0**count / math.factorial(count)
        assert np.mean(losses == count) == pytest.approx(share, abs=5 * 0.003)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"mean_s": 0.0}, r"fleet\.outage_mean_s must be more than 0 and finite, got 0\.0"),
        ({"limit_s": -1.0}, r"fleet\.outage_limit_s must be 0 or more and finite, got -1\.0"),
        ({"limit_s": np.inf}, r"fleet\.outage_limit_s must be 0 or more and finite, got inf"),
    ],
)
def test_an_outage_is_checked(values: dict[str, float], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Outage(**values)
