from dataclasses import replace

import numpy as np
import pytest
from scripted import ScriptedDay

from pocketfleet.device_sim.compute import load_efficiency, step_seconds
from pocketfleet.device_sim.eligibility import Rule
from pocketfleet.device_sim.events import EventLog
from pocketfleet.device_sim.fleet import DeviceOverride, build_fleet
from pocketfleet.device_sim.network import ROUND_TRIPS
from pocketfleet.device_sim.population import LOOK_EVERY_S, InFlight, Population, Workload

DEVICES = 6
MEGABYTE = 10**6


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
    *overrides: DeviceOverride, gaps=(), work: Workload | None = None, rule: Rule | None = None
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
    )
    return made, log


def look(made: Population, now_s: float = 0.0, round_index: int = 0) -> set[int]:
    askable = made.askable(round_index=round_index, returning=False)
    return set(made.checking_in(askable, now_s, round_index=round_index).tolist())


def start(made: Population, *devices: int, now_s: float = 0.0, deadline_s: float = 1e6) -> list[InFlight]:
    ids = np.arange(len(devices))
    return made.start(
        np.array(devices), ids, round_index=0, model_version=0, now_s=now_s, deadline_s=now_s + deadline_s
    )


def rows(log: EventLog) -> list[tuple[int, str, str]]:
    return [(row.device, row.kind, row.reason) for row in log.take().itertuples()]


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
    made, log = population(override, work=work, rule=rule)
    assert look(made) == {0, 1, 3, 4, 5}
    assert rows(log) == [(2, "ineligible", reason)]


def test_a_reason_is_logged_once_until_it_changes() -> None:
    made, log = population(gaps=[(1, "idle", 0.0, 50.0), (1, "wifi", 40.0, 80.0)])
    for now_s, expected in [
        (0.0, [(1, "ineligible", "in_use")]),
        (10.0, []),
        (60.0, [(1, "ineligible", "metered")]),
        (90.0, []),
    ]:
        may = look(made, now_s)
        assert rows(log) == expected
        assert (1 in may) == (now_s == 90.0)


def test_devices_check_in_in_an_order_drawn_for_each_round() -> None:
    made, _ = population()
    orders = []
    for round_index in range(4):
        askable = made.askable(round_index=round_index, returning=False)
        orders.append(made.checking_in(askable, 0.0, round_index=round_index).tolist())
    assert all(sorted(order) == list(range(DEVICES)) for order in orders)
    # Four draws of 720 orders: all alike by chance would be 1 in 720**3.
    assert len({tuple(order) for order in orders}) > 1


def test_a_busy_device_is_not_asked_and_a_dropped_one_backs_off() -> None:
    made, _ = population()
    (flight,) = start(made, 4)
    assert look(made) == {0, 1, 2, 3, 5}
    made.end(flight)
    made.ledger.drop(4, flight.end_s, round_index=0)
    assert 4 not in look(made, flight.end_s + 29.0)
    assert 4 in look(made, flight.end_s + 30.0)
    made.ledger.drop(4, flight.end_s + 100.0, round_index=0)  # twice in a row: 60 s
    assert 4 not in look(made, flight.end_s + 159.0)
    assert 4 in look(made, flight.end_s + 160.0)
    assert made.askable(round_index=0, returning=True).tolist() == [4]
    assert made.askable(round_index=1, returning=True).tolist() == []


def test_the_next_look_is_at_a_change_a_return_or_the_regular_time() -> None:
    made, _ = population(gaps=[(1, "idle", 50.0, 60.0)])
    everyone = np.arange(DEVICES)
    assert made.next_look_s(everyone, 0.0) == 50.0
    assert made.next_look_s(everyone, 55.0) == 60.0
    assert made.next_look_s(everyone, 60.0) == 60.0 + LOOK_EVERY_S
    made.ledger.drop(0, 60.0, round_index=0)
    assert made.next_look_s(everyone, 60.0) == 90.0
    assert made.next_look_s(everyone[:0], 60.0) == np.inf


def test_programs_are_downloaded_once() -> None:
    made, _ = population()
    (first,) = start(made, 0)
    made.end(first)
    (second,) = start(made, 0, now_s=first.end_s)
    # 2 MB of programs and 1 MB of weights, then weights alone.
    assert (first.downlink_bytes, second.downlink_bytes) == (3 * MEGABYTE, MEGABYTE)
    assert first.uplink_bytes == second.uplink_bytes == MEGABYTE // 2


def test_an_attempt_is_logged_and_paid_for_by_stage() -> None:
    made, log = population()
    (flight,) = start(made, 1)
    made.end(flight)
    events = log.take()
    assert events["kind"].tolist() == ["assign", "download", "train", "upload"]
    fleet = made.fleet
    expected_joules = [
        0.0,
        flight.download_s * fleet.receive_watts[1],
        flight.train_s * fleet.compute_watts[1],
        flight.upload_s * fleet.transmit_watts[1],
    ]
    assert events["joules"].tolist() == pytest.approx(expected_joules)
    assert events["time_s"].tolist() == pytest.approx(np.cumsum([0.0, *events["seconds"][1:]]).tolist())
    assert made.ledger.column["energy_joules"][1] == pytest.approx(sum(expected_joules))
    # 10 steps of 2 s; 20 examples in batches of 8: 8 + 8 + 4 an epoch, three epochs and one batch.
    assert flight.train_s == pytest.approx(20.0)
    assert flight.num_examples == 3 * 20 + 8


def test_a_battery_pays_for_what_training_draws() -> None:
    # No charger: the level falls by the attempt's joules and by idling.
    made, log = population(
        DeviceOverride(devices=(0,), has_charger=False), rule=Rule(charging=False, min_battery_ratio=0.1)
    )
    (flight,) = start(made, 0)
    made.end(flight)
    look(made, flight.end_s)
    fleet = made.fleet
    spent = log.take()["joules"].sum() + fleet.idle_watts[0] * flight.end_s
    level = made.state()["battery.level_joules"][0]
    assert level == pytest.approx(fleet.battery_capacity_joules[0] - spent)


def test_a_phone_off_the_charger_stops_at_the_battery_floor() -> None:
    # 0.4 of the battery and a floor of 0.3: a tenth of it can be spent, whole steps of 2 s.
    made, _ = population(
        DeviceOverride(devices=(0,), battery_ratio=0.4, has_charger=False),
        rule=Rule(charging=False, min_battery_ratio=0.3),
        work=workload(steps=np.full(DEVICES, 10**6)),
    )
    (flight,) = start(made, 0, deadline_s=1e9)
    fleet = made.fleet
    lasts_s = 0.1 * fleet.battery_capacity_joules[0] / (fleet.compute_watts[0] + fleet.idle_watts[0])
    assert flight.train_s == pytest.approx(lasts_s)
    assert flight.steps == int(lasts_s / 2.0)


def seconds(made: Population, device: int = 0) -> tuple[float, float, float]:
    (flight,) = start(made, device)
    return flight.download_s, flight.train_s, flight.upload_s


def rates(made: Population, device: int = 0) -> tuple[float, float, float]:
    """Round trips, and seconds a byte down and up, read off a whole transfer of known size."""
    down_s, _, up_s = seconds(made, device)
    trips_s = ROUND_TRIPS * made.fleet.latency_s[device]
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
    efficiency = load_efficiency("executorch")
    fleet = population()[0].fleet

    def work(flops: float, peak_ratio: float = 1.0) -> Workload:
        # One matrix product so large that its bytes do not matter, so that the roofline is its slope.
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
        efficiency.host_peak_flops / fleet.peak_flops[0]
    )
    whole = seconds(population(work=work(2e9))[0])
    compute_s = whole[1] - overhead_s
    assert compute_s == pytest.approx(2e9 / (fleet.peak_flops[0] * efficiency.matmul))
    # Half the FLOPs: half the compute, the overhead as it was.
    half = seconds(population(work=work(1e9))[0])
    assert half == pytest.approx((whole[0], overhead_s + compute_s / 2, whole[2]))
    # Half the GFLOPS: twice the compute, and overhead by the root, as assumed of a slower core.
    slow = seconds(population(work=work(2e9, peak_ratio=0.5))[0])
    assert slow == pytest.approx((whole[0], np.sqrt(2) * overhead_s + 2 * compute_s, whole[2]))


def test_a_checkpoint_restores_everything_that_changes() -> None:
    made, _ = population(gaps=[(1, "idle", 0.0, 50.0)])
    (flight,) = start(made, 3)
    look(made, 10.0)
    made.end(flight)
    made.ledger.drop(3, flight.end_s, round_index=0)
    again, _ = population(gaps=[(1, "idle", 0.0, 50.0)])
    again.restore(made.state())
    for name, column in made.state().items():
        np.testing.assert_array_equal(again.state()[name], column, err_msg=name)
    assert look(again, 40.0) == look(made, 40.0)


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
    assert start(small, 0, 1, 2) == start(large, 0, 1, 2)
