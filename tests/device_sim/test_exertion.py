import numpy as np
import pytest
from scripted import ScriptedDay

from pocketfleet.device_sim.battery import Battery
from pocketfleet.device_sim.exertion import Exertion
from pocketfleet.device_sim.fleet import DeviceOverride, Fleet, build_fleet
from pocketfleet.device_sim.flight import no_flights
from pocketfleet.device_sim.thermal_class import load_thermal_classes

ONE = np.array([0])


def exertion(
    *, cpu_watts: float, charger: bool = False, room_celsius: float | None = 25.0, skin_celsius: float | None = None
) -> tuple[Exertion, Fleet]:
    override = DeviceOverride(devices="all", has_charger=charger, battery_ratio=0.5)
    fleet = build_fleet(devices=1, seed=1, phones=["Pixel 8"], overrides=[override])
    fleet.compute_watts[:] = cpu_watts
    battery = Battery.of_fleet(fleet, room_celsius=room_celsius)
    made = Exertion(
        fleet=fleet,
        battery=battery,
        charging=np.ones(1, dtype=np.bool_),
        device=ONE,
        level_joules=battery.level_joules.copy(),
        skin_celsius=battery.skin_celsius.copy() if skin_celsius is None else np.array([skin_celsius]),
        receive_watts=fleet.receive_watts,
    )
    return made, fleet


def course(made: Exertion, download_s: float = 10.0):
    found = made.course(download_s=np.array([download_s]), work_s=np.array([1e6]), until_s=np.array([1e6]))
    assert found is not None
    return found


def test_a_cool_phone_lasts_by_what_it_draws() -> None:
    # 1.1 W settle far below 43 degrees: one power for ever.
    made, fleet = exertion(cpu_watts=1.0)
    lasts_s = made.battery_lasts_s(course(made), floor_joules=0.1 * fleet.battery_capacity_joules)
    assert lasts_s[0] == pytest.approx(0.4 * fleet.battery_capacity_joules[0] / (1.0 + fleet.idle_watts[0]))


def test_a_hot_phone_lasts_longer_for_it_is_held_back() -> None:
    made, fleet = exertion(cpu_watts=6.0)
    hot, floor = course(made), 0.1 * fleet.battery_capacity_joules
    lasts_s = made.battery_lasts_s(hot, floor_joules=floor)
    cold, _ = exertion(cpu_watts=6.0, room_celsius=None)
    assert lasts_s[0] > 1.5 * cold.battery_lasts_s(None, floor_joules=floor)[0]
    # What the course draws until then is what was there; by the mean of a cycle, so up to one cycle's swing apart.
    drawn = hot.joules(lasts_s) + fleet.idle_watts * lasts_s
    assert drawn[0] == pytest.approx(0.4 * fleet.battery_capacity_joules[0], abs=6.0 * hot.cycle_s[0])
    assert np.isfinite(hot.cycle_from_s[0])


def test_a_charger_that_keeps_up_lasts_for_ever_and_one_that_is_held_back_does_not() -> None:
    made, fleet = exertion(cpu_watts=1.0, charger=True)
    assert made.battery_lasts_s(course(made), floor_joules=np.zeros(1))[0] == np.inf
    # At 42 degrees the charger is held to 3.6 W, of which 3.06 arrive: 3.2 W and idling draw on the battery.
    hot, _ = exertion(cpu_watts=3.2, charger=True, skin_celsius=42.0)
    lost_watts = 3.2 + fleet.idle_watts - 3.06
    floor = 0.5 * fleet.battery_capacity_joules - 5.0
    # After a transfer of no seconds.
    lasts_s = hot.battery_lasts_s(course(hot, download_s=0.0), floor_joules=floor)
    assert lasts_s[0] == pytest.approx(5.0 / lost_watts[0])
    # A kelvin more, and the CPU is held back too: the charger keeps up.
    assert hot.battery_lasts_s(course(hot, download_s=0.0), floor_joules=floor - 1000.0)[0] == np.inf


def test_an_empty_battery_off_the_charger_lasts_not_at_all() -> None:
    made, fleet = exertion(cpu_watts=1.0)
    assert made.battery_lasts_s(course(made), floor_joules=fleet.battery_capacity_joules)[0] == 0.0


def test_an_attempt_leaves_what_was_there_and_came_less_what_it_drew() -> None:
    # From 42 degrees, a minute under a charger that is held to 3.6 W: 3.06 arrive.
    made, fleet = exertion(cpu_watts=3.2, charger=True, skin_celsius=42.0)
    hot = course(made, download_s=0.0)
    train_s = np.array([60.0])
    flights = no_flights(1, start_s=0.0, end_s=80.0, train_s=60.0, upload_s=20.0, train_joules=hot.joules(train_s))
    level, celsius = made.after(
        flights, hot, ScriptedDay().changes(ONE, 0.0, 1000.0), transmit_watts=fleet.transmit_watts
    )
    # Then 20 s of sending, whose watts leave the charger no more.
    assert 14 / fleet_kelvin() - fleet.idle_watts[0] - fleet.transmit_watts[0] < 3.6 * 0.15
    came = 0.85 * 80.0 * 3.6
    drew = 60.0 * 3.2 + 80.0 * fleet.idle_watts[0]
    assert level[0] == pytest.approx(0.5 * fleet.battery_capacity_joules[0] + came - drew)
    # Its CPU's limit of 43 it did not reach; 20 s of the radio warm it about as the CPU did.
    assert 42.0 < hot.celsius(train_s)[0] < 43.0
    settles_at = 25 + fleet_kelvin() * (fleet.idle_watts[0] + fleet.transmit_watts[0] + 0.15 * 3.6)
    expected = settles_at + (hot.celsius(train_s)[0] - settles_at) * np.exp(-20 / 600)
    assert celsius[0] == pytest.approx(expected)


def fleet_kelvin() -> float:
    """A Pixel 8's case is mid."""
    return load_thermal_classes()[1].skin_kelvin_per_watt


def test_an_attempt_that_ends_as_it_starts_still_pays_for_its_radio() -> None:
    made, fleet = exertion(cpu_watts=1.0)
    flights = no_flights(1, download_joules=2.0)
    level, _ = made.after(
        flights, course(made), ScriptedDay().changes(ONE, 0.0, 1000.0), transmit_watts=fleet.transmit_watts
    )
    assert level[0] == pytest.approx(0.5 * fleet.battery_capacity_joules[0] - 2.0)
