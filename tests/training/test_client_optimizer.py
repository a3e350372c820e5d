import math

import pytest
import torch

from pocketfleet.training.client_optimizer import descend, empty_slots
from pocketfleet.training.draws import draw_key, normal
from pocketfleet.training.step_settings import Optimizer, StepSettings, hyper_tensors
from pocketfleet.training.weights import Tensors

VALUES = {"learning_rate": 0.01, "beta1": 0.9, "beta2": 0.999, "epsilon": 1e-8, "weight_decay": 0.1}
SHAPES = {"layer.weight": (4, 3), "layer.bias": (4,)}
STEPS = 30


def noise(purpose: str, *shape: int) -> torch.Tensor:
    """Standard normal ``float32`` numbers."""
    return torch.from_numpy(normal(draw_key(5, purpose), math.prod(shape))).to(torch.float32).reshape(shape)


def start() -> Tensors:
    # Below 1, where float32 rounds to 6e-8: 30 roundings are within the tolerance.
    return {name: noise(name, *shape) * 0.25 for name, shape in SHAPES.items()}


def gradient(step: int) -> Tensors:
    """Of sizes that differ a hundredfold from step to step."""
    return {name: noise(f"{name} {step}", *shape) * 10.0 ** -(step % 3) for name, shape in SHAPES.items()}


def ours(settings: StepSettings) -> tuple[Tensors, Tensors]:
    weights, hyper = start(), hyper_tensors(settings, VALUES)
    slots = empty_slots(weights, settings)
    for step in range(STEPS):
        weights, slots = descend(weights, gradient(step), slots, hyper, settings)
    return weights, slots


def torchs(optimizer: type[torch.optim.Optimizer], *, weight_decay: float) -> tuple[Tensors, torch.optim.Optimizer]:
    weights = {name: value.requires_grad_() for name, value in start().items()}
    optim = optimizer(weights.values(), lr=0.01, betas=(0.9, 0.999), eps=1e-8, weight_decay=weight_decay, foreach=False)
    for step in range(STEPS):
        for name, value in gradient(step).items():
            weights[name].grad = value
        optim.step()
    return weights, optim


@pytest.mark.parametrize("weight_decay", [False, True])
@pytest.mark.parametrize(("name", "optimizer"), [("adam", torch.optim.Adam), ("adamw", torch.optim.AdamW)])
def test_steps_equal_torch(name: Optimizer, optimizer: type[torch.optim.Optimizer], weight_decay: bool) -> None:
    got, slots = ours(StepSettings(optimizer=name, weight_decay=weight_decay))
    expected, optim = torchs(optimizer, weight_decay=VALUES["weight_decay"] * weight_decay)
    for key, value in expected.items():
        # 30 steps of about 0.01 each: standing still would be off by far more.
        assert (value - start()[key]).abs().max() > 0.05
        torch.testing.assert_close(got[key], value.detach(), rtol=0.0, atol=1e-6)
        kept = optim.state[value]
        torch.testing.assert_close(slots[f"first_moment/{key}"], kept["exp_avg"], rtol=1e-5, atol=1e-7)
        # Torch takes 1 - beta2 in float64, a program in float32, where 1 - 0.999 is 1.3e-5 off; the power is off alike.
        torch.testing.assert_close(slots[f"second_moment/{key}"], kept["exp_avg_sq"], rtol=2e-5, atol=1e-8)


def test_the_decay_of_adam_and_of_adamw_differ() -> None:
    adam, adamw = (ours(StepSettings(optimizer=name, weight_decay=True))[0] for name in ("adam", "adamw"))
    assert not torch.allclose(adam["layer.weight"], adamw["layer.weight"], atol=1e-3)


@pytest.mark.parametrize("name", ["adam", "adamw"])
def test_a_first_step_by_hand(name: Optimizer) -> None:
    # First moment 0.1 * 3 = 0.3, second 0.001 * 9 = 0.009; over 1 - 0.9 and 1 - 0.999: 3 and 9; 2 - 0.5 * 3 / 3 = 1.5.
    settings = StepSettings(optimizer=name)
    weights = {"w": torch.tensor([2.0])}
    hyper = hyper_tensors(settings, {**VALUES, "learning_rate": 0.5})
    after, slots = descend(weights, {"w": torch.tensor([3.0])}, empty_slots(weights, settings), hyper, settings)
    assert after["w"].item() == pytest.approx(1.5, rel=1e-6)
    assert {key: value.item() for key, value in slots.items()} == pytest.approx(
        {"first_moment/w": 0.3, "second_moment/w": 0.009, "beta1_power": 0.9, "beta2_power": 0.999}, rel=2e-5
    )


def test_a_gradient_of_zero_moves_nothing() -> None:
    settings = StepSettings(optimizer="adam")
    weights = start()
    zeros = {key: torch.zeros_like(value) for key, value in weights.items()}
    after, _ = descend(weights, zeros, empty_slots(weights, settings), hyper_tensors(settings, VALUES), settings)
    assert all(torch.equal(after[key], value) for key, value in weights.items())


def test_the_powers_after_many_steps() -> None:
    slots = ours(StepSettings(optimizer="adam"))[1]
    # 30 roundings of float32, 6e-8 each.
    assert slots["beta1_power"].item() == pytest.approx(0.9**STEPS, rel=2e-6)
    assert slots["beta2_power"].item() == pytest.approx(0.999**STEPS, rel=2e-6)


@pytest.mark.parametrize("name", ["adam", "adamw"])
def test_the_slots_at_the_start(name: Optimizer) -> None:
    slots = empty_slots(start(), StepSettings(optimizer=name, weight_decay=True))
    assert {key: tuple(value.shape) for key, value in slots.items()} == {
        "first_moment/layer.weight": (4, 3),
        "first_moment/layer.bias": (4,),
        "second_moment/layer.weight": (4, 3),
        "second_moment/layer.bias": (4,),
        "beta1_power": (),
        "beta2_power": (),
    }
    assert {key: float(value.sum()) for key, value in slots.items() if value.any()} == {
        "beta1_power": 1.0,
        "beta2_power": 1.0,
    }


def test_what_sgd_keeps() -> None:
    assert empty_slots(start(), StepSettings(weight_decay=True)) == {}
    assert list(empty_slots(start(), StepSettings(momentum=True))) == ["momentum/layer.weight", "momentum/layer.bias"]


@pytest.mark.parametrize(
    "settings",
    [StepSettings(), StepSettings(momentum=True, nesterov=True), StepSettings(optimizer="adamw", weight_decay=True)],
    ids=str,
)
def test_every_slot_comes_back_and_nothing_given_is_changed(settings: StepSettings) -> None:
    weights, hyper = start(), hyper_tensors(settings, {**VALUES, "momentum": 0.9})
    slots, given = empty_slots(weights, settings), gradient(0)
    after, kept = descend(weights, given, slots, hyper, settings)
    assert after.keys() == weights.keys()
    assert kept.keys() == slots.keys()
    assert all(torch.equal(weights[key], value) for key, value in start().items())
    assert all(torch.equal(given[key], value) for key, value in gradient(0).items())
    assert all(torch.equal(slots[key], value) for key, value in empty_slots(weights, settings).items())
