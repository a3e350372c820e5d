"""Twenty rounds in float64: whoever computes them, the models agree."""

import functools

import pytest
from both_clients import both_clients, distances

from pocketfleet.device_sim.cohort import Cohort, chunks
from pocketfleet.device_sim.workers import ChunkTrainer, Workers
from pocketfleet.training.aggregation import MeanAggregator
from pocketfleet.training.task import load_task
from pocketfleet.training.train_step import StepSettings
from pocketfleet.training.weights import Tensors, Weights

ROUNDS = 20
# Devices, examples of each, steps of each in a round. Batches of 8: with 21 training examples the third one is partial.
FLEETS = {"boston": (9, 27, (1, 2, 3, 4, 5, 1, 2, 3, 4)), "mnist": (3, 27, (3, 2, 1))}


@functools.cache
def fleet(task: str):
    devices, examples, _ = FLEETS[task]
    settings = StepSettings(momentum=True, clipping=True)
    return both_clients(load_task(task), devices=devices, examples_per_device=examples, settings=settings, float64=True)


def trainer(task: str, *, batched: bool) -> ChunkTrainer:
    return fleet(task).batched if batched else fleet(task).one_by_one


def trained(task: str, *, batched: bool, processes: int, size: int) -> Tensors:
    """The model after the rounds."""
    devices, _, steps = FLEETS[task]
    make = functools.partial(trainer, task, batched=batched)
    algorithm, weights = fleet(task).one_by_one.algorithm, fleet(task).weights
    state = algorithm.init(weights)
    with Workers(make, processes=processes) as workers:
        for index in range(ROUNDS):
            seeds = [100 * index + device for device in range(devices)]
            cohort = Cohort.of_devices(range(devices), steps=steps, batch_seed=seeds)
            cohort.weight[:] = steps
            total = MeanAggregator()
            for result in workers.train(chunks(cohort, size=size), {0: (weights, {})}, no_states):
                total.merge(result.part)
            weights, state = algorithm.server_update(weights, total.result(), state, participation=1.0)
    return stacked_once(weights)


def no_states(chunk: Cohort) -> Tensors:
    return {}


def stacked_once(weights: Weights) -> Tensors:
    return {name: value.unsqueeze(0) for name, value in weights.trainable.items()}


@pytest.mark.parametrize("task", FLEETS)
@pytest.mark.parametrize(("batched", "processes", "size"), [(True, 1, 4), (True, 2, 3), (False, 2, 2)])
def test_models_agree_within_a_billionth_after_twenty_rounds(
    task: str, batched: bool, processes: int, size: int
) -> None:
    plain = trained(task, batched=False, processes=1, size=1)
    moved = distances(plain, stacked_once(fleet(task).weights))
    assert moved.max() > 0.01
    assert distances(trained(task, batched=batched, processes=processes, size=size), plain).max() < 1e-9
