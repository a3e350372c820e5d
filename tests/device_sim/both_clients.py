"""A client that trains device by device and one that trains many at once, over the same task and devices."""

from dataclasses import dataclass

import numpy as np
import torch

from pocketfleet.device_sim.batched_client import BatchedClient
from pocketfleet.device_sim.chunk_result import ChunkResult
from pocketfleet.device_sim.client import Client
from pocketfleet.device_sim.cohort import Cohort, chunks
from pocketfleet.device_sim.device_data import DeviceData
from pocketfleet.export.session import EagerSession
from pocketfleet.training.algorithm import Algorithm
from pocketfleet.training.algorithms.fedavg import FedAvg
from pocketfleet.training.batched_step import BatchedStep, maskable
from pocketfleet.training.examples import Examples
from pocketfleet.training.server_optimizer import ServerSgd
from pocketfleet.training.task import Task, check_task, initial_model
from pocketfleet.training.train_step import StepSettings, TrainStep
from pocketfleet.training.weights import Tensors, Weights

__all__ = ["BothClients", "both_clients", "distances"]

HYPER = {"learning_rate": 0.01, "momentum": 0.5, "weight_decay": 0.01, "max_norm": 5.0}


@dataclass(frozen=True, kw_only=True)
class BothClients:
    one_by_one: Client
    batched: BatchedClient
    weights: Weights

    def results(
        self, cohort: Cohort, *, size: int, device_state: Tensors | None = None, broadcast: Tensors | None = None
    ) -> list[tuple[ChunkResult, ...]]:
        """Each chunk's result by both."""
        state, broadcast = device_state or {}, broadcast or {}
        return [
            (
                self.one_by_one.train_chunk(chunk, self.weights, broadcast, own),
                self.batched.train_chunk(chunk, self.weights, broadcast, own),
            )
            for chunk in chunks(cohort, size=size)
            for own in [{name: value[torch.from_numpy(chunk.place)] for name, value in state.items()}]
        ]


def both_clients(
    task: Task,
    *,
    devices: int,
    examples_per_device: int = 0,
    kind: str = "iid",
    alpha: float = 1.0,
    settings: StepSettings | None = None,
    algorithm: Algorithm | None = None,
    batch_size: int = 8,
    float64: bool = False,
    compiled: bool = False,
    chunk: int = 16,
    hyper: dict[str, float] | None = None,
) -> BothClients:
    algorithm = algorithm or FedAvg(server_optimizer=ServerSgd())
    settings = algorithm.step_settings(settings or StepSettings())
    model = initial_model(task, seed=3)
    data = DeviceData(task, kind=kind, devices=devices, seed=5, alpha=alpha, examples_per_device=examples_per_device)
    richest = int(data.num_training.argmax())
    weights = check_task(task, model, data.training(richest)).with_frozen(data.scaling(model))
    if float64:
        weights = Weights(**{name: wide(getattr(weights, name)) for name in ("trainable", "buffers", "frozen")})
        data.examples = Examples(*wide({"x": data.examples.x, "y": data.examples.y}).values())
    step = TrainStep(model, task.loss, settings)
    sample = data.training(richest).take(torch.arange(4))
    shared = {
        "data": data,
        "algorithm": algorithm,
        "settings": settings,
        "hyper": hyper or HYPER,
        "batch_size": batch_size,
    }
    return BothClients(
        one_by_one=Client(session=EagerSession(task, model, settings), **shared),
        batched=BatchedClient(
            task=task,
            step=BatchedStep(step, masked=maskable(model, task.loss, weights, sample.x, sample.y), compiled=compiled),
            train_step=step,
            chunk=chunk,
            **shared,
        ),
        weights=weights,
    )


def wide(tensors: Tensors) -> Tensors:
    return {name: value.double() if value.is_floating_point() else value for name, value in tensors.items()}


def distances(found: Tensors, expected: Tensors) -> np.ndarray:
    """Relative norm of each device's difference, tensors stacked ``[k, ...]``."""
    assert sorted(found) == sorted(expected)
    flat_found, flat_expected = (
        torch.cat([tensors[name].reshape(len(tensors[name]), -1).double() for name in sorted(expected)], dim=1)
        for tensors in (found, expected)
    )
    return ((flat_found - flat_expected).norm(dim=1) / flat_expected.norm(dim=1)).numpy()
