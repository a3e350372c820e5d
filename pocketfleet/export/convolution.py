"""Convolution and its gradients as copies and matrix products, for a runtime whose own kernels are slow.

With the batch innermost, ``[channels, height, width, batch]``, every window of a padded image is a strided slice of
memory, so that im2col is one ``as_strided_copy`` without index tables, whatever the batch size:

1. forward: ``weight @ columns``, the columns holding ``channels * kernel_height * kernel_width`` rows.
2. gradient of the weight: ``columns @ out_gradient^T``.
3. gradient of the input: rule 1 over the output's gradient, spread by the stride and padded, with the kernel flipped
   and its channels exchanged.

Groups are a batched product. 1-D convolutions are 2-D ones of height 1; transposed and 3-D ones are left alone. Taking
one kernel row at a time would divide the memory of the columns by the kernel's height (LeNet, batch 16: 2.4 MB in place
of 6.2 in all) at two thirds of the speed and with thrice the operators.
``decompositions.py`` says which runtime needs this and why.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

__all__ = ["convolution", "convolution_backward", "covers"]

aten = torch.ops.aten
# Copies, not views: their results are contiguous on every runtime, and a phone makes the copy anyway.
_permute: Callable[[torch.Tensor, list[int]], torch.Tensor] = aten.permute_copy.default
_as_strided: Callable[[torch.Tensor, list[int], list[int]], torch.Tensor] = aten.as_strided_copy.default
_mm: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] = aten.mm.default
_bmm: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] = aten.bmm.default
_pad_zeros: Callable[[torch.Tensor, list[int]], torch.Tensor] = aten.constant_pad_nd.default
_Gradients = tuple[torch.Tensor | None, torch.Tensor | None, torch.Tensor | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Window:
    """How a kernel moves over an image that is already padded; pairs are (height, width)."""

    stride: tuple[int, int]
    dilation: tuple[int, int]
    groups: int


def _pair(values: Sequence[int], *, one_dimensional: bool, fill: int) -> tuple[int, int]:
    """The pair of a 2-D convolution from the arguments of a 1-D or 2-D one."""
    values = list(values)
    if len(values) == 1:
        values = [fill, values[0]] if one_dimensional else values * 2
    return values[0], values[1]


def _batch_last(x: torch.Tensor) -> torch.Tensor:
    return _permute(x, [1, 2, 3, 0])


def _pad(image: torch.Tensor, *, low: tuple[int, int], high: tuple[int, int]) -> torch.Tensor:
    """Pad ``[channels, height, width, batch]`` with zeros, or crop where a padding is negative."""
    for dim in (0, 1):
        if low[dim] < 0 or high[dim] < 0:
            end = image.shape[1 + dim] - max(-high[dim], 0)
            image = aten.slice_copy.Tensor(image, 1 + dim, max(-low[dim], 0), end)
    pads = [0, 0, max(low[1], 0), max(high[1], 0), max(low[0], 0), max(high[0], 0)]
    return _pad_zeros(image, pads) if any(pads) else image


def _columns(image: torch.Tensor, *, kernel: tuple[int, int], out: tuple[int, int], window: _Window) -> torch.Tensor:
    """The windows' values: ``[groups, channels / groups * kernel_h * kernel_w, out_h * out_w * batch]``."""
    channels, image_h, image_w, batch = image.shape
    line, (step_h, step_w), (dilate_h, dilate_w) = image_w * batch, window.stride, window.dilation
    columns = _as_strided(
        image,
        [channels, *kernel, *out, batch],
        [image_h * line, dilate_h * line, dilate_w * batch, step_h * line, step_w * batch, 1],
    )
    return columns.view(window.groups, channels // window.groups * kernel[0] * kernel[1], out[0] * out[1] * batch)


def _product(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """``[groups, m, k] @ [groups, k, n]``; one group is a plain product, the faster kernel."""
    if a.shape[0] == 1:
        product = _mm(a.view(a.shape[1:]), b.view(b.shape[1:]))
        return product.view(1, product.shape[0], product.shape[1])
    return _bmm(a, b)


def _slide(image: torch.Tensor, weight: torch.Tensor, *, out: tuple[int, int], window: _Window) -> torch.Tensor:
    """Rule 1: ``[channels_out, out_h * out_w * batch]`` from a padded image and an ``OIHW`` weight."""
    channels_out, channels_in, height, width = weight.shape
    groups = window.groups
    kernel = weight.reshape(groups, channels_out // groups, channels_in * height * width)
    total = _product(kernel, _columns(image, kernel=(height, width), out=out, window=window))
    return total.view(channels_out, total.shape[2])


def _as_2d(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.unsqueeze(2) if tensor.dim() == 3 else tensor


def covers(x: torch.Tensor, weight: torch.Tensor, *, transposed: bool) -> bool:
    """Whether a convolution can be a product here: not a transposed, a 3-D or an unbatched one."""
    return not transposed and weight.dim() in {3, 4} and x.dim() == weight.dim()


def convolution(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    transposed: bool,
    output_padding: Sequence[int],
    groups: int,
) -> Any:  # noqa: ANN401 - a tensor or NotImplemented
    """``aten.convolution``; ``NotImplemented`` for what is not covered."""
    del output_padding
    if not covers(x, weight, transposed=transposed):
        return NotImplemented
    flat = weight.dim() == 3
    x4, w4 = _as_2d(x), _as_2d(weight)
    pad = _pair(padding, one_dimensional=flat, fill=0)
    window = _Window(
        stride=_pair(stride, one_dimensional=flat, fill=1),
        dilation=_pair(dilation, one_dimensional=flat, fill=1),
        groups=groups,
    )
    out_h, out_w = (
        (x4.shape[2 + i] + 2 * pad[i] - window.dilation[i] * (w4.shape[2 + i] - 1) - 1) // window.stride[i] + 1
        for i in (0, 1)
    )
    image = _pad(_batch_last(x4), low=pad, high=pad)
    total = _slide(image, w4, out=(out_h, out_w), window=window)
    if bias is not None:
        total = total + bias.view(-1, 1)
    result = _permute(total.view(w4.shape[0], out_h, out_w, x4.shape[0]), [3, 0, 1, 2])
    return result.squeeze(2) if flat else result


def convolution_backward(
    grad: torch.Tensor,
    x: torch.Tensor,
    weight: torch.Tensor,
    bias_sizes: Sequence[int] | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    transposed: bool,
    output_padding: Sequence[int],
    groups: int,
    output_mask: Sequence[bool],
) -> Any:  # noqa: ANN401 - gradients or NotImplemented
    """``aten.convolution_backward``: gradients of input, weight and bias, those that ``output_mask`` wants."""
    del bias_sizes, output_padding
    if not covers(x, weight, transposed=transposed):
        return NotImplemented
    flat = weight.dim() == 3
    g4, x4, w4 = _as_2d(grad), _as_2d(x), _as_2d(weight)
    pad = _pair(padding, one_dimensional=flat, fill=0)
    window = _Window(
        stride=_pair(stride, one_dimensional=flat, fill=1),
        dilation=_pair(dilation, one_dimensional=flat, fill=1),
        groups=groups,
    )
    wanted_x, wanted_w, wanted_b = output_mask
    grad_x = _grad_input(g4, x4, w4, pad=pad, window=window) if wanted_x else None
    rows = _permute(g4, [2, 3, 0, 1]).view(-1, w4.shape[0]) if wanted_w or wanted_b else None
    grad_w = _grad_weight(rows, g4, x4, w4, pad=pad, window=window) if wanted_w and rows is not None else None
    grad_b = rows.sum(0) if wanted_b and rows is not None else None
    gradients: _Gradients = (
        grad_x.squeeze(2) if flat and grad_x is not None else grad_x,
        grad_w.squeeze(2) if flat and grad_w is not None else grad_w,
        grad_b,
    )
    return gradients


def _grad_weight(
    rows: torch.Tensor,
    grad: torch.Tensor,
    x: torch.Tensor,
    weight: torch.Tensor,
    *,
    pad: tuple[int, int],
    window: _Window,
) -> torch.Tensor:
    """Rule 2; ``rows`` is the output's gradient as ``[out_h * out_w * batch, channels_out]``."""
    channels_out, _, height, width = weight.shape
    groups = window.groups
    image = _pad(_batch_last(x), low=pad, high=pad)
    out = (grad.shape[2], grad.shape[3])
    right = rows.view(1, *rows.shape)
    if groups > 1:
        right = _permute(rows.view(rows.shape[0], groups, channels_out // groups), [1, 0, 2])
    product = _product(_columns(image, kernel=(height, width), out=out, window=window), right)
    return _permute(product, [0, 2, 1]).view(weight.shape)


def _spread(image: torch.Tensor, stride: tuple[int, int]) -> torch.Tensor:
    """Put ``stride - 1`` zeros after every row and column of ``[channels, height, width, batch]``."""
    if stride == (1, 1):
        return image
    channels, height, width, batch = image.shape
    apart = image.view(channels, height, 1, width, 1, batch)
    apart = _pad_zeros(apart, [0, 0, 0, stride[1] - 1, 0, 0, 0, stride[0] - 1])
    return apart.view(channels, height * stride[0], width * stride[1], batch)


def _grad_input(
    grad: torch.Tensor, x: torch.Tensor, weight: torch.Tensor, *, pad: tuple[int, int], window: _Window
) -> torch.Tensor:
    """Rule 3."""
    channels_out, channels_in, height, width = weight.shape
    groups = window.groups
    image = _spread(_batch_last(grad), window.stride)
    reach = [window.dilation[i] * (weight.shape[2 + i] - 1) for i in (0, 1)]
    low = (reach[0] - pad[0], reach[1] - pad[1])
    high_h, high_w = (x.shape[2 + i] + reach[i] - low[i] - image.shape[1 + i] for i in (0, 1))
    image = _pad(image, low=low, high=(high_h, high_w))
    flipped = aten.flip.default(weight, [2, 3]) if height > 1 or width > 1 else weight
    flipped = _permute(flipped.view(groups, channels_out // groups, channels_in, height, width), [0, 2, 1, 3, 4])
    flipped = flipped.view(groups * channels_in, channels_out // groups, height, width)
    back = _Window(stride=(1, 1), dilation=window.dilation, groups=groups)
    total = _slide(image, flipped, out=(x.shape[2], x.shape[3]), window=back)
    return _permute(total.view(groups * channels_in, x.shape[2], x.shape[3], x.shape[0]), [3, 0, 1, 2])
