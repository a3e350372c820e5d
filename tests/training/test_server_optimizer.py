import numpy as np
import pytest
import torch

from pocketfleet.training.draws import draw_key, normal
from pocketfleet.training.server_optimizer import (
    ServerAdagrad,
    ServerAdam,
    ServerMomentum,
    ServerOptimizer,
    ServerSgd,
    ServerYogi,
)


def test_at_rate_one_the_next_model_is_the_server_plus_the_mean_delta() -> None:
    server, delta = (normal(draw_key(4, purpose), 1000) for purpose in ("server", "delta"))
    server32 = server.astype(np.float32)
    trainable, state = ServerSgd().step(
        {"w": torch.from_numpy(server32)}, {"w": torch.from_numpy(delta)}, ServerSgd().init({})
    )
    assert state == {}
    assert trainable["w"].dtype == torch.float32
    # One rounding, after the sum in float64; rounding the delta first gives other bits for some weights.
    expected = (server32.astype(np.float64) + delta).astype(np.float32)
    assert np.array_equal(trainable["w"].numpy(), expected)
    assert not np.array_equal(server32 + delta.astype(np.float32), expected)


def test_sgd_takes_a_share_of_the_delta() -> None:
    weights = {"w": torch.tensor([1.0, 2.0])}
    trainable, _ = ServerSgd(learning_rate=0.5).step(weights, {"w": torch.tensor([1.0, -4.0]).double()}, {})
    # 1 + 0.5 * 1 and 2 - 0.5 * 4.
    assert trainable["w"].tolist() == [1.5, 0.0]
    assert weights["w"].tolist() == [1.0, 2.0]


def test_momentum_by_hand() -> None:
    optimizer = ServerMomentum(learning_rate=2.0, momentum=0.5)
    trainable = {"w": torch.tensor([0.0])}
    state = optimizer.init(trainable)
    seen = []
    for delta in (1.0, 1.0, 0.0):
        trainable, state = optimizer.step(trainable, {"w": torch.tensor([delta]).double()}, state)
        seen.append((state["w"].item(), trainable["w"].item()))
    # v: 1; 0.5 * 1 + 1 = 1.5; 0.5 * 1.5 + 0 = 0.75. w: 0 + 2 * 1; 2 + 2 * 1.5; 5 + 2 * 0.75.
    assert seen == [(1.0, 2.0), (1.5, 5.0), (0.75, 6.5)]


def test_the_velocity_is_float64_and_the_weights_are_what_they_were() -> None:
    optimizer = ServerMomentum()
    for dtype in (torch.float32, torch.float64):
        trainable = {"w": torch.ones(2, 3, dtype=dtype)}
        state = optimizer.init(trainable)
        assert (state["w"].dtype, state["w"].shape, state["w"].any().item()) == (torch.float64, (2, 3), False)
        trainable, state = optimizer.step(trainable, {"w": torch.ones(2, 3).double()}, state)
        assert (trainable["w"].dtype, state["w"].dtype) == (dtype, torch.float64)


def test_a_step_is_pure() -> None:
    optimizer = ServerMomentum(momentum=0.5)
    trainable, state = {"w": torch.tensor([1.0])}, {"w": torch.tensor([4.0]).double()}
    delta = {"w": torch.tensor([3.0]).double()}
    first, second = optimizer.step(trainable, delta, state), optimizer.step(trainable, delta, state)
    # v = 0.5 * 4 + 3 = 5 and w = 1 + 5, both times.
    for moved, velocity in (first, second):
        assert (moved["w"].item(), velocity["w"].item()) == (6.0, 5.0)
    assert (trainable["w"].item(), delta["w"].item(), state["w"].item()) == (1.0, 3.0, 4.0)


def test_momentum_without_memory_is_sgd() -> None:
    trainable = {"w": torch.tensor([0.1, 0.2])}
    delta = {"w": torch.tensor([0.3, -0.7]).double()}
    forgetful = ServerMomentum(learning_rate=0.3, momentum=0.0)
    moved, _ = forgetful.step(trainable, delta, {"w": torch.full((2,), 9.0).double()})
    assert torch.equal(moved["w"], ServerSgd(learning_rate=0.3).step(trainable, delta, {})[0]["w"])


def test_defaults_are_federated_averaging_and_its_published_momentum() -> None:
    assert ServerSgd() == ServerSgd(learning_rate=1.0)
    assert ServerMomentum() == ServerMomentum(learning_rate=1.0, momentum=0.9)


def reddi(name: str, w: np.ndarray, deltas: list[np.ndarray], *, rate: float, beta1: float, tau: float) -> np.ndarray:
    """Reddi et al. 2021, algorithm 2, line by line, with beta2 = 0.75."""
    m, v = np.zeros_like(w), np.full_like(w, tau**2)
    for delta in deltas:
        m = beta1 * m + (1 - beta1) * delta
        if name == "adagrad":
            v = v + delta**2
        elif name == "yogi":
            v = v - (1 - 0.75) * delta**2 * np.sign(v - delta**2)
        else:
            v = 0.75 * v + (1 - 0.75) * delta**2
        w = w + rate * m / (np.sqrt(v) + tau)
    return w


@pytest.mark.parametrize(
    ("name", "optimizer"),
    [
        ("adam", ServerAdam(learning_rate=0.5, beta1=0.8, beta2=0.75, tau=0.1)),
        ("yogi", ServerYogi(learning_rate=0.5, beta1=0.8, beta2=0.75, tau=0.1)),
        ("adagrad", ServerAdagrad(learning_rate=0.5, beta1=0.8, tau=0.1)),
    ],
)
def test_adaptive_steps_are_those_of_the_papers_algorithm(name: str, optimizer: ServerOptimizer) -> None:
    start = normal(draw_key(6, "server"), 40)
    # Shrinking, so that Yogi's second moment is passed from above and from below.
    deltas = [normal(draw_key(6, "delta", index), 40) * 0.5**index for index in range(6)]
    trainable = {"w": torch.from_numpy(start)}
    state = optimizer.init(trainable)
    for delta in deltas:
        trainable, state = optimizer.step(trainable, {"w": torch.from_numpy(delta)}, state)
    np.testing.assert_allclose(
        trainable["w"].numpy(), reddi(name, start, deltas, rate=0.5, beta1=0.8, tau=0.1), rtol=1e-12
    )
    assert {kept.dtype for kept in state.values()} == {torch.float64}


def test_the_adaptive_ones_are_three() -> None:
    trainable, delta = {"w": torch.zeros(1)}, {"w": torch.ones(1).double()}
    found = set()
    for optimizer in (ServerAdam(), ServerYogi(), ServerAdagrad(beta1=0.9)):
        moved, state = optimizer.step(trainable, delta, optimizer.init(trainable))
        for _ in range(2):
            moved, state = optimizer.step(moved, {"w": delta["w"] / 4}, state)
        found.add(moved["w"].item())
    assert len(found) == 3


def test_a_first_adaptive_step_by_hand() -> None:
    optimizer = ServerAdam(learning_rate=2.0, beta1=0.5, beta2=0.75, tau=1.0)
    moved, state = optimizer.step(
        {"w": torch.zeros(1)}, {"w": torch.tensor([3.0]).double()}, optimizer.init({"w": torch.zeros(1)})
    )
    # m = 0.5 * 3; v = 0.75 * 1^2 + 0.25 * 9 = 3; w = 2 * 1.5 / (sqrt(3) + 1).
    assert {name: value.item() for name, value in state.items()} == {"first_moment/w": 1.5, "second_moment/w": 3.0}
    assert moved["w"].item() == pytest.approx(3.0 / (3.0**0.5 + 1.0), rel=1e-6)


def test_adaptive_defaults_are_the_papers() -> None:
    for kind in (ServerAdam, ServerYogi):
        assert kind() == kind(learning_rate=1.0, beta1=0.9, beta2=0.99, tau=1e-3)
    assert ServerAdagrad() == ServerAdagrad(learning_rate=1.0, beta1=0.0, tau=1e-3)


@pytest.mark.parametrize("optimizer", [ServerSgd(), ServerMomentum()])
def test_every_weight_gets_its_own_direction(optimizer: ServerOptimizer) -> None:
    trainable = {"a": torch.zeros(1), "b": torch.zeros(1)}
    delta = {"b": torch.tensor([2.0]).double(), "a": torch.tensor([1.0]).double()}
    moved, _ = optimizer.step(trainable, delta, optimizer.init(trainable))
    # From zero, at rate 1 and without a velocity, a weight moves by its delta.
    assert {name: value.item() for name, value in moved.items()} == {"a": 1.0, "b": 2.0}
