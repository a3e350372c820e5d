import numpy as np
import pytest
import torch

from pocketfleet.training.draws import draw_key, normal
from pocketfleet.training.server_optimizer import ServerMomentum, ServerOptimizer, ServerSgd


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


@pytest.mark.parametrize("optimizer", [ServerSgd(), ServerMomentum()])
def test_every_weight_gets_its_own_direction(optimizer: ServerOptimizer) -> None:
    trainable = {"a": torch.zeros(1), "b": torch.zeros(1)}
    delta = {"b": torch.tensor([2.0]).double(), "a": torch.tensor([1.0]).double()}
    moved, _ = optimizer.step(trainable, delta, optimizer.init(trainable))
    # From zero, at rate 1 and without a velocity, a weight moves by its delta.
    assert {name: value.item() for name, value in moved.items()} == {"a": 1.0, "b": 2.0}
