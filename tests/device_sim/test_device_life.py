from pathlib import Path

import pytest
from device_kit import boston_data, boston_unit

from pocketfleet.device_sim.device_folder import DeviceFolder
from pocketfleet.device_sim.device_life import begin_life
from pocketfleet.device_sim.eligibility import Rule
from pocketfleet.training.server.protocol import Rule as ToldRule


def test_a_phone_goes_on_where_its_last_start_left_it(tmp_path: Path) -> None:
    folder, unit = DeviceFolder(tmp_path), boston_unit(boston_data(), battery_ratio=0.5)
    first = begin_life(folder, unit, speed=10.0, first_s=100.0, rule=Rule(min_battery_ratio=0.1))
    assert first.number == 0
    assert first.clock.now_s() == pytest.approx(100.0, abs=5.0)
    assert first.phone.rule == Rule(min_battery_ratio=0.1)
    # Ten minutes of charging later, as far as its battery knows.
    look = first.phone.look(700.0)
    folder.keep_phone_state(first.phone.state())
    again = begin_life(folder, unit, speed=1.0, first_s=5.0)
    assert again.number == 1
    assert again.clock.now_s() == pytest.approx(700.0, abs=5.0)
    assert again.phone.look(700.0).level_joules == look.level_joules
    assert again.phone.rule == Rule()


def test_the_rule_that_was_told_last_holds(tmp_path: Path) -> None:
    folder, unit = DeviceFolder(tmp_path), boston_unit(boston_data())
    begin_life(folder, unit, speed=1.0)
    told = ToldRule(idle=False, charging=True, unmetered=True, min_battery_ratio=0.2, min_examples=3)
    facts = folder.phone()
    assert facts is not None
    folder.keep_phone(facts.model_copy(update={"rule": told}))
    assert begin_life(folder, unit, speed=1.0, rule=Rule()).phone.rule == Rule(**told.model_dump())
