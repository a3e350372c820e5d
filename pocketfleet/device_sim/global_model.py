"""The global model: how a closed round's accepted work becomes the next version."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

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
from pocketfleet.training.round import Float64s, Int64s
from pocketfleet.training.update import Update
from pocketfleet.training.weights import Tensors, Weights, tensors_sha256

__all__ = ["GlobalModel", "Learning", "staleness_discount"]

# Test examples a call; any number gives the same means up to rounding.
_EVALUATION_BATCH = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Learning:
    """What a round taught: the mean loss while training, by examples, and how many updates were not finite.

    ``loss`` ``[k]`` is the root mean square of the steps' losses of each ``device`` ``[k]`` whose update was finite.
    """

    train_loss: float
    non_finite: int
    device: Int64s = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    loss: Float64s = field(default_factory=lambda: np.empty(0))


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
        staleness_exponent: float = 0.0,
    ) -> None:
        """Take the parts; ``staleness_exponent`` is of ``staleness_discount``."""
        self.weights = weights
        self.server_state = algorithm.init(weights)
        self.version = 0
        # Versions that devices train from, by number; the newest is among them.
        self._versions = {0: (self.weights, self.server_state)}
        self._staleness_exponent = staleness_exponent
        self.store = store
        self._algorithm = algorithm
        self._session = session
        self._test = test
        self._headline = headline
        self._workers = workers
        self._updates: list[dict[str, Any]] = []

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
        aggregator, losses = MeanAggregator(), 0.0
        loss_of: dict[int, float] = {}
        total, non_finite = 0, 0
        results = self._train(accepted)
        for flight, num_examples, result in zip(accepted, accepted["num_examples"].tolist(), results, strict=True):
            if not result.finite:
                non_finite += 1
                continue
            discount = staleness_discount(
                self.version - int(flight["model_version"]), exponent=self._staleness_exponent
            )
            aggregator.add(_scaled(result.update, discount), device=result.device, weight=num_examples)
            losses += result.train_loss * num_examples
            loss_of[result.device] = result.train_loss_rms
            total += num_examples
            self._remember(result, flight, round_index=round_index, ledger=ledger)
        if total == 0:
            raise TrainingDivergedError(_divergence(round_index, f"all {non_finite} updates"))
        weights, server_state = self._algorithm.server_update(self.weights, aggregator.result(), self.server_state)
        if not all(bool(torch.isfinite(value).all()) for value in weights.trainable.values()):
            raise TrainingDivergedError(_divergence(round_index, "the new model's weights"))
        self.weights, self.server_state = weights, server_state
        self.version += 1
        self._versions[self.version] = (weights, server_state)
        return Learning(
            train_loss=losses / total,
            non_finite=non_finite,
            device=np.array(list(loss_of), dtype=np.int64),
            loss=np.array(list(loss_of.values())),
        )

    def _train(self, accepted: Flights) -> Iterator[ClientResult]:
        """Results in the order of the devices, each from the version that its device downloaded."""
        assignments = [self._assignment(flight) for flight in accepted]
        versions = np.unique(accepted["model_version"]).tolist()
        if len(versions) == 1:
            # Of one version they come one at a time: memory holds one update whatever the cohort.
            yield from self._workers.train(assignments, *self._versions[versions[0]])
            return
        found: dict[int, ClientResult] = {}
        for version in versions:
            rows = np.flatnonzero(accepted["model_version"] == version)
            of_version = self._workers.train([assignments[row] for row in rows], *self._versions[version])
            found |= dict(zip(rows.tolist(), of_version, strict=True))
        yield from (found[row] for row in range(len(assignments)))

    def keep(self, versions: set[int]) -> None:
        """Forget all versions but these and the newest."""
        self._versions = {
            number: kept for number, kept in self._versions.items() if number in versions | {self.version}
        }

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
        tensors = {"version": torch.tensor(self.version)}
        tensors |= {f"frozen/{name}": value for name, value in self.weights.frozen.items()}
        for number, (weights, server_state) in self._versions.items():
            parts = {"trainable": weights.trainable, "buffers": weights.buffers, "server": server_state}
            for part, values in parts.items():
                tensors |= {f"{number}/{part}/{name}": value for name, value in values.items()}
        return tensors

    def restore(self, state: Tensors) -> None:
        """Continue from what ``state`` returned."""

        def part(prefix: str) -> Tensors:
            return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}

        frozen, self.version = part("frozen/"), int(state["version"])
        numbers = {int(name.partition("/")[0]) for name in state if name[0].isdigit()}
        self._versions = {
            number: (
                Weights(trainable=part(f"{number}/trainable/"), buffers=part(f"{number}/buffers/"), frozen=frozen),
                part(f"{number}/server/"),
            )
            for number in sorted(numbers | {self.version})
        }
        self.weights, self.server_state = self._versions[self.version]

    def take_updates(self) -> list[dict[str, Any]]:
        """One row an update that was taken into a model since the last call; ``tables.update_rows``."""
        rows, self._updates = self._updates, []
        return rows

    def _assignment(self, flight: np.void) -> Assignment:
        device, first = int(flight["device"]), int(flight["first_example"])
        return Assignment(
            device=device,
            steps=int(flight["steps"]),
            batch_seed=int(flight["batch_seed"]),
            device_state=self.store.state(device),
            present=range(first, first + int(flight["num_present"])),
        )

    def _remember(self, result: ClientResult, flight: np.void, *, round_index: int, ledger: Ledger) -> None:
        device, headline = result.device, self._headline
        self.store.write(device, round_index=round_index, model=result.personalised, state=result.device_state)
        metrics = {
            "metric_global": result.metrics_before.get(headline, np.nan),
            "metric_personalised": result.metrics_after.get(headline, np.nan),
        }
        row = {name: flight[name] for name in ("start_s", "end_s", "device", "model_version", "num_present")}
        row |= {"round": round_index, "num_held_out": result.num_held_out, "train_loss": result.train_loss, **metrics}
        self._updates.append(row)
        ledger.column["trained_version"][device] = flight["model_version"]
        for name, value in metrics.items():
            ledger.column[name][device] = value


def staleness_discount(staleness: int, *, exponent: float) -> float:
    """What an update counts whose version was ``staleness`` versions old: ``(1 + staleness) ** -exponent``.

    The polynomial of Xie et al. 2019, arXiv:1903.03934; FedBuff takes 0.5 (Nguyen et al. 2022, arXiv:2106.06639). It
    scales the update, not its weight in the mean: alone in a buffer, a stale update moves the model less.
    """
    return float((1.0 + staleness) ** -exponent)


def _scaled(update: Update, factor: float) -> Update:
    if factor == 1.0:
        return update
    return Update({name: value * factor for name, value in update.delta.items()}, update.buffers)


def _divergence(round_index: int, what: str) -> str:
    return (
        f"training diverged in round {round_index}: {what} not finite. Go on from the last checkpoint with a lower "
        "rate, such as --resume RUN --set training.learning_rate=0.001, or start anew with training.max_norm above 0"
    )
