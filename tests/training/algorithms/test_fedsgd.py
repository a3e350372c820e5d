import numpy as np
import pytest
from plain_federation import (
    COHORTS,
    EVERYBODY,
    EXAMPLES,
    RATE,
    Federation,
    assert_mapped_as_looped,
    flat,
    gradient,
    mean_minimum,
    start_weights,
)

from pocketfleet.errors import InputError
from pocketfleet.training.algorithm import Algorithm
from pocketfleet.training.algorithms.fedsgd import FedSgd
from pocketfleet.training.server_optimizer import ServerSgd
from pocketfleet.training.train_step import StepSettings

FEDSGD = FedSgd(server_optimizer=ServerSgd())
ONE = (1, 1, 1, 1)


def test_rounds_are_those_of_the_paper() -> None:
    # McMahan et al. 2017, section 2: w - rate * sum_k n_k / n * g_k.
    w = flat(start_weights().trainable)
    federation = Federation(algorithm=FEDSGD)
    for cohort in COHORTS:
        total = sum(EXAMPLES[k] for k in cohort)
        w = w - RATE * sum(EXAMPLES[k] / total * gradient(k, w) for k in cohort)
        federation.round(cohort, steps=ONE)
        np.testing.assert_allclose(flat(federation.weights.trainable), w, rtol=1e-12)


def test_it_finds_the_minimum_of_the_loss_over_all_examples() -> None:
    federation = Federation(algorithm=FEDSGD)
    for _ in range(80):
        federation.round(EVERYBODY, steps=ONE)
    np.testing.assert_allclose(flat(federation.weights.trainable), mean_minimum(EXAMPLES), atol=1e-5)


def test_mapped_over_devices_it_is_what_it_is_in_a_loop() -> None:
    assert_mapped_as_looped(FEDSGD)


@pytest.mark.parametrize("settings", [StepSettings(momentum=True), StepSettings(optimizer="adamw")])
def test_optimizers_with_a_memory_are_refused(settings: StepSettings) -> None:
    with pytest.raises(InputError, match=rf"algorithm fedsgd reports a gradient, .* got {settings}: leave training"):
        FEDSGD.step_settings(settings)


def test_what_it_adds_to_a_step() -> None:
    assert FEDSGD.step_settings(StepSettings(clipping=True)) == StepSettings(clipping=True)
    assert isinstance(FEDSGD, Algorithm)
    assert (FEDSGD.name, FEDSGD.weighting) == ("fedsgd", "examples")
