import numpy as np
import pytest
from plain_federation import (
    COHORTS,
    EVERYBODY,
    RATE,
    STEPS,
    Federation,
    assert_mapped_as_looped,
    flat,
    gradient,
    mean_minimum,
    start_weights,
)

from pocketfleet.errors import InputError
from pocketfleet.training.algorithm import Algorithm
from pocketfleet.training.algorithms.fedavg import FedAvg
from pocketfleet.training.algorithms.scaffold import Scaffold
from pocketfleet.training.server_optimizer import ServerMomentum, ServerSgd
from pocketfleet.training.train_step import StepSettings

SCAFFOLD = Scaffold(server_optimizer=ServerSgd())


@pytest.mark.parametrize("global_rate", [1.0, 0.5])
def test_rounds_are_those_of_the_papers_algorithm(global_rate: float) -> None:
    # Karimireddy et al. 2020, algorithm 1 with option II; every device has its own K.
    x, c = flat(start_weights().trainable), np.zeros(4)
    own = {device: np.zeros(4) for device in EVERYBODY}
    federation = Federation(algorithm=Scaffold(server_optimizer=ServerSgd(learning_rate=global_rate)))
    for cohort in COHORTS:
        moved, changed = [], []
        for i in cohort:
            y = x
            for _ in range(STEPS[i]):
                y = y - RATE * (gradient(i, y) - own[i] + c)
            after = own[i] - c + (x - y) / (STEPS[i] * RATE)
            moved.append(y - x)
            changed.append(after - own[i])
            own[i] = after
        x = x + global_rate * np.mean(moved, axis=0)
        c = c + len(cohort) / len(EVERYBODY) * np.mean(changed, axis=0)
        federation.round(cohort)
        np.testing.assert_allclose(flat(federation.weights.trainable), x, rtol=1e-12)
        np.testing.assert_allclose(flat(SCAFFOLD.broadcast(federation.server_state)), c, rtol=1e-12)
    for device in EVERYBODY:
        np.testing.assert_allclose(flat(federation.device_states[device]), own[device], rtol=1e-12)


def test_it_finds_the_minimum_of_the_mean_loss_which_averaging_misses() -> None:
    minimum = mean_minimum([0.25] * 4)
    found: dict[str, float] = {}
    for algorithm in (SCAFFOLD, FedAvg(server_optimizer=ServerSgd(), weighting="devices")):
        federation = Federation(algorithm=algorithm)
        for _ in range(60):
            federation.round(EVERYBODY)
        found[algorithm.name] = float(np.linalg.norm(flat(federation.weights.trainable) - minimum))
    # Averaging ends where the devices' unequal steps cancel, which is elsewhere.
    assert found["scaffold"] < 1e-9
    assert found["fedavg"] > 0.1


def test_after_one_step_a_devices_variate_is_its_gradient() -> None:
    federation = Federation(algorithm=SCAFFOLD)
    before = flat(federation.weights.trainable)
    federation.round((2,), steps=(0, 0, 1, 0))
    # With every variate at zero the step was along the gradient at the downloaded model.
    np.testing.assert_allclose(flat(federation.device_states[2]), gradient(2, before), rtol=1e-12)
    # One of four devices: a quarter of it goes into the server's.
    np.testing.assert_allclose(flat(SCAFFOLD.broadcast(federation.server_state)), gradient(2, before) / 4, rtol=1e-12)
    assert not flat(federation.device_states[0]).any()


def test_the_servers_optimizer_steps_beside_the_variate() -> None:
    momentum = ServerMomentum(momentum=0.5)
    federation = Federation(algorithm=Scaffold(server_optimizer=momentum))
    plain = Federation(algorithm=SCAFFOLD)
    velocity, before = np.zeros(4), flat(start_weights().trainable)
    for cohort in COHORTS[:3]:
        plain.weights, plain.server_state = federation.weights, federation.server_state
        mean = federation.round(cohort)
        velocity = 0.5 * velocity + flat(mean.delta)
        before = before + velocity
        np.testing.assert_allclose(flat(federation.weights.trainable), before, rtol=1e-12)


def test_mapped_over_devices_it_is_what_it_is_in_a_loop() -> None:
    assert_mapped_as_looped(SCAFFOLD)


@pytest.mark.parametrize(
    ("settings", "got"),
    [
        (StepSettings(momentum=True), "sgd with momentum"),
        (StepSettings(optimizer="adam"), "plain adam"),
        (StepSettings(clipping=True), "sgd with clipping"),
    ],
)
def test_steps_that_hide_the_gradient_are_refused(settings: StepSettings, got: str) -> None:
    message = rf"algorithm scaffold works out .* got {got}: leave training.optimizer at .sgd., training.momentum and"
    with pytest.raises(InputError, match=message):
        SCAFFOLD.step_settings(settings)


def test_what_it_adds_to_a_step() -> None:
    # Weight decay is a part of the gradient: the variate holds that of the decayed loss.
    assert SCAFFOLD.step_settings(StepSettings(weight_decay=True)) == StepSettings(weight_decay=True, correction=True)
    assert isinstance(SCAFFOLD, Algorithm)
    assert (SCAFFOLD.name, SCAFFOLD.weighting) == ("scaffold", "devices")
