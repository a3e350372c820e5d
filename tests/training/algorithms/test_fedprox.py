import numpy as np
import pytest
from plain_federation import (
    COHORTS,
    EXAMPLES,
    RATE,
    STEPS,
    A,
    B,
    Federation,
    assert_mapped_as_looped,
    flat,
    gradient,
    start_weights,
)

from pocketfleet.training.algorithm import Algorithm, ClientTerms
from pocketfleet.training.algorithms.fedprox import FedProx
from pocketfleet.training.server_optimizer import ServerSgd
from pocketfleet.training.train_step import StepSettings

MU = 0.5
FEDPROX = FedProx(server_optimizer=ServerSgd(), proximal_mu=MU)


def test_rounds_are_those_of_the_papers_algorithm() -> None:
    # Li et al. 2020, algorithm 2: each device's minimum of F_k(w) + mu / 2 * |w - w_t|^2, come near by gradient steps.
    w = flat(start_weights().trainable)
    federation = Federation(algorithm=FEDPROX)
    for cohort in COHORTS:
        total, after = sum(EXAMPLES[k] for k in cohort), np.zeros(4)
        for k in cohort:
            own = w
            for _ in range(STEPS[k]):
                own = own - RATE * (gradient(k, own) + MU * (own - w))
            after = after + EXAMPLES[k] / total * own
        w = after
        federation.round(cohort)
        np.testing.assert_allclose(flat(federation.weights.trainable), w, rtol=1e-12)


@pytest.mark.parametrize("mu", [0.0, 2.0, 4.0])
def test_each_device_is_pulled_towards_the_downloaded_model(mu: float) -> None:
    federation = Federation(algorithm=FedProx(server_optimizer=ServerSgd(), proximal_mu=mu))
    before = flat(federation.weights.trainable)
    federation.round((0,), steps=(120, 0, 0, 0))
    # The minimum is (A + mu)^-1 (b + mu * w); a step leaves at most 1 - 0.25 * 0.5 of the distance, 0.875^120 = 1e-7.
    expected = np.linalg.solve(A[0] + mu * np.eye(4), B[0] + mu * before)
    np.testing.assert_allclose(flat(federation.weights.trainable), expected, rtol=1e-5, atol=1e-5)


def test_mapped_over_devices_it_is_what_it_is_in_a_loop() -> None:
    assert_mapped_as_looped(FEDPROX)


def test_what_it_adds_to_a_step() -> None:
    assert FEDPROX.step_settings(StepSettings(momentum=True)) == StepSettings(momentum=True, proximal=True)
    assert FEDPROX.client_start(start_weights(), {}, {}) == ClientTerms(hyper={"proximal_mu": MU})
    assert isinstance(FEDPROX, Algorithm)
    assert (FEDPROX.name, FEDPROX.weighting) == ("fedprox", "examples")
