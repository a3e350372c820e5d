import dataclasses

import numpy as np
import pytest

from pocketfleet.device_sim.catalog import Row
from pocketfleet.device_sim.network import (
    Links,
    draw_links,
    load_scenario,
    read_scenario,
    scenario_names,
)
from pocketfleet.device_sim.radio import radio_names
from pocketfleet.errors import InputError

DEVICES = 20_000


def quantiles(values: np.ndarray, probabilities: list[float]) -> list[float]:
    return [float(value) for value in np.quantile(values, probabilities)]


def drawn(scenario: str, *, seed: int = 1, devices: int = DEVICES) -> Links:
    return draw_links({load_scenario(scenario): 1.0}, seed=seed, devices=devices)


def test_home_wifi_has_the_published_quantiles() -> None:
    links = drawn("home-wifi")
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
    links = drawn(scenario)
    at = [0.05, 0.25, 0.5, 0.75, 0.95]
    assert quantiles(links.down_bits_per_s / 1e6, at) == pytest.approx(down, rel=0.1)
    assert quantiles(links.up_bits_per_s / 1e6, at) == pytest.approx(up, rel=0.1)
    assert quantiles(links.latency_s * 1e3, at) == pytest.approx(latency, rel=0.1)
    assert links.metered.all()
    assert set(links.radio) == {load_scenario(scenario).radio}
    assert load_scenario(scenario).cellular


def test_commuting_over_3g_has_the_quantiles_of_its_104_logs() -> None:
    links = drawn("3g-commute-2011")
    at = [0.05, 0.25, 0.5, 0.75, 0.95]
    # Riiser et al. 2013, mean Mbit/s of each log of confiwent/Real-world-bandwidth-traces@d28c4fd.
    assert quantiles(links.down_bits_per_s / 1e6, at) == pytest.approx([0.632, 0.872, 1.167, 1.660, 2.456], rel=0.1)
    # Up at 1.6 / 6.1 of it, Ofcom's averages of 2014.
    assert np.median(links.up_bits_per_s) / np.median(links.down_bits_per_s) == pytest.approx(1.6 / 6.1, rel=0.05)
    assert radio_names()[links.radio[0]] == "3g"


@pytest.mark.parametrize("scenario", scenario_names())
def test_a_further_device_changes_no_other_link(scenario: str) -> None:
    few, more = drawn(scenario, seed=5, devices=50), drawn(scenario, seed=5, devices=51)
    for field in dataclasses.fields(Links):
        np.testing.assert_array_equal(getattr(few, field.name), getattr(more, field.name)[:50], err_msg=field.name)


def test_shares_between_scenarios_are_kept_and_a_device_keeps_its_scenario() -> None:
    shares = {load_scenario("lte-2021"): 3.0, load_scenario("3g-commute-2011"): 1.0}
    links = draw_links(shares, seed=2, devices=DEVICES, purpose="network.cellular")
    third = radio_names().index("3g")
    # A quarter; five standard deviations of sqrt(0.25 x 0.75 / 20000) = 0.003.
    assert np.mean(links.radio == third) == pytest.approx(0.25, abs=5 * 0.0031)
    assert np.median(links.down_bits_per_s[links.radio == third]) == pytest.approx(1.167e6, rel=0.1)
    assert np.median(links.down_bits_per_s[links.radio != third]) == pytest.approx(117.2e6, rel=0.1)
    fewer = draw_links(shares, seed=2, devices=100, purpose="network.cellular")
    np.testing.assert_array_equal(fewer.radio, links.radio[:100])
    np.testing.assert_array_equal(fewer.down_bits_per_s, links.down_bits_per_s[:100])


def test_two_quantiles_make_a_lognormal() -> None:
    two = dataclasses.replace(load_scenario("home-wifi").latency_s, probabilities=(0.1, 0.9), values=(0.01, 0.04))
    # Symmetric in the logarithm: the median is the geometric mean 0.02, and one more factor 2 for each 1.2816 of score.
    np.testing.assert_allclose(
        two.at(np.array([-1.2816, 0.0, 1.2816, 2 * 1.2816])), [0.01, 0.02, 0.04, 0.08], rtol=1e-4
    )


def test_an_unknown_scenario_is_told_the_names() -> None:
    with pytest.raises(InputError, match=r"a network must be one of home-wifi, .*, 3g-commute-2011, got 'dial-up'"):
        load_scenario("dial-up")


OWN = {
    "down_bits_per_s.p10": "1e6",
    "down_bits_per_s.p90": "4e6",
    "up_bits_per_s.p10": "1e5",
    "up_bits_per_s.p90": "2e5",
    "latency_s.p10": "0.1",
    "latency_s.p90": "0.2",
    "rate_correlation": "0.5",
    "down_variation_ratio": "0.3",
    "up_variation_ratio": "0.3",
    "link_losses_per_hour": "7200",
    "metered": "0",
    "radio": "lte",
}


def own(**changed: str | None):
    cells = {name: value for name, value in (OWN | changed).items() if value is not None}
    rows = {
        name: Row(where=f"own.csv, row {at}", cells={"value": value})
        for at, (name, value) in enumerate(cells.items(), 2)
    }
    return read_scenario("village", rows)


def test_a_scenario_of_ones_own() -> None:
    village = own()
    assert (village.link_losses_per_s, village.metered, village.cellular) == (2.0, False, True)
    # The geometric mean of 1 and 4 Mbit/s.
    assert village.down_bits_per_s.median == pytest.approx(2e6)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"radio": None}, "the network 'village' lacks radio: add a row for each"),
        ({"radio": "6g"}, r"own\.csv, row 13, column value: must be one of wifi, 3g, lte, 5g-low, 5g-mmwave, got '6g'"),
        ({"metered": "yes"}, "row 12, column value: must be one of 0, 1, got 'yes'"),
        (
            {"latency_s.p90": None},
            r"the network 'village' needs two or more quantiles of latency_s, rising, got \[0.1\]",
        ),
        ({"latency_s.p90": "0.05"}, "needs two or more quantiles of latency_s, rising"),
        ({"latency_s.p100": "1"}, r"latency_s\.p100 must end in \.p01 to \.p99"),
        ({"colour": "1"}, r"own\.csv, row 14: unknown parameter colour of a network; it takes down_bits_per_s\.p50, "),
        ({"rate_correlation": "1.5"}, "rate_correlation must be 0 to 1"),
        ({"up_bits_per_s.p10": "0"}, "must be a number more than 0, got '0'"),
    ],
)
def test_what_is_wrong_with_ones_own_scenario_is_named(changed: dict[str, str | None], message: str) -> None:
    with pytest.raises(InputError, match=message):
        own(**changed)
