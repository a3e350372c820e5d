from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pocketfleet.device_sim.network import load_scenario
from pocketfleet.device_sim.network_plan import load_network_plan, plan_names
from pocketfleet.device_sim.place import Place
from pocketfleet.errors import InputError

WIFI, CELLULAR = 0, 1
HOUR_S = 3600.0


def written(folder: Path, *rows: str) -> str:
    path = folder / "plan.csv"
    path.write_text("\n".join(["parameter,value", *rows]) + "\n")
    return str(path)


SHARES = ("wifi.share.home-wifi,1", "cellular.share.lte-2021,1")


def ratio(plan, link: int, place: Place, hour: float) -> float:
    columns = (np.array([value]) for value in (link, place, hour * HOUR_S))
    return float(plan.rate_ratio_at(*columns)[0])


def test_a_scenarios_name_is_that_network_everywhere() -> None:
    plan = load_network_plan("lte-2021")
    assert plan.one_network
    assert plan.wifi == {load_scenario("lte-2021"): 1.0}
    assert ratio(plan, WIFI, Place.WORK, 21.0) == 1.0


def test_the_packaged_plan_by_place_and_hour() -> None:
    assert plan_names() == ("places-2021",)
    plan = load_network_plan("places-2021")
    assert not plan.one_network
    assert sum(plan.cellular.values()) == pytest.approx(1.0)
    at_night, in_the_evening = (ratio(plan, CELLULAR, Place.HOME, hour) for hour in (3.0, 21.0))
    # Opensignal 2019: 28.8 Mbit/s at the quietest hour, 15.3 at the busiest.
    assert at_night / in_the_evening == pytest.approx(28.8 / 15.3, rel=0.01)
    # Over the day the ratios' mean is 1: the scenarios' quantiles are of all hours.
    for link in (WIFI, CELLULAR):
        day = [ratio(plan, link, Place.HOME, hour) for hour in range(24)]
        assert np.mean(day) == pytest.approx(1.0, abs=0.005)
    # Places come on top of hours. 1.33 / 2.1 Mbit/s while commuting; an office shares its Wi-Fi.
    assert ratio(plan, CELLULAR, Place.COMMUTE, 8.5) / ratio(plan, CELLULAR, Place.HOME, 8.5) == pytest.approx(0.63)
    assert ratio(plan, WIFI, Place.WORK, 11.0) / ratio(plan, WIFI, Place.HOME, 11.0) == pytest.approx(0.5)
    assert plan.losses_ratio[CELLULAR].tolist() == [1.0, 4.0, 1.0]


@given(hour=st.floats(0.0, 23.99), days=st.integers(0, 40))
def test_hours_are_straight_between_and_come_back_every_day(hour: float, days: int) -> None:
    plan = load_network_plan("places-2021")
    # From 1.306 at 3 o'clock down to 0.694 at 21, and up again over midnight.
    before = hour if hour >= 3.0 else hour + 24.0
    expected = 1.306 - (before - 3.0) / 18.0 * 0.612 if before <= 21.0 else 0.694 + (before - 21.0) / 6.0 * 0.612
    assert ratio(plan, CELLULAR, Place.HOME, hour + 24.0 * days) == pytest.approx(expected)


def test_a_plan_of_ones_own_with_a_network_of_its_own(tmp_path: Path) -> None:
    own = [
        *("wifi.share.home-wifi,3", "wifi.share.cafe,1", "cellular.share.lte-2021,1", "cellular.work.rate_ratio,0.1"),
        *("network.cafe.down_bits_per_s.p10,1e6", "network.cafe.down_bits_per_s.p90,2e6"),
        *("network.cafe.up_bits_per_s.p10,1e5", "network.cafe.up_bits_per_s.p90,2e5"),
        *("network.cafe.latency_s.p10,0.1", "network.cafe.latency_s.p90,0.2", "network.cafe.rate_correlation,0"),
        *("network.cafe.down_variation_ratio,0.3", "network.cafe.up_variation_ratio,0.3"),
        *("network.cafe.link_losses_per_hour,2", "network.cafe.metered,0", "network.cafe.radio,wifi"),
    ]
    plan = load_network_plan(written(tmp_path, *own))
    assert {scenario.name: share for scenario, share in plan.wifi.items()} == {"home-wifi": 3.0, "cafe": 1.0}
    assert ratio(plan, CELLULAR, Place.WORK, 12.0) == 0.1
    assert ratio(plan, WIFI, Place.WORK, 12.0) == 1.0


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (SHARES[:1], r"the network plan .* lacks a row cellular\.share\.<network>: add one or more"),
        (
            (*SHARES, "wifi.share.dsl,1"),
            r"plan\.csv, row 4: a network must be one of home-wifi, .*got 'dsl'; or describe",
        ),
        ((*SHARES, "wifi.share.lte-2021,1"), "row 4: lte-2021 is a cellular network, and a wifi link is not"),
        ((*SHARES, "cellular.share.home-wifi,1"), "row 4: home-wifi is a Wi-Fi network, and a cellular link is not"),
        ((*SHARES, "wifi.pub.rate_ratio,1"), r"row 4: unknown parameter wifi\.pub\.rate_ratio; a network plan takes"),
        ((*SHARES, "wifi.home.rate_ratio,0"), "row 4, column value: must be a number more than 0, got '0'"),
        ((*SHARES, "wifi.hour_rate_ratio.24,1"), r"unknown parameter wifi\.hour_rate_ratio\.24"),
        ((*SHARES, "network.cafe.radio,wifi"), "the network 'cafe' lacks rate_correlation"),
        ((*SHARES, SHARES[0]), r"row 4: wifi\.share\.home-wifi is there twice"),
    ],
)
def test_what_is_wrong_with_a_plan_is_named(rows: tuple[str, ...], message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        load_network_plan(written(tmp_path, *rows))


def test_a_name_that_is_nothing_and_a_file_that_is_not_there() -> None:
    with pytest.raises(InputError, match=r"must be one of home-wifi, .*places-2021 or the path of a CSV .*'dial-up'"):
        load_network_plan("dial-up")
    with pytest.raises(InputError, match=r"cannot read the table nowhere\.csv"):
        load_network_plan("nowhere.csv")
