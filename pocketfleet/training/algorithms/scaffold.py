"""SCAFFOLD: control variates take the drift out of local steps (Karimireddy et al. 2020, arXiv:1910.06378).

Its algorithm 1:

1. A device steps along ``gradient - c_i + c`` (the paper's equation 3).
2. After ``K`` steps of rate ``eta`` from ``x`` to ``y`` its variate is ``c_i - c + (x - y) / (K * eta)``: option II of
   equation 4, the mean of the gradients that it saw.
3. It reports ``y - x`` and the change of ``c_i``; means of both are over devices, not examples.
4. The server adds to ``c`` the mean change times the share of the population that reported: equation 5, as is the
   model's step, whose rate is the server optimizer's.
"""

from dataclasses import dataclass, replace

import torch

from pocketfleet.errors import InputError
from pocketfleet.training.algorithm import ClientTerms, Trained, Weighting
from pocketfleet.training.algorithms.fedavg import FedAvg, mean_buffers
from pocketfleet.training.train_step import StepSettings
from pocketfleet.training.update import Update
from pocketfleet.training.weights import Tensors, Weights

__all__ = ["Scaffold"]

_OPTIMIZER, _VARIATE = "optimizer/", "variate/"


@dataclass(frozen=True, slots=True, kw_only=True)
class Scaffold(FedAvg):
    """A device keeps ``c_i``, the server ``c``: by the names of the weights, of their types, from zero."""

    name: str = "scaffold"
    weighting: Weighting = "devices"

    def step_settings(self, settings: StepSettings) -> StepSettings:
        """The correction is added.

        Raises:
            InputError: the steps are not ``rate * gradient``, from which rule 2 takes the mean gradient back.
        """
        if settings.adaptive or settings.momentum or settings.clipping:
            raise InputError(
                "algorithm scaffold works out a device's mean gradient from how far plain SGD moved, which holds "
                f"neither for another optimizer nor with momentum or clipping, got {settings}: leave "
                'training.optimizer at "sgd", training.momentum and training.max_norm at 0'
            )
        return replace(settings, correction=True)

    def init(self, weights: Weights) -> Tensors:
        """The server optimizer's state, and ``c`` at zero."""
        optimizer = self.server_optimizer.init(weights.trainable)
        return _named(_OPTIMIZER, optimizer) | _named(_VARIATE, self.device_init(weights))

    def device_init(self, weights: Weights) -> Tensors:
        """``c_i`` at zero."""
        return {name: torch.zeros_like(value) for name, value in weights.trainable.items()}

    def broadcast(self, server_state: Tensors) -> Tensors:
        """``c``."""
        return _part(_VARIATE, server_state)

    def client_start(self, weights: Weights, broadcast: Tensors, device_state: Tensors) -> ClientTerms:
        """``c - c_i`` is added to every gradient."""
        return ClientTerms(correction={name: broadcast[name] - device_state[name] for name in weights.trainable})

    def client_update(self, trained: Trained, broadcast: Tensors, device_state: Tensors) -> tuple[Update, Tensors]:
        """The update with the change of ``c_i``, and the new ``c_i``."""
        rate = trained.hyper["learning_rate"]
        change = {
            name: -broadcast[name] - delta / rate / trained.steps.to(delta.dtype)
            for name, delta in trained.update.delta.items()
        }
        return replace(trained.update, extra=change), {name: device_state[name] + change[name] for name in change}

    def server_update(
        self, weights: Weights, mean: Update, server_state: Tensors, *, participation: float
    ) -> tuple[Weights, Tensors]:
        """The server optimizer's step, and the next ``c``."""
        moved, optimizer = self.server_optimizer.step(weights.trainable, mean.delta, _part(_OPTIMIZER, server_state))
        variate = {
            name: (value.to(torch.float64) + participation * mean.extra[name]).to(value.dtype)
            for name, value in _part(_VARIATE, server_state).items()
        }
        after = replace(weights, trainable=moved, buffers=weights.buffers | mean_buffers(weights, mean))
        return after, _named(_OPTIMIZER, optimizer) | _named(_VARIATE, variate)


def _named(prefix: str, tensors: Tensors) -> Tensors:
    return {prefix + name: value for name, value in tensors.items()}


def _part(prefix: str, tensors: Tensors) -> Tensors:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
