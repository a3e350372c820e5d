"""What one device computes in a round: its steps on its own examples, and how well it predicts before and after.

Who executes the steps is a ``Session``: eager PyTorch, or the exported program in its runtime. Devices train one after
the other here; ``batched_client`` trains many at once, and is held against this.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import torch

from pocketfleet.device_sim.attack import Attackers
from pocketfleet.device_sim.chunk_result import ChunkResult, row_of, stacked
from pocketfleet.device_sim.cohort import Cohort
from pocketfleet.device_sim.device_data import HeldExamples
from pocketfleet.device_sim.uplink import Uplink
from pocketfleet.errors import InputError
from pocketfleet.export.session import Session
from pocketfleet.training.aggregation import Aggregator, MeanAggregator
from pocketfleet.training.algorithm import Algorithm, Trained
from pocketfleet.training.batches import batch_indices
from pocketfleet.training.codec.error_feedback import parted_state
from pocketfleet.training.dropout import step_seeds
from pocketfleet.training.examples import Examples
from pocketfleet.training.train_step import StepSettings, TrainState, hyper_tensors
from pocketfleet.training.update import Update, update_of
from pocketfleet.training.weights import Tensors, Weights

__all__ = ["Assignment", "Client", "ClientResult", "mean_evaluation"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Assignment:
    """The work that one device completed: ``steps`` batches drawn from ``batch_seed``.

    ``present``: places of the examples that it held, in order of arrival; ``None``: all of its own.
    """

    device: int
    steps: int
    batch_seed: int
    device_state: Tensors
    present: range | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientResult:
    """What training on one device gave.

    ``train_loss`` is the mean of the steps' losses, ``train_loss_rms`` the root of the mean of their squares.
    ``personalised`` is the device's own model (trainable weights and buffers), empty where devices keep none;
    ``metrics_before`` and ``metrics_after`` are means over its ``num_held_out`` held-out examples, empty without.
    """

    device: int
    update: Update
    train_loss: float
    train_loss_rms: float
    device_state: Tensors
    personalised: Tensors = field(default_factory=dict)
    metrics_before: dict[str, float] = field(default_factory=dict)
    metrics_after: dict[str, float] = field(default_factory=dict)
    num_held_out: int = 0

    @property
    def finite(self) -> bool:
        """Whether the losses and every value of the update are finite."""
        return math.isfinite(self.train_loss) and self.update.finite


def mean_evaluation(session: Session, weights: Weights, examples: Examples, *, batch_size: int) -> dict[str, float]:
    """Loss and metrics as means over examples, by name; empty without examples."""
    totals: dict[str, float] = {}
    for start in range(0, len(examples), batch_size):
        x, y = examples.x[start : start + batch_size], examples.y[start : start + batch_size]
        for name, value in session.evaluate(weights, x, y).items():
            totals[name] = totals.get(name, 0.0) + float(value) * len(x)
    return {name: total / len(examples) for name, total in totals.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Client:
    """The training app of a device.

    Args:
        session: executes steps and evaluations.
        data: of the whole fleet; a call reads one device's.
        algorithm: what is added to the steps.
        settings: of the steps, the algorithm's terms switched on.
        hyper: the experiment's hyper-parameters by name.
        batch_size: examples a step.
        personalised: whether a device keeps the model that it trained, and measures it.
        make_aggregator: an empty aggregator for a chunk's updates.
        attackers: of the fleet; ``None``: all devices are honest.
        uplink: what arrives of updates; ``None``: every bit.
    """

    session: Session
    data: HeldExamples
    algorithm: Algorithm
    settings: StepSettings
    hyper: Mapping[str, float]
    batch_size: int
    personalised: bool = True
    make_aggregator: Callable[[], Aggregator] = MeanAggregator
    attackers: Attackers | None = None
    uplink: Uplink | None = None

    def train_chunk(self, cohort: Cohort, weights: Weights, broadcast: Tensors, device_state: Tensors) -> ChunkResult:
        """Train the devices of a chunk one after the other.

        Args:
            cohort: of one model version.
            weights: what they downloaded.
            broadcast: the algorithm's, downloaded too.
            device_state: what they keep, stacked ``[k, ...]``: the algorithm's state, and what their updates did not
                say; empty where devices keep none.
        """
        device_state, residual = parted_state(device_state)
        results = [
            self.train(
                Assignment(
                    device=int(cohort.device[row]),
                    steps=int(cohort.steps[row]),
                    batch_seed=int(cohort.batch_seed[row]),
                    device_state=row_of(device_state, row),
                    present=cohort.present(row),
                ),
                weights,
                broadcast,
            )
            for row in range(len(cohort))
        ]
        return ChunkResult.of(
            cohort,
            Update(
                stacked([result.update.delta for result in results]),
                stacked([result.update.buffers for result in results]),
                stacked([result.update.extra for result in results]),
            ),
            self.make_aggregator(),
            attackers=self.attackers,
            uplink=self.uplink,
            residual=residual,
            train_loss=np.array([result.train_loss for result in results]),
            train_loss_rms=np.array([result.train_loss_rms for result in results]),
            num_held_out=np.array([result.num_held_out for result in results]),
            metrics_before=_columns([result.metrics_before for result in results]),
            metrics_after=_columns([result.metrics_after for result in results]),
            own_model=stacked([result.personalised for result in results]),
            device_state=stacked([result.device_state for result in results]),
        )

    def train(self, assignment: Assignment, weights: Weights, broadcast: Tensors) -> ClientResult:
        """Train from the downloaded weights; nothing outside the result changes."""
        terms = self.algorithm.client_start(weights, broadcast, assignment.device_state)
        hyper = {**self.hyper, **terms.hyper}
        models = [
            (
                TrainState.start(weights, self.settings, correction=terms.correction, trainable=terms.start),
                hyper_tensors(self.settings, hyper),
            )
        ]
        if terms.personal:
            models.append(
                (
                    TrainState.start(weights, self.settings, trainable=terms.personal),
                    hyper_tensors(self.settings, {**hyper, **terms.personal_hyper}),
                )
            )
        (end, *own), losses = self._steps(assignment, models)
        update, device_state = self.algorithm.client_update(
            Trained(
                update=update_of(weights, end),
                steps=torch.tensor(float(assignment.steps)),
                hyper=hyper,
                personal=own[0].trainable if own else {},
            ),
            broadcast,
            assignment.device_state,
        )
        result = ClientResult(
            device=assignment.device,
            update=update,
            train_loss=float(losses.mean()),
            train_loss_rms=float(losses.square().mean().sqrt()),
            device_state=device_state,
        )
        return self._measured(result, own[0] if own else end, assignment, weights) if self.personalised else result

    def _measured(
        self, result: ClientResult, own: TrainState, assignment: Assignment, weights: Weights
    ) -> ClientResult:
        """The result with the device's own model, and both models measured on what it holds out."""
        held_out = self.data.held_out(assignment.device, assignment.present)
        trained = Weights(trainable=own.trainable, buffers=own.buffers, frozen=weights.frozen)
        return replace(
            result,
            personalised=own.trainable | own.buffers,
            metrics_before=mean_evaluation(self.session, weights, held_out, batch_size=self.batch_size),
            metrics_after=mean_evaluation(self.session, trained, held_out, batch_size=self.batch_size),
            num_held_out=len(held_out),
        )

    def _steps(
        self, assignment: Assignment, models: list[tuple[TrainState, Tensors]]
    ) -> tuple[list[TrainState], torch.Tensor]:
        """The models after the assignment's steps, and the losses ``[steps]`` of the first."""
        examples = self.data.training(assignment.device, assignment.present)
        if self.attackers is not None:
            examples = self.attackers.examples(examples, assignment.device)
        losses = []
        batches = batch_indices(
            len(examples),
            steps=assignment.steps,
            batch_size=self.batch_size,
            batch_seed=assignment.batch_seed,
        )
        states = [state for state, _ in models]
        for rows, seed in zip(batches, step_seeds(assignment.batch_seed, assignment.steps), strict=True):
            batch = examples.take(torch.from_numpy(rows))
            try:
                stepped = [
                    self.session.train_step(state, batch.x, batch.y, hyper, dropout_seed=seed)
                    for state, (_, hyper) in zip(states, models, strict=True)
                ]
            except (RuntimeError, ValueError, IndexError) as exc:
                hint = ". Batch norm cannot train on one example: choose a training.batch_size that leaves none over"
                raise InputError(
                    f"the task's model fails on a batch of {len(batch)} of the {len(examples)} examples of device "
                    f"{assignment.device}: {exc}{hint if len(batch) == 1 else ''}"
                ) from exc
            losses.append(stepped[0][0])
            states = [state for _, state in stepped]
        return states, torch.stack(losses).to(torch.float64)


def _columns(rows: list[dict[str, float]]) -> dict[str, np.ndarray[tuple[int], np.dtype[np.float64]]]:
    """Metrics of single devices as columns by name, nan where a device has none."""
    names = {name: None for row in rows for name in row}
    return {name: np.array([row.get(name, math.nan) for row in rows]) for name in names}
