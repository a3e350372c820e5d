"""A group's sum in a simulation: with masks and without, whoever was lost at which stage."""

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from pocketfleet.device_sim.flight import no_flights
from pocketfleet.device_sim.secure_group import SecureGroup
from pocketfleet.device_sim.secure_stages import Group
from pocketfleet.device_sim.secure_sum import KeptUpdates, SecureSum
from pocketfleet.training.draws import draw_key, normal
from pocketfleet.training.privacy.secure_aggregation.messages import STAGES
from pocketfleet.training.privacy.secure_aggregation.secure_plan import SecurePlan
from pocketfleet.training.update import Update

SIZE = 70


def plan(**changed: object) -> SecurePlan:
    values: dict[str, object] = {
        "seed": 5,
        "value_range": 8.0,
        "bits": 20,
        "max_weight": 16,
        "cohort": 12,
        "minimum": 2,
        "rotation": False,
        "ratio": 1.0,
        "max_norm": 0.0,
        "noise_stddev": 0.0,
        "like": Update({"w": torch.zeros(SIZE)}, {}),
        "corrupt_ratio": 0.1,
        "dropout_ratio": 0.1,
        "stage_deadline_s": 60.0,
    }
    return SecurePlan(**(values | changed))  # type: ignore[arg-type]


def group(answered: list[int]) -> Group:
    flights = no_flights(len(answered), device=np.arange(len(answered)) * 3)
    return Group(flights=flights, answered=np.array(answered, np.int8), played=3, ended_s=0.0, no_sum="")


def learnt(members: int) -> torch.Tensor:
    return torch.from_numpy(normal(draw_key(1, "learnt", np.arange(members)), SIZE)).float()


def summed(made: SecurePlan, lived: Group, *, masks: bool) -> torch.Tensor:
    """The mean of the members in the sum, who weigh 1, 2, 3, ... and come in two chunks."""
    one = SecureSum(made, lived, round_index=2, model_version=4, masks=masks)
    members = np.flatnonzero(lived.in_sum)
    places = np.arange(len(members))
    for chunk in (places[::2], places[1::2]):
        part = KeptUpdates()
        values = {"w": learnt(len(lived.flights))[members[chunk]]}
        part.add_many(Update(values, {}), weight=members[chunk] + 1.0, scale=np.ones(len(chunk)))
        one.take(part, chunk)
    return one.result().update.delta["w"]


def test_who_answered_the_second_stage_is_in_the_sum_and_who_did_not_answer_the_last_keeps_nothing() -> None:
    lived = group([3, 2, 1, 0, 3])
    assert lived.in_sum.tolist() == [True, True, False, False, True]
    assert lived.to_the_end.tolist() == [True, False, True]


@settings(max_examples=25, deadline=None)
@given(st.lists(st.sampled_from([0, 1, 2, 3, 3, 3, 3]), min_size=2, max_size=12))
def test_masks_change_no_bit_and_the_mean_is_the_weighted_one(answered: list[int]) -> None:
    made, lived = plan(), group(answered)
    rules = SecureGroup(made.settings, made.neighbourhood(len(answered), 2))
    assume(not any(rules.no_sum(stage, np.minimum(lived.answered, stage + 1)) for stage in range(len(STAGES))))
    masked = summed(made, lived, masks=True)
    assert torch.equal(masked, summed(made, lived, masks=False))
    members = np.flatnonzero(lived.in_sum)
    weight = torch.from_numpy(members + 1.0)
    wanted = (weight @ learnt(len(answered))[members].double()) / weight.sum()
    torch.testing.assert_close(masked, wanted, atol=made.vector.fixed_point.step, rtol=0.0)


@pytest.mark.parametrize("changed", [{"rotation": True}, {"ratio": 0.5}, {"rotation": True, "ratio": 0.25}])
def test_a_codecs_linear_parts_come_through_masks(changed: dict[str, object]) -> None:
    made, lived = plan(**changed), group([3, 3, 2, 1, 3, 3])
    assert torch.equal(summed(made, lived, masks=True), summed(made, lived, masks=False))


def test_a_devices_noise_is_the_same_in_every_replay_and_another_each_round() -> None:
    made, lived = plan(max_norm=1.0, noise_stddev=0.1, max_weight=1), group([3, 3, 3])
    assert torch.equal(summed(made, lived, masks=True), summed(made, lived, masks=False))
    other = SecureSum(made, lived, round_index=3, model_version=4, masks=False)
    part = KeptUpdates()
    part.add_many(Update({"w": learnt(3)}, {}), weight=np.ones(3), scale=np.ones(3))
    other.take(part, np.arange(3))
    assert not torch.equal(other.result().update.delta["w"], summed(made, lived, masks=False))
