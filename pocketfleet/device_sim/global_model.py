"""The global model: how a closed round's accepted work becomes the next version."""

import math
from dataclasses import dataclass

import numpy as np
import torch

from pocketfleet.device_sim.client import Assignment, ClientResult, mean_evaluation
from pocketfleet.device_sim.device_store import DeviceStore
from pocketfleet.device_sim.flight import Flights
from pocketfleet.device_sim.ledger import Ledger
from pocketfleet.device_sim.workers import Workers, one_torch_thread
from pocketfleet.errors import TrainingDivergedError
from pocketfleet.export.session import Session
from pocketfleet.training.aggregation import MeanAggregator
from pocketfleet.training.algorithm import Algorithm
from pocketfleet.training.examples import Examples
from pocketfleet.training.weights import Tensors, Weights, tensors_sha256

__all__ = ["GlobalModel", "Learning"]

# Test examples a call; any number gives the same means up to rounding.
_EVALUATION_BATCH = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Learning:
    """What a round taught: the mean loss while training, by examples, and how many updates were not finite."""

    train_loss: float
    non_finite: int


class GlobalModel:
    """The current weights and the server's state; version 0 is the untrained model."""

    def __init__(
        self,
        *,
        weights: Weights,
        algorithm: Algorithm,
        session: Session,
        test: Examples,
        headline: str,
        workers: Workers,
        store: DeviceStore,
    ) -> None:
        self.weights = weights
        self.server_state = algorithm.init(weights)
        self.store = store
        self._algorithm = algorithm
        self._session = session
        self._test = test
        self._headline = headline
        self._workers = workers

    @property
    def sha256(self) -> str:
        """Of trainable weights and buffers."""
        return tensors_sha256(self.weights.trainable | self.weights.buffers)

    def learn(self, accepted: Flights, *, round_index: int, ledger: Ledger) -> Learning:
        """Train the accepted devices, and only them, and make the next version of their updates.

        Args:
            accepted: in rising order of device index.
            round_index: of the round that closed.
            ledger: takes the devices' metrics.

        Raises:
            TrainingDivergedError: no update is finite, or the next model is not. The model is as it was; what devices
                keep may have moved on, which a checkpoint undoes.
        """
        work = [accepted[name].tolist() for name in ("device", "steps", "batch_seed")]
        assignments = [
            Assignment(device=device, steps=steps, batch_seed=seed, device_state=self.store.state(device))
            for device, steps, seed in zip(*work, strict=True)
        ]
        aggregator, losses = MeanAggregator(), 0.0
        total, non_finite = 0, 0
        results = self._workers.train(assignments, self.weights, self.server_state)
        versions = accepted["model_version"].tolist()
        for num_examples, version, result in zip(accepted["num_examples"].tolist(), versions, results, strict=True):
            if not result.finite:
                non_finite += 1
                continue
            aggregator.add(result.update, device=result.device, weight=num_examples)
            losses += result.train_loss * num_examples
            total += num_examples
            self._remember(result, model_version=version, round_index=round_index, ledger=ledger)
        if total == 0:
            raise TrainingDivergedError(_divergence(round_index, f"all {non_finite} updates"))
        weights, server_state = self._algorithm.server_update(self.weights, aggregator.result(), self.server_state)
        if not all(bool(torch.isfinite(value).all()) for value in weights.trainable.values()):
            raise TrainingDivergedError(_divergence(round_index, "the new model's weights"))
        self.weights, self.server_state = weights, server_state
        return Learning(train_loss=losses / total, non_finite=non_finite)

    def evaluate(self, *, round_index: int) -> dict[str, float]:
        """Loss and metrics on the examples that no device holds, names beginning with ``test_``.

        Raises:
            TrainingDivergedError: the loss is not finite.
        """
        with one_torch_thread():
            values = mean_evaluation(self._session, self.weights, self._test, batch_size=_EVALUATION_BATCH)
        if not math.isfinite(values.get("loss", 0.0)):
            raise TrainingDivergedError(_divergence(round_index, "the model's test loss"))
        return {f"test_{name}": value for name, value in values.items()}

    def state(self) -> Tensors:
        """Tensors for a checkpoint."""
        parts = {"trainable": self.weights.trainable, "buffers": self.weights.buffers, "frozen": self.weights.frozen}
        named = {f"{part}/{name}": value for part, tensors in parts.items() for name, value in tensors.items()}
        return named | {f"server/{name}": value for name, value in self.server_state.items()}

    def restore(self, state: Tensors) -> None:
        """Continue from what ``state`` returned."""

        def part(prefix: str) -> Tensors:
            return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}

        self.weights = Weights(trainable=part("trainable/"), buffers=part("buffers/"), frozen=part("frozen/"))
        self.server_state = part("server/")

    def _remember(self, result: ClientResult, *, model_version: int, round_index: int, ledger: Ledger) -> None:
        device = result.device
        self.store.write(device, round_index=round_index, model=result.personalised, state=result.device_state)
        ledger.column["trained_version"][device] = model_version
        ledger.column["metric_global"][device] = result.metrics_before.get(self._headline, np.nan)
        ledger.column["metric_personalised"][device] = result.metrics_after.get(self._headline, np.nan)


def _divergence(round_index: int, what: str) -> str:
    return (
        f"training diverged in round {round_index}: {what} not finite. Go on from the last checkpoint with a lower "
        "rate, such as --resume RUN --set training.learning_rate=0.001, or start anew with training.max_norm above 0"
    )
