import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pocketfleet.device_sim.battery import Battery
from pocketfleet.device_sim.fleet import DeviceOverride, build_fleet

NO, YES = np.array([False]), np.array([True])
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


@pytest.mark.parametrize(
    ("charging", "in_use", "expected_joules"),
    [
        (NO, NO, 5000 - 50),  # 0.5 W x 100 s
        (NO, YES, 5000 - 250),  # 2.5 W x 100 s
        (YES, NO, 5000 + 800),  # (8.5 - 0.5) W x 100 s
        (YES, YES, 5000 + 600),  # (8.5 - 2.5) W x 100 s
    ],
)
def test_a_hundred_seconds(charging: np.ndarray, in_use: np.ndarray, expected_joules: float) -> None:
    one = battery()
    one.advance(FIRST, 100.0, charging=charging, in_use=in_use)
    assert one.level_joules[0] == pytest.approx(expected_joules)
    assert one.at_s[0] == 100.0


def test_levels_stay_between_empty_and_full() -> None:
    one = battery()
    # 8 W x 10,000 s are 80 kJ, eight times the capacity.
    one.advance(FIRST, 10_000.0, charging=YES, in_use=NO)
    assert one.ratio(FIRST)[0] == 1.0
    # 2.5 W x 10,000 s are 25 kJ.
    one.advance(FIRST, 20_000.0, charging=NO, in_use=YES)
    assert one.ratio(FIRST)[0] == 0.0
    one.spend(FIRST, 1.0)
    assert one.ratio(FIRST)[0] == 0.0


def test_spending_takes_energy_at_once() -> None:
    one = battery()
    one.spend(FIRST, 1500.0)
    # 3500 J of 10,000 J are left.
    assert one.ratio(FIRST)[0] == pytest.approx(0.35)
    with pytest.raises(ValueError, match="spends 0 joules or more"):
        one.spend(FIRST, -1.0)


def test_time_does_not_run_backwards() -> None:
    one = battery()
    one.advance(FIRST, 10.0, charging=NO, in_use=NO)
    with pytest.raises(ValueError, match="cannot go back in time"):
        one.advance(FIRST, 9.0, charging=NO, in_use=NO)


@given(st.lists(st.floats(0.0, 3000.0), min_size=1, max_size=6), st.booleans(), st.booleans())
def test_looking_in_between_changes_nothing(steps_s: list[float], charging: bool, in_use: bool) -> None:
    often, once = battery(), battery()
    conditions = {"charging": np.array([charging]), "in_use": np.array([in_use])}
    to_s = 0.0
    for step_s in steps_s:
        to_s += step_s
        often.advance(FIRST, to_s, **conditions)
    once.advance(FIRST, to_s, **conditions)
    assert often.level_joules[0] == pytest.approx(once.level_joules[0], abs=1e-6)


def test_only_the_named_devices_move_on() -> None:
    fleet = build_fleet(devices=3, seed=1)
    cells = Battery.of_fleet(fleet)
    before = cells.level_joules.copy()
    cells.advance(np.array([2]), 60.0, charging=NO, in_use=NO)
    np.testing.assert_array_equal(cells.level_joules[:2], before[:2])
    assert cells.level_joules[2] == pytest.approx(before[2] - 60.0 * fleet.idle_watts[2])
    assert cells.at_s.tolist() == [0.0, 0.0, 60.0]


def test_a_fleet_starts_at_its_ratios_and_without_a_charger_none_charges() -> None:
    overrides = (DeviceOverride(devices=(1,), has_charger=False), DeviceOverride(devices="all", battery_ratio=0.5))
    cells = Battery.of_fleet(build_fleet(devices=2, seed=1, overrides=overrides))
    both = np.arange(2)
    np.testing.assert_allclose(cells.ratio(both), 0.5)
    cells.advance(both, 600.0, charging=np.array([True, True]), in_use=np.array([False, False]))
    assert cells.ratio(both)[0] > 0.5 > cells.ratio(both)[1]


def test_state_is_a_copy_and_restores() -> None:
    one = battery()
    state = one.state()
    one.advance(FIRST, 100.0, charging=NO, in_use=NO)
    assert state["at_s"][0] == 0.0
    other = battery(level_joules=1.0)
    other.restore(one.state())
    assert other.level_joules[0] == one.level_joules[0]
    assert other.at_s[0] == 100.0
    with pytest.raises(ValueError, match="not of 1 devices"):
        other.restore({"level_joules": np.zeros(2), "at_s": np.zeros(2)})
