"""Twenty rounds in float64 of every packaged task, by whoever computes chunks."""

import functools
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Protocol

import torch
from both_clients import BothClients, both_clients

from pocketfleet.device_sim.chunk_result import ChunkResult
from pocketfleet.device_sim.cohort import Cohort, chunks
from pocketfleet.device_sim.workers import ChunkTrainer
from pocketfleet.training.aggregation import MeanAggregator
from pocketfleet.training.task import load_task
from pocketfleet.training.train_step import StepSettings
from pocketfleet.training.weights import Tensors, Weights

__all__ = ["FLEETS", "start", "trainer", "twenty_rounds"]

ROUNDS = 20
# Devices, examples of each, steps of each in a round. Batches of 8: with 21 training examples the third one is partial.
FLEETS = {
    "boston": (9, 27, (1, 2, 3, 4, 5, 1, 2, 3, 4)),
    "mnist": (3, 27, (3, 2, 1)),
    "shakespeare": (3, 27, (3, 2, 1)),
    "synthetic": (9, 27, (1, 2, 3, 4, 5, 1, 2, 3, 4)),
    "watch": (3, 27, (3, 2, 1)),
}


class Trains(Protocol):
    """``Workers`` or ``RayWorkers``."""

    def train(self, work: Iterable[Cohort], models: Mapping[int, Any], states: Any) -> Iterator[ChunkResult]:  # noqa: ANN401
        """Results in order of the chunks."""
        ...


@functools.cache
def fleet(task: str) -> BothClients:
    """The clients of a task; its first call in a process makes them."""
    devices, examples, _ = FLEETS[task]
    settings = StepSettings(momentum=True, clipping=True)
    # Elsewhere than in a test's process nobody has said so yet.
    torch.set_num_threads(1)
    return both_clients(load_task(task), devices=devices, examples_per_device=examples, settings=settings, float64=True)


def trainer(task: str, *_folder: str, batched: bool) -> ChunkTrainer:
    """One of a task's clients; on a cluster also given the folder of its files."""
    return fleet(task).batched if batched else fleet(task).one_by_one


def start(task: str) -> Tensors:
    """The model before the first round, ``[1, ...]``."""
    return stacked_once(fleet(task).weights)


def twenty_rounds(task: str, workers: Trains, *, size: int) -> Tensors:
    """The model after the rounds, ``[1, ...]``, in chunks of ``size`` devices."""
    devices, _, steps = FLEETS[task]
    algorithm, weights = fleet(task).one_by_one.algorithm, fleet(task).weights
    state = algorithm.init(weights)
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
