"""Four unequal devices that fit lines, whose minima are known, and rounds over an algorithm's calls, one by one.

Device ``k``'s loss is the mean over its examples of ``(x . w - y)^2 / 2``, so that its gradient is ``A_k w - b_k`` with
``A_k = X^T X / n`` and ``b_k = X^T y / n``. Everything is float64; rates and strengths in the tests are powers of two,
which the steps' float32 hyper-parameters hold exactly.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from pocketfleet.training.aggregation import MeanAggregator
from pocketfleet.training.algorithm import Algorithm, Trained
from pocketfleet.training.draws import draw_key, normal
from pocketfleet.training.train_step import StepSettings, TrainState, TrainStep, hyper_tensors
from pocketfleet.training.update import Update, update_of
from pocketfleet.training.weights import Tensors, Weights

__all__ = [
    "BODY",
    "COHORTS",
    "EVERYBODY",
    "EXAMPLES",
    "RATE",
    "STEPS",
    "A",
    "B",
    "Federation",
    "assert_mapped_as_looped",
    "descend",
    "flat",
    "gradient",
    "mean_minimum",
    "start_weights",
]

Vector = npt.NDArray[np.float64]
EXAMPLES = (6, 9, 14, 25)
STEPS = (3, 1, 5, 2)
RATE = 0.25
# The first two of the four weights; the others are the head.
BODY = 2
EVERYBODY = (0, 1, 2, 3)
# Who takes part in each round: never all, some of them never together.
COHORTS = ((0, 1), (2, 3), (1, 3), (0, 2, 3), (3,), (0, 1))


def _examples(device: int) -> tuple[Vector, Vector]:
    """Lines and curvatures of each device's own: eigenvalues of ``A_k`` are 0.5 to 1.5, so that few steps tell much."""
    count = EXAMPLES[device]
    drawn = normal(draw_key(5, "lines", device), 4 * count + 20)
    columns, _ = np.linalg.qr(drawn[20:].reshape(count, 4))
    turn, _ = np.linalg.qr(drawn[4:20].reshape(4, 4))
    x = np.sqrt(count) * columns * np.sqrt([0.5, 0.8, 1.1, 1.5]) @ turn
    return x, x @ (2.0 * drawn[:4])


X, Y = zip(*(_examples(device) for device in EVERYBODY), strict=True)
A = [x.T @ x / len(x) for x in X]
B = [x.T @ y / len(x) for x, y in zip(X, Y, strict=True)]


def gradient(device: int, w: Vector) -> Vector:
    result: Vector = A[device] @ w - B[device]
    return result


def descend(device: int, w: Vector, *, steps: int) -> Vector:
    """Plain gradient descent at ``RATE``."""
    for _ in range(steps):
        w = w - RATE * gradient(device, w)
    return w


def mean_minimum(shares: Sequence[float]) -> Vector:
    """The minimum of the devices' mean loss, each with its share."""
    result: Vector = np.linalg.solve(
        sum(share * a for share, a in zip(shares, A, strict=True)),
        sum(share * b for share, b in zip(shares, B, strict=True)),
    )
    return result


class Line(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.Parameter(torch.zeros(BODY)), nn.Parameter(torch.zeros(4 - BODY))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x @ torch.cat([self.body, self.head])


def half_square(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    return (output - target).square() / 2


def start_weights(w: Sequence[float] = (1.0, -1.0, 0.5, 2.0)) -> Weights:
    both = torch.tensor(w, dtype=torch.float64)
    return Weights(trainable={"body": both[:BODY].clone(), "head": both[BODY:].clone()}, buffers={}, frozen={})


def flat(tensors: Mapping[str, torch.Tensor]) -> Vector:
    """The four weights, body first."""
    return torch.cat([tensors["body"], tensors["head"]]).numpy()


@dataclass(kw_only=True)
class Federation:
    """The server, its devices, and a round among them: the seam's calls in their order."""

    algorithm: Algorithm
    rate: float = RATE
    weights: Weights = field(default_factory=start_weights)
    settings: StepSettings = field(default_factory=StepSettings)

    def __post_init__(self) -> None:
        self.settings = self.algorithm.step_settings(self.settings)
        self.step = TrainStep(Line(), half_square, self.settings)
        self.server_state = self.algorithm.init(self.weights)
        self.device_states = {device: self.algorithm.device_init(self.weights) for device in EVERYBODY}

    def round(self, cohort: Sequence[int], *, steps: Sequence[int] = STEPS) -> Update:
        """One round; returns the mean of the reports."""
        aggregator = MeanAggregator()
        broadcast = self.algorithm.broadcast(self.server_state)
        for device in cohort:
            update, self.device_states[device] = self._trained(device, broadcast, steps=steps[device])
            weight = EXAMPLES[device] if self.algorithm.weighting == "examples" else 1.0
            stacked = Update(**{group: _row(tensors) for group, tensors in update.groups().items()})
            aggregator.add_many(stacked, weight=np.array([weight], dtype=np.float64), scale=np.ones(1))
        mean = aggregator.result()
        self.weights, self.server_state = self.algorithm.server_update(
            self.weights, mean, self.server_state, participation=len(cohort) / len(EVERYBODY)
        )
        return mean

    def _trained(self, device: int, broadcast: Tensors, *, steps: int) -> tuple[Update, Tensors]:
        state = self.device_states[device]
        terms = self.algorithm.client_start(self.weights, broadcast, state)
        hyper = {"learning_rate": self.rate, **terms.hyper}
        start = TrainState.start(self.weights, self.settings, correction=terms.correction)
        start = replace(start, trainable=start.trainable | terms.start)
        end = self._steps(device, start, hyper, steps=steps)
        personal: Tensors = {}
        if terms.personal:
            own = replace(start, trainable=dict(terms.personal))
            personal = self._steps(device, own, {**hyper, **terms.personal_hyper}, steps=steps).trainable
        trained = Trained(
            update=update_of(self.weights, end), steps=torch.tensor(float(steps)), hyper=hyper, personal=personal
        )
        return self.algorithm.client_update(trained, broadcast, state)

    def _steps(self, device: int, state: TrainState, hyper: Mapping[str, float], *, steps: int) -> TrainState:
        x, y = torch.from_numpy(X[device]), torch.from_numpy(Y[device])
        for _ in range(steps):
            _, state = self.step(state, x, y, hyper_tensors(self.settings, hyper))
        return state


def _row(tensors: Tensors) -> Tensors:
    return {name: value.unsqueeze(0) for name, value in tensors.items()}


def _stacked(each: Sequence[Any]) -> Any:  # noqa: ANN401 - tensors, or dictionaries of them
    if isinstance(each[0], dict):
        return {name: _stacked([one[name] for one in each]) for name in each[0]}
    return torch.stack(list(each))


def _drawn(like: Tensors, purpose: str, device: int) -> Tensors:
    return {
        name: torch.from_numpy(normal(draw_key(9, f"{purpose} {name}", device), value.numel())).reshape(value.shape)
        for name, value in like.items()
    }


def assert_mapped_as_looped(algorithm: Algorithm, *, devices: int = 5) -> None:
    """``torch.vmap`` over devices of other states, updates and steps gives what calls one by one give."""
    weights = start_weights()
    broadcast = _drawn(algorithm.broadcast(algorithm.init(weights)), "broadcast", 0)
    states = [_drawn(algorithm.device_init(weights), "state", device) for device in range(devices)]
    deltas = [_drawn(weights.trainable, "delta", device) for device in range(devices)]
    steps = torch.arange(1.0, devices + 1.0)

    def start(state: Tensors) -> dict[str, Tensors]:
        terms = algorithm.client_start(weights, broadcast, state)
        return {"correction": terms.correction or {}, "start": dict(terms.start), "personal": dict(terms.personal)}

    def finish(state: Tensors, delta: Tensors, steps: torch.Tensor) -> dict[str, Any]:
        terms = algorithm.client_start(weights, broadcast, state)
        hyper = {"learning_rate": 0.3, **terms.hyper}
        personal = {name: value + delta[name] for name, value in terms.personal.items()}
        trained = Trained(update=Update(delta, {}), steps=steps, hyper=hyper, personal=personal)
        update, after = algorithm.client_update(trained, broadcast, state)
        return {**update.groups(), "state": after}

    looped_start = _stacked([start(state) for state in states])
    looped_finish = _stacked([finish(*one) for one in zip(states, deltas, steps, strict=True)])
    if states[0]:
        mapped_start = torch.vmap(start)(_stacked(states))
        torch.testing.assert_close(mapped_start, looped_start, rtol=0.0, atol=0.0)
    mapped_finish = torch.vmap(finish)(_stacked(states), _stacked(deltas), steps)
    torch.testing.assert_close(mapped_finish, looped_finish, rtol=1e-15, atol=0.0)
