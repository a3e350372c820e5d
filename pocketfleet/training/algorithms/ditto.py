"""Ditto: beside the model that it reports, each device trains one of its own (Li et al. 2021, arXiv:2012.04221).

Its algorithm 1: the reported model is trained and averaged as by FedAvg; the device's own one, ``v_k``, takes as many
steps on the same batches along the gradient of ``F_k(v_k) + lambda / 2 * |v_k - w_t|^2`` (section 3.1's objective) and
never leaves the device. Steps cost twice.
"""

from dataclasses import dataclass, replace

from pocketfleet.training.algorithm import ClientTerms, Trained
from pocketfleet.training.algorithms.fedavg import FedAvg
from pocketfleet.training.train_step import StepSettings
from pocketfleet.training.update import Update
from pocketfleet.training.weights import Tensors, Weights

__all__ = ["Ditto"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ditto(FedAvg):
    """A device keeps ``v_k``; ``personal_mu`` is the paper's lambda: at 0 it learns alone."""

    personal_mu: float
    name: str = "ditto"

    def step_settings(self, settings: StepSettings) -> StepSettings:
        """The proximal term is added; for the reported model its strength is 0."""
        return replace(settings, proximal=True)

    def device_init(self, weights: Weights) -> Tensors:
        """``v_k`` at the first model."""
        return {name: value.clone() for name, value in weights.trainable.items()}

    def client_start(self, weights: Weights, broadcast: Tensors, device_state: Tensors) -> ClientTerms:  # noqa: ARG002
        """Two models, of which the device's own is drawn to the downloaded one."""
        return ClientTerms(
            hyper={"proximal_mu": 0.0}, personal=device_state, personal_hyper={"proximal_mu": self.personal_mu}
        )

    def client_update(self, trained: Trained, broadcast: Tensors, device_state: Tensors) -> tuple[Update, Tensors]:  # noqa: ARG002
        """The reported model's update as it is, and the device's own model."""
        return trained.update, trained.personal
