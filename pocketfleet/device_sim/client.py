"""What one device computes in a round: its steps on its own examples, and how well it predicts before and after.

Who executes the steps is a ``Session``: eager PyTorch, or the exported program in its runtime.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from pocketfleet.device_sim.device_data import DeviceData
from pocketfleet.errors import InputError
from pocketfleet.export.session import Session
from pocketfleet.training.algorithm import Algorithm
from pocketfleet.training.batches import batch_indices
from pocketfleet.training.dropout import step_seed
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
    ``personalised`` is the locally trained model (trainable weights and buffers); ``metrics_before`` and
    ``metrics_after`` are means over the device's ``num_held_out`` held-out examples, empty where it has none.
    """

    device: int
    update: Update
    train_loss: float
    train_loss_rms: float
    device_state: Tensors
    personalised: Tensors
    metrics_before: dict[str, float]
    metrics_after: dict[str, float]
    num_held_out: int

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
    """

    session: Session
    data: DeviceData
    algorithm: Algorithm
    settings: StepSettings
    hyper: Mapping[str, float]
    batch_size: int

    def train(self, assignment: Assignment, weights: Weights, server_state: Tensors) -> ClientResult:
        """Train from the downloaded weights; nothing outside the result changes."""
        terms = self.algorithm.client_start(weights, server_state, assignment.device_state)
        hyper = hyper_tensors(self.settings, {**self.hyper, **terms.hyper})
        start = TrainState.start(weights, self.settings, correction=terms.correction)
        end, losses = self._steps(assignment, start, hyper)
        update, device_state = self.algorithm.client_update(
            update_of(weights, end),
            steps=assignment.steps,
            server_state=server_state,
            device_state=assignment.device_state,
        )
        held_out = self.data.held_out(assignment.device, assignment.present)
        trained = Weights(trainable=end.trainable, buffers=end.buffers, frozen=weights.frozen)
        return ClientResult(
            device=assignment.device,
            update=update,
            train_loss=float(losses.mean()),
            train_loss_rms=float(losses.square().mean().sqrt()),
            device_state=device_state,
            personalised=end.trainable | end.buffers,
            metrics_before=mean_evaluation(self.session, weights, held_out, batch_size=self.batch_size),
            metrics_after=mean_evaluation(self.session, trained, held_out, batch_size=self.batch_size),
            num_held_out=len(held_out),
        )

    def _steps(self, assignment: Assignment, state: TrainState, hyper: Tensors) -> tuple[TrainState, torch.Tensor]:
        examples = self.data.training(assignment.device, assignment.present)
        losses = []
        batches = batch_indices(
            len(examples),
            steps=assignment.steps,
            batch_size=self.batch_size,
            batch_seed=assignment.batch_seed,
        )
        for step, rows in enumerate(batches):
            batch = examples.take(torch.from_numpy(rows))
            try:
                loss, state = self.session.train_step(
                    state, batch.x, batch.y, hyper, dropout_seed=step_seed(assignment.batch_seed, step)
                )
            except (RuntimeError, ValueError, IndexError) as exc:
                hint = ". Batch norm cannot train on one example: choose a training.batch_size that leaves none over"
                raise InputError(
                    f"the task's model fails on a batch of {len(batch)} of the {len(examples)} examples of device "
                    f"{assignment.device}: {exc}{hint if len(batch) == 1 else ''}"
                ) from exc
            losses.append(loss)
        return state, torch.stack(losses).to(torch.float64)
