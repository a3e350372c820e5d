"""From a round's mean delta to the next model: the server's own optimizer.

Reddi et al. 2021, arXiv:2003.00295, algorithm 1: the negative mean delta is the server's gradient. Arithmetic is
float64; the weights that leave are float32 again.
"""

from dataclasses import dataclass
from typing import Protocol

import torch

from pocketfleet.training.weights import Tensors

__all__ = ["ServerMomentum", "ServerOptimizer", "ServerSgd"]


class ServerOptimizer(Protocol):
    """Pure: state in, state out."""

    def init(self, trainable: Tensors) -> Tensors:
        """The state before the first round."""
        ...

    def step(self, trainable: Tensors, mean_delta: Tensors, state: Tensors) -> tuple[Tensors, Tensors]:
        """The next weights and state."""
        ...


def _moved(trainable: Tensors, direction: Tensors, rate: float) -> Tensors:
    return {
        name: (value.to(torch.float64) + rate * direction[name]).to(value.dtype) for name, value in trainable.items()
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSgd:
    """``w + rate * mean_delta``; at rate 1 this is FedAvg."""

    learning_rate: float = 1.0

    def init(self, trainable: Tensors) -> Tensors:  # noqa: ARG002 - the seam's signature
        """No state."""
        return {}

    def step(self, trainable: Tensors, mean_delta: Tensors, state: Tensors) -> tuple[Tensors, Tensors]:
        """The next weights and the unchanged state."""
        return _moved(trainable, mean_delta, self.learning_rate), state


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerMomentum:
    """FedAvgM (Hsu et al. 2019, arXiv:1909.06335, section 4.3): ``v = momentum * v + delta``, ``w + rate * v``."""

    learning_rate: float = 1.0
    # Hsu et al. 2019, section 4.3, found 0.9 good across skews.
    momentum: float = 0.9

    def init(self, trainable: Tensors) -> Tensors:
        """A velocity of zero for every weight, ``float64``."""
        return {name: torch.zeros_like(value, dtype=torch.float64) for name, value in trainable.items()}

    def step(self, trainable: Tensors, mean_delta: Tensors, state: Tensors) -> tuple[Tensors, Tensors]:
        """The next weights and velocity."""
        velocity = {name: self.momentum * state[name] + mean_delta[name] for name in trainable}
        return _moved(trainable, velocity, self.learning_rate), velocity
