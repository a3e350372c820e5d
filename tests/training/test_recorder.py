"""What a recording carries out again, and what is not recorded."""

from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from pocketfleet.training.draws import draw_key, normal
from pocketfleet.training.recorder import Recorder, Recording

Function = Callable[..., list[torch.Tensor]]


def noise(*shape: int, key: str = "x") -> torch.Tensor:
    """Standard normal ``float32`` numbers."""
    return torch.from_numpy(normal(draw_key(3, key), torch.Size(shape).numel())).to(torch.float32).reshape(shape)


def recorded(function: Function, *inputs: torch.Tensor) -> tuple[Recording | None, str | None]:
    recorder = Recorder(inputs)
    with recorder:
        outputs = function(*inputs)
    return recorder.recording(outputs), recorder.refusal


def assert_replays(function: Function, *inputs: torch.Tensor) -> Recording:
    """The recording of one call gives what a call with other numbers gives."""
    recording, refusal = recorded(function, *inputs)
    assert refusal is None
    assert recording is not None
    others = [value.flip(0) if value.dim() else value + 1 for value in inputs]
    before = [value.clone() for value in others]
    found, wanted = recording(others), function(*others)
    assert len(found) == len(wanted)
    assert all(torch.equal(one, other) for one, other in zip(found, wanted, strict=True))
    assert all(torch.equal(one, other) for one, other in zip(others, before, strict=True))
    assert not any(value.requires_grad for value in found)
    return recording


def gradient(x: torch.Tensor, w: torch.Tensor) -> list[torch.Tensor]:
    w = w.detach().requires_grad_()
    loss = torch.tanh(x @ w).square().mean()
    return [loss.detach(), *torch.autograd.grad(loss, [w])]


def test_a_gradient_is_replayed() -> None:
    assert_replays(gradient, noise(4, 3), noise(3, 2, key="w"))


def test_mapped_gradients_are_replayed() -> None:
    def mapped(x: torch.Tensor, w: torch.Tensor) -> list[torch.Tensor]:
        w = w.detach().requires_grad_()
        losses = torch.vmap(lambda x, w: torch.tanh(x @ w).square().mean())(x, w)
        return [losses.detach(), *torch.autograd.grad(losses.sum(), [w])]

    assert_replays(mapped, noise(5, 4, 3), noise(5, 3, 2, key="w"))


def test_what_nobody_uses_is_left_out_and_what_writes_is_not() -> None:
    def function(x: torch.Tensor) -> list[torch.Tensor]:
        (x * 3.0).exp()
        own = x.clone()
        own[0].mul_(2.0)
        return [own.detach()]

    # A copy, a view of it, a product in place; neither the product before them nor its exponential.
    assert assert_replays(function, noise(3, 2)).num_operators == 3


def test_parts_of_a_result_and_lists_of_arguments_are_told_apart() -> None:
    def function(x: torch.Tensor, index: torch.Tensor) -> list[torch.Tensor]:
        first, _, third = x.split(2)
        values, places = x.max(dim=1)
        return [torch.cat([third, first]), x[:, index], values, places, x, x]

    assert_replays(function, noise(6, 3), torch.tensor([2, 0]))


def test_constants_of_a_function_stay() -> None:
    constant = noise(3, key="constant")
    assert_replays(lambda x: [x * constant + torch.tensor([1.0, 2.0, 3.0]), torch.arange(3) * 2], noise(2, 3))


def test_batch_norm_writes_though_its_schema_does_not_tell() -> None:
    def function(x: torch.Tensor, mean: torch.Tensor, variance: torch.Tensor) -> list[torch.Tensor]:
        mean, variance = mean.clone(), variance.clone()
        F.batch_norm(x, mean, variance, training=True)
        return [mean, variance]

    assert_replays(function, noise(8, 3), noise(3, key="mean"), noise(3, key="variance").square())


CONSTANT = torch.zeros(3)


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (lambda x: [x * x.sum().item()], "_local_scalar_dense"),
        (lambda x: [x * 2.0 if bool((x > 0).all()) else x], "_local_scalar_dense"),
        (lambda x: [x[x > 0]], "index.Tensor gives a tensor of a size that depends on values"),
        (lambda x: [(x > 0).nonzero()], "of a size that depends on values"),
        (lambda x: [F.dropout(x, 0.5)], "bernoulli"),
        (lambda x: [x + torch.rand(3)], "rand.default draws random numbers"),
        (lambda x: [x.clone().unsqueeze_(0)], "changes a tensor's shape in place"),
        (lambda x: [x.add_(1.0)], "add_.Tensor writes to a tensor that is not the call's own"),
        (lambda x: [x[:1].add_(1.0)], "not the call's own"),
        (lambda x: [CONSTANT.add_(x)], "not the call's own"),
        (lambda x: [x.to_sparse() * 2.0], "something else than plain tensors"),
        (lambda x: [torch.add(x, x, out=torch.empty(3))], "takes a tensor by name"),
    ],
)
def test_refused(function: Function, reason: str) -> None:
    recording, refusal = recorded(function, noise(3))
    assert recording is None
    assert refusal is not None
    assert reason in refusal


def test_a_function_of_autograds_own_is_seen_through() -> None:
    class Cubed(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):  # noqa: ANN205
            ctx.save_for_backward(x)
            return x**3

        @staticmethod
        def backward(ctx, up):  # noqa: ANN205
            (x,) = ctx.saved_tensors
            return up * 3 * x**2

    def function(x: torch.Tensor) -> list[torch.Tensor]:
        x = x.detach().requires_grad_()
        return list(torch.autograd.grad(Cubed.apply(x).sum(), [x]))

    assert_replays(function, noise(4))


def test_recurrent_and_attending_layers_are_replayed() -> None:
    lstm, attention = nn.LSTM(3, 4, batch_first=True), nn.MultiheadAttention(4, 2, batch_first=True)

    def function(x: torch.Tensor, *weights: torch.Tensor) -> list[torch.Tensor]:
        leaves = [value.detach().requires_grad_() for value in weights]
        names = [name for name, _ in lstm.named_parameters()]
        hidden, _ = torch.func.functional_call(lstm, dict(zip(names, leaves, strict=True)), (x,))
        seen, _ = attention(hidden, hidden, hidden, need_weights=False)
        return list(torch.autograd.grad(seen.square().sum(), leaves))

    assert_replays(function, noise(2, 5, 3), *(value.detach() for value in lstm.parameters()))
