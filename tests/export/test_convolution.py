"""Convolutions by copies and products against PyTorch's own, in float64."""

from typing import Any, NamedTuple

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from toy import drawn

from pocketfleet.export.convolution import convolution, convolution_backward

aten = torch.ops.aten


class Case(NamedTuple):
    x: torch.Tensor
    weight: torch.Tensor
    bias: torch.Tensor
    options: tuple[Any, ...]


@st.composite
def cases(draw: st.DrawFn, dims: int) -> Case:
    small = st.integers(1, 3)
    kernel, stride, dilation = (tuple(draw(small) for _ in range(dims)) for _ in range(3))
    padding = tuple(draw(st.integers(0, 4)) for _ in range(dims))
    groups, per_group_in, per_group_out = draw(small), draw(small), draw(small)
    # At least one window fits; up to three more places, so that strides do not always divide the image.
    size = tuple(
        max(1, dilation[i] * (kernel[i] - 1) + 1 - 2 * padding[i]) + draw(st.integers(0, 3)) for i in range(dims)
    )
    x = drawn(draw(small), groups * per_group_in, *size).double()
    weight = drawn(groups * per_group_out, per_group_in, *kernel, seed=1).double()
    bias = drawn(groups * per_group_out, seed=2).double()
    return Case(x, weight, bias, (stride, padding, dilation, False, (0,) * dims, groups))


def check(case: Case) -> None:
    expected = aten.convolution(case.x, case.weight, case.bias, *case.options)
    torch.testing.assert_close(convolution(case.x, case.weight, case.bias, *case.options), expected)
    grad = drawn(*expected.shape, seed=3).double()
    arguments = (grad, case.x, case.weight, [len(case.bias)], *case.options)
    for found, true in zip(
        convolution_backward(*arguments, [True] * 3), aten.convolution_backward(*arguments, [True] * 3), strict=True
    ):
        torch.testing.assert_close(found, true)


@given(cases(dims=2))
@settings(max_examples=40, deadline=None, derandomize=True)
def test_images(case: Case) -> None:
    check(case)


@given(cases(dims=1))
@settings(max_examples=20, deadline=None, derandomize=True)
def test_sequences(case: Case) -> None:
    check(case)


def test_only_wanted_gradients_are_made() -> None:
    x, weight = drawn(2, 1, 5, 5), drawn(3, 1, 3, 3)
    options = ((1, 1), (0, 0), (1, 1), False, (0, 0), 1)
    grad = aten.convolution(x, weight, None, *options)
    grad_x, grad_w, grad_b = convolution_backward(grad, x, weight, None, *options, [False, True, False])
    assert grad_x is None
    assert grad_w.shape == weight.shape
    assert grad_b is None


@pytest.mark.parametrize(("dims", "transposed"), [(2, True), (3, False)])
def test_what_is_not_covered_is_left_to_the_runtime(dims: int, transposed: bool) -> None:
    x, weight = drawn(1, 2, *[4] * dims), drawn(2, 2, *[2] * dims)
    options = ((1,) * dims, (0,) * dims, (1,) * dims, transposed, (0,) * dims, 1)
    assert convolution(x, weight, None, *options) is NotImplemented
    assert convolution_backward(x, x, weight, None, *options, [True] * 3) is NotImplemented
