import dataclasses
from pathlib import Path

import numpy as np
import pytest

from pocketfleet.device_sim.fleet import UNIT_SPREAD, DeviceOverride, Fleet, build_fleet
from pocketfleet.device_sim.mix import load_mix
from pocketfleet.device_sim.phone import find_phone, load_phones
from pocketfleet.errors import InputError


def columns(fleet: Fleet) -> dict[str, np.ndarray]:
    values = {field.name: getattr(fleet, field.name) for field in dataclasses.fields(fleet)}
    return {name: value for name, value in values.items() if isinstance(value, np.ndarray)}


def test_a_further_device_changes_no_other() -> None:
    few, more = (columns(build_fleet(devices=devices, seed=3)) for devices in (40, 41))
    # Array columns are every field but seed, name, phone_name, parallel_peak_ratio, network, cellular and outage.
    assert len(few) == len(dataclasses.fields(Fleet)) - 7
    for name, column in few.items():
        np.testing.assert_array_equal(column, more[name][:40], err_msg=name)


def test_one_seed_one_fleet_and_another_seed_another() -> None:
    first, again, other = (columns(build_fleet(devices=30, seed=seed)) for seed in (1, 1, 2))
    for name in first:
        np.testing.assert_array_equal(first[name], again[name], err_msg=name)
    assert not np.array_equal(first["phone"], other["phone"])


def test_shares_of_phones_are_the_mix() -> None:
    devices = 20_000
    fleet = build_fleet(devices=devices, seed=1)
    weights = load_mix("global-2024")
    drawn = np.bincount(fleet.phone, minlength=len(load_phones()))
    for index, phone in enumerate(load_phones()):
        share = weights.get(phone.name, 0.0) / sum(weights.values())
        # Five standard deviations of a binomial: sqrt(p (1 - p) / n).
        assert abs(drawn[index] / devices - share) <= 5 * np.sqrt(share * (1 - share) / devices), phone.name


def test_named_phones_bring_their_figures() -> None:
    fleet = build_fleet(devices=2, seed=1, phones=("Pixel 8", "Pixel 3"), names=("mine", "yours"))
    assert len(fleet) == 2
    assert fleet.name == ("mine", "yours")
    assert fleet.phone_name == ("Pixel 8", "Pixel 3")
    assert load_phones()[fleet.phone[0]].name == "Pixel 8"
    assert fleet.battery_capacity_joules.tolist() == [find_phone(name).battery_joules for name in fleet.phone_name]
    assert fleet.compute_watts.tolist() == [find_phone(name).compute_watts for name in fleet.phone_name]


def test_units_of_one_phone_differ_by_the_stated_spread() -> None:
    devices = 5_000
    fleet = build_fleet(devices=devices, seed=1, phones=("Pixel 8",) * devices)
    factor = fleet.peak_flops / find_phone("Pixel 8").peak_flops_one_thread
    # A lognormal of mean 1: the mean's error is spread / sqrt(n) = 0.0007, the spread's spread / sqrt(2 n) = 0.0005.
    assert factor.mean() == pytest.approx(1.0, abs=5 * 0.0007)
    assert np.log(factor).std() == pytest.approx(UNIT_SPREAD, abs=5 * 0.0005)


def test_batteries_start_between_a_fifth_and_full() -> None:
    ratio = build_fleet(devices=4_000, seed=1).initial_battery_ratio
    assert ratio.min() >= 0.2
    assert ratio.max() < 1.0
    # Uniform from 0.2 to 1.0: mean 0.6, standard deviation 0.8 / sqrt(12) = 0.23, of the mean 0.0037.
    assert ratio.mean() == pytest.approx(0.6, abs=5 * 0.0037)


def test_overrides_write_what_they_name_and_a_later_one_wins() -> None:
    plain = build_fleet(devices=4, seed=1)
    fleet = build_fleet(
        devices=4,
        seed=1,
        overrides=(
            DeviceOverride(devices="all", metered=True, link_losses_per_hour=7200.0, latency_s=0.5),
            DeviceOverride(devices=(1, 2), peak_flops_ratio=0.5, battery_ratio=0.0, metered=False),
            DeviceOverride(
                devices=(2,), free_memory_bytes=0, down_bits_per_s=1e6, up_bits_per_s=2e6, has_charger=False
            ),
        ),
    )
    assert fleet.metered.tolist() == [True, False, False, True]
    # 7200 an hour are 2 a second.
    assert fleet.link_losses_per_s.tolist() == pytest.approx([2.0] * 4)
    assert fleet.latency_s.tolist() == [0.5] * 4
    np.testing.assert_allclose(fleet.peak_flops / plain.peak_flops, [1.0, 0.5, 0.5, 1.0])
    np.testing.assert_array_equal(fleet.initial_battery_ratio[[1, 2]], [0.0, 0.0])
    np.testing.assert_array_equal(fleet.initial_battery_ratio[[0, 3]], plain.initial_battery_ratio[[0, 3]])
    assert fleet.free_memory_bytes[2] == 0.0
    assert fleet.down_bits_per_s[2] == 1e6
    assert fleet.up_bits_per_s[2] == 2e6
    assert fleet.has_charger.tolist() == [True, True, False, True]


def test_the_metered_scenario_makes_devices_metered() -> None:
    assert build_fleet(devices=3, seed=1, network="lte-2021").metered.all()
    assert not build_fleet(devices=3, seed=1, network="home-wifi").metered.any()


def test_a_cellular_scenario_draws_the_modems_watts() -> None:
    phones = ["Pixel 8", "Pixel 3"]
    catalogue = [find_phone(name) for name in phones]
    wifi, cellular = (
        build_fleet(devices=2, seed=1, phones=phones, network=network) for network in ("home-wifi", "5g-low-2021")
    )
    assert wifi.receive_watts.tolist() == [phone.receive_watts for phone in catalogue]
    assert wifi.transmit_watts.tolist() == [phone.transmit_watts for phone in catalogue]
    assert cellular.receive_watts.tolist() == [phone.modem_receive_watts for phone in catalogue]
    assert cellular.transmit_watts.tolist() == [phone.modem_transmit_watts for phone in catalogue]


def test_a_user_mix_is_drawn_from(tmp_path: Path) -> None:
    path = tmp_path / "mix.csv"
    path.write_text("phone,weight\nPixel 8,1\n")
    assert set(build_fleet(devices=9, seed=1, mix=path).phone_name) == {"Pixel 8"}


def override(**fields: float) -> tuple[DeviceOverride, ...]:
    return (DeviceOverride(devices="all", **fields),)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"devices": 0}, r"fleet\.devices must be 1 or more, got 0"),
        ({"mix": "mars"}, r"fleet\.mix must be one of global-2024"),
        (
            {"network": "carrier-pigeon"},
            r"fleet\.network must be one of home-wifi, .*3g-commute-2011, places-2021 or the path .*'carrier-pigeon'",
        ),
        ({"phones": ("Pixel 8",)}, r"fleet\.phones must name one phone a device \(3\), got 1"),
        ({"phones": ("Pixel 8", "Pixel 8", "Pixl 8")}, "no phone 'Pixl 8' in the catalogue; close names: Pixel 8"),
        ({"names": ("a", "b")}, r"fleet\.names must hold one name a device \(3\), got 2"),
        ({"names": ("a", "b", "a")}, r"fleet\.names must be unique, got more than once: a"),
        ({"overrides": (DeviceOverride(devices=(3,)),)}, r"overrides\[0\]\.devices must be in 0\.\.2 .*, got 3"),
        ({"overrides": override(battery_ratio=1.5)}, r"overrides\[0\]\.battery_ratio must be 0 to 1, got 1\.5"),
        ({"overrides": override(peak_flops_ratio=0.0)}, r"peak_flops_ratio must be 1e-06 or more, got 0"),
        ({"overrides": override(up_bits_per_s=0.0)}, r"up_bits_per_s must be 1 or more, got 0"),
        ({"overrides": override(latency_s=-1.0)}, r"latency_s must be 0 or more, got -1"),
    ],
)
def test_what_is_wrong_is_named(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        build_fleet(**{"devices": 3, "seed": 1, **arguments})  # type: ignore[arg-type]
