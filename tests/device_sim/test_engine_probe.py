import dataclasses
import functools

import pytest
from both_clients import BothClients, both_clients
from torch import nn

from pocketfleet.device_sim.chunk_result import ChunkResult
from pocketfleet.device_sim.client import Client
from pocketfleet.device_sim.cohort import Cohort
from pocketfleet.device_sim.engine_plan import Way
from pocketfleet.device_sim.engine_probe import Probed, probe
from pocketfleet.device_sim.workers import ChunkTrainer
from pocketfleet.errors import InputError
from pocketfleet.training.task import load_task
from pocketfleet.training.weights import Tensors, Weights


@functools.cache
def boston() -> BothClients:
    return both_clients(load_task("boston"), devices=20, chunk=20)


def planned(*ways: Way, make, both: BothClients | None = None) -> Probed:
    both = both or boston()
    return probe(ways, make, both.one_by_one.data, both.weights, cohort=20, chunk=20, broadcast={}, device_start={})


def test_the_fastest_is_taken_and_its_reason_told() -> None:
    plan = planned("each", "batched", make=lambda way: boston().one_by_one if way == "each" else boston().batched)
    # One call of torch for twenty devices in place of twenty: on any machine.
    assert plan.way == "batched"
    assert 0.0 < plan.step_s < 1.0
    assert "us a device-step; batched" in plan.reason


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Wrong(Client):
    """Fast, and twice as far as the others."""

    def train_chunk(self, cohort: Cohort, weights: Weights, broadcast: Tensors, device_state: Tensors) -> ChunkResult:
        doubled = {**self.hyper, "learning_rate": 2 * self.hyper["learning_rate"]}
        result = dataclasses.replace(boston().batched, hyper=doubled).train_chunk(
            cohort, weights, broadcast, device_state
        )
        return dataclasses.replace(result)


def test_a_way_whose_update_is_another_one_is_not_taken() -> None:
    wrong = Wrong(**{name: getattr(boston().one_by_one, name) for name in Client.__slots__})
    plan = planned("each", "batched", make=lambda way: boston().one_by_one if way == "each" else wrong)
    assert plan.way == "each"
    assert "batched not possible: its update differs by" in plan.reason


def test_a_way_that_torch_cannot_map_is_told_with_its_reason() -> None:
    def make(way: Way) -> ChunkTrainer:
        if way == "batched":
            raise InputError("the model draws")
        return boston().one_by_one

    plan = planned("each", "batched", make=make)
    assert (plan.way, plan.reason.partition("; ")[2]) == ("each", "batched not possible: the model draws")


def test_a_model_that_fails_fails_in_the_users_terms() -> None:
    def make(way: Way) -> ChunkTrainer:
        raise InputError("the loss is no loss")

    with pytest.raises(InputError, match="the loss is no loss"):
        planned("each", "batched", make=make)


class Dropping:
    """Boston with dropout: its dice are drawn by the device, which cannot be mapped."""

    name = "dropping"

    def __init__(self) -> None:
        task = load_task("boston")
        self.loss, self.metrics = task.loss, task.metrics
        self.train_examples, self.test_examples = task.train_examples, task.test_examples

    def make_model(self) -> nn.Module:
        return nn.Sequential(nn.Linear(13, 8), nn.Dropout(0.5), nn.Linear(8, 1))


def test_a_model_that_drops_trains_device_by_device() -> None:
    # Features as they are, up to 700: at a higher rate the first steps diverge.
    both = both_clients(Dropping(), devices=20, chunk=20, hyper={"learning_rate": 1e-6})
    plan = planned("each", "batched", make=lambda way: both.one_by_one if way == "each" else both.batched, both=both)
    assert plan.way == "each"
    assert "batched not possible" in plan.reason


def test_a_model_that_diverges_at_once_is_left_to_the_run() -> None:
    both = both_clients(load_task("boston"), devices=20, hyper={"learning_rate": 1e30})
    plan = planned("each", "batched", make=lambda way: both.one_by_one if way == "each" else both.batched, both=both)
    assert (plan.way, plan.reason) == ("each", "its first steps are not finite: nothing to compare")
