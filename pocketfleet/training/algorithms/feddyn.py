"""FedDyn: each device's loss is bent until all agree on one minimum (Acar et al. 2021, arXiv:2111.04263, algorithm 1).

1. A device's steps lower ``L_k(w) - <g_k, w> + alpha / 2 * |w - w_t|^2`` (the paper's equation 1): a proximal term of
   strength alpha and the correction ``-g_k``. The paper solves for the minimum; the experiment's steps come near it.
2. Then ``g_k`` becomes ``g_k - alpha * (w_k - w_t)``: at that minimum, the gradient of ``L_k``. Nothing more is sent.
3. The server's ``h`` becomes ``h - alpha * (share of the population that reported) * (mean delta)``.
4. The next model is ``w_t + (mean delta) - h / alpha``. Means are over devices, not examples.
"""

from dataclasses import dataclass, replace

import torch

from pocketfleet.training.algorithm import ClientTerms, Trained, Weighting
from pocketfleet.training.algorithms.fedavg import mean_buffers
from pocketfleet.training.train_step import StepSettings
from pocketfleet.training.update import Update
from pocketfleet.training.weights import Tensors, Weights

__all__ = ["FedDyn"]


@dataclass(frozen=True, slots=True, kw_only=True)
class FedDyn:
    """A device keeps ``g_k``, the server ``h`` in ``float64``: by the names of the weights, from zero.

    Rule 4 is the server's own step: there is no server optimizer.
    """

    alpha: float
    name: str = "feddyn"
    weighting: Weighting = "devices"

    def step_settings(self, settings: StepSettings) -> StepSettings:
        """The proximal term and the correction are added."""
        return replace(settings, proximal=True, correction=True)

    def init(self, weights: Weights) -> Tensors:
        """``h`` at zero."""
        return {name: torch.zeros_like(value, dtype=torch.float64) for name, value in weights.trainable.items()}

    def device_init(self, weights: Weights) -> Tensors:
        """``g_k`` at zero."""
        return {name: torch.zeros_like(value) for name, value in weights.trainable.items()}

    def broadcast(self, server_state: Tensors) -> Tensors:  # noqa: ARG002 - the seam's signature, here and below
        """Nothing beside the weights."""
        return {}

    def client_start(self, weights: Weights, broadcast: Tensors, device_state: Tensors) -> ClientTerms:  # noqa: ARG002
        """Rule 1; the anchor of the proximal term is the downloaded model."""
        correction = {name: -value for name, value in device_state.items()}
        return ClientTerms(hyper={"proximal_mu": self.alpha}, correction=correction)

    def client_update(self, trained: Trained, broadcast: Tensors, device_state: Tensors) -> tuple[Update, Tensors]:  # noqa: ARG002
        """The update as it is, and rule 2."""
        delta = trained.update.delta
        return trained.update, {name: value - self.alpha * delta[name] for name, value in device_state.items()}

    def server_update(
        self, weights: Weights, mean: Update, server_state: Tensors, *, participation: float
    ) -> tuple[Weights, Tensors]:
        """Rules 3 and 4; batch-norm statistics become the reports' mean."""
        h = {name: value - self.alpha * participation * mean.delta[name] for name, value in server_state.items()}
        trainable = {
            name: (value.to(torch.float64) + mean.delta[name] - h[name] / self.alpha).to(value.dtype)
            for name, value in weights.trainable.items()
        }
        return replace(weights, trainable=trainable, buffers=weights.buffers | mean_buffers(weights, mean)), h
