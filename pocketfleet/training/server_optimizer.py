"""From a round's mean delta to the next model: the server's own optimizer.

Reddi et al. 2021, arXiv:2003.00295, algorithm 1: the negative mean delta is the server's gradient. Arithmetic is
float64; the weights that leave are float32 again.

The adaptive ones are their algorithm 2, for every weight by itself, without a correction of the first rounds' bias:

1. ``m = beta1 * m + (1 - beta1) * delta``, from 0;
2. ``v`` by the optimizer's own rule, from ``tau ** 2``;
3. ``w + rate * m / (sqrt(v) + tau)``.
"""

from dataclasses import dataclass
from typing import Protocol

import torch

from pocketfleet.training.weights import Tensors

__all__ = ["ServerAdagrad", "ServerAdam", "ServerMomentum", "ServerOptimizer", "ServerSgd", "ServerYogi"]

_FIRST, _SECOND = "first_moment/", "second_moment/"


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


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerAdam:
    """FedAdam: ``v = beta2 * v + (1 - beta2) * delta ** 2``."""

    learning_rate: float = 1.0
    # Reddi et al. 2021, section 5: what they used for Adam and Yogi; tau for all three.
    beta1: float = 0.9
    beta2: float = 0.99
    tau: float = 1e-3

    def init(self, trainable: Tensors) -> Tensors:
        """Two moments for every weight, ``float64``."""
        return _moments(trainable, tau=self.tau)

    def step(self, trainable: Tensors, mean_delta: Tensors, state: Tensors) -> tuple[Tensors, Tensors]:
        """The next weights and moments."""
        second = {
            name: self.beta2 * state[_SECOND + name] + (1 - self.beta2) * mean_delta[name].square()
            for name in trainable
        }
        return _adapted(trainable, mean_delta, state, second, rate=self.learning_rate, beta1=self.beta1, tau=self.tau)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerYogi:
    """FedYogi: ``v = v - (1 - beta2) * delta ** 2 * sign(v - delta ** 2)``, which falls more slowly than Adam's."""

    learning_rate: float = 1.0
    # As for ``ServerAdam``.
    beta1: float = 0.9
    beta2: float = 0.99
    tau: float = 1e-3

    def init(self, trainable: Tensors) -> Tensors:
        """Two moments for every weight, ``float64``."""
        return _moments(trainable, tau=self.tau)

    def step(self, trainable: Tensors, mean_delta: Tensors, state: Tensors) -> tuple[Tensors, Tensors]:
        """The next weights and moments."""
        second = {}
        for name in trainable:
            before, square = state[_SECOND + name], mean_delta[name].square()
            second[name] = before - (1 - self.beta2) * square * (before - square).sign()
        return _adapted(trainable, mean_delta, state, second, rate=self.learning_rate, beta1=self.beta1, tau=self.tau)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerAdagrad:
    """FedAdagrad: ``v = v + delta ** 2``, which never falls."""

    learning_rate: float = 1.0
    # Reddi et al. 2021, section 5: Adagrad is used without momentum.
    beta1: float = 0.0
    # As for ``ServerAdam``.
    tau: float = 1e-3

    def init(self, trainable: Tensors) -> Tensors:
        """Two moments for every weight, ``float64``."""
        return _moments(trainable, tau=self.tau)

    def step(self, trainable: Tensors, mean_delta: Tensors, state: Tensors) -> tuple[Tensors, Tensors]:
        """The next weights and moments."""
        second = {name: state[_SECOND + name] + mean_delta[name].square() for name in trainable}
        return _adapted(trainable, mean_delta, state, second, rate=self.learning_rate, beta1=self.beta1, tau=self.tau)


def _moments(trainable: Tensors, *, tau: float) -> Tensors:
    first = {_FIRST + name: torch.zeros_like(value, dtype=torch.float64) for name, value in trainable.items()}
    # The least that algorithm 2 allows.
    return first | {
        _SECOND + name: torch.full_like(value, tau**2, dtype=torch.float64) for name, value in trainable.items()
    }


def _adapted(
    trainable: Tensors, mean_delta: Tensors, state: Tensors, second: Tensors, *, rate: float, beta1: float, tau: float
) -> tuple[Tensors, Tensors]:
    """Rules 1 and 3, and the next state; ``second`` is ``v`` by the name of its weight."""
    first = {name: beta1 * state[_FIRST + name] + (1 - beta1) * mean_delta[name] for name in trainable}
    direction = {name: first[name] / (second[name].sqrt() + tau) for name in trainable}
    moments = {_FIRST + name: value for name, value in first.items()}
    return _moved(trainable, direction, rate), moments | {_SECOND + name: value for name, value in second.items()}
