import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scripted import ScriptedDay

from pocketfleet.device_sim.battery import Battery
from pocketfleet.device_sim.fleet import DeviceOverride, build_fleet

FIRST = np.array([0])


def battery(level_joules: float = 5000.0) -> Battery:
    """10 kJ; charger 10 W (8.5 W reach the cell), idle 0.5 W, screen 2 W."""
    return Battery(
        capacity_joules=np.array([10_000.0]),
        level_joules=np.array([level_joules]),
        charger_watts=np.array([10.0]),
        idle_watts=np.array([0.5]),
        screen_watts=np.array([2.0]),
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
        ([], 5000 + 800),  # (8.5 - 0.5) W x 100 s
        ([ALWAYS_IN_USE], 5000 + 600),  # (8.5 - 2.5) W x 100 s
        # Unplugged for 40 s of the 100, in use for 10 s of these and 20 s of the others.
        ([(0, "charging", 20.0, 60.0), (0, "idle", 50.0, 80.0)], 5000 + 60 * 8.5 - 100 * 0.5 - 30 * 2.0),
    ],
)
def test_a_hundred_seconds(gaps: list[tuple[int, str, float, float]], expected_joules: float) -> None:
    one = battery()
    assert lived(one, 100.0, *gaps) == pytest.approx(expected_joules)
    # A look writes nothing down.
    assert (one.level_joules[0], one.at_s[0]) == (5000.0, 0.0)


def test_levels_stay_between_empty_and_full() -> None:
    # 8 W x 10,000 s are 80 kJ, eight times the capacity; full at its end, then 2.5 W x 10,000 s are 25 kJ.
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


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.floats(0.0, 30_000.0), min_size=1, max_size=6),
    st.lists(st.tuples(st.sampled_from(["idle", "charging"]), st.floats(0.0, 1e5), st.floats(1.0, 5e4)), max_size=4),
)
def test_looking_in_between_changes_nothing(steps_s: list[float], gaps: list[tuple[str, float, float]]) -> None:
    day = [(0, condition, start_s, start_s + length_s) for condition, start_s, length_s in gaps]
    often, to_s = battery(), 0.0
    for step_s in steps_s:
        to_s += step_s
        often.set(FIRST, np.array([lived(often, to_s, *day)]), to_s)
    assert often.level_joules[0] == pytest.approx(lived(battery(), to_s, *day), abs=1e-6)


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
        other.restore({"level_joules": np.zeros(2), "at_s": np.zeros(2)})
