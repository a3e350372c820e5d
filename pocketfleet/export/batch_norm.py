"""Batch norm and its gradient by planes: one example's values of one channel, a row of a matrix each.

1. A sum over a batch adds up each plane first and the planes then. ExecuTorch's kernels add one value after the other:
   over the 100,000 values of a channel at 224 x 224 that failed the gate, by 1.5e-4 of how far a variance moved.
2. What a channel's statistics change is a row times, or plus, one number: the broadcast that ExecuTorch is quick at.

Images are ``[batch, channels, ...]`` with at least one more dimension; without one, a plane has a single value and
torch's own decomposition does as well. Statistics are ``[channels]``.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch._decomp import get_decompositions

__all__ = ["batch_norm", "batch_norm_backward", "batch_norm_functional", "batch_norm_without_statistics"]

aten = torch.ops.aten
_TORCH: dict[Any, Callable[..., Any]] = get_decompositions(
    [
        aten.native_batch_norm.default,
        aten._native_batch_norm_legit.no_stats,
        aten._native_batch_norm_legit_functional.default,
        aten.native_batch_norm_backward.default,
    ]
)
_Optional = torch.Tensor | None


class _Planes:
    """An image as a matrix, and what is said by channel as columns of it."""

    def __init__(self, image: torch.Tensor) -> None:
        self.batch, self.channels = image.shape[0], image.shape[1]
        self.values = math.prod(image.shape[2:])
        self.shape = image.shape

    def rows(self, image: torch.Tensor) -> torch.Tensor:
        """``[batch * channels, values]``."""
        return image.reshape(self.batch * self.channels, self.values)

    def spread(self, channel: torch.Tensor) -> torch.Tensor:
        """``[channels]`` to ``[batch * channels, 1]``."""
        return channel.view(1, self.channels).expand(self.batch, self.channels).reshape(self.batch * self.channels, 1)

    def sum(self, rows: torch.Tensor) -> torch.Tensor:
        """``[channels]``."""
        return rows.sum(1).view(self.batch, self.channels).sum(0)

    def mean(self, rows: torch.Tensor) -> torch.Tensor:
        """``[channels]``."""
        return rows.sum(1).view(self.batch, self.channels).mean(0) * (1 / self.values)


def _normalised(
    x: torch.Tensor,
    weight: _Optional,
    bias: _Optional,
    statistics: tuple[torch.Tensor, torch.Tensor] | None,
    eps: float,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Output, mean, inverse deviation and variance, by the batch's own statistics or by given ones."""
    planes = _Planes(x)
    rows = planes.rows(x)
    mean = planes.mean(rows) if statistics is None else statistics[0]
    apart = rows - planes.spread(mean)
    variance = planes.mean(apart * apart) if statistics is None else statistics[1]
    inverse = torch.rsqrt(variance + eps)
    out = apart * planes.spread(inverse if weight is None else inverse * weight)
    if bias is not None:
        out = out + planes.spread(bias)
    return out.view(planes.shape), mean, inverse, variance


def _moved(
    x: torch.Tensor, running: tuple[torch.Tensor, torch.Tensor], batch: tuple[torch.Tensor, torch.Tensor], rate: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Running mean and variance after a batch; the variance that is remembered is the unbiased one."""
    count = x.shape[0] * math.prod(x.shape[2:])
    unbiased = batch[1] * (count / (count - 1))
    return running[0] * (1 - rate) + batch[0] * rate, running[1] * (1 - rate) + unbiased * rate


def batch_norm_functional(
    x: torch.Tensor,
    weight: _Optional,
    bias: _Optional,
    running_mean: torch.Tensor,
    running_var: torch.Tensor,
    training: bool,
    momentum: float,
    eps: float,
) -> Any:  # noqa: ANN401 - five tensors
    """``aten._native_batch_norm_legit_functional``: the new running statistics are its last two results."""
    if x.dim() < 3:
        return _TORCH[aten._native_batch_norm_legit_functional.default](
            x, weight, bias, running_mean, running_var, training, momentum, eps
        )
    running = (running_mean, running_var)
    out, mean, inverse, variance = _normalised(x, weight, bias, None if training else running, eps)
    if not training:
        return out, x.new_zeros(0), x.new_zeros(0), *running
    return out, mean, inverse, *_moved(x, running, (mean, variance), momentum)


def batch_norm(
    x: torch.Tensor,
    weight: _Optional,
    bias: _Optional,
    running_mean: _Optional,
    running_var: _Optional,
    training: bool,
    momentum: float,
    eps: float,
) -> Any:  # noqa: ANN401 - three tensors
    """``aten.native_batch_norm``: in training it changes the running statistics that it was given."""
    if x.dim() < 3:
        return _TORCH[aten.native_batch_norm.default](
            x, weight, bias, running_mean, running_var, training, momentum, eps
        )
    if running_mean is None or running_var is None:
        return batch_norm_without_statistics(x, weight, bias, training, momentum, eps)
    out, mean, inverse, *moved = batch_norm_functional(
        x, weight, bias, running_mean, running_var, training, momentum, eps
    )
    if training:
        running_mean.copy_(moved[0])
        running_var.copy_(moved[1])
    return out, mean, inverse


def batch_norm_without_statistics(
    x: torch.Tensor, weight: _Optional, bias: _Optional, training: bool, momentum: float, eps: float
) -> Any:  # noqa: ANN401 - three tensors
    """``aten._native_batch_norm_legit.no_stats``: by the batch's own statistics in any case."""
    if x.dim() < 3:
        return _TORCH[aten._native_batch_norm_legit.no_stats](x, weight, bias, training, momentum, eps)
    return _normalised(x, weight, bias, None, eps)[:3]


def batch_norm_backward(
    grad: torch.Tensor,
    x: torch.Tensor,
    weight: _Optional,
    running_mean: _Optional,
    running_var: _Optional,
    save_mean: _Optional,
    save_invstd: _Optional,
    train: bool,
    eps: float,
    output_mask: Sequence[bool],
) -> Any:  # noqa: ANN401 - gradients
    """``aten.native_batch_norm_backward``: gradients of input, weight and bias, those that ``output_mask`` wants."""
    if x.dim() < 3:
        return _TORCH[aten.native_batch_norm_backward.default](
            grad, x, weight, running_mean, running_var, save_mean, save_invstd, train, eps, output_mask
        )
    if train:
        assert save_mean is not None
        assert save_invstd is not None
        mean, inverse = save_mean, save_invstd
    else:
        assert running_mean is not None
        assert running_var is not None
        mean, inverse = running_mean, torch.rsqrt(running_var + eps)
    planes = _Planes(x)
    rows = planes.rows(grad)
    apart = planes.rows(x) - planes.spread(mean)
    scale = planes.spread(inverse if weight is None else inverse * weight)
    grad_x = rows
    if train:
        along = planes.mean(rows * apart) * inverse * inverse
        grad_x = rows - planes.spread(planes.mean(rows)) - apart * planes.spread(along)
    return (
        (grad_x * scale).view(planes.shape) if output_mask[0] else None,
        planes.sum(rows * apart) * inverse if output_mask[1] else None,
        planes.sum(rows) if output_mask[2] else None,
    )
