"""Gradients of pools against autograd's own, in every shape that torch lets a pool have."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from toy import drawn

from pocketfleet.export import pooling

aten = torch.ops.aten
few = settings(max_examples=40, deadline=None, derandomize=True)
batches = st.integers(1, 3)
dimensions = st.integers(2, 3)
small = st.tuples(st.integers(1, 3), st.integers(1, 3), st.integers(1, 3))
sizes = st.tuples(st.integers(5, 8), st.integers(5, 8), st.integers(5, 8))


def operator(name: str, dims: int) -> Any:  # noqa: ANN401 - one of torch's operators
    return getattr(aten, name.format(dims)).default


def image(batch: int, size: tuple[int, ...], *, seed: int = 0) -> torch.Tensor:
    return drawn(batch, 2, *size, seed=seed).double()


def padding_of(data: st.DataObject, kernel: tuple[int, ...]) -> list[int]:
    return [data.draw(st.integers(0, one // 2)) for one in kernel]


@given(
    batch=batches,
    dims=dimensions,
    size=sizes,
    kernel=small,
    stride=small,
    dilation=st.integers(1, 2),
    ceil_mode=st.booleans(),
    data=st.data(),
)
@few
def test_max_pool_gradient(
    batch: int,
    dims: int,
    size: tuple[int, ...],
    kernel: tuple[int, ...],
    stride: tuple[int, ...],
    dilation: int,
    ceil_mode: bool,
    data: st.DataObject,
) -> None:
    kernel, padding = kernel[:dims], padding_of(data, kernel[:dims])
    # Rounded, so that windows hold equal maxima, whose gradient goes to one place only.
    x = image(batch, size[:dims]).round()
    options = (kernel, stride[:dims], padding, [dilation] * dims, ceil_mode)
    output, indices = operator("max_pool{}d_with_indices", dims)(x, *options)
    grad = drawn(*output.shape, seed=1).double()
    found = pooling.max_pool_backward(grad, x, *options, indices)
    torch.testing.assert_close(found, operator("max_pool{}d_with_indices_backward", dims)(grad, x, *options, indices))


@given(
    batch=batches,
    dims=dimensions,
    size=sizes,
    kernel=small,
    stride=small,
    ceil_mode=st.booleans(),
    include_pad=st.booleans(),
    divisor=st.sampled_from([None, 3]),
    data=st.data(),
)
@few
def test_average_pool_and_its_gradient(
    batch: int,
    dims: int,
    size: tuple[int, ...],
    kernel: tuple[int, ...],
    stride: tuple[int, ...],
    ceil_mode: bool,
    include_pad: bool,
    divisor: int | None,
    data: st.DataObject,
) -> None:
    kernel, padding = kernel[:dims], padding_of(data, kernel[:dims])
    x = image(batch, size[:dims])
    options = (kernel, stride[:dims], padding, ceil_mode, include_pad, divisor)
    output = operator("avg_pool{}d", dims)(x, *options)
    grad = drawn(*output.shape, seed=1).double()
    found = pooling.avg_pool_backward(grad, x, *options)
    torch.testing.assert_close(found, operator("avg_pool{}d_backward", dims)(grad, x, *options))
    if divisor is not None:
        torch.testing.assert_close(pooling.avg_pool(x, *options), output)


def test_one_number_stands_for_all_dimensions_and_no_stride_for_the_kernel() -> None:
    x, grad = image(2, (6, 6)), image(2, (4, 4), seed=1)
    expected = aten.avg_pool2d_backward(grad, x, [2, 2], [], [1], False, True, None)
    torch.testing.assert_close(pooling.avg_pool_backward(grad, x, [2, 2], [], [1]), expected)


def test_plain_average_pools_are_left_to_the_runtime() -> None:
    assert pooling.avg_pool(image(1, (5, 5)), [3, 3], [2, 2], [1, 1], True, False) is NotImplemented


@given(batch=batches, size=st.tuples(st.integers(1, 8), st.integers(1, 8)), data=st.data())
@few
def test_adaptive_pool_gradients(batch: int, size: tuple[int, int], data: st.DataObject) -> None:
    # A pool may also give more values than it is given.
    out = [data.draw(st.integers(1, one + 1)) for one in size]
    x, grad = image(batch, size), image(batch, tuple(out), seed=1)
    torch.testing.assert_close(pooling.adaptive_avg_pool_backward(grad, x), aten._adaptive_avg_pool2d_backward(grad, x))
    _, indices = aten.adaptive_max_pool2d(x, out)
    torch.testing.assert_close(
        pooling.adaptive_max_pool2d_backward(grad, x, indices), aten.adaptive_max_pool2d_backward(grad, x, indices)
    )


@pytest.mark.parametrize("dims", [2, 3])
def test_every_place_of_a_window_gets_an_equal_share(dims: int) -> None:
    grad = torch.ones(1, 1, *[1] * dims)
    found = pooling.avg_pool_backward(grad, torch.zeros(1, 1, *[2] * dims), [2] * dims)
    assert found.flatten().tolist() == [0.5**dims] * 2**dims
