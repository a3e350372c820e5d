"""Two-dimensional convolutions as products of matrices, while a model runs: what ``torch.vmap`` maps well.

Mapped over devices, a convolution becomes one of many groups, for which torch has no fast kernel; unfolded patches
times the weights become a batched product. Convolutions in groups of their own, or padded by a word, stay as they are.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

__all__ = ["UnfoldedConvolutions"]


class UnfoldedConvolutions(TorchFunctionMode):
    """Inside this context, ``conv2d`` is unfolded."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401 - what the function returns
        if func is torch.conv2d:
            unfolded = _unfolded(*args, **(kwargs or {}))
            if unfolded is not None:
                return unfolded
        return func(*args, **(kwargs or {}))


def _unfolded(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    stride: int | Sequence[int] = 1,
    padding: str | int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
) -> torch.Tensor | None:
    """The convolution of ``x`` ``[b, c, h, w]``; ``None`` where it is not for here."""
    if groups != 1 or isinstance(padding, str) or x.dim() != 4:
        return None
    steps, margins, spread = (_pair(value) for value in (stride, padding, dilation))
    kernel = weight.shape[2:]
    patches = F.unfold(x, kernel, dilation=spread, padding=margins, stride=steps)
    high, wide = (
        (size + 2 * margin - gap * (length - 1) - 1) // step + 1
        for size, margin, gap, length, step in zip(x.shape[2:], margins, spread, kernel, steps, strict=True)
    )
    product = weight.flatten(1) @ patches
    if bias is not None:
        product = product + bias[:, None]
    return product.reshape(x.shape[0], weight.shape[0], high, wide)


def _pair(value: int | Sequence[int]) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (value[0], value[1])
