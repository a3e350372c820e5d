import pytest
import torch
from torch import nn

from pocketfleet.training.unfolded_convolution import UnfoldedConvolutions

CONVOLUTIONS = {
    "plain": {},
    "no bias": {"bias": False},
    "everything": {"stride": (2, 1), "padding": (2, 1), "dilation": (1, 2)},
    # As they are: torch's own.
    "grouped": {"groups": 2},
    "same": {"padding": "same"},
}


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_unfolded_convolutions_are_convolutions(name: str) -> None:
    layer = nn.Conv2d(2, 4, (3, 5), dtype=torch.float64, **CONVOLUTIONS[name])
    x = torch.linspace(-1.0, 1.0, 2 * 2 * 8 * 9, dtype=torch.float64).reshape(2, 2, 8, 9).requires_grad_()
    plain = layer(x)
    with UnfoldedConvolutions():
        unfolded = layer(x)
    torch.testing.assert_close(unfolded, plain, rtol=1e-10, atol=1e-12)
    gradients = [torch.autograd.grad(output.square().sum(), [x, layer.weight]) for output in (plain, unfolded)]
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-10, atol=1e-10)


def test_a_mapped_model_runs_products_in_place_of_convolutions() -> None:
    layer = nn.Conv2d(1, 2, 3)
    calls = []

    class Counted(UnfoldedConvolutions):
        def __torch_function__(self, func, types, args=(), kwargs=None) -> object:
            calls.append(func)
            return super().__torch_function__(func, types, args, kwargs)

    with Counted():
        layer(torch.ones(1, 1, 5, 5))
    # The convolution was asked for once, and was taken apart outside of the context.
    assert calls.count(torch.conv2d) == 1
