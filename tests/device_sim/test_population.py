from dataclasses import replace

import numpy as np
import pytest
from scripted import ScriptedDay

from pocketfleet.device_sim.attempt import Drop, Stage
from pocketfleet.device_sim.compute import step_seconds
from pocketfleet.device_sim.efficiency import load_profile
from pocketfleet.device_sim.eligibility import Reason, Rule
from pocketfleet.device_sim.events import EventLog
from pocketfleet.device_sim.fleet import DeviceOverride, build_fleet
from pocketfleet.device_sim.flight import Flights
from pocketfleet.device_sim.look import Look
from pocketfleet.device_sim.memory import RUNTIME_BYTES
from pocketfleet.device_sim.population import Population
from pocketfleet.device_sim.transfer import ROUND_TRIPS, Outage
from pocketfleet.device_sim.workload import Workload
from pocketfleet.training.round import ReportCode

DEVICES = 6
MEGABYTE = 10**6
WIFI_WAKE_S = 0.1024  # catalog/radios.csv


def workload(**changed) -> Workload:
    values = {
        "num_training": np.full(DEVICES, 20),
        "steps": np.full(DEVICES, 10),
        "step_s": np.full(DEVICES, 2.0),
        "batch_size": 8,
        "training_memory_bytes": MEGABYTE,
        "bundle_bytes": 2 * MEGABYTE,
        "weights_bytes": MEGABYTE,
        "update_bytes": MEGABYTE // 2,
        "partial_work": True,
    }
    return Workload(**(values | changed))


def population(
    *overrides: DeviceOverride,
    gaps=(),
    work: Workload | None = None,
    rule: Rule | None = None,
    room_celsius: float | None = 25.0,
    memory_moments: bool = True,
) -> tuple[Population, EventLog]:
    # A full battery everywhere, unless a test says otherwise.
    full = DeviceOverride(devices="all", battery_ratio=1.0)
    log = EventLog()
    made = Population(
        fleet=build_fleet(devices=DEVICES, seed=3, overrides=[full, *overrides]),
        availability=ScriptedDay(*gaps),
        rule=rule or Rule(),
        workload=work or workload(),
        seed=3,
        log=log,
        room_celsius=room_celsius,
        memory_moments=memory_moments,
    )
    return made, log


def look(made: Population, now_s: float = 0.0, *devices: int) -> Look:
    chosen = np.array(devices or range(DEVICES))
    return made.look(chosen, np.full(len(chosen), now_s))


def words(seen: Look) -> list[str]:
    return [Reason(int(reason)).word for reason in seen.reason]


def start(made: Population, *devices: int, now_s: float = 0.0, deadline_s: float = 1e6) -> Flights:
    return made.start(look(made, now_s, *devices), round_index=0, model_version=0, deadline_s=now_s + deadline_s)


def start_one(made: Population, device: int, now_s: float = 0.0, deadline_s: float = 1e6) -> np.void:
    return start(made, device, now_s=now_s, deadline_s=deadline_s)[0]


def end(made: Population, flight: np.void) -> None:
    made.end(np.array([flight]), np.array([ReportCode.ACCEPTED], dtype=np.int8))


@pytest.mark.parametrize(
    ("override", "work", "rule", "reason"),
    [
        # 64 MiB for the runtime and 1 MB of program do not fit into 60 MB.
        (DeviceOverride(devices=(2,), free_memory_bytes=60e6), None, None, "low_memory"),
        (DeviceOverride(devices=(2,), has_charger=False), None, None, "not_charging"),
        (DeviceOverride(devices=(2,), metered=True), None, None, "metered"),
        (DeviceOverride(devices=(2,), battery_ratio=0.29), None, None, "low_battery"),
        (
            DeviceOverride(devices=(2,), battery_ratio=0.5),
            None,
            Rule(charging=False, min_battery_ratio=0.6),
            "low_battery",
        ),
        (
            DeviceOverride(devices=(2,)),
            workload(num_training=np.array([20, 20, 0, 20, 20, 20])),
            None,
            "no_examples",
        ),
    ],
)
def test_exactly_the_device_that_lacks_something_is_left_out(override, work, rule, reason) -> None:
    made, _ = population(override, work=work, rule=rule)
    seen = look(made)
    assert words(seen) == ["eligible", "eligible", reason, "eligible", "eligible", "eligible"]
    assert seen.rows(seen.eligible).device.tolist() == [0, 1, 3, 4, 5]


def test_looks_are_counted_by_reason_once_they_are_remembered() -> None:
    made, _ = population(gaps=[(1, "idle", 0.0, 50.0), (1, "wifi", 40.0, 80.0)])
    for now_s in (0.0, 10.0, 60.0, 90.0):
        seen = look(made, now_s)
        assert made.ledger.column["ineligible_in_use"].sum() == min(now_s / 10.0, 2.0)
        made.remember(seen)
    column = made.ledger.column
    assert column["ineligible_in_use"].tolist() == [0, 2, 0, 0, 0, 0]
    assert column["ineligible_metered"].tolist() == [0, 1, 0, 0, 0, 0]


def test_devices_look_each_at_their_own_time() -> None:
    made, _ = population(gaps=[(1, "idle", 0.0, 50.0)])
    seen = made.look(np.array([1, 1, 0]), np.array([49.0, 50.0, 0.0]))
    assert words(seen) == ["in_use", "eligible", "eligible"]


def test_a_device_is_free_after_its_attempt_and_one_that_dropped_out_backs_off() -> None:
    made, _ = population(gaps=[(4, "wifi", 1000.0, 1001.0), (4, "wifi", 2000.0, 2001.0)])
    column = made.ledger.column
    flight = start_one(made, 4)
    assert column["free_s"][4] == flight["free_s"] == flight["end_s"]
    for failures, now_s in ((1, 999.0), (2, 1999.0)):
        flight = start_one(made, 4, now_s=now_s)
        assert flight["end_s"] == now_s + 1.0
        assert column["free_s"][4] == flight["end_s"] + 30.0 * 2 ** (failures - 1)
        assert column["failures"][4] == failures
    start_one(made, 4, now_s=3000.0)
    assert column["failures"][4] == 0


def test_an_attempt_taken_back_never_was() -> None:
    made, _ = population()
    end(made, start_one(made, 2))
    before = {name: values.copy() for name, values in made.state().items()}
    first = start(made, 1, 2, now_s=100.0)
    second = start(made, 2, now_s=float(first["end_s"][1]) + 10.0)
    made.take_back(second)
    made.take_back(first)
    for name, values in made.state().items():
        np.testing.assert_array_equal(values, before[name], err_msg=name)
    # And the next is the very same.
    np.testing.assert_array_equal(start(made, 1, 2, now_s=100.0), first)


def test_programs_are_downloaded_once() -> None:
    made, _ = population()
    first = start_one(made, 0)
    end(made, first)
    second = start_one(made, 0, now_s=first["end_s"])
    # 2 MB of programs and 1 MB of weights, then weights alone.
    assert (first["downlink_bytes"], second["downlink_bytes"]) == (3 * MEGABYTE, MEGABYTE)
    assert first["uplink_bytes"] == second["uplink_bytes"] == MEGABYTE // 2


def test_an_attempt_is_logged_and_paid_for_by_stage() -> None:
    made, log = population()
    flight = start_one(made, 1)
    end(made, flight)
    events = log.take()
    assert events["kind"].tolist() == ["download", "train", "upload", "report"]
    fleet = made.fleet
    # Wi-Fi of catalog/radios.csv: 0.1024 s of waking up at 0.22 W, no joules a byte, a tail of 0.2 s at 0.146 W.
    expected_joules = [
        WIFI_WAKE_S * 0.22 + (flight["download_s"] - WIFI_WAKE_S) * fleet.receive_watts[1] + 0.2 * 0.146,
        flight["train_s"] * fleet.compute_watts[1],
        WIFI_WAKE_S * 0.22 + (flight["upload_s"] - WIFI_WAKE_S) * fleet.transmit_watts[1] + 0.2 * 0.146,
        0.0,
    ]
    assert events["joules"].tolist() == pytest.approx(expected_joules)
    assert events["time_s"].tolist() == pytest.approx(np.cumsum(events["seconds"]).tolist())
    assert made.ledger.column["energy_joules"][1] == pytest.approx(sum(expected_joules))
    # 10 steps of 2 s; 20 examples in batches of 8: 8 + 8 + 4 an epoch, three epochs and one batch.
    assert flight["train_s"] == pytest.approx(20.0)
    assert flight["num_examples"] == 3 * 20 + 8


def test_a_battery_pays_for_what_training_draws() -> None:
    # No charger: the level falls by the attempt's joules and by idling.
    made, log = population(
        DeviceOverride(devices=(0,), has_charger=False), rule=Rule(charging=False, min_battery_ratio=0.1)
    )
    flight = start_one(made, 0)
    end(made, flight)
    made.remember(look(made, flight["end_s"]))
    fleet = made.fleet
    spent = log.take()["joules"].sum() + fleet.idle_watts[0] * flight["end_s"]
    level = made.state()["battery.level_joules"][0]
    assert level == pytest.approx(fleet.battery_capacity_joules[0] - spent)


def test_a_phone_off_the_charger_stops_at_the_battery_floor() -> None:
    # 0.4 of the battery and a floor of 0.3: a tenth of it can be spent, whole steps of 2 s.
    made, _ = population(
        DeviceOverride(devices=(0,), battery_ratio=0.4, has_charger=False),
        rule=Rule(charging=False, min_battery_ratio=0.3),
        work=workload(steps=np.full(DEVICES, 10**6)),
    )
    flight = start_one(made, 0, deadline_s=1e9)
    fleet = made.fleet
    lasts_s = 0.1 * fleet.battery_capacity_joules[0] / (fleet.compute_watts[0] + fleet.idle_watts[0])
    assert flight["train_s"] == pytest.approx(lasts_s)
    assert flight["steps"] == int(lasts_s / 2.0)


def seconds(made: Population, device: int = 0) -> tuple[float, float, float]:
    flight = start_one(made, device)
    return flight["download_s"], flight["train_s"], flight["upload_s"]


def rates(made: Population, device: int = 0) -> tuple[float, float, float]:
    """Waking up and round trips, and seconds a byte down and up, read off a whole transfer of known size."""
    down_s, _, up_s = seconds(made, device)
    trips_s = WIFI_WAKE_S + ROUND_TRIPS * made.fleet.latency_s[device]
    return trips_s, (down_s - trips_s) / (3 * MEGABYTE), (up_s - trips_s) / (MEGABYTE // 2)


def test_halving_bytes_halves_what_is_not_latency_and_nothing_else() -> None:
    before = seconds(population()[0])
    trips_s, down_s, up_s = rates(population()[0])
    work = workload(bundle_bytes=MEGABYTE, weights_bytes=MEGABYTE // 2, update_bytes=MEGABYTE // 4)
    after = seconds(population(work=work)[0])
    expected = (trips_s + down_s * 1.5 * MEGABYTE, before[1], trips_s + up_s * MEGABYTE / 4)
    assert after == pytest.approx(expected)
    assert after[0] < before[0]


@pytest.mark.parametrize("direction", ["down", "up"])
def test_halving_a_link_doubles_that_directions_payload_seconds(direction: str) -> None:
    made, _ = population()
    trips_s, down_s, up_s = rates(made)
    before = seconds(population()[0])
    rate = f"{direction}_bits_per_s"
    slow = DeviceOverride(devices=(0,), **{rate: float(getattr(made.fleet, rate)[0]) / 2})
    after = seconds(population(slow)[0])
    expected = (
        trips_s + (2 if direction == "down" else 1) * down_s * 3 * MEGABYTE,
        before[1],
        trips_s + (2 if direction == "up" else 1) * up_s * MEGABYTE / 2,
    )
    assert after == pytest.approx(expected)


def test_halving_flops_or_gflops_changes_the_training_seconds_alone() -> None:
    efficiency = load_profile().efficiency("executorch")
    fleet = population()[0].fleet

    def work(flops: float, peak_ratio: float = 1.0) -> Workload:
        # One matrix product so large that its bytes do not matter, so that the roofline is its slope, and that the
        # radio sleeps before the upload.
        step_s = step_seconds(
            kind=["matmul"],
            flops=[flops],
            bytes=[1.0],
            peak_flops=fleet.peak_flops * peak_ratio,
            memory_bytes_per_s=fleet.memory_bytes_per_s,
            efficiency=efficiency,
        )
        return workload(step_s=step_s, steps=np.full(DEVICES, 1))

    overhead_s = (efficiency.fixed_s + efficiency.dispatch_s) * np.sqrt(
        efficiency.core_peak_flops / fleet.peak_flops[0]
    )
    whole = seconds(population(work=work(2e10))[0])
    compute_s = whole[1] - overhead_s
    assert compute_s == pytest.approx(2e10 / (fleet.peak_flops[0] * efficiency.ratio("matmul")))
    # Half the FLOPs: half the compute, the overhead as it was.
    half = seconds(population(work=work(1e10))[0])
    assert half == pytest.approx((whole[0], overhead_s + compute_s / 2, whole[2]))
    # Half the GFLOPS: twice the compute, and overhead by the root, as assumed of a slower core.
    slow = seconds(population(work=work(2e10, peak_ratio=0.5))[0])
    assert slow == pytest.approx((whole[0], np.sqrt(2) * overhead_s + 2 * compute_s, whole[2]))


def test_a_checkpoint_restores_everything_that_changes() -> None:
    made, _ = population(gaps=[(1, "idle", 0.0, 50.0)])
    flight = start_one(made, 3)
    made.remember(look(made, 10.0, 0, 1))
    end(made, flight)
    again, _ = population(gaps=[(1, "idle", 0.0, 50.0)])
    again.restore(made.state())
    for name, column in made.state().items():
        np.testing.assert_array_equal(again.state()[name], column, err_msg=name)
    np.testing.assert_array_equal(start(again, 0, 2, now_s=40.0), start(made, 0, 2, now_s=40.0))


def test_a_device_more_changes_no_other_devices_attempt() -> None:
    small, _ = population()
    large = Population(
        fleet=build_fleet(devices=DEVICES + 1, seed=3, overrides=[DeviceOverride(devices="all", battery_ratio=1.0)]),
        availability=ScriptedDay(),
        rule=Rule(),
        workload=replace(
            workload(),
            num_training=np.full(DEVICES + 1, 20),
            steps=np.full(DEVICES + 1, 10),
            step_s=np.full(DEVICES + 1, 2.0),
        ),
        seed=3,
        log=EventLog(),
    )
    np.testing.assert_array_equal(start(small, 0, 1, 2), start(large, 0, 1, 2))


def away(network: str, *, rule: Rule) -> tuple[Population, EventLog]:
    """Device 1 leaves Wi-Fi for good before it looks, device 2 while it trains, the others stay."""
    log = EventLog()
    lossless = DeviceOverride(devices="all", battery_ratio=1.0, link_losses_per_hour=0.0)
    made = Population(
        fleet=build_fleet(devices=DEVICES, seed=3, network=network, overrides=[lossless]),
        availability=ScriptedDay((1, "wifi", 0.0, 1e9), (2, "wifi", 10.0, 1e9)),
        rule=rule,
        workload=workload(),
        seed=3,
        log=log,
    )
    return made, log


def test_off_wifi_a_phone_trains_over_its_cellular_link_if_the_rule_lets_it() -> None:
    made, log = away("places-2021", rule=Rule(unmetered=False))
    flights = start(made, 0, 1, 2)
    assert flights["drop"].tolist() == [0, 0, 0]
    # Bytes cost money over a cellular link: none of device 0, all of device 1, and of device 2 the upload.
    assert flights["metered_downlink_bytes"].tolist() == [0, 3 * MEGABYTE, 0]
    assert flights["metered_uplink_bytes"].tolist() == [0, MEGABYTE // 2, MEGABYTE // 2]
    made.end(flights, np.full(3, ReportCode.ACCEPTED, dtype=np.int8))
    assert made.ledger.column["metered_bytes"][:3].tolist() == [0, 3_500_000, 500_000]
    events = log.take()
    assert events.groupby("device")["metered_bytes"].sum().tolist() == [0, 3_500_000, 500_000]
    assert events.loc[events["kind"] == "train", "metered_bytes"].tolist() == [0, 0, 0]


def test_off_wifi_a_phone_does_not_train_where_the_rule_asks_for_unmetered() -> None:
    made, _ = away("places-2021", rule=Rule())
    assert words(look(made, 0.0, 0, 1, 2)) == ["eligible", "metered", "eligible"]
    flights = start(made, 0, 2)
    assert flights["drop"].tolist() == [0, Drop.METERED]
    assert flights["metered_downlink_bytes"].tolist() == flights["metered_uplink_bytes"].tolist() == [0, 0]


def test_one_network_is_used_off_wifi_too_and_its_bytes_cost_money_there() -> None:
    made, _ = away("home-wifi", rule=Rule(unmetered=False))
    assert start(made, 0, 1)["metered_downlink_bytes"].tolist() == [0, 3 * MEGABYTE]


def test_a_lost_link_that_comes_back_makes_an_attempt_longer_and_moves_no_byte_twice() -> None:
    # Some 100 losses within each megabyte or so, and hardly an outage beyond the limit.
    calm, lossy = (
        Population(
            fleet=build_fleet(
                devices=DEVICES,
                seed=3,
                outage=Outage(mean_s=1.0, limit_s=60.0),
                overrides=[DeviceOverride(devices="all", battery_ratio=1.0, link_losses_per_hour=rate)],
            ),
            availability=ScriptedDay(),
            rule=Rule(),
            workload=workload(),
            seed=3,
            log=EventLog(),
        )
        for rate in (0.0, 360_000.0)
    )
    before, after = start(calm, 0, 1, 2), start(lossy, 0, 1, 2)
    assert after["drop"].tolist() == [0, 0, 0]
    assert np.all(after["download_s"] > before["download_s"] + 10.0)
    assert after["downlink_bytes"].tolist() == before["downlink_bytes"].tolist() == [3 * MEGABYTE] * 3
    # The radio is on all the while.
    assert np.all(after["download_joules"] > before["download_joules"])


def test_a_phone_in_a_hot_room_may_not_start_and_is_counted() -> None:
    made, _ = population(room_celsius=43.0)
    seen = look(made)
    assert words(seen) == ["too_hot"] * DEVICES
    made.remember(seen)
    assert made.ledger.column["ineligible_too_hot"].tolist() == [1] * DEVICES
    assert words(look(population(room_celsius=40.0)[0])) == ["eligible"] * DEVICES
    assert words(look(population(room_celsius=None)[0])) == ["eligible"] * DEVICES


def trained(room_celsius: float | None, **changed) -> tuple[Population, np.void]:
    """Device 0, its CPU of 6 W, trains for an hour of full speed: 1800 steps of 2 s."""
    work = workload(steps=np.full(DEVICES, 1800), **changed)
    made, _ = population(room_celsius=room_celsius, work=work)
    made.fleet.compute_watts[:] = 6.0
    return made, start_one(made, 0)


def test_heat_slows_training_and_saves_joules() -> None:
    made, flight = trained(25.0)
    _, cool = trained(None)
    assert cool["train_s"] == pytest.approx(3600.0)
    assert cool["held_back_s"] == 0.0
    assert flight["train_s"] > 3600.0 + 0.1 * flight["held_back_s"]
    assert flight["held_back_s"] > 60.0
    assert flight["steps"] == cool["steps"] == 1800
    assert flight["train_joules"] < cool["train_joules"]
    # Its skin is as warm as the last piece left it, and cools from there.
    after = made.state()["battery.skin_celsius"][0]
    assert 39.0 < after < 43.0
    made.remember(look(made, flight["end_s"] + 600.0, 0))
    assert made.state()["battery.skin_celsius"][0] < after - 2.0
    end(made, flight)
    assert made.ledger.column["held_back_s"][0] == flight["held_back_s"]


def test_an_interrupted_training_did_the_steps_that_its_pace_allowed() -> None:
    _, whole = trained(25.0)
    work = workload(steps=np.full(DEVICES, 1800))
    made, _ = population(work=work, gaps=[(0, "idle", 3000.0, 9000.0)])
    made.fleet.compute_watts[:] = 6.0
    flight = start_one(made, 0)
    assert flight["train_s"] + flight["download_s"] == pytest.approx(3000.0)
    # Of 2 s each, fewer than at full speed and more than if all of it had been at the slowest.
    assert flight["held_back_s"] > 0.0
    assert flight["steps"] < flight["train_s"] / 2.0 - 0.1 * flight["held_back_s"]
    assert flight["steps"] > flight["train_s"] / 2.0 * (1.2 / 6.0)
    assert flight["train_joules"] / flight["train_s"] == pytest.approx(
        whole["train_joules"] / whole["train_s"], rel=0.2
    )


@pytest.mark.parametrize("partial_work", [True, False])
def test_a_phone_that_gets_too_hot_stops(partial_work: bool) -> None:
    # A room of 42.3 degrees: even a budget of 0.8 W, and 0.1 W of the rest, settle above 46.5.
    made, flight = trained(42.3, partial_work=partial_work)
    too_hot = Drop.TOO_HOT
    assert flight["interrupted"] == too_hot
    assert flight["drop"] == (Drop.NONE if partial_work else too_hot)
    assert 0 < flight["steps"] < 1800
    assert made.state()["battery.skin_celsius"][0] == pytest.approx(46.5, abs=0.1)
    # It may not start again before it has cooled.
    assert words(look(made, flight["end_s"], 0)) == ["too_hot"]
    assert words(look(made, flight["end_s"] + 7200.0, 0)) == ["eligible"]


def test_nobody_may_start_too() -> None:
    made, _ = population()
    nobody = np.empty(0, dtype=np.int64)
    flights = made.start(made.look(nobody, np.empty(0)), round_index=0, model_version=0, deadline_s=100.0)
    assert len(flights) == 0


def test_a_phone_that_is_pressed_looks_again_and_a_kill_is_logged() -> None:
    # 200 MB are needed of typically 260: an app in front leaves most phones less.
    short = DeviceOverride(devices="all", free_memory_bytes=260e6)
    work = workload(training_memory_bytes=200 * MEGABYTE - RUNTIME_BYTES)
    gaps = [(device, "idle", 120.0, 1e6) for device in range(DEVICES)]
    made, log = population(short, work=work, rule=Rule(idle=False), gaps=gaps)
    assert set(words(look(made))) == {"eligible"}
    used = look(made, 150.0)
    assert "low_memory" in words(used)
    flights = start(made, now_s=105.0)
    killed = flights[flights["drop"] == Drop.OUT_OF_MEMORY]
    assert len(killed) > 0
    assert set(killed["device"]) >= set(used.device[used.reason == Reason.LOW_MEMORY])
    # Each app has ten minutes: at 120 s, or when another comes to the front.
    assert np.all((killed["end_s"] == 120.0) | (killed["end_s"] > 150.0) | (killed["start_s"] == killed["end_s"]))
    assert np.all(killed["stage"] == Stage.TRAIN)
    made.end(flights, np.full(len(flights), ReportCode.ACCEPTED, dtype=np.int8))
    events = log.take()
    dropped = events[(events["kind"] == "drop") & (events["reason"] == "out_of_memory")]
    assert dropped["device"].tolist() == killed["device"].tolist()


def test_a_fleet_without_moments_of_memory_is_never_killed() -> None:
    short = DeviceOverride(devices="all", free_memory_bytes=260e6)
    work = workload(training_memory_bytes=200 * MEGABYTE - RUNTIME_BYTES)
    gaps = [(device, "idle", 0.0, 1e6) for device in range(DEVICES)]
    made, _ = population(short, work=work, rule=Rule(idle=False), gaps=gaps, memory_moments=False)
    assert np.all(start(made)["drop"] == Drop.NONE)
