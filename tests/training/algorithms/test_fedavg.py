import numpy as np
import torch
from plain_federation import (
    COHORTS,
    EVERYBODY,
    EXAMPLES,
    STEPS,
    Federation,
    assert_mapped_as_looped,
    descend,
    flat,
    mean_minimum,
    start_weights,
)

from pocketfleet.training.aggregation import MeanAggregator
from pocketfleet.training.algorithm import Algorithm, ClientTerms, Trained
from pocketfleet.training.algorithms.fedavg import FedAvg
from pocketfleet.training.server_optimizer import ServerMomentum, ServerSgd
from pocketfleet.training.train_step import StepSettings
from pocketfleet.training.update import Update
from pocketfleet.training.weights import Weights

FEDAVG = FedAvg(server_optimizer=ServerSgd())


def test_rounds_are_those_of_the_papers_algorithm() -> None:
    # McMahan et al. 2017, algorithm 1: w becomes sum_k n_k / n * w_k.
    w = flat(start_weights().trainable)
    federation = Federation(algorithm=FEDAVG)
    for cohort in COHORTS:
        total = sum(EXAMPLES[k] for k in cohort)
        w = sum(EXAMPLES[k] / total * descend(k, w, steps=STEPS[k]) for k in cohort)
        federation.round(cohort)
        np.testing.assert_allclose(flat(federation.weights.trainable), w, rtol=1e-12)


def test_a_mean_over_devices_is_another_minimum_than_one_over_examples() -> None:
    for algorithm, shares in ((FEDAVG, EXAMPLES), (FedAvg(server_optimizer=ServerSgd(), weighting="devices"), [1] * 4)):
        federation = Federation(algorithm=algorithm)
        for _ in range(60):
            federation.round(EVERYBODY, steps=(1, 1, 1, 1))
        np.testing.assert_allclose(flat(federation.weights.trainable), mean_minimum(shares), atol=1e-4)


def test_the_servers_momentum_lasts_from_round_to_round() -> None:
    algorithm = FedAvg(server_optimizer=ServerMomentum(momentum=0.5))
    weights = Weights(trainable={"weight": torch.zeros(1, 1)}, buffers={}, frozen={})
    state = algorithm.init(weights)
    mean = Update({"weight": torch.ones(1, 1, dtype=torch.float64)}, {})
    for expected in (1.0, 2.5, 4.25):  # velocities 1, 1.5, 1.75
        weights, state = algorithm.server_update(weights, mean, state, participation=1.0)
        assert weights.trainable["weight"].item() == expected


def test_weights_left_out_of_the_reports_stay() -> None:
    weights = start_weights()
    mean = Update({"body": torch.ones(2, dtype=torch.float64)}, {})
    after, _ = FEDAVG.server_update(weights, mean, {}, participation=0.5)
    assert after.trainable["body"].tolist() == [2.0, 0.0]
    assert after.trainable["head"].tolist() == [0.5, 2.0]


def test_statistics_become_the_mean_and_counters_whole_numbers() -> None:
    weights = Weights(
        trainable={"w": torch.zeros(1)},
        buffers={"mean": torch.zeros(2), "count": torch.tensor(10), "odd": torch.tensor(0)},
        frozen={"f": torch.ones(1)},
    )
    aggregator = MeanAggregator()
    buffers = {
        "mean": torch.tensor([[1.0, 0.0], [2.0, 4.0]]),
        "count": torch.tensor([12, 13]),
        "odd": torch.tensor([1, 0]),
    }
    aggregator.add_many(Update({"w": torch.zeros(2, 1)}, buffers), weight=np.array([1.0, 3.0]), scale=np.ones(2))
    after, _ = FEDAVG.server_update(weights, aggregator.result(), {}, participation=1.0)
    # (1 + 3 * 2) / 4 and (0 + 3 * 4) / 4; (12 + 39) / 4 = 12.75 is nearest 13; (1 + 3 * 0) / 4 = 0.25 is nearest 0.
    assert (after.buffers["mean"].tolist(), after.buffers["mean"].dtype) == ([1.75, 3.0], torch.float32)
    assert (after.buffers["count"].item(), after.buffers["count"].dtype) == (13, torch.int64)
    assert (after.buffers["odd"].item(), after.buffers["odd"].dtype) == (0, torch.int64)
    # They are replaced, not moved by a difference, and what is frozen stays.
    assert after.frozen is weights.frozen
    assert weights.buffers["count"].item() == 10


def test_mapped_over_devices_it_is_what_it_is_in_a_loop() -> None:
    assert_mapped_as_looped(FEDAVG)


def test_it_adds_nothing() -> None:
    settings, weights = StepSettings(momentum=True), start_weights()
    assert FEDAVG.step_settings(settings) is settings
    assert FEDAVG.client_start(weights, {}, {}) == ClientTerms()
    assert (FEDAVG.device_init(weights), FEDAVG.broadcast({"s": torch.ones(1)})) == ({}, {})
    trained = Trained(update=Update({"w": torch.ones(1)}, {}), steps=torch.tensor(3.0), hyper={})
    assert FEDAVG.client_update(trained, {}, {}) == (trained.update, {})
    assert isinstance(FEDAVG, Algorithm)
    assert (FEDAVG.name, FEDAVG.weighting) == ("fedavg", "examples")
