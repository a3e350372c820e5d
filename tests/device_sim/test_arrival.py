"""What devices hold, against a slow oracle that lets examples come and go second by second; who may train then."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scripted import ScriptedDay

from pocketfleet.device_sim.arrival import Arrival, with_use
from pocketfleet.device_sim.eligibility import Reason, Rule
from pocketfleet.device_sim.events import EventLog
from pocketfleet.device_sim.flash_day import FlashDay
from pocketfleet.device_sim.fleet import DeviceOverride, build_fleet
from pocketfleet.device_sim.population import Population
from pocketfleet.device_sim.workload import Workload


def walked(used: set[int], *, until_s: int, total: int, per_hour: int, retention_s: int) -> tuple[int, int, int]:
    """The oracle: a second of use at a time, an example whenever a full share of an hour was used.

    Returns:
        How many were dropped by ``until_s``, how many are held, how many of these are no fifth of the order.
    """
    came_s: list[int] = []
    use_s = 0
    for second in range(until_s):
        use_s += second in used
        # It has come at the end of the second that completed its share.
        while len(came_s) < min(total, use_s * per_hour // 3600):
            came_s.append(second + 1)
    held = [place for place, at_s in enumerate(came_s) if not retention_s or until_s - at_s < retention_s]
    return len(came_s) - len(held), len(held), sum((place + 1) % 5 != 0 for place in held)


SPANS = st.lists(st.tuples(st.integers(0, 3000), st.integers(1, 900)), max_size=4)


@settings(max_examples=60, deadline=None)
@given(
    spans=SPANS,
    until_s=st.integers(0, 4000),
    total=st.integers(0, 40),
    per_hour=st.sampled_from([1, 7, 60, 360, 3600]),
    retention_s=st.sampled_from([0, 1, 100, 1000, 3999]),
)
def test_counts_are_those_of_a_day_walked_second_by_second(spans, until_s, total, per_hour, retention_s) -> None:
    day = ScriptedDay(*((0, "idle", float(start), float(start + length)) for start, length in spans))
    used = {second for start, length in spans for second in range(start, start + length)}
    arrival = Arrival(
        num_examples=np.array([total]), schedule=with_use(per_hour), day=day, retention_s=float(retention_s)
    )
    held = arrival.held(np.array([0]), np.array([float(until_s)]))
    found = int(held.first_example[0]), int(held.num_present[0]), int(held.num_training[0])
    assert found == walked(used, until_s=until_s, total=total, per_hour=per_hour, retention_s=retention_s)


def test_the_oracle_lets_examples_come_and_go() -> None:
    # Used throughout, one example a second; of ten, those at seconds 1 to 5 are 5 s old or older at second 10.
    assert walked(set(range(100)), until_s=10, total=99, per_hour=3600, retention_s=5) == (5, 5, 4)


def test_another_device_more_changes_no_device() -> None:
    day, device, at_s = FlashDay(seed=5), np.arange(30), np.linspace(0.0, 3 * 86_400.0, 30)
    few, many = (
        Arrival(num_examples=np.full(size, 50), schedule=with_use(6.0), day=day, retention_s=86_400.0)
        for size in (30, 31)
    )
    ours, theirs = few.held(device, at_s), many.held(np.arange(31), np.append(at_s, 9e4))
    assert ours.num_present.tolist() == theirs.num_present[:30].tolist()
    assert ours.first_example.tolist() == theirs.first_example[:30].tolist()
    assert ours.first_example.max() > 0
    assert ours.num_present.max() > 0


def test_a_checkpoint_goes_on_to_the_same_counts() -> None:
    def made() -> Arrival:
        return Arrival(
            num_examples=np.full(9, 80), schedule=with_use(10.0), day=FlashDay(seed=5), retention_s=2.5 * 86_400.0
        )

    unbroken, device = made(), np.arange(9)
    for at_s in (1e5, 3e5, 6e5):
        again = made()
        again.restore(unbroken.state())
        expected, found = (one.held(device, np.full(9, at_s)) for one in (unbroken, again))
        for field in dataclasses.fields(expected):
            assert getattr(found, field.name).tolist() == getattr(expected, field.name).tolist()


def shrinking(device: np.ndarray, at_s: np.ndarray, use_s: np.ndarray) -> np.ndarray:
    del device, use_s
    return np.where(at_s < 50.0, 9, 2)


def test_a_schedule_that_shrinks_leaves_nothing_rather_than_a_negative_number() -> None:
    arrival = Arrival(
        num_examples=np.array([9]),
        schedule=shrinking,
        day=ScriptedDay(),
        retention_s=60.0,
    )
    held = arrival.held(np.array([0]), np.array([70.0]))
    assert (held.first_example.tolist(), held.num_present.tolist()) == ([9], [0])


# In a population: device 0 is used from 0 to 1000 s, at an example every 10 s; device 1 never is.

GAPS = [(0, "idle", 0.0, 1000.0)]


def population(*, min_examples: int = 1, total: int = 100, retention_s: float = 0.0, **changed: int) -> Population:
    full = DeviceOverride(devices="all", battery_ratio=1.0)
    day, num_examples = ScriptedDay(*GAPS), np.full(2, total)
    values = {"steps": np.full(2, 3), "epochs": 2} | changed
    return Population(
        fleet=build_fleet(devices=2, seed=3, overrides=[full]),
        availability=day,
        rule=Rule(min_examples=min_examples, idle=False),
        workload=Workload(
            num_training=num_examples - num_examples // 5,
            num_examples=num_examples,
            arrival=Arrival(num_examples=num_examples, schedule=with_use(360.0), day=day, retention_s=retention_s),
            step_s=np.full(2, 0.01),
            batch_size=8,
            training_memory_bytes=10**6,
            bundle_bytes=10**6,
            weights_bytes=10**6,
            update_bytes=10**6,
            partial_work=True,
            **values,
        ),
        seed=3,
        log=EventLog(),
    )


def reasons(made: Population, *at_s: float) -> list[str]:
    seen = made.look(np.zeros(len(at_s), dtype=np.int64), np.array(at_s))
    return [Reason(int(reason)).word for reason in seen.reason]


def test_a_device_may_train_from_the_moment_it_holds_the_fewest_that_are_asked_for() -> None:
    made = population(min_examples=37)
    assert reasons(made, 0.0, 369.0, 370.0, 5000.0) == ["no_examples", "no_examples", "eligible", "eligible"]
    assert reasons(population(min_examples=101), 5000.0) == ["no_examples"]
    assert reasons(population(min_examples=100), 999.0, 1000.0) == ["no_examples", "eligible"]
    assert made.look(np.array([1]), np.array([5000.0])).reason.tolist() == [Reason.NO_EXAMPLES]


def test_a_device_whose_examples_are_dropped_may_not_train_any_more() -> None:
    made = population(min_examples=10, retention_s=2000.0)
    # The examples of 910 to 1000 s, ten of them, are all there until the first is 2000 s old.
    assert reasons(made, 2909.0, 2910.0) == ["eligible", "no_examples"]


def test_an_example_that_is_held_out_is_none_to_train_on() -> None:
    made = population(retention_s=10.0)
    # From 50 s to 60 s the fifth alone is there, and held out; the sixth is not.
    assert reasons(made, 45.0, 55.0, 65.0) == ["eligible", "no_examples", "eligible"]


def test_an_attempt_trains_on_what_is_there_when_it_starts() -> None:
    made = population(retention_s=300.0)
    looks = made.look(np.zeros(1, dtype=np.int64), np.array([800.0]))
    flight = made.start(looks, round_index=0, model_version=0, deadline_s=1e6)[0]
    # At 800 s 80 have come, those up to 500 s are gone: 50. Of the 30 left every fifth, 6, is held out; 24 in batches
    # of 8 are 3 steps an epoch.
    assert (flight["first_example"], flight["num_present"]) == (50, 30)
    assert (flight["steps"], flight["num_examples"]) == (6, 48)


def test_steps_that_are_asked_for_do_not_depend_on_what_is_there() -> None:
    made = population(epochs=0)
    looks = made.look(np.zeros(1, dtype=np.int64), np.array([30.0]))
    flight = made.start(looks, round_index=0, model_version=0, deadline_s=1e6)[0]
    # Three examples, three steps, a batch each.
    assert (flight["num_present"], flight["steps"], flight["num_examples"]) == (3, 3, 9)


def test_with_all_there_from_the_start_fewer_than_asked_for_is_no_examples() -> None:
    made = population()
    values = {name: getattr(made._workload, name) for name in Workload.__dataclass_fields__}
    values |= {"arrival": None, "num_examples": np.array([5, 4]), "num_training": np.array([4, 4])}
    whole = Population(
        fleet=made.fleet,
        availability=ScriptedDay(),
        rule=Rule(min_examples=5),
        workload=Workload(**values),
        seed=3,
        log=EventLog(),
    )
    assert whole.look(np.arange(2), np.zeros(2)).reason.tolist() == [Reason.ELIGIBLE, Reason.NO_EXAMPLES]
    flight = whole.start(
        whole.look(np.array([0]), np.zeros(1)), round_index=0, model_version=0, deadline_s=1e6
    )[0]  # fmt: skip
    assert (flight["first_example"], flight["num_present"], flight["steps"]) == (0, 5, 3)


def test_a_rule_needs_an_example_at_least() -> None:
    with pytest.raises(ValueError, match="min_examples must be 1 or more, got 0"):
        Rule(min_examples=0)
