import numpy as np
import pytest
from plain_federation import (
    COHORTS,
    EVERYBODY,
    RATE,
    STEPS,
    A,
    B,
    Federation,
    assert_mapped_as_looped,
    flat,
    gradient,
    mean_minimum,
    start_weights,
)

from pocketfleet.training.algorithm import Algorithm
from pocketfleet.training.algorithms.feddyn import FedDyn
from pocketfleet.training.train_step import StepSettings

ALPHA = 0.5
FEDDYN = FedDyn(alpha=ALPHA)


def test_rounds_are_those_of_the_papers_algorithm() -> None:
    # Acar et al. 2021, algorithm 1; its minimum is come near by STEPS gradient steps.
    w, h = flat(start_weights().trainable), np.zeros(4)
    kept = {device: np.zeros(4) for device in EVERYBODY}
    federation = Federation(algorithm=FEDDYN)
    for cohort in COHORTS:
        ends = []
        for k in cohort:
            theta = w
            for _ in range(STEPS[k]):
                theta = theta - RATE * (gradient(k, theta) - kept[k] + ALPHA * (theta - w))
            kept[k] = kept[k] - ALPHA * (theta - w)
            ends.append(theta)
        h = h - ALPHA / len(EVERYBODY) * sum(theta - w for theta in ends)
        w = np.mean(ends, axis=0) - h / ALPHA
        federation.round(cohort)
        np.testing.assert_allclose(flat(federation.weights.trainable), w, rtol=1e-12)
        np.testing.assert_allclose(flat(federation.server_state), h, rtol=1e-12)
    for device in EVERYBODY:
        np.testing.assert_allclose(flat(federation.device_states[device]), kept[device], rtol=1e-12)


def test_a_device_keeps_the_gradient_at_the_minimum_that_it_found() -> None:
    federation = Federation(algorithm=FEDDYN)
    before = flat(federation.weights.trainable)
    # A step leaves at most 1 - 0.25 * (0.5 + 0.5) = 0.75 of the distance: 0.75^100 = 3e-13.
    federation.round((1,), steps=(0, 100, 0, 0))
    end = np.linalg.solve(A[1] + ALPHA * np.eye(4), B[1] + ALPHA * before)
    np.testing.assert_allclose(flat(federation.device_states[1]), gradient(1, end), rtol=1e-9)


@pytest.mark.parametrize("cohorts", [[EVERYBODY], [(0, 1), (2, 3), (1, 2), (0, 3)]])
def test_it_finds_the_minimum_of_the_mean_loss_though_few_take_part(cohorts: list[tuple[int, ...]]) -> None:
    federation = Federation(algorithm=FedDyn(alpha=1.0))
    for index in range(60):
        federation.round(cohorts[index % len(cohorts)], steps=(5, 5, 5, 5))
    np.testing.assert_allclose(flat(federation.weights.trainable), mean_minimum([0.25] * 4), atol=1e-6)


def test_mapped_over_devices_it_is_what_it_is_in_a_loop() -> None:
    assert_mapped_as_looped(FEDDYN)


def test_what_it_adds_to_a_step() -> None:
    adam = StepSettings(optimizer="adam")
    assert FEDDYN.step_settings(adam) == StepSettings(optimizer="adam", proximal=True, correction=True)
    assert isinstance(FEDDYN, Algorithm)
    assert (FEDDYN.name, FEDDYN.weighting) == ("feddyn", "devices")
