import numpy as np
import pytest
from device_kit import DEVICE, DEVICES, boston_data, boston_unit
from scripted import ScriptedDay

from pocketfleet.device_sim.attempt import Drop, Stage
from pocketfleet.device_sim.eligibility import Reason, Rule
from pocketfleet.device_sim.emulated_phone import EmulatedPhone, Task
from pocketfleet.device_sim.events import EventLog
from pocketfleet.device_sim.population import Population
from pocketfleet.device_sim.workload import Workload


def task(**changed: object) -> Task:
    values = {
        "epochs": 1,
        "steps": 0,
        "batch_size": 8,
        "step_s": np.full(DEVICES, 2.0),
        "training_memory_bytes": 10**6,
        "bundle_bytes": 2 * 10**6,
        "weights_bytes": 10**6,
        "update_bytes": 10**6,
        "partial_work": True,
    }
    return Task(**{**values, **changed})


def phone(*gaps: tuple[int, str, float, float], **override: object) -> EmulatedPhone:
    made = EmulatedPhone(boston_unit(boston_data(), day=ScriptedDay(*gaps), **override), Rule())
    made.ask(Rule(), task())
    return made


def reason(made: EmulatedPhone, at_s: float) -> Reason:
    return Reason(int(made.look(at_s).reason[0]))


def test_an_attempt_is_what_the_simulator_makes_of_it() -> None:
    made, unit = phone(), boston_unit(boston_data(), day=ScriptedDay())
    steps = -(-unit.num_training // 8)
    simulated = Population(
        fleet=unit.fleet,
        availability=unit.availability,
        rule=Rule(),
        workload=Workload(
            num_training=np.full(DEVICES, unit.num_training),
            num_examples=np.full(DEVICES, unit.num_training + unit.num_held_out),
            steps=np.full(DEVICES, steps),
            step_s=np.full(DEVICES, 2.0),
            batch_size=8,
            training_memory_bytes=10**6,
            bundle_bytes=2 * 10**6,
            weights_bytes=10**6,
            update_bytes=10**6,
            partial_work=True,
        ),
        seed=0,
        log=EventLog(),
        memory_moments=False,
    )
    for at_s in (5.0, 500.0):
        look = simulated.look(np.array([DEVICE]), np.array([at_s]))
        (flight,) = simulated.start(look, round_index=0, model_version=0, deadline_s=at_s + 400.0)
        plan = made.download(at_s, 3 * 10**6 if at_s == 5.0 else 10**6, settled=False)
        made.has_bundle(at_s > 5.0)
        attempt = made.start(made.look(at_s), round_index=0, model_version=0, deadline_s=at_s + 400.0)
        for name in ("steps", "download_s", "train_s", "upload_s", "num_examples", "num_present"):
            assert getattr(attempt, name) == flight[name], name
        assert (attempt.stage, attempt.drop) == (Stage.DONE, Drop.NONE)
        # The link's own plans last as long.
        payload = 3 * 10**6 if at_s == 5.0 else 10**6
        assert plan.opens_s + payload * 8 / plan.down_bits_per_s == pytest.approx(attempt.download_s)
        upload = made.upload(attempt, at_s + attempt.download_s + attempt.train_s)
        assert upload.opens_s + 10**6 * 8 / upload.up_bits_per_s == pytest.approx(attempt.upload_s)
        assert made.download(at_s, payload, settled=True) == plan
        assert made.free_s == flight["end_s"]


def test_a_phone_judges_itself_by_its_day() -> None:
    made = phone((DEVICE, "charging", 100.0, 200.0), (0, "idle", 0.0, 50.0))
    assert reason(made, 10.0) is Reason.ELIGIBLE
    assert made.again_s(10.0) == 100.0
    assert reason(made, 150.0) is Reason.NOT_CHARGING
    assert made.again_s(150.0) == 200.0
    # No change comes any more: it looks again after a quarter of an hour.
    assert made.again_s(250.0) == 1150.0


def test_conditions_are_told() -> None:
    made = phone((DEVICE, "wifi", 100.0, 200.0))
    found = made.conditions(made.look(150.0))
    assert (found.idle, found.charging, found.unmetered) == (True, True, False)
    # A phone that may not train for another reason does not look at its battery.
    assert found.battery_ratio is None
    found = made.conditions(made.look(250.0))
    assert found.battery_ratio == pytest.approx(1.0)
    assert found.free_memory_bytes == int(made.unit.fleet.free_memory_bytes[DEVICE])


def test_an_interrupted_phone_reports_what_it_did() -> None:
    made = phone((DEVICE, "charging", 9.0, 900.0))
    attempt = made.start(made.look(0.0), round_index=0, model_version=0, deadline_s=600.0)
    done = int((9.0 - attempt.download_s) / 2.0)
    assert 0 < attempt.steps == done
    assert (attempt.stage, attempt.interrupted, attempt.drop) == (Stage.DONE, Drop.NOT_CHARGING, Drop.NONE)


def test_work_that_is_to_be_discarded_is_not_reported() -> None:
    made = phone((DEVICE, "charging", 9.0, 900.0))
    made.ask(Rule(), task(partial_work=False))
    attempt = made.start(made.look(0.0), round_index=0, model_version=0, deadline_s=600.0)
    assert (attempt.interrupted, attempt.drop) == (Drop.NOT_CHARGING, Drop.NOT_CHARGING)


def test_who_drops_out_backs_off_twice_as_long_each_time() -> None:
    made = phone()
    made.dropped(100.0, failures=0)
    assert (made.free_s, made.failures) == (130.0, 1)
    made.dropped(200.0, failures=1)
    assert (made.free_s, made.failures) == (260.0, 2)


def test_one_that_was_to_report_and_did_not_backs_off_as_if_that_had_been_settled() -> None:
    made = phone(battery_ratio=0.9)
    made.dropped(0.0, failures=0)
    attempt = made.start(made.look(30.0), round_index=0, model_version=0, deadline_s=600.0)
    assert (attempt.drop, made.failures) == (Drop.NONE, 0)
    # It is free again when its upload would have ended, were it not for the drop.
    dropped_s = made.free_s - 1.0
    made.dropped(dropped_s, failures=1)
    assert (made.free_s, made.failures) == (dropped_s + 60.0, 2)


def test_a_drop_that_was_settled_counts_once() -> None:
    made = phone(battery_ratio=0.9)
    attempt = made.start(made.look(30.0), round_index=0, model_version=0, deadline_s=30.01)
    assert (attempt.drop, made.failures) == (Drop.DEADLINE, 1)
    free_s = made.free_s
    made.dropped(free_s - 1.0, failures=0)
    assert (made.free_s, made.failures) == (free_s, 1)
    # One whose host is slower backs off from when it was told.
    made.dropped(free_s + 5.0, failures=0)
    assert (made.free_s, made.failures) == (free_s + 35.0, 1)


def test_a_phone_goes_on_from_its_state() -> None:
    made = phone(battery_ratio=0.9)
    made.start(made.look(5.0), round_index=0, model_version=0, deadline_s=600.0)
    again = phone(battery_ratio=0.9)
    again.restore(made.state())
    assert again.free_s == made.free_s
    assert again.known_until_s(made.state()) == made.free_s
    late = made.free_s + 50.0
    assert again.look(late).level_joules == made.look(late).level_joules
