import dataclasses

import numpy as np
import pytest

from pocketfleet.device_sim.network import (
    Links,
    draw_links,
    link_lost_after_s,
    load_scenario,
    transfer_rate_factor,
    transfer_seconds,
)
from pocketfleet.errors import InputError

DEVICES = 20_000


def quantiles(values: np.ndarray, probabilities: list[float]) -> list[float]:
    return [float(value) for value in np.quantile(values, probabilities)]


def test_home_wifi_has_the_published_quantiles() -> None:
    links = draw_links("home-wifi", 1, DEVICES)
    # PKU-Chengxu/FLASH models/speed_distri.json, 19 users, p10, p50, p90 in KB/s; a KB/s is 8,000 bit/s.
    down = [3274 * 8000, 4318 * 8000, 9091 * 8000]
    up = [2002 * 8000, 3286 * 8000, 5850 * 8000]
    assert quantiles(links.down_bits_per_s, [0.1, 0.5, 0.9]) == pytest.approx(down, rel=0.1)
    assert quantiles(links.up_bits_per_s, [0.1, 0.5, 0.9]) == pytest.approx(up, rel=0.1)
    # The same file's correlation of the logarithms is 0.448. That of 20,000 draws is known to 1/sqrt(20000) = 0.007;
    # the bend of the quantiles takes some away, hence 0.05.
    correlation = np.corrcoef(np.log(links.down_bits_per_s), np.log(links.up_bits_per_s))[0, 1]
    assert correlation == pytest.approx(0.448, abs=0.05)


# SIGCOMM21-5G/artifact NW-Perf-Speedtest, 4G-LTE, 5G-NSA-Low-Band and 5G-NSA-mmWave: Mbit/s down and up, ms.
@pytest.mark.parametrize(
    ("scenario", "down", "up", "latency"),
    [
        (
            "lte-2021",
            [52.8, 73.4, 117.2, 161.7, 198.1],
            [16.7, 19.6, 31.2, 33.9, 35.5],
            [41.1, 70.0, 89.0, 101.0, 107.0],
        ),
        (
            "5g-low-2021",
            [19.6, 67.9, 117.6, 152.2, 205.5],
            [35.8, 53.8, 72.5, 82.4, 96.8],
            [31.0, 48.0, 58.0, 75.0, 91.0],
        ),
        (
            "5g-mmwave-2021",
            [94.0, 458.5, 944.1, 1757.2, 2666.8],
            [35.5, 56.6, 77.2, 98.1, 156.6],
            [25.0, 37.0, 52.0, 70.0, 84.0],
        ),
    ],
)
def test_cellular_has_the_published_quantiles(
    scenario: str, down: list[float], up: list[float], latency: list[float]
) -> None:
    links = draw_links(scenario, 1, DEVICES)
    at = [0.05, 0.25, 0.5, 0.75, 0.95]
    assert quantiles(links.down_bits_per_s / 1e6, at) == pytest.approx(down, rel=0.1)
    assert quantiles(links.up_bits_per_s / 1e6, at) == pytest.approx(up, rel=0.1)
    assert quantiles(links.latency_s * 1e3, at) == pytest.approx(latency, rel=0.1)
    assert links.metered.all()
    assert links.cellular.all()


@pytest.mark.parametrize("scenario", ["home-wifi", "lte-2021", "5g-low-2021", "5g-mmwave-2021"])
def test_a_further_device_changes_no_other_link(scenario: str) -> None:
    few, more = draw_links(scenario, 5, 50), draw_links(scenario, 5, 51)
    for field in dataclasses.fields(Links):
        np.testing.assert_array_equal(getattr(few, field.name), getattr(more, field.name)[:50], err_msg=field.name)


def test_two_quantiles_make_a_lognormal() -> None:
    two = dataclasses.replace(load_scenario("home-wifi").latency_s, probabilities=(0.1, 0.9), values=(0.01, 0.04))
    # Symmetric in the logarithm: the median is the geometric mean 0.02, and one more factor 2 for each 1.2816 of score.
    np.testing.assert_allclose(
        two.at(np.array([-1.2816, 0.0, 1.2816, 2 * 1.2816])), [0.01, 0.02, 0.04, 0.08], rtol=1e-4
    )


def test_a_transfer_is_round_trips_and_bits() -> None:
    # 1 MB = 8e6 bits at 8 Mbit/s is 1 s, at 80 Mbit/s 0.1 s; three round trips of 50 ms are 0.15 s.
    seconds = transfer_seconds(
        payload_bytes=1_000_000, bits_per_s=np.array([8e6, 80e6]), latency_s=np.array([0.05, 0.05])
    )
    np.testing.assert_allclose(seconds, [1.15, 0.25])
    empty = transfer_seconds(payload_bytes=0, bits_per_s=np.array([8e6]), latency_s=np.array([0.05]))
    np.testing.assert_allclose(empty, [0.15])


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


def test_losses_are_exponential_and_never_without_a_rate() -> None:
    devices = np.arange(DEVICES)
    after_s = link_lost_after_s(1, "upload", 2, devices, np.full(DEVICES, 0.01))
    # Mean and standard deviation 1 / 0.01 = 100 s; the mean's error is 100 / sqrt(20000) = 0.7 s.
    assert after_s.mean() == pytest.approx(100.0, abs=5 * 0.7)
    # Half are lost by ln 2 x 100 s.
    assert np.mean(after_s < 69.315) == pytest.approx(0.5, abs=0.02)
    some = link_lost_after_s(1, "upload", 2, devices[:2], np.array([0.0, 0.01]))
    assert some[0] == np.inf
    assert some[1] == after_s[1]


def test_an_unknown_scenario_is_told_the_names() -> None:
    with pytest.raises(
        InputError,
        match=r"fleet\.network must be one of home-wifi, lte-2021, 5g-low-2021, 5g-mmwave-2021, got 'dial-up'",
    ):
        draw_links("dial-up", 1, 1)
