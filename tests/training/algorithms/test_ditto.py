import numpy as np
import pytest
from plain_federation import (
    COHORTS,
    EVERYBODY,
    EXAMPLES,
    RATE,
    STEPS,
    A,
    B,
    Federation,
    assert_mapped_as_looped,
    descend,
    flat,
    gradient,
    start_weights,
)

from pocketfleet.training.algorithm import Algorithm
from pocketfleet.training.algorithms.ditto import Ditto
from pocketfleet.training.server_optimizer import ServerSgd
from pocketfleet.training.train_step import StepSettings

LAMBDA = 0.25
DITTO = Ditto(server_optimizer=ServerSgd(), personal_mu=LAMBDA)


def test_rounds_are_those_of_the_papers_algorithm() -> None:
    # Li et al. 2021, algorithm 1, with gradient steps for UPDATE_GLOBAL and the mean by examples for AGGREGATE.
    w = flat(start_weights().trainable)
    own = dict.fromkeys(EVERYBODY, w)
    federation = Federation(algorithm=DITTO)
    for cohort in COHORTS:
        share = np.array([EXAMPLES[k] for k in cohort]) / sum(EXAMPLES[k] for k in cohort)
        deltas = []
        for k in cohort:
            deltas.append(descend(k, w, steps=STEPS[k]) - w)
            for _ in range(STEPS[k]):
                own[k] = own[k] - RATE * (gradient(k, own[k]) + LAMBDA * (own[k] - w))
        w = w + share @ np.array(deltas)
        federation.round(cohort)
        np.testing.assert_allclose(flat(federation.weights.trainable), w, rtol=1e-12)
    for device in EVERYBODY:
        np.testing.assert_allclose(flat(federation.device_states[device]), own[device], rtol=1e-12)


@pytest.mark.parametrize("strength", [0.0, 0.25, 4.0])
def test_a_devices_own_model_ends_between_its_minimum_and_the_shared_one(strength: float) -> None:
    federation = Federation(algorithm=Ditto(server_optimizer=ServerSgd(), personal_mu=strength))
    shared = flat(federation.weights.trainable)
    federation.round((2,), steps=(0, 0, 120, 0))
    # The minimum of F_k(v) + lambda / 2 * |v - w|^2 is (A + lambda)^-1 (b + lambda * w); a step leaves at most
    # 1 - 0.25 * 0.5 of the distance to it, 0.875^120 = 1e-7.
    expected = np.linalg.solve(A[2] + strength * np.eye(4), B[2] + strength * shared)
    np.testing.assert_allclose(flat(federation.device_states[2]), expected, rtol=1e-5, atol=1e-5)


def test_mapped_over_devices_it_is_what_it_is_in_a_loop() -> None:
    assert_mapped_as_looped(DITTO)


def test_what_it_adds_to_a_step() -> None:
    assert DITTO.step_settings(StepSettings(momentum=True)) == StepSettings(momentum=True, proximal=True)
    assert isinstance(DITTO, Algorithm)
    assert (DITTO.name, DITTO.weighting) == ("ditto", "examples")
