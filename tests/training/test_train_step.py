import copy
import math
from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from pocketfleet.training.draws import draw_key, normal
from pocketfleet.training.train_step import (
    StepSettings,
    TrainState,
    TrainStep,
    evaluate,
    hyper_tensors,
    predict,
)
from pocketfleet.training.weights import Tensors, Weights, model_weights

# Batches of unequal sizes, as at the end of an epoch.
BATCH_SIZES = (4, 2, 3, 7, 5)
VALUES = {"learning_rate": 0.1, "momentum": 0.9, "weight_decay": 0.05, "proximal_mu": 0.7, "max_norm": 1.05}


def noise(purpose: str, *shape: int) -> torch.Tensor:
    """Standard normal ``float32`` numbers."""
    values = normal(draw_key(11, purpose), math.prod(shape))
    return torch.from_numpy(values).to(torch.float32).reshape(shape)


def batches() -> list[tuple[torch.Tensor, torch.Tensor]]:
    return [(noise(f"x{i}", size, 3), noise(f"y{i}", size, 2)) for i, size in enumerate(BATCH_SIZES)]


def filled(model: nn.Module) -> nn.Module:
    """The model with parameters drawn by name."""
    with torch.no_grad():
        for name, value in model.named_parameters():
            value.copy_(noise(name, *value.shape) * 0.5)
    return model


def perceptron() -> nn.Module:
    return filled(nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)))


def normed() -> nn.Module:
    return filled(nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 2)))


def squared_error(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    return (output - target).square().mean(dim=1)


def run(
    settings: StepSettings, model: nn.Module, *, correction: Tensors | None = None
) -> tuple[list[float], TrainState]:
    """Losses and final state of one step on each batch."""
    state = TrainState.start(model_weights(model, batches()[0][0]), settings, correction=correction)
    step, hyper = TrainStep(model, squared_error, settings), hyper_tensors(settings, VALUES)
    losses = []
    for x, y in batches():
        loss, state = step(state, x, y, hyper)
        losses.append(loss.item())
    return losses, state


def run_torch(
    model: nn.Module,
    *,
    momentum: float = 0.0,
    nesterov: bool = False,
    weight_decay: float = 0.0,
    extra_loss: Callable[[nn.Module], torch.Tensor | float] = lambda _: 0.0,
    before_step: Callable[[nn.Module], object] = lambda _: None,
) -> tuple[list[float], nn.Module]:
    """The same by an ordinary module in training mode and ``torch.optim.SGD``."""
    model = copy.deepcopy(model).train()
    optimizer = torch.optim.SGD(
        model.parameters(),
        lr=VALUES["learning_rate"],
        momentum=momentum,
        nesterov=nesterov,
        weight_decay=weight_decay,
    )
    losses = []
    for x, y in batches():
        optimizer.zero_grad()
        loss = F.mse_loss(model(x), y)
        losses.append(loss.item())
        (loss + extra_loss(model)).backward()  # type: ignore[no-untyped-call]
        before_step(model)
        optimizer.step()
    return losses, model


def assert_same_training(got: tuple[list[float], TrainState], want: tuple[list[float], nn.Module]) -> None:
    """Equal but for float32's rounding (6e-8 relative an operation, some ten operations a step)."""
    (losses, state), (expected_losses, model) = got, want
    assert losses == pytest.approx(expected_losses, rel=1e-6)
    # Training moves every weight by far more than the tolerance, so that standing still would not pass.
    expected = dict(model.named_parameters())
    assert state.trainable.keys() == expected.keys()
    for name, value in state.trainable.items():
        torch.testing.assert_close(value, expected[name].detach(), rtol=2e-6, atol=2e-7)
    for name, buffer in model.named_buffers():
        torch.testing.assert_close(state.buffers[name], buffer, rtol=2e-6, atol=2e-7)


@pytest.mark.parametrize("weight_decay", [False, True])
@pytest.mark.parametrize(("momentum", "nesterov"), [(False, False), (True, False), (True, True)])
def test_steps_equal_torch_sgd(momentum: bool, nesterov: bool, weight_decay: bool) -> None:
    settings = StepSettings(momentum=momentum, nesterov=nesterov, weight_decay=weight_decay)
    expected = run_torch(
        perceptron(),
        momentum=VALUES["momentum"] * momentum,
        nesterov=nesterov,
        weight_decay=VALUES["weight_decay"] * weight_decay,
    )
    assert_same_training(run(settings, perceptron()), expected)


def test_a_step_by_hand() -> None:
    # w = 2 on inputs 1 and 3 with targets 0: losses 4 and 36, mean 20; gradient the mean of 2 * w * x^2, 4 and 36: 20;
    # w - 0.125 * 20 = -0.5.
    model = nn.Linear(1, 1, bias=False)
    weights = Weights(trainable={"weight": torch.tensor([[2.0]])}, buffers={}, frozen={})
    step = TrainStep(model, squared_error, StepSettings())
    hyper = {"learning_rate": torch.tensor(0.125)}
    x, y = torch.tensor([[1.0], [3.0]]), torch.zeros(2, 1)
    loss, state = step(TrainState.start(weights, step.settings), x, y, hyper)
    assert loss.shape == ()
    assert (loss.item(), state.trainable["weight"].item()) == (20.0, -0.5)


@pytest.mark.parametrize("momentum", [False, True])
def test_clipping_equals_torch(momentum: bool) -> None:
    norms = []

    def clip(model: nn.Module) -> None:
        norms.append(nn.utils.clip_grad_norm_(model.parameters(), VALUES["max_norm"]).item())

    settings = StepSettings(clipping=True, momentum=momentum, weight_decay=True)
    expected = run_torch(
        perceptron(),
        momentum=VALUES["momentum"] * momentum,
        weight_decay=VALUES["weight_decay"],
        before_step=clip,
    )
    # Some gradients are longer than what is allowed and some are shorter: both sides of the rule are run.
    assert min(norms) < VALUES["max_norm"] < max(norms)
    assert_same_training(run(settings, perceptron()), expected)


@pytest.mark.parametrize(("gradient", "moved"), [(0.0, 2.0), (1e-6, 1.5)])
def test_clipping_of_the_smallest_gradients(gradient: float, moved: float) -> None:
    # The loss w * x has gradient x. Of a norm of 1e-6, with as much allowed, 1e-6 / (1e-6 + 1e-6), a half, is left:
    # 2 - 1e6 * 0.5e-6 = 1.5. A gradient of 0 stays 0.
    model = nn.Linear(1, 1, bias=False)
    weights = Weights(trainable={"weight": torch.tensor([[2.0]])}, buffers={}, frozen={})
    step = TrainStep(model, lambda output, _: output.mean(dim=1), StepSettings(clipping=True))
    state = TrainState.start(weights, step.settings)
    hyper = hyper_tensors(step.settings, {"learning_rate": 1e6, "max_norm": 1e-6})
    _, state = step(state, torch.full((1, 1), gradient), torch.zeros(1, 1), hyper)
    assert state.trainable["weight"].item() == pytest.approx(moved, rel=1e-6)


def test_proximal_term_equals_a_loss_with_the_distance_added() -> None:
    anchor = [value.detach().clone() for value in perceptron().parameters()]

    def distance(model: nn.Module) -> torch.Tensor:
        pairs = zip(model.parameters(), anchor, strict=True)
        return VALUES["proximal_mu"] / 2 * torch.stack([(w - a).square().sum() for w, a in pairs]).sum()

    expected = run_torch(perceptron(), extra_loss=distance)
    assert_same_training(run(StepSettings(proximal=True), perceptron()), expected)


def test_correction_is_added_to_the_gradient_before_clipping() -> None:
    correction = {name: noise(f"c.{name}", *value.shape) for name, value in perceptron().named_parameters()}

    def correct_and_clip(model: nn.Module) -> None:
        for name, value in model.named_parameters():
            assert value.grad is not None
            value.grad += correction[name]
        nn.utils.clip_grad_norm_(model.parameters(), VALUES["max_norm"])

    settings = StepSettings(correction=True, clipping=True)
    expected = run_torch(perceptron(), before_step=correct_and_clip)
    assert_same_training(run(settings, perceptron(), correction=correction), expected)


def test_a_correction_that_is_not_given_is_zero() -> None:
    assert_same_training(run(StepSettings(correction=True), perceptron()), run_torch(perceptron()))


def test_batch_norm_statistics_equal_an_ordinary_module() -> None:
    # A step trains in training mode whatever mode the model was left in.
    got = run(StepSettings(momentum=True), normed().eval())
    assert_same_training(got, run_torch(normed(), momentum=VALUES["momentum"]))
    assert sorted(got[1].buffers) == ["1.num_batches_tracked", "1.running_mean", "1.running_var"]
    assert got[1].buffers["1.num_batches_tracked"].item() == len(BATCH_SIZES)


class Drifting(nn.Module):
    """Keeps an average of its outputs that each training pass replaces."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("average", torch.zeros(1))
        self.weight = nn.Parameter(torch.full((1,), 4.0))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        output = x * self.weight
        self.average = 0.5 * self.average + 0.5 * output.mean(0)
        return output


def test_a_buffer_that_the_model_replaces_comes_out_without_a_gradient() -> None:
    model = Drifting()
    x = torch.ones(2, 1)
    settings = StepSettings()
    state = TrainState.start(model_weights(model, x), settings)
    step, hyper = TrainStep(model, squared_error, settings), hyper_tensors(settings, {"learning_rate": 0.25})
    _, state = step(state, x, x, hyper)
    # The output is 4: 0.5 * 0 + 0.5 * 4 = 2; the gradient 2 * (4 - 1) = 6 moves the weight to 4 - 0.25 * 6 = 2.5.
    assert (state.buffers["average"].item(), state.trainable["weight"].item()) == (2.0, 2.5)
    assert not state.buffers["average"].requires_grad
    _, state = step(state, x, x, hyper)
    assert state.buffers["average"].item() == 2.25  # 0.5 * 2 + 0.5 * 2.5
    assert model.average.item() == 0.0


def test_a_step_changes_nothing_it_was_given() -> None:
    model = normed()
    model[3].bias.requires_grad_(False)
    settings = StepSettings(
        momentum=True, nesterov=True, weight_decay=True, proximal=True, clipping=True, correction=True
    )
    x, y = batches()[0]
    state = TrainState.start(model_weights(model, x), settings)
    hyper = hyper_tensors(settings, VALUES)
    given = (
        state.trainable | {f"buffer.{name}": value for name, value in state.buffers.items()},
        state.frozen,
        state.optimizer_slots,
        state.anchor,
        state.correction,
        hyper,
        dict(model.state_dict()),
        {"x": x, "y": y},
    )
    assert all(given)
    before = copy.deepcopy(given)
    step = TrainStep(model, squared_error, settings)
    first_loss, first = step(state, x, y, hyper)
    second_loss, second = step(state, x, y, hyper)
    for tensors, copies in zip(given, before, strict=True):
        for name, value in tensors.items():
            assert torch.equal(value, copies[name]), name
    assert all(value.grad is None for value in model.parameters())
    # A function of its arguments alone: the same bits again, and nothing tied to a graph.
    assert torch.equal(first_loss, second_loss)
    for name, value in (first.trainable | first.buffers | first.optimizer_slots).items():
        assert not value.requires_grad, name
        assert torch.equal(value, (second.trainable | second.buffers | second.optimizer_slots)[name]), name
    assert not first_loss.requires_grad
    assert not torch.equal(first.trainable["0.weight"], state.trainable["0.weight"])


def test_the_models_own_weights_are_never_read() -> None:
    settings, x = StepSettings(), batches()[0][0]
    model = normed()
    state = TrainState.start(model_weights(model, x), settings)
    other = copy.deepcopy(model)
    with torch.no_grad():
        for value in other.state_dict().values():
            value.fill_(3)
    hyper = hyper_tensors(settings, VALUES)
    (_, ours), (_, theirs) = (
        TrainStep(one, squared_error, settings)(state, *batches()[0], hyper) for one in (model, other)
    )
    assert all(torch.equal(value, theirs.trainable[name]) for name, value in ours.trainable.items())
    assert all(torch.equal(value, theirs.buffers[name]) for name, value in ours.buffers.items())


def test_frozen_weights_take_part_and_stay() -> None:
    # Output (frozen 3) * w with w = 1 on x = 1, y = 0: loss 9, gradient 2 * 3 * 3 = 18, w = 1 - 0.1 * 18 = -0.8.
    model = nn.Sequential(nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False))
    model[1].requires_grad_(False)
    x = torch.ones(1, 1)
    weights = Weights(
        trainable={"0.weight": torch.tensor([[1.0]])}, buffers={}, frozen={"1.weight": torch.tensor([[3.0]])}
    )
    settings = StepSettings()
    state = TrainState.start(weights, settings)
    loss, end = TrainStep(model, squared_error, settings)(state, x, torch.zeros(1, 1), hyper_tensors(settings, VALUES))
    assert loss.item() == 9.0
    assert end.trainable["0.weight"].item() == pytest.approx(-0.8, rel=1e-6)
    assert end.frozen["1.weight"].item() == 3.0


def test_a_weight_that_the_loss_does_not_reach_has_gradient_zero() -> None:
    model = nn.ModuleDict({"used": nn.Linear(3, 2), "spare": nn.Linear(3, 2)})
    model.forward = lambda x: model["used"](x)  # type: ignore[method-assign]
    x, y = batches()[0]
    step = TrainStep(model, squared_error, StepSettings())
    _, gradient, _ = step.gradient(TrainState.start(model_weights(model, x), step.settings), x, y)
    assert torch.equal(gradient["spare.weight"], torch.zeros(2, 3))
    assert gradient["used.weight"].abs().min() > 0


def test_a_scalar_mean_loss_equals_the_loss_per_example() -> None:
    settings, (x, y) = StepSettings(momentum=True), batches()[0]
    state = TrainState.start(model_weights(perceptron(), x), settings)
    hyper = hyper_tensors(settings, VALUES)

    def mean_error(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return squared_error(output, target).mean()

    loss, end = TrainStep(perceptron(), squared_error, settings)(state, x, y, hyper)
    mean_loss, mean_end = TrainStep(perceptron(), mean_error, settings)(state, x, y, hyper)
    assert torch.equal(loss, mean_loss)
    assert all(torch.equal(value, mean_end.trainable[name]) for name, value in end.trainable.items())


def test_the_start_of_a_device() -> None:
    weights = model_weights(normed(), batches()[0][0])
    bare = TrainState.start(weights, StepSettings())
    assert (bare.optimizer_slots, bare.anchor, bare.correction) == ({}, {}, {})
    assert (bare.trainable, bare.frozen, bare.buffers) == (weights.trainable, weights.frozen, weights.buffers)
    full = TrainState.start(weights, StepSettings(momentum=True, proximal=True, correction=True))
    for tensors, prefix in ((full.optimizer_slots, "momentum/"), (full.correction, "")):
        assert {name: value.shape for name, value in tensors.items()} == {
            f"{prefix}{name}": value.shape for name, value in weights.trainable.items()
        }
        assert all(not value.any() for value in tensors.values())
    assert full.anchor == weights.trainable


def test_a_correction_is_left_out_where_the_settings_leave_it_out() -> None:
    weights = model_weights(perceptron(), batches()[0][0])
    correction = {name: torch.ones_like(value) for name, value in weights.trainable.items()}
    assert TrainState.start(weights, StepSettings(), correction=correction).correction == {}
    assert TrainState.start(weights, StepSettings(correction=True), correction=correction).correction is correction


def test_hyper_names_in_order() -> None:
    assert StepSettings().hyper_names == ("learning_rate",)
    settings = StepSettings(
        momentum=True, nesterov=True, weight_decay=True, proximal=True, clipping=True, correction=True
    )
    assert settings.hyper_names == ("learning_rate", "momentum", "weight_decay", "proximal_mu", "max_norm")


def test_hyper_tensors_are_float32_scalars_of_the_wanted_names() -> None:
    hyper = hyper_tensors(StepSettings(momentum=True), VALUES)
    assert list(hyper) == ["learning_rate", "momentum"]
    assert all(value.dtype == torch.float32 and value.shape == () for value in hyper.values())
    assert hyper["momentum"].item() == pytest.approx(0.9, rel=1e-7)


def test_missing_hyper_parameters_are_named() -> None:
    settings = StepSettings(momentum=True, proximal=True)
    with pytest.raises(ValueError, match=r"^hyper-parameters missing: \['momentum', 'proximal_mu'\]$"):
        hyper_tensors(settings, {"learning_rate": 0.1, "weight_decay": 0.1})


def test_nesterov_needs_momentum() -> None:
    with pytest.raises(ValueError, match=r"^nesterov needs momentum$"):
        StepSettings(nesterov=True)


def test_predict_uses_the_given_weights_in_evaluation_mode() -> None:
    model = nn.Sequential(nn.BatchNorm1d(1, eps=0.0), nn.Dropout(0.9)).train()
    weights = Weights(
        trainable={"0.weight": torch.tensor([3.0], requires_grad=True), "0.bias": torch.tensor([1.0])},
        buffers={
            "0.running_mean": torch.tensor([2.0]),
            "0.running_var": torch.tensor([4.0]),
            "0.num_batches_tracked": torch.tensor(5),
        },
        frozen={},
    )
    output = predict(model, weights, torch.tensor([[6.0], [2.0]]))
    # 3 * (6 - 2) / sqrt(4) + 1 = 7 and 3 * 0 + 1 = 1, nothing dropped.
    assert output.tolist() == [[7.0], [1.0]]
    assert not output.requires_grad
    assert weights.buffers["0.num_batches_tracked"].item() == 5


def identity_metrics(output: torch.Tensor, target: torch.Tensor) -> Tensors:
    return {"hit": (output > target).squeeze(1), "distance": (output - target).abs().squeeze(1)}


@pytest.mark.parametrize("reduced", [False, True])
def test_evaluate_takes_means_and_puts_the_loss_first(reduced: bool) -> None:
    def loss(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        errors = squared_error(output, target)
        return errors.mean() if reduced else errors

    weights = Weights(trainable={"weight": torch.tensor([[2.0]])}, buffers={}, frozen={})
    x, y = torch.tensor([[1.0], [2.0], [0.0], [4.0]]), torch.tensor([[1.0], [5.0], [0.0], [5.0]])
    scores = evaluate(nn.Linear(1, 1, bias=False), loss, identity_metrics, weights, x, y)
    # Outputs 2, 4, 0, 8 against 1, 5, 0, 5: squares 1, 1, 0, 9; two of four are above; distances 1, 1, 0, 3.
    assert [(name, value.item()) for name, value in scores.items()] == [
        ("loss", 2.75),
        ("hit", 0.5),
        ("distance", 1.25),
    ]
    assert all(value.shape == () and value.dtype == torch.float32 for value in scores.values())
