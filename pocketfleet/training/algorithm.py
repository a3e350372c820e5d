"""A federated algorithm: what a device adds to its steps, what it reports, what the server makes of the mean.

An algorithm is any object with the attributes of ``Algorithm``; each call is pure. What it adds to a step must be
expressed by ``StepSettings`` and ``ClientTerms``, so that exported programs can run it on a phone.
"""

from dataclasses import dataclass, field, replace
from typing import Protocol, runtime_checkable

from pocketfleet.training.server_optimizer import ServerOptimizer
from pocketfleet.training.train_step import StepSettings
from pocketfleet.training.update import Update
from pocketfleet.training.weights import Tensors, Weights

__all__ = ["Algorithm", "ClientTerms", "FedAvg", "FedProx"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientTerms:
    """What one device's steps add: hyper-parameters beside the experiment's, and a correction of the gradient."""

    hyper: dict[str, float] = field(default_factory=dict)
    correction: Tensors | None = None


@runtime_checkable
class Algorithm(Protocol):
    """The seam.

    ``server_state`` belongs to the run and ``device_state`` to one device (empty before its first round); both are
    tensors by name and part of checkpoints.
    """

    @property
    def name(self) -> str:
        """A short word for it, such as ``fedavg``."""
        ...

    def step_settings(self, settings: StepSettings) -> StepSettings:
        """The experiment's settings with the terms switched on that this algorithm needs."""
        ...

    def init(self, weights: Weights) -> Tensors:
        """The server's state before the first round."""
        ...

    def client_start(self, weights: Weights, server_state: Tensors, device_state: Tensors) -> ClientTerms:
        """What a device adds to its steps, from the model it downloaded."""
        ...

    def client_update(
        self, update: Update, *, steps: int, server_state: Tensors, device_state: Tensors
    ) -> tuple[Update, Tensors]:
        """What a device reports after ``steps`` steps, and its next state."""
        ...

    def server_update(self, weights: Weights, mean: Update, server_state: Tensors) -> tuple[Weights, Tensors]:
        """The next model and server state from the mean of the reports (``float64``)."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class FedAvg:
    """McMahan et al. 2017, arXiv:1602.05629, algorithm 1, with a server optimizer (Reddi et al. 2021)."""

    server_optimizer: ServerOptimizer
    name: str = "fedavg"

    def step_settings(self, settings: StepSettings) -> StepSettings:
        """Nothing is added."""
        return settings

    def init(self, weights: Weights) -> Tensors:
        """The server optimizer's state."""
        return self.server_optimizer.init(weights.trainable)

    def client_start(self, weights: Weights, server_state: Tensors, device_state: Tensors) -> ClientTerms:  # noqa: ARG002
        """Nothing is added."""
        return ClientTerms()

    def client_update(
        self,
        update: Update,
        *,
        steps: int,  # noqa: ARG002
        server_state: Tensors,  # noqa: ARG002
        device_state: Tensors,
    ) -> tuple[Update, Tensors]:
        """The update as it is."""
        return update, device_state

    def server_update(self, weights: Weights, mean: Update, server_state: Tensors) -> tuple[Weights, Tensors]:
        """One step of the server optimizer; batch-norm statistics become the reports' mean."""
        trainable, server_state = self.server_optimizer.step(weights.trainable, mean.delta, server_state)
        # Counters (int64) are means too and go back to whole numbers.
        buffers = {
            name: (value if weights.buffers[name].is_floating_point() else value.round()).to(
                weights.buffers[name].dtype
            )
            for name, value in mean.buffers.items()
        }
        return replace(weights, trainable=trainable, buffers=buffers), server_state


@dataclass(frozen=True, slots=True, kw_only=True)
class FedProx(FedAvg):
    """Li et al. 2020, arXiv:1812.06127, algorithm 2: ``mu / 2 * |w - w_t|^2`` is added to each device's loss."""

    proximal_mu: float
    name: str = "fedprox"

    def step_settings(self, settings: StepSettings) -> StepSettings:
        """The proximal term is added."""
        return replace(settings, proximal=True)

    def client_start(self, weights: Weights, server_state: Tensors, device_state: Tensors) -> ClientTerms:  # noqa: ARG002
        """The strength of the proximal term; its anchor is the downloaded model."""
        return ClientTerms(hyper={"proximal_mu": self.proximal_mu})
