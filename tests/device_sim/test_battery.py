import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scripted import ScriptedDay

from pocketfleet.device_sim.battery import Battery
from pocketfleet.device_sim.charging import FLOOR_RATIO, FULL_POWER_RATIO, KNEE_RATIO
from pocketfleet.device_sim.fleet import DeviceOverride, build_fleet
from pocketfleet.device_sim.thermal import Cases

FIRST = np.array([0])


# Of a charger of 10 W in the mean of a charge; 85 % arrive.
ARRIVES_WATTS = 8.5 * FULL_POWER_RATIO


def battery(level_joules: float = 5000.0, *, capacity_joules: float = 10_000.0, room: float | None = None) -> Battery:
    """10 kJ; a charger of 10 W in the mean, idle 0.5 W, screen 2 W; in a room, a mid case."""
    cases = None
    if room is not None:
        cases = Cases(room_celsius=room, kelvin_per_watt=np.array([6.5]), time_constant_s=np.array([600.0]))
    return Battery(
        capacity_joules=np.array([capacity_joules]),
        level_joules=np.array([level_joules]),
        charger_watts=np.array([10.0]),
        idle_watts=np.array([0.5]),
        screen_watts=np.array([2.0]),
        cases=cases,
    )


def ratio(cells: Battery, devices: np.ndarray) -> np.ndarray:
    return cells.level_joules[devices] / cells.capacity_joules[devices]


def lived(one: Battery, at_s: float, *gaps: tuple[int, str, float, float]) -> float:
    return float(one.level_joules_at(FIRST, at_s, day=ScriptedDay(*gaps))[0])


NEVER_CHARGING = (0, "charging", -1.0, 1e9)
ALWAYS_IN_USE = (0, "idle", -1.0, 1e9)


@pytest.mark.parametrize(
    ("gaps", "expected_joules"),
    [
        ([NEVER_CHARGING], 5000 - 50),  # 0.5 W x 100 s
        ([NEVER_CHARGING, ALWAYS_IN_USE], 5000 - 250),  # 2.5 W x 100 s
        ([], 5000 + 100 * (ARRIVES_WATTS - 0.5)),
        ([ALWAYS_IN_USE], 5000 + 100 * (ARRIVES_WATTS - 2.5)),
        # Unplugged for 40 s of the 100, in use for 10 s of these and 20 s of the others.
        ([(0, "charging", 20.0, 60.0), (0, "idle", 50.0, 80.0)], 5000 + 60 * ARRIVES_WATTS - 100 * 0.5 - 30 * 2.0),
    ],
)
def test_a_hundred_seconds(gaps: list[tuple[int, str, float, float]], expected_joules: float) -> None:
    one = battery()
    assert lived(one, 100.0, *gaps) == pytest.approx(expected_joules)
    # A look writes nothing down.
    assert (one.level_joules[0], one.at_s[0]) == (5000.0, 0.0)


def test_levels_stay_between_empty_and_full() -> None:
    # Over 8 W x 10,000 s are eight times the capacity; full at its end, then 2.5 W x 10,000 s are 25 kJ.
    assert lived(battery(), 10_000.0) == 10_000.0
    assert lived(battery(), 20_000.0, (0, "charging", 10_000.0, 1e9), (0, "idle", 10_000.0, 1e9)) == 0.0
    # Full for a while, then down: what did not fit in is lost. 0.5 W x 1,000 s.
    assert lived(battery(), 11_000.0, (0, "charging", 10_000.0, 1e9)) == pytest.approx(10_000.0 - 500.0)
    one = battery()
    one.set(FIRST, np.array([-1.0]), 0.0)
    assert ratio(one, FIRST)[0] == 0.0
    one.set(FIRST, np.array([1e9]), 5.0)
    assert (ratio(one, FIRST)[0], one.at_s[0]) == (1.0, 5.0)


def test_time_does_not_run_backwards() -> None:
    one = battery()
    one.set(FIRST, np.array([4000.0]), 10.0)
    with pytest.raises(ValueError, match="cannot go back in time"):
        lived(one, 9.0)


LIVES = st.lists(st.tuples(st.sampled_from(["idle", "charging"]), st.floats(0.0, 1e5), st.floats(1.0, 5e4)), max_size=4)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(0.0, 30_000.0), min_size=1, max_size=6), LIVES, st.sampled_from([None, 5.0, 25.0, 38.0]))
def test_looking_in_between_changes_nothing(
    steps_s: list[float], gaps: list[tuple[str, float, float]], room: float | None
) -> None:
    day = ScriptedDay(*((0, condition, start_s, start_s + length_s) for condition, start_s, length_s in gaps))
    often, to_s = battery(room=room), 0.0
    for step_s in steps_s:
        to_s += step_s
        level, celsius = often.advanced(FIRST, to_s, day=day)
        often.set(FIRST, level, to_s, skin_celsius=celsius)
    level, celsius = battery(room=room).advanced(FIRST, to_s, day=day)
    assert often.level_joules[0] == pytest.approx(level[0], abs=1e-6)
    np.testing.assert_allclose(often.skin_celsius, celsius, atol=1e-6)


def euler(one: Battery, until_s: float, day: ScriptedDay, *, room: float, step_s: float = 0.25) -> tuple[float, float]:
    """Level and skin by the rules, step by step: of ``battery()`` in a room."""
    capacity = float(one.capacity_joules[0])
    level, celsius = float(one.level_joules[0]), float(one.skin_celsius[0])
    for number in range(round(until_s / step_s)):
        now = day.state(FIRST, (number + 0.5) * step_s)
        draw = 0.5 + (0.0 if now.idle[0] else 2.0)
        arrives = 0.0
        if now.charging[0]:
            arrives = 0.85 * min(10.0 * FULL_POWER_RATIO, max(((39.0 - room) / 6.5 - draw) / 0.15, 3.6))
        missing = min((capacity - level) / ((1 - KNEE_RATIO) * capacity), 1.0)
        takes = 0.85 * 10.0 * FULL_POWER_RATIO * (FLOOR_RATIO + (1 - FLOOR_RATIO) * missing) if missing > 0.0 else 0.0
        gains = min(arrives - draw, takes)
        lost = 0.15 / 0.85 * (min(arrives, gains + draw) if now.charging[0] else 0.0)
        level = min(max(level + step_s * gains, 0.0), capacity)
        celsius += step_s * (room + 6.5 * (draw + lost) - celsius) / 600.0
    return level, celsius


@settings(max_examples=25, deadline=None)
@given(
    st.floats(0.0, 10_000.0),
    st.floats(10.0, 4000.0),
    st.lists(st.tuples(st.sampled_from(["idle", "charging"]), st.floats(0.0, 4e3), st.floats(1.0, 3e3)), max_size=3),
    st.sampled_from([10.0, 25.0, 38.0]),
)
def test_level_and_skin_are_what_small_steps_come_to(
    level_joules: float, until_s: float, gaps: list[tuple[str, float, float]], room: float
) -> None:
    day = ScriptedDay(*((0, condition, start_s, start_s + length_s) for condition, start_s, length_s in gaps))
    one = battery(level_joules, room=room)
    level, celsius = one.advanced(FIRST, until_s, day=day)
    slow_level, slow_celsius = euler(one, until_s, day, room=room)
    # A step is 0.25 s, a change of the day comes up to one late: some joules at 12 W.
    assert level[0] == pytest.approx(slow_level, abs=30.0)
    assert celsius[0] == pytest.approx(slow_celsius, abs=0.05)


def test_heat_holds_the_charger_back() -> None:
    # 38 degrees of room: a kelvin over 6.5 K/W is less than idling warms; 3.6 W are left, 85 % of them arrive.
    assert lived(battery(room=38.0), 100.0) == pytest.approx(5000 + 100 * (0.85 * 3.6 - 0.5))
    # At 0 degrees nothing is held back.
    assert lived(battery(room=0.0), 100.0) == lived(battery(), 100.0)
    # In between, the skin ends at 39 degrees: (14 / 6.5 - 0.5) W of losses are 15 % of what the charger gives.
    one = battery(0.0, capacity_joules=1e6, room=25.0)
    level, celsius = one.advanced(FIRST, 10_000.0, day=ScriptedDay())
    assert celsius[0] == pytest.approx(39.0, abs=0.01)
    assert level[0] == pytest.approx(10_000 * (0.85 * (14 / 6.5 - 0.5) / 0.15 - 0.5))


def test_a_full_phone_on_its_charger_is_as_cool_as_its_own_draw_and_what_bringing_it_loses() -> None:
    _, celsius = battery(10_000.0, room=20.0).advanced(FIRST, 20_000.0, day=ScriptedDay())
    assert celsius[0] == pytest.approx(20 + 6.5 * 0.5 / 0.85)


def test_work_on_the_charger_slows_charging_and_of_a_full_battery_takes_nothing() -> None:
    changes = ScriptedDay().changes(FIRST, 0.0, 100.0)
    for level_joules, expected in ((5000.0, 5000 + 100 * (ARRIVES_WATTS - 0.5 - 3.0)), (10_000.0, 10_000.0)):
        left = battery(level_joules).after_work(
            FIRST, np.array([level_joules]), changes, work_watts=np.array([3.0]), most_watts=np.array([np.inf])
        )
        assert left[0] == pytest.approx(expected)
    # More than the charger brings comes out of the battery; a charger that is held to 2 W brings 1.7.
    left = battery().after_work(
        FIRST, np.array([5000.0]), changes, work_watts=np.array([3.0]), most_watts=np.array([2.0])
    )
    assert left[0] == pytest.approx(5000 + 100 * (1.7 - 3.5))


def test_only_the_named_devices_move_on() -> None:
    fleet = build_fleet(devices=3, seed=1)
    cells, third = Battery.of_fleet(fleet), np.array([2])
    before = cells.level_joules.copy()
    day = ScriptedDay((2, "charging", -1.0, 1e9))
    cells.set(third, cells.level_joules_at(third, 60.0, day=day), 60.0)
    np.testing.assert_array_equal(cells.level_joules[:2], before[:2])
    assert cells.level_joules[2] == pytest.approx(before[2] - 60.0 * fleet.idle_watts[2])
    assert cells.at_s.tolist() == [0.0, 0.0, 60.0]


def test_a_fleet_starts_at_its_ratios_and_without_a_charger_none_charges() -> None:
    overrides = (DeviceOverride(devices=(1,), has_charger=False), DeviceOverride(devices="all", battery_ratio=0.5))
    cells = Battery.of_fleet(build_fleet(devices=2, seed=1, overrides=overrides))
    both = np.arange(2)
    np.testing.assert_allclose(ratio(cells, both), 0.5)
    cells.set(both, cells.level_joules_at(both, 600.0, day=ScriptedDay()), 600.0)
    assert ratio(cells, both)[0] > 0.5 > ratio(cells, both)[1]


def test_state_is_a_copy_and_restores() -> None:
    one = battery()
    state = one.state()
    one.set(FIRST, np.array([4950.0]), 100.0)
    assert state["at_s"][0] == 0.0
    other = battery(level_joules=1.0)
    other.restore(one.state())
    assert other.level_joules[0] == one.level_joules[0]
    assert other.at_s[0] == 100.0
    with pytest.raises(ValueError, match="not of 1 devices"):
        other.restore({name: np.zeros(2) for name in one.state()})
