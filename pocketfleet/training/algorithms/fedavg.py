"""FedAvg: the mean of what devices learnt, weighted by their examples (McMahan et al. 2017, arXiv:1602.05629).

Its algorithm 1, with a server optimizer where the paper adds the mean (Reddi et al. 2021, arXiv:2003.00295).
"""

from dataclasses import dataclass, replace

from pocketfleet.training.algorithm import ClientTerms, Trained, Weighting
from pocketfleet.training.server_optimizer import ServerOptimizer
from pocketfleet.training.train_step import StepSettings
from pocketfleet.training.update import Update
from pocketfleet.training.weights import Tensors, Weights

__all__ = ["FedAvg", "mean_buffers"]


@dataclass(frozen=True, slots=True, kw_only=True)
class FedAvg:
    """Nothing is added to the steps, nothing is kept on devices; weights left out of the reports do not move."""

    server_optimizer: ServerOptimizer
    name: str = "fedavg"
    weighting: Weighting = "examples"

    def step_settings(self, settings: StepSettings) -> StepSettings:
        """Nothing is added."""
        return settings

    def init(self, weights: Weights) -> Tensors:
        """The server optimizer's state."""
        return self.server_optimizer.init(weights.trainable)

    def device_init(self, weights: Weights) -> Tensors:  # noqa: ARG002 - the seam's signature, here and below
        """Devices keep nothing."""
        return {}

    def broadcast(self, server_state: Tensors) -> Tensors:  # noqa: ARG002
        """Nothing beside the weights."""
        return {}

    def client_start(self, weights: Weights, broadcast: Tensors, device_state: Tensors) -> ClientTerms:  # noqa: ARG002
        """Nothing is added."""
        return ClientTerms()

    def client_update(self, trained: Trained, broadcast: Tensors, device_state: Tensors) -> tuple[Update, Tensors]:  # noqa: ARG002
        """The update as it is."""
        return trained.update, device_state

    def server_update(
        self,
        weights: Weights,
        mean: Update,
        server_state: Tensors,
        *,
        participation: float,  # noqa: ARG002
    ) -> tuple[Weights, Tensors]:
        """One step of the server optimizer along the mean; batch-norm statistics become the reports' mean."""
        reported = {name: weights.trainable[name] for name in mean.delta}
        moved, server_state = self.server_optimizer.step(reported, mean.delta, server_state)
        buffers = weights.buffers | mean_buffers(weights, mean)
        return replace(weights, trainable=weights.trainable | moved, buffers=buffers), server_state


def mean_buffers(weights: Weights, mean: Update) -> Tensors:
    """The reports' mean buffers in the types of ``weights``: counters (``int64``) go back to whole numbers."""
    return {
        name: (value if weights.buffers[name].is_floating_point() else value.round()).to(weights.buffers[name].dtype)
        for name, value in mean.buffers.items()
    }
