"""The global model: how a closed round's accepted work becomes the next version."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from pocketfleet.device_sim.chunk_result import ChunkResult
from pocketfleet.device_sim.client import mean_evaluation
from pocketfleet.device_sim.cohort import Cohort, chunks
from pocketfleet.device_sim.device_store import DeviceStore
from pocketfleet.device_sim.divergence import diverged
from pocketfleet.device_sim.flight import Flights
from pocketfleet.device_sim.ledger import Ledger
from pocketfleet.device_sim.secure_stages import Group
from pocketfleet.device_sim.secure_sum import KeptUpdates, SecureSum
from pocketfleet.device_sim.workers import Trainers, one_torch_thread
from pocketfleet.errors import TrainingDivergedError
from pocketfleet.export.session import Session
from pocketfleet.training.aggregation import Aggregator, MeanAggregator
from pocketfleet.training.algorithm import Algorithm
from pocketfleet.training.codec import DownloadCodec
from pocketfleet.training.codec.error_feedback import state_with
from pocketfleet.training.examples import Examples
from pocketfleet.training.privacy.private_run import PrivateRun
from pocketfleet.training.round import Float64s, Int64s
from pocketfleet.training.staleness import staleness_discount
from pocketfleet.training.update import Update
from pocketfleet.training.weights import Tensors, Weights, tensors_sha256

__all__ = ["GlobalModel", "Learning"]

# Test examples a call; any number gives the same means up to rounding.
_EVALUATION_BATCH = 500
Columns = dict[str, npt.NDArray[Any]]
MakeSum = Callable[[Group, int, int], SecureSum]


@dataclass(frozen=True, slots=True, kw_only=True)
class Learning:
    """What a round taught: the mean loss while training, by examples, and how many updates were not finite.

    ``clipped``: values that a secure sum's fixed point cut, of all devices together.
    ``loss`` ``[k]`` is the root mean square of the steps' losses of each ``device`` ``[k]`` whose update was finite.
    """

    train_loss: float
    non_finite: int
    clipped: int = 0
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
        trainers: Trainers,
        store: DeviceStore,
        population: int,
        chunk_size: Callable[[int], int],
        make_aggregator: Callable[[], Aggregator] = MeanAggregator,
        staleness_exponent: float = 0.0,
        make_sum: MakeSum | None = None,
        download: DownloadCodec | None = None,
        residual: Tensors | None = None,
        privacy: PrivateRun | None = None,
    ) -> None:
        """Take the parts.

        Args:
            weights: of the untrained model.
            algorithm: makes the next model.
            session: evaluates.
            test: what it evaluates on.
            headline: the metric of the devices' rows.
            trainers: who trains cohorts.
            store: what devices keep.
            population: how many devices there are.
            chunk_size: devices a chunk, of a cohort of so many.
            make_aggregator: an empty aggregator for a round.
            staleness_exponent: of ``staleness_discount``.
            make_sum: of a group, its round and its version, the secure sum; chunks are then ``KeptUpdates``.
            download: what devices get of the weights; ``None``: every bit.
            residual: of a device that has not reported; ``None``: devices keep none.
            privacy: clips updates and adds noise to their mean; ``None``: it is the mean.
        """
        self.weights = weights
        self.server_state = algorithm.init(weights)
        self.version = 0
        # Versions that devices train from, by number; the newest is among them.
        self._versions = {0: (self.weights, self.server_state)}
        self._staleness_exponent = staleness_exponent
        self.store = store
        self._algorithm = algorithm
        self._download = download
        self._device_start = state_with(algorithm.device_init(weights), residual or {})
        self._session = session
        self._test = test
        self._headline = headline
        self._trainers = trainers
        self._population = population
        self._chunk_size = chunk_size
        self._make_aggregator = make_aggregator
        self._make_sum = make_sum
        self._updates: list[Columns] = []
        self._privacy = privacy

    @property
    def sha256(self) -> str:
        """Of trainable weights and buffers."""
        return tensors_sha256(self.weights.trainable | self.weights.buffers)

    def learn(self, accepted: Flights, *, round_index: int, ledger: Ledger, group: Group | None = None) -> Learning:
        """Train the accepted devices, and only them, and make the next version of their updates.

        Args:
            accepted: in rising order of device index.
            round_index: of the round that closed.
            ledger: takes the devices' metrics.
            group: under secure aggregation, whose sum it is; without a sum the version is the last one again.

        Raises:
            TrainingDivergedError: no update is finite, or the next model is not. The model is as it was; what devices
                keep may have moved on, which a checkpoint undoes.
        """
        if group is not None and group.no_sum:
            self._publish(self.weights, self.server_state)
            return Learning(train_loss=math.nan, non_finite=0)
        aggregator, summing = self._make_aggregator(), None
        if group is not None and self._make_sum is not None:
            summing = self._make_sum(group, round_index, self.version)
        knows = np.ones(len(accepted), np.bool_) if group is None else group.to_the_end
        rows = []
        for result in self._train(accepted):
            if summing is not None:
                assert isinstance(result.part, KeptUpdates)
                summing.take(result.part, result.cohort.place)
            else:
                aggregator.merge(result.part)
            kept = np.flatnonzero(result.finite)
            self._keep(result, kept[knows[result.cohort.place[kept]]])
            rows.append(_rows(result, kept, self._headline))
        trained = _joined(rows)
        non_finite = len(accepted) - len(trained["place"])
        if non_finite == len(accepted):
            raise self._diverged(round_index, f"all {non_finite} updates")
        found = summing.result() if summing is not None else None
        mean, reported = found.update if found is not None else aggregator.result(), len(trained["place"])
        if self._privacy is not None:
            # How many updates are finite is not told apart: they all count.
            mean, reported = self._private(self._privacy, mean, accepted, trained), len(accepted)
        weights, server_state = self._algorithm.server_update(
            self.weights, mean, self.server_state, participation=reported / self._population
        )
        if not all(bool(torch.isfinite(value).all()) for value in weights.trainable.values()):
            raise self._diverged(round_index, "the new model's weights")
        self._publish(weights, server_state)
        flights = accepted[trained["place"]]
        self._record(flights, trained, round_index=round_index, ledger=ledger)
        examples = flights["num_examples"]
        return Learning(
            train_loss=float((trained["train_loss"] * examples).sum() / examples.sum()),
            non_finite=non_finite,
            clipped=found.clipped if found is not None else 0,
            device=flights["device"].copy(),
            loss=trained["train_loss_rms"],
        )

    def _publish(self, weights: Weights, server_state: Tensors) -> None:
        """These are the next version."""
        self.weights, self.server_state = weights, server_state
        self.version += 1
        self._versions[self.version] = (weights, server_state)

    def _private(self, privacy: PrivateRun, mean: Update, accepted: Flights, trained: Columns) -> Update:
        """The mean of the finite updates with noise on it."""
        finite, norms = np.zeros(len(accepted), np.bool_), np.full(len(accepted), np.nan)
        finite[trained["place"]], norms[trained["place"]] = True, trained["norm"]
        return privacy.take(mean, device=accepted["device"], norms=norms, finite=finite, version=self.version + 1)

    @property
    def figures(self) -> Mapping[str, float]:
        """What a round's row holds beside the simulator's own columns: of privacy, where there is any."""
        return {} if self._privacy is None else self._privacy.figures

    def _train(self, accepted: Flights) -> Iterator[ChunkResult]:
        """Results in the order of the chunks, each device's from the version that it downloaded."""
        examples = accepted["num_examples"].astype(np.float64)
        cohort = Cohort(
            place=np.arange(len(accepted)),
            **{
                name: accepted[name].copy()
                for name in ("device", "steps", "batch_seed", "first_example", "num_present", "model_version")
            },
            weight=examples if self._by_examples else np.ones(len(accepted)),
            max_norm=np.full(len(accepted), np.inf if self._privacy is None else self._privacy.max_norm),
            scale=staleness_discount(self.version - accepted["model_version"], exponent=self._staleness_exponent),
        )
        models = {number: self._downloaded(number) for number in np.unique(accepted["model_version"]).tolist()}
        return self._trainers.train(
            chunks(cohort, size=self._chunk_size(len(cohort))),
            models,
            lambda chunk: self.store.states(chunk.device, self._device_start),
        )

    def _downloaded(self, version: int) -> tuple[Weights, Tensors]:
        """What devices train from: a version's weights as they decode them, and what the algorithm broadcasts."""
        weights, server_state = self._versions[version]
        seen = weights if self._download is None else self._download.seen(weights)
        return seen, self._algorithm.broadcast(server_state)

    @property
    def _by_examples(self) -> bool:
        return self._algorithm.weighting == "examples" and self._privacy is None

    def _keep(self, result: ChunkResult, kept: Int64s) -> None:
        """Write what devices with finite updates keep."""
        rows = torch.from_numpy(kept)
        whole = len(kept) == len(result.cohort)
        model, state = (
            tensors if whole else {name: value[rows] for name, value in tensors.items()}
            for tensors in (result.own_model, result.device_state)
        )
        self.store.write(result.cohort.device[kept], model=model, state=state)

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
            raise self._diverged(round_index, "the model's test loss")
        return {f"test_{name}": value for name, value in values.items()}

    def _diverged(self, round_index: int, what: str) -> TrainingDivergedError:
        return diverged(f"round {round_index}", what, private=self._privacy is not None, resumable=True)

    def state(self) -> Tensors:
        """Tensors for a checkpoint."""
        tensors = {"version": torch.tensor(self.version)}
        tensors |= {f"frozen/{name}": value for name, value in self.weights.frozen.items()}
        if self._privacy is not None:
            tensors |= {f"privacy/{name}": value for name, value in self._privacy.state().items()}
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
        if self._privacy is not None:
            self._privacy.restore(part("privacy/"))

    def take_updates(self) -> Sequence[Mapping[str, npt.NDArray[np.generic]]]:
        """Columns of the updates that were taken into a model since the last call; ``tables.update_rows``."""
        rows, self._updates = self._updates, []
        return rows

    def _record(self, flights: Flights, trained: Columns, *, round_index: int, ledger: Ledger) -> None:
        metrics = {name: trained[name] for name in ("metric_global", "metric_personalised")}
        names = ("start_s", "end_s", "device", "model_version", "num_present")
        self._updates.append(
            {name: flights[name].copy() for name in names}
            | {"round": np.full(len(flights), round_index), **metrics}
            | {name: trained[name] for name in ("num_held_out", "train_loss")}
        )
        ledger.column["trained_version"][flights["device"]] = flights["model_version"]
        for name, values in metrics.items():
            ledger.column[name][flights["device"]] = values


def _rows(result: ChunkResult, kept: Int64s, headline: str) -> Columns:
    """Columns of a chunk's devices with finite updates."""
    missing = np.full(len(result.cohort), np.nan)
    columns = {
        "place": result.cohort.place,
        "norm": result.norm,
        "train_loss": result.train_loss,
        "train_loss_rms": result.train_loss_rms,
        "num_held_out": result.num_held_out,
        "metric_global": result.metrics_before.get(headline, missing),
        "metric_personalised": result.metrics_after.get(headline, missing),
    }
    return {name: values[kept] for name, values in columns.items()}


def _joined(rows: Sequence[Columns]) -> Columns:
    """The columns of all chunks, in the order of the round's table."""
    columns = {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}
    order = np.argsort(columns["place"])
    return {name: values[order] for name, values in columns.items()}
