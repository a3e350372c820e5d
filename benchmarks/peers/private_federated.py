"""Runs a workload in pfl-research: ``SimulatedBackend`` and ``FederatedAveraging`` over a ``PyTorchModel``.

One process computes with as many threads as torch takes; ``torchrun --nproc-per-node N`` runs several, by pfl's own
means.

Usage: python private_federated.py FOLDER RESULT.json ROUNDS
"""

import functools
import itertools
import sys
import time
from pathlib import Path
from typing import Any

import torch
from learner import losses, make_model
from pfl.aggregate.simulate import SimulatedBackend
from pfl.algorithm.base import NNAlgorithmParams
from pfl.algorithm.federated_averaging import FederatedAveraging
from pfl.callback.base import TrainingProcessCallback
from pfl.data.federated_dataset import FederatedDataset
from pfl.data.pytorch import PyTorchTensorDataset
from pfl.hyperparam.base import NNEvalHyperParams, NNTrainHyperParams
from pfl.internal.ops import pytorch_ops
from pfl.metrics import Metrics, Weighted
from pfl.model.pytorch import PyTorchModel
from result import Result, versions
from torch import nn
from workload import Workload

__all__ = ["main"]


class Learner(nn.Module):
    """The workload's model with the two methods that pfl calls."""

    def __init__(self, workload: Workload) -> None:
        super().__init__()
        self.kind = workload.model
        self.body = make_model(workload.model)
        self.body.load_state_dict(workload.initial_weights())

    def loss(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """The mean loss of a batch."""
        return losses(self.kind, self.body(x), y).mean()

    @torch.no_grad()
    def metrics(self, x: torch.Tensor, y: torch.Tensor) -> dict[str, Any]:
        """The sum of the losses, weighted by their number."""
        return {"loss": Weighted(float(losses(self.kind, self.body(x), y).sum()), len(x))}


class Curve(TrainingProcessCallback[Any]):
    """Keeps the loss on the common test examples, before the first round and after each."""

    def __init__(self, test: PyTorchTensorDataset) -> None:
        self._test = test
        self.losses: list[float] = []

    def _evaluate(self, model: PyTorchModel) -> Metrics:
        ((_, value),) = model.evaluate(self._test)
        self.losses.append(float(value.overall_value))
        return Metrics()

    def on_train_begin(self, *, model: PyTorchModel) -> Metrics:
        """Of the initial model."""
        return self._evaluate(model)

    def after_central_iteration(
        self, aggregate_metrics: Metrics, model: PyTorchModel, *, central_iteration: int
    ) -> tuple[bool, Metrics]:
        """Of every round's model."""
        del aggregate_metrics, central_iteration
        return False, self._evaluate(model)


def main() -> None:
    """Warm up with one round, then run all, and write what was measured."""
    folder, out, rounds = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    workload = Workload.load(folder)
    cohort = workload.cohorts.shape[1]

    def device_data(visit: int) -> PyTorchTensorDataset:
        return PyTorchTensorDataset(workload.visit(*divmod(visit, cohort)), user_id=str(visit))

    module = Learner(workload)
    model = PyTorchModel(
        module,
        local_optimizer_create=torch.optim.SGD,
        central_optimizer=torch.optim.SGD(module.parameters(), lr=1.0),
    )
    algorithm = FederatedAveraging()
    train_params = NNTrainHyperParams(
        local_batch_size=workload.batch_size, local_num_epochs=1, local_learning_rate=workload.learning_rate
    )

    def run(iterations: int) -> Curve:
        curve = Curve(PyTorchTensorDataset(workload.test()))
        # A user is a visit here, not a device: (round, place), in the order laid down.
        data = FederatedDataset(device_data, functools.partial(next, itertools.count()))
        algorithm.run(
            # pfl measures the devices' own losses in iteration 0, which is the warm-up's.
            NNAlgorithmParams(
                central_num_iterations=iterations,
                evaluation_frequency=1_000_000,
                train_cohort_size=cohort,
                val_cohort_size=None,
            ),
            SimulatedBackend(training_data=data, val_data=data),
            model,
            train_params,
            NNEvalHyperParams(local_batch_size=None),
            callbacks=[curve],
            send_metrics_to_platform=False,
        )
        return curve

    run(1)
    module.body.load_state_dict(workload.initial_weights())
    started = time.perf_counter()
    curve = run(1 + rounds)
    seconds = time.perf_counter() - started
    processes = pytorch_ops.distributed.world_size
    if pytorch_ops.distributed.global_rank == 0:
        Result(
            system=f"pfl-research, {processes} process{'es' if processes > 1 else ''}",
            workload=workload.name,
            seconds=seconds,
            device_steps=rounds * cohort * workload.steps,
            losses=curve.losses,
            versions=versions("pfl", "torch", "numpy"),
        ).save(out)


if __name__ == "__main__":
    main()
