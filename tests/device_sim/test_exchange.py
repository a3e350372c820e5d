"""Connections and exchanges: which link moves the bytes, how fast there and then, and what the radio draws."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from scripted import ScriptedDay

from pocketfleet.device_sim.attempt import Journey, carry_out
from pocketfleet.device_sim.connection import connect
from pocketfleet.device_sim.eligibility import Rule
from pocketfleet.device_sim.exchange import Exchange
from pocketfleet.device_sim.fleet import DeviceOverride, Fleet, build_fleet
from pocketfleet.device_sim.place import Place
from pocketfleet.device_sim.radio import load_radios, radio_names

HOUR_S = 3600.0
NOTHING = Rule(idle=False, charging=False, unmetered=False, min_battery_ratio=0.0)


class PlacedDay(ScriptedDay):
    """A scripted day on which everybody is at one place, on a clock that is ahead."""

    def __init__(self, *gaps: tuple[int, str, float, float], place: Place = Place.HOME, ahead_s: float = 0.0) -> None:
        super().__init__(*gaps)
        self._place, self._ahead_s = place, ahead_s

    def place(self, devices, now_s):
        del now_s
        return np.full(len(devices), self._place, dtype=np.int8)

    def local_s(self, devices, now_s):
        return super().local_s(devices, now_s) + self._ahead_s


def fleet(network: str = "places-2021", devices: int = 300, **values) -> Fleet:
    return build_fleet(devices=devices, seed=4, network=network, **values)


def everyone(made: Fleet) -> np.ndarray:
    return np.arange(len(made))


def connected(made: Fleet, day: ScriptedDay, at_s: float = 0.0):
    device, times = everyone(made), np.full(len(made), at_s)
    return connect(made, day, device, times, wifi=day.state(device, times).wifi)


def off_wifi(*devices: int) -> list[tuple[int, str, float, float]]:
    return [(device, "wifi", 0.0, 1e9) for device in devices]


def test_a_device_uses_wifi_where_its_day_says_so_else_its_cellular_link() -> None:
    made = fleet()
    found = connected(made, PlacedDay(*off_wifi(1, 2), ahead_s=12 * HOUR_S))
    assert made.cellular is not None
    assert found.metered[:4].tolist() == [False, True, True, False]
    assert np.all(found.radio[[0, 3]] == 0)
    assert found.radio[1:3].tolist() == made.cellular.radio[1:3].tolist()
    assert np.all(made.cellular.radio > 0)
    assert found.receive_watts[1] == made.cellular.receive_watts[1] != made.receive_watts[1]
    # At noon, the mean hour, rates are as drawn.
    assert found.down_bits_per_s[:2].tolist() == pytest.approx(
        [made.down_bits_per_s[0], made.cellular.down_bits_per_s[1]]
    )


def test_places_and_hours_change_rates_and_losses() -> None:
    made, commuters = fleet(), off_wifi(*range(300))
    at_home = connected(made, PlacedDay(*commuters))
    commuting = connected(made, PlacedDay(*commuters, place=Place.COMMUTE))
    np.testing.assert_allclose(commuting.up_bits_per_s / at_home.up_bits_per_s, 0.63)
    np.testing.assert_allclose(commuting.link_losses_per_s / at_home.link_losses_per_s, 4.0)
    np.testing.assert_array_equal(commuting.latency_s, at_home.latency_s)
    work = connected(made, PlacedDay(place=Place.WORK)).down_bits_per_s / connected(made, PlacedDay()).down_bits_per_s
    np.testing.assert_allclose(work, 0.5)
    # Each on its own clock: at virtual time 0 it is 21 o'clock for one who is 21 hours ahead.
    evening = connected(made, PlacedDay(*commuters, ahead_s=21 * HOUR_S))
    night = connected(made, PlacedDay(*commuters, ahead_s=3 * HOUR_S))
    np.testing.assert_allclose(night.down_bits_per_s / evening.down_bits_per_s, 1.306 / 0.694)


def test_one_network_is_the_same_everywhere_and_metered_off_wifi() -> None:
    made = fleet("home-wifi")
    day = PlacedDay(*off_wifi(1), place=Place.COMMUTE, ahead_s=21 * HOUR_S)
    found = connected(made, day)
    np.testing.assert_array_equal(found.down_bits_per_s, made.down_bits_per_s)
    assert found.metered[:3].tolist() == [False, True, False]
    assert connected(fleet("lte-2021"), day).metered.all()


def test_overrides_hold_for_both_links() -> None:
    slow = DeviceOverride(devices=(0, 1), up_bits_per_s=8e6, latency_s=0.5, metered=False, link_losses_per_hour=0.0)
    found = connected(fleet(overrides=[slow]), PlacedDay(*off_wifi(1), ahead_s=12 * HOUR_S))
    assert found.up_bits_per_s[:2].tolist() == pytest.approx([8e6, 8e6])
    assert found.latency_s[:2].tolist() == [0.5, 0.5]
    assert found.link_losses_per_s[:2].tolist() == [0.0, 0.0]


def test_a_device_more_changes_no_other_devices_links() -> None:
    few, more = fleet(devices=40), fleet(devices=41)
    for field in dataclasses.fields(few.cellular):
        name, column = field.name, getattr(few.cellular, field.name)
        np.testing.assert_array_equal(column, getattr(more.cellular, name)[:40], err_msg=name)


def drawn(made: Fleet, day: ScriptedDay, *, number: int = 0, **values) -> Exchange:
    n = len(made)
    given = {"deadline_s": 1e6, "download_bytes": np.full(n, 4e6), "upload_bytes": np.full(n, 1e6)} | values
    given["deadline_s"] = np.full(n, given["deadline_s"])
    changes = day.changes(everyone(made), np.zeros(n), given["deadline_s"])
    return Exchange(made, day, changes, everyone(made), np.full(n, number), seed=4, start_s=np.zeros(n), **given)


@pytest.mark.parametrize(
    ("from_s", "deadline_s", "cellular"), [(49.0, 1e6, False), (51.0, 1e6, True), (51.0, 49.0, False)]
)
def test_the_upload_uses_the_link_of_its_own_beginning(from_s: float, deadline_s: float, cellular: bool) -> None:
    # Off Wi-Fi from 50 s on; with a deadline before that, nothing is known of later.
    leaving = [(device, "wifi", 50.0, 1e9) for device in range(300)]
    found = drawn(fleet(), PlacedDay(*leaving), deadline_s=deadline_s)
    seconds, _ = found.begin_upload(np.full(300, from_s))
    assert not found.down_link.metered.any()
    assert found.up_link.metered.all() == found.up_link.metered.any() == cellular
    np.testing.assert_array_equal(seconds, found.upload.seconds)


@pytest.mark.parametrize(("training_s", "slept"), [(9.0, False), (11.0, True)])
def test_a_radio_within_its_tail_needs_no_waking_up(training_s: float, slept: bool) -> None:
    # LTE's tail is 10 s.
    found = drawn(fleet("lte-2021"), PlacedDay())
    found.begin_upload(found.download.seconds + training_s)
    lte = load_radios().wake_s[radio_names().index("lte")]
    np.testing.assert_array_equal(found.download.wake_s, lte)
    np.testing.assert_array_equal(found.upload.wake_s, lte if slept else 0.0)


def test_another_radio_than_before_sleeps() -> None:
    # 9 s after the download over Wi-Fi, cellular radios with tails of 10 s and more have not been awake.
    found = drawn(fleet(), PlacedDay(*[(device, "wifi", 1e-9, 1e9) for device in range(300)]))
    found.begin_upload(found.download.seconds + 9.0)
    assert found.upload.wake_s.min() >= 0.24


def test_rates_vary_within_a_device_as_its_scenario_says() -> None:
    made = fleet("home-wifi", devices=2000, overrides=[DeviceOverride(devices="all", latency_s=0.0)])
    rates = [
        4e6 * 8 / (each.download.seconds - each.download.wake_s)
        for each in (drawn(made, PlacedDay(), number=n) for n in (0, 1))
    ]
    # Two transfers of a device differ by factors whose logarithms have variance ln(1 + 0.368 ** 2) each.
    spread = np.std(np.log(rates[0] / rates[1]))
    assert spread == pytest.approx(np.sqrt(2 * np.log1p(0.368**2)), rel=0.1)
    # Between devices that comes on top of the quantiles' spread.
    assert np.std(np.log(rates[0])) > np.std(np.log(made.down_bits_per_s)) > 0.4


def carried(made: Fleet, exchange: Exchange, *, steps: int, deadline_s: float = 1e6):
    n = len(made)
    return carry_out(
        Journey(
            device=everyone(made),
            start_s=np.zeros(n),
            deadline_s=np.full(n, deadline_s),
            steps=np.full(n, steps),
            download_s=exchange.download.seconds,
            step_s=np.ones(n),
            download_lost_after_s=exchange.download.lost_after_s,
            upload=exchange.begin_upload,
            battery_lasts_s=np.full(n, np.inf),
        ),
        day=PlacedDay().changes(everyone(made), np.zeros(n), np.full(n, deadline_s)),
        rule=NOTHING,
        partial_work=True,
    )


@pytest.mark.parametrize("steps", [4, 100])
def test_joules_of_an_exchange_by_hand(steps: int) -> None:
    lossless = [DeviceOverride(devices="all", link_losses_per_hour=0.0)]
    made = fleet("lte-2021", devices=5, overrides=lossless)
    exchange = drawn(made, PlacedDay())
    attempts = carried(made, exchange, steps=steps)
    down_bytes, up_bytes = np.full(5, 4_000_000), np.full(5, 1_000_000)
    download, upload = exchange.joules(attempts, downlink_bytes=down_bytes, uplink_bytes=up_bytes)
    # Waking up 0.27 s at 1.2 W, modem on, 0.0923 J a MB; a tail of 0.178 W, 10 s of it or until training is over.
    expected = 0.324 + (attempts.download_s - 0.27) * made.receive_watts + 4 * 0.0923 + 0.178 * min(steps, 10)
    np.testing.assert_allclose(download, expected)
    # After 4 s the radio is still awake.
    waking_s = 0.27 if steps > 10 else 0.0
    expected = waking_s * 1.2 + (attempts.upload_s - waking_s) * made.transmit_watts + 0.6134 + 1.78
    np.testing.assert_allclose(upload, expected)


def test_one_that_never_uploads_pays_its_tail_in_full_and_no_upload() -> None:
    made = fleet("lte-2021", devices=5)
    exchange = drawn(made, PlacedDay())
    attempts = carried(made, exchange, steps=100, deadline_s=50.0)
    nothing = np.zeros(5, dtype=np.int64)
    download, upload = exchange.joules(attempts, downlink_bytes=nothing, uplink_bytes=nothing)
    np.testing.assert_allclose(download, 0.324 + (attempts.download_s - 0.27) * made.receive_watts + 1.78)
    np.testing.assert_array_equal(upload, 0.0)


def test_a_users_plan_reaches_the_links(tmp_path: Path) -> None:
    path = tmp_path / "plan.csv"
    path.write_text(
        "parameter,value\nwifi.share.home-wifi,1\ncellular.share.5g-mmwave-2021,1\ncellular.home.rate_ratio,0.25\n"
    )
    made = fleet(str(path))
    found = connected(made, PlacedDay(*off_wifi(*range(300))))
    # SIGCOMM21-5G/artifact, 5G-NSA-mmWave: median 944.1 Mbit/s down.
    assert np.median(found.down_bits_per_s) == pytest.approx(0.25 * 944.1e6, rel=0.25)
    assert {radio_names()[radio] for radio in found.radio} == {"5g-mmwave"}
