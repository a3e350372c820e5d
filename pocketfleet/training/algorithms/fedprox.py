"""FedProx: devices are held near the model that they downloaded (Li et al. 2020, arXiv:1812.06127, algorithm 2)."""

from dataclasses import dataclass, replace

from pocketfleet.training.algorithm import ClientTerms
from pocketfleet.training.algorithms.fedavg import FedAvg
from pocketfleet.training.train_step import StepSettings
from pocketfleet.training.weights import Tensors, Weights

__all__ = ["FedProx"]


@dataclass(frozen=True, slots=True, kw_only=True)
class FedProx(FedAvg):
    """``proximal_mu / 2 * |w - w_t|^2`` is added to each device's loss: the paper's equation 2."""

    proximal_mu: float
    name: str = "fedprox"

    def step_settings(self, settings: StepSettings) -> StepSettings:
        """The proximal term is added."""
        return replace(settings, proximal=True)

    def client_start(self, weights: Weights, broadcast: Tensors, device_state: Tensors) -> ClientTerms:  # noqa: ARG002
        """The strength of the proximal term; its anchor is the downloaded model."""
        return ClientTerms(hyper={"proximal_mu": self.proximal_mu})
