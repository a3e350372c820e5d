"""Gradients of pools, and the average pools that a runtime computes otherwise than torch does.

A window of size ``k`` starts every ``s`` places, the first ``p`` places before the image. Along each dimension:

1. The gradient of a maximum goes to the place that the forward pass noted.
2. The gradient of an average goes to every place of its window, divided by how many places the window counts: ``k``;
   with ``ceil_mode`` those up to the end of the padding; without ``count_include_pad`` those inside the image.
   Dimensions are independent, so that counts and sums are taken one dimension after the other.
3. The average of an adaptive pool is a matrix product, for windows there are of unequal sizes.

Everything works for one, two and three dimensions. ``decompositions.py`` says which runtime needs what.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

__all__ = [
    "adaptive_avg_pool_backward",
    "adaptive_max_pool2d_backward",
    "avg_pool",
    "avg_pool_backward",
    "max_pool_backward",
]

aten = torch.ops.aten
_pad_zeros: Callable[[torch.Tensor, list[int]], torch.Tensor] = aten.constant_pad_nd.default


@dataclass(frozen=True, slots=True, kw_only=True)
class _Window:
    """How an average is taken along one dimension of ``size`` places, which is ``dim`` counted from the end."""

    dim: int
    size: int
    kernel: int
    stride: int
    padding: int
    out: int

    def counts(self, *, include_pad: bool) -> list[int]:
        """Rule 2: how many places each window counts."""
        low, high = (-self.padding, self.size + self.padding) if include_pad else (0, self.size)
        starts = [place * self.stride - self.padding for place in range(self.out)]
        return [min(start + self.kernel, high) - max(start, low) for start in starts]


def _windows(
    x: torch.Tensor, out: Sequence[int], kernel_size: Sequence[int], stride: Sequence[int], padding: Sequence[int]
) -> list[_Window]:
    """One for each pooled dimension; a single number stands for all of them, no stride for the kernel's size."""
    dims = len(out)
    kernel = _each(kernel_size, dims)
    steps, pads = _each(stride, dims) if len(stride) else kernel, _each(padding, dims)
    return [
        _Window(
            dim=i - dims, size=int(x.shape[i - dims]), kernel=kernel[i], stride=steps[i], padding=pads[i], out=out[i]
        )
        for i in range(dims)
    ]


def _each(values: Sequence[int], dims: int) -> list[int]:
    return list(values) * dims if len(values) == 1 else list(values)


def _pooled_sizes(x: torch.Tensor, dims: int) -> list[int]:
    return [int(size) for size in x.shape[-dims:]]


def max_pool_backward(
    grad: torch.Tensor,
    x: torch.Tensor,
    kernel_size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    ceil_mode: bool,
    indices: torch.Tensor,
) -> torch.Tensor:
    """``aten.max_pool2d_with_indices_backward`` and its 3-D sister: rule 1."""
    del stride, padding, dilation, ceil_mode
    return _scatter(grad, x, indices, dims=len(kernel_size))


def adaptive_max_pool2d_backward(grad: torch.Tensor, x: torch.Tensor, indices: torch.Tensor) -> torch.Tensor:
    """``aten.adaptive_max_pool2d_backward``: rule 1."""
    return _scatter(grad, x, indices, dims=2)


def _scatter(grad: torch.Tensor, x: torch.Tensor, indices: torch.Tensor, *, dims: int) -> torch.Tensor:
    lead = list(x.shape[:-dims])
    pooled = math.prod(grad.shape[-dims:])
    zeros = aten.full.default([*lead, math.prod(x.shape[-dims:])], 0.0, dtype=grad.dtype)
    flat: torch.Tensor = aten.scatter_add.default(
        zeros, len(lead), indices.reshape([*lead, pooled]), grad.reshape([*lead, pooled])
    )
    return flat.view(x.shape)


def avg_pool_backward(
    grad: torch.Tensor,
    x: torch.Tensor,
    kernel_size: Sequence[int],
    stride: Sequence[int] = (),
    padding: Sequence[int] = (0,),
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> torch.Tensor:
    """``aten.avg_pool2d_backward`` and its 3-D sister as a sum of shifted, spread gradients: rule 2."""
    del ceil_mode
    windows = _windows(x, _pooled_sizes(grad, len(kernel_size)), kernel_size, stride, padding)
    if divisor_override is None:
        counts = [window.counts(include_pad=count_include_pad) for window in windows]
        share = _times(grad, windows, [[1.0 / count for count in dim] for dim in counts])
    else:
        share = grad * (1.0 / divisor_override)
    for window in windows:
        share = _scatter_windows(share, window)
    return share


def avg_pool(
    x: torch.Tensor,
    kernel_size: Sequence[int],
    stride: Sequence[int] = (),
    padding: Sequence[int] = (0,),
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Any:  # noqa: ANN401 - a tensor or NotImplemented
    """``aten.avg_pool2d`` and its 3-D sister with ``divisor_override``, as means times their counts."""
    if divisor_override is None:
        return NotImplemented
    del count_include_pad
    pool = aten.avg_pool2d.default if len(kernel_size) == 2 else aten.avg_pool3d.default
    means = pool(x, kernel_size, stride, padding, ceil_mode)
    windows = _windows(x, _pooled_sizes(means, len(kernel_size)), kernel_size, stride, padding)
    counts = [[float(count) for count in window.counts(include_pad=True)] for window in windows]
    return _times(means * (1.0 / divisor_override), windows, counts)


def _times(values: torch.Tensor, windows: Sequence[_Window], factors: Sequence[Sequence[float]]) -> torch.Tensor:
    """Multiply by one factor for each place of each window's dimension."""
    if all(len(set(factor)) == 1 for factor in factors):
        return values * math.prod(factor[0] for factor in factors)
    for window, factor in zip(windows, factors, strict=True):
        values = values * torch.tensor(factor, dtype=values.dtype).view([-1] + [1] * (-1 - window.dim))
    return values


def _scatter_windows(grad: torch.Tensor, window: _Window) -> torch.Tensor:
    """Add each entry along the window's dimension to the places that it covers."""
    dim = grad.dim() + window.dim
    spread = _spread(grad, dim, window.stride)
    total = None
    for offset in range(window.kernel):
        shifted = _shift(spread, dim, low=offset - window.padding, size=window.size)
        total = shifted if total is None else total + shifted
    assert total is not None
    return total


def _spread(grad: torch.Tensor, dim: int, stride: int) -> torch.Tensor:
    """Put ``stride - 1`` zeros after every entry along ``dim``."""
    if stride == 1:
        return grad
    shape = list(grad.shape)
    apart = grad.unsqueeze(dim + 1)
    apart = _pad_zeros(apart, [0, 0] * (apart.dim() - 2 - dim) + [0, stride - 1])
    return apart.view([*shape[:dim], shape[dim] * stride, *shape[dim + 1 :]])


def _shift(x: torch.Tensor, dim: int, *, low: int, size: int) -> torch.Tensor:
    """Move entries along ``dim`` by ``low`` places and cut or pad with zeros to ``size`` places."""
    first, last = max(-low, 0), min(x.shape[dim], size - low)
    cut = x.narrow(dim, first, last - first)
    pads = [0, 0] * (x.dim() - 1 - dim) + [max(low, 0), size - max(low, 0) - (last - first)]
    return _pad_zeros(cut, pads) if any(pads) else cut


def adaptive_avg_pool_backward(grad: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """``aten._adaptive_avg_pool2d_backward``: rule 3, transposed."""
    rows, columns = (_adaptive_shares(int(x.shape[dim]), int(grad.shape[dim]), grad.dtype) for dim in (-2, -1))
    return rows.t() @ (grad @ columns)


def _adaptive_shares(size: int, out: int, dtype: torch.dtype) -> torch.Tensor:
    """``[out, size]``: the share of each place in each window, from ``i size / out`` to its next, rounded."""
    rows = []
    for i in range(out):
        start, end = i * size // out, -(-(i + 1) * size // out)
        rows.append([1.0 / (end - start) if start <= place < end else 0.0 for place in range(size)])
    return torch.tensor(rows, dtype=dtype)
