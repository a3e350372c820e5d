"""Who may evaluate and what it takes, worked out by hand."""

from dataclasses import replace

import numpy as np
import pytest
from scripted import ScriptedDay

from pocketfleet.device_sim.arrival import Arrival, with_use
from pocketfleet.device_sim.eligibility import Rule
from pocketfleet.device_sim.evaluators import Evaluators
from pocketfleet.device_sim.fleet import DeviceOverride, build_fleet
from pocketfleet.device_sim.workload import Workload

DEVICES = np.arange(4)
NOON = np.full(4, 100.0)


def evaluators(*gaps: tuple[int, str, float, float], arrival: Arrival | None = None) -> Evaluators:
    """Phones 0 to 3 hold 4, 5, 10 and 25 examples, of which 0, 1, 2 and 5 are held out."""
    override = DeviceOverride(devices="all", down_bits_per_s=8e6, latency_s=0.01)
    fleet = build_fleet(devices=4, seed=1, overrides=[override])
    fleet = replace(fleet, down_variation_ratio=np.zeros(4))
    return Evaluators(
        fleet=fleet,
        availability=ScriptedDay(*gaps),
        rule=Rule(),
        workload=Workload(
            num_training=np.array([4, 4, 8, 20]),
            num_examples=np.array([4, 5, 10, 25]),
            arrival=arrival,
            steps=np.ones(4, dtype=np.int64),
            step_s=np.full(4, 3.0),
            batch_size=2,
            training_memory_bytes=1,
            bundle_bytes=1000,
            weights_bytes=500_000,
            update_bytes=100,
            partial_work=True,
        ),
        seed=1,
    )


def test_who_holds_nothing_out_cannot_evaluate() -> None:
    assert evaluators().able(DEVICES, NOON).tolist() == [False, True, True, True]


@pytest.mark.parametrize("condition", ["idle", "charging", "wifi"])
def test_the_day_must_be_as_for_training(condition: str) -> None:
    away = evaluators((2, condition, 50.0, 150.0))
    assert away.able(DEVICES, NOON).tolist() == [False, True, False, True]
    assert away.able(DEVICES, NOON + 100.0).tolist() == [False, True, True, True]


def test_an_evaluation_downloads_two_models_and_runs_both() -> None:
    costs = evaluators().costs(DEVICES, NOON, number=np.arange(4))
    # 1 MB at 8 Mbit/s take 1 s, three round trips 0.03 s. Of 0, 1, 2 and 5 examples there are 0, 1, 1 and 3 batches of
    # two; a batch of both models takes two thirds of a step of 3 s.
    assert costs.seconds == pytest.approx(1.03 + 2.0 * np.array([0, 1, 1, 3]))
    assert costs.bytes.tolist() == [1_000_000] * 4
    assert costs.metered_bytes.tolist() == [0] * 4
    assert costs.joules == pytest.approx(evaluators().fleet.compute_watts * 2.0 * np.array([0, 1, 1, 3]))


def test_who_has_no_wifi_pays() -> None:
    costs = evaluators((1, "wifi", 0.0, 1e9)).costs(DEVICES, NOON, number=np.arange(4))
    assert costs.metered_bytes.tolist() == [0, 1_000_000, 0, 0]


def test_what_is_held_out_comes_with_use() -> None:
    # An example an hour of use; a phone is used while it is not idle.
    day = ScriptedDay((3, "idle", 0.0, 36_000.0))
    arriving = Arrival(num_examples=np.array([4, 5, 10, 25]), schedule=with_use(1.0), day=day)
    some = replace(evaluators(arrival=arriving), availability=day)
    held, num_held_out = some.held(np.array([3, 3]), np.array([18_000.0, 36_000.0]))
    assert (held.num_present.tolist(), num_held_out.tolist()) == ([5, 10], [1, 2])
    assert some.able(np.array([3, 2]), np.array([40_000.0, 40_000.0])).tolist() == [True, False]
