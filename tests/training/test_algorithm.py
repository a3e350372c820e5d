from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from torch import nn

from pocketfleet.training.aggregation import MeanAggregator
from pocketfleet.training.algorithm import Algorithm, ClientTerms, FedAvg, FedProx, Trained
from pocketfleet.training.server_optimizer import ServerMomentum, ServerSgd
from pocketfleet.training.train_step import StepSettings, TrainState, TrainStep, hyper_tensors
from pocketfleet.training.update import Update, update_of
from pocketfleet.training.weights import Tensors, Weights

FEDAVG = FedAvg(server_optimizer=ServerSgd())
# Two devices: the w that each one's loss (w - c)^2 wants, and how many examples it holds.
WANTED = (1.0, 4.0)
EXAMPLES = (1, 3)


def quadratic(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    return (output - target).square().mean(dim=1)


def start_at(w: float) -> Weights:
    return Weights(trainable={"weight": torch.tensor([[w]])}, buffers={}, frozen={})


def add(aggregator: MeanAggregator, update: Update, *, weight: float) -> None:
    """One device's update as a chunk of one."""
    groups = {
        group: {name: value.unsqueeze(0) for name, value in tensors.items()}
        for group, tensors in update.groups().items()
    }
    aggregator.add_many(Update(**groups), weight=np.array([float(weight)]), scale=np.ones(1))


def one_round(algorithm: Algorithm, weights: Weights, *, steps: int, learning_rate: float) -> Weights:
    """Both devices train, the server takes the mean."""
    server_state = algorithm.init(weights)
    settings = algorithm.step_settings(StepSettings())
    step = TrainStep(nn.Linear(1, 1, bias=False), quadratic, settings)
    aggregator = MeanAggregator()
    for wanted, examples in zip(WANTED, EXAMPLES, strict=True):
        terms = algorithm.client_start(weights, algorithm.broadcast(server_state), {})
        hyper = hyper_tensors(settings, {"learning_rate": learning_rate} | terms.hyper)
        state = TrainState.start(weights, settings, correction=terms.correction)
        x = torch.ones(examples, 1)
        for _ in range(steps):
            _, state = step(state, x, wanted * x, hyper)
        trained = Trained(update=update_of(weights, state), steps=torch.tensor(float(steps)), hyper={})
        update, device_state = algorithm.client_update(trained, {}, {})
        assert device_state == {}
        add(aggregator, update, weight=examples)
    return algorithm.server_update(weights, aggregator.result(), server_state, participation=1.0)[0]


def test_federated_averaging_of_two_quadratics() -> None:
    # w - 1/2 * 2 * (w - c) = c: one step takes each device to its own minimum, 1 and 4; (1 * 1 + 3 * 4) / 4 = 3.25.
    weights = one_round(FEDAVG, start_at(10.0), steps=1, learning_rate=0.5)
    assert weights.trainable["weight"].item() == 3.25


@pytest.mark.parametrize("mu", [0.0, 2.0, 8.0])
def test_fedprox_pulls_each_device_towards_the_downloaded_model(mu: float) -> None:
    # The minimum of (w - c)^2 + mu / 2 * (w - w0)^2 is (2 * c + mu * w0) / (2 + mu); a step of 1 / 16 shrinks the
    # distance by 1 - (2 + mu) / 16, at most 7/8, and 0.875^200 = 3e-12 of it is left.
    minima = [(2 * wanted + mu * 10.0) / (2 + mu) for wanted in WANTED]
    expected = (minima[0] + 3 * minima[1]) / 4
    algorithm = FedProx(server_optimizer=ServerSgd(), proximal_mu=mu)
    weights = one_round(algorithm, start_at(10.0), steps=200, learning_rate=1 / 16)
    assert weights.trainable["weight"].item() == pytest.approx(expected, rel=1e-6)


def test_terms_and_settings() -> None:
    settings = StepSettings(momentum=True)
    assert FEDAVG.step_settings(settings) is settings
    assert FEDAVG.client_start(start_at(1.0), {}, {}) == ClientTerms(hyper={}, correction=None)
    fedprox = FedProx(server_optimizer=ServerSgd(), proximal_mu=0.25)
    assert fedprox.step_settings(settings) == StepSettings(momentum=True, proximal=True)
    assert fedprox.client_start(start_at(1.0), {}, {}) == ClientTerms(hyper={"proximal_mu": 0.25}, correction=None)
    assert (FEDAVG.name, fedprox.name) == ("fedavg", "fedprox")


def test_a_device_reports_its_update_as_it_is() -> None:
    update, state = Update({"w": torch.ones(1)}, {}), {"s": torch.ones(1)}
    trained = Trained(update=update, steps=torch.tensor(3.0), hyper={})
    reported, next_state = FEDAVG.client_update(trained, {}, state)
    assert reported is update
    assert next_state is state


def test_the_servers_momentum_lasts_from_round_to_round() -> None:
    algorithm = FedAvg(server_optimizer=ServerMomentum(momentum=0.5))
    weights = start_at(0.0)
    state = algorithm.init(weights)
    mean = Update({"weight": torch.ones(1, 1, dtype=torch.float64)}, {})
    for expected in (1.0, 2.5, 4.25):  # velocities 1, 1.5, 1.75
        weights, state = algorithm.server_update(weights, mean, state, participation=1.0)
        assert weights.trainable["weight"].item() == expected


def test_statistics_become_the_mean_and_counters_whole_numbers() -> None:
    weights = Weights(
        trainable={"w": torch.zeros(1)},
        buffers={"mean": torch.zeros(2), "count": torch.tensor(10), "odd": torch.tensor(0)},
        frozen={"f": torch.ones(1)},
    )
    aggregator = MeanAggregator()
    for device, (mean, count, weight) in enumerate([([1.0, 0.0], 12, 1), ([2.0, 4.0], 13, 3)]):
        buffers = {"mean": torch.tensor(mean), "count": torch.tensor(count), "odd": torch.tensor(1 - device)}
        add(aggregator, Update({"w": torch.zeros(1)}, buffers), weight=weight)
    after, _ = FEDAVG.server_update(weights, aggregator.result(), {}, participation=1.0)
    # (1 + 3 * 2) / 4 and (0 + 3 * 4) / 4; (12 + 39) / 4 = 12.75 is nearest 13; (1 + 3 * 0) / 4 = 0.25 is nearest 0.
    assert (after.buffers["mean"].tolist(), after.buffers["mean"].dtype) == ([1.75, 3.0], torch.float32)
    assert (after.buffers["count"].item(), after.buffers["count"].dtype) == (13, torch.int64)
    assert (after.buffers["odd"].item(), after.buffers["odd"].dtype) == (0, torch.int64)
    # They are replaced, not moved by a difference, and what is frozen stays.
    assert after.frozen is weights.frozen
    assert weights.buffers["count"].item() == 10


@dataclass(frozen=True, slots=True)
class Halved(FedAvg):
    """A user's own: each device reports half of its update."""

    name: str = "halved"

    def client_update(self, trained: Trained, broadcast: Tensors, device_state: Tensors) -> tuple[Update, Tensors]:  # noqa: ARG002
        delta = {name: value / 2 for name, value in trained.update.delta.items()}
        return replace(trained.update, delta=delta), device_state


def test_an_algorithm_of_ones_own_runs_where_the_packaged_ones_do() -> None:
    halved = Halved(server_optimizer=ServerSgd())
    # From 10 to the mean of the minima, 3.25, is -6.75; half of it is -3.375.
    weights = one_round(halved, start_at(10.0), steps=1, learning_rate=0.5)
    assert weights.trainable["weight"].item() == 6.625


def test_what_is_an_algorithm() -> None:
    class Nameless:
        step_settings = init = client_start = client_update = server_update = None
        device_init = broadcast = weighting = None

    assert isinstance(FEDAVG, Algorithm)
    assert isinstance(FedProx(server_optimizer=ServerSgd(), proximal_mu=1.0), Algorithm)
    assert isinstance(Halved(server_optimizer=ServerSgd()), Algorithm)
    assert not isinstance(Nameless(), Algorithm)
    assert not isinstance(ServerSgd(), Algorithm)
