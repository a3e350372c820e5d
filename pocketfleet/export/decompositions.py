"""One table a runtime: the operators that it lacks, computes wrongly or computes too slowly, and what replaces them.

Each entry names the versions that were seen to need it and why. A replacement is a function with the operator's own
arguments; it returns ``NotImplemented`` for arguments that it does not cover, and the operator is then left in place
for the runtime, where the gate judges it. All work for any batch size.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch._decomp import get_decompositions

from pocketfleet.export import batch_norm, pooling
from pocketfleet.export import convolution as im2col

__all__ = ["EXECUTORCH", "ONNX", "Convolution", "Decomposition", "decomposition_table"]

aten = torch.ops.aten

# Convolutions on ExecuTorch: as products, or by the runtime's own kernels, slower but without the products' columns.
Convolution = Literal["matmul", "native"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Decomposition:
    """An operator's replacement for one runtime, the versions that need it and the reason."""

    operator: Any
    replacement: Callable[..., Any]
    versions: str
    reason: str

    @property
    def name(self) -> str:
        """The operator's name without overload: ``aten.convolution_backward``."""
        return str(self.operator).rpartition(".")[0]


def threshold_backward(grad: torch.Tensor, x: torch.Tensor, threshold: float) -> Any:  # noqa: ANN401 - or NotImplemented
    """``aten.threshold_backward``, a rectifier's gradient, by the sign of what the rectifier lets through.

    Where it lets nothing through, an infinite gradient becomes none (eager PyTorch's is zero).
    """
    if threshold != 0:
        return NotImplemented
    return grad * torch.sign(torch.relu(x))


def hardtanh_backward(grad: torch.Tensor, x: torch.Tensor, low: float, high: float) -> torch.Tensor:
    """``aten.hardtanh_backward``, ReLU6's gradient too: the distances to both ends multiply to zero outside.

    Where it lets nothing through, an infinite gradient becomes none (eager PyTorch's is zero).
    """
    inside = aten.hardtanh.default(x, low, high)
    return grad * torch.sign((inside - low) * (high - inside))


def constant_pad(x: torch.Tensor, pad: Sequence[int], value: float = 0.0) -> Any:  # noqa: ANN401 - or NotImplemented
    """``aten.constant_pad_nd`` with negative padding, the gradient of a positive one: cut first, then pad the rest."""
    if all(size >= 0 for size in pad):
        return NotImplemented
    for i in range(len(pad) // 2):
        dim, low, high = x.dim() - 1 - i, max(-pad[2 * i], 0), max(-pad[2 * i + 1], 0)
        x = x.narrow(dim, low, x.shape[dim] - low - high)
    rest = [max(size, 0) for size in pad]
    return aten.constant_pad_nd.default(x, rest, value) if any(rest) else x.clone()


def addmm(
    bias: torch.Tensor, a: torch.Tensor, b: torch.Tensor, *, beta: float = 1.0, alpha: float = 1.0
) -> torch.Tensor:
    """``aten.addmm``, ``beta * bias + alpha * a @ b``, as a product and a sum."""
    product = aten.mm.default(a, b)
    if alpha != 1:
        product = product * alpha
    total: torch.Tensor = product + (bias if beta == 1 else bias * beta)
    return total


def new_empty(x: torch.Tensor, size: Sequence[int], *, dtype: torch.dtype | None = None, **_: object) -> torch.Tensor:
    """``aten.new_empty`` as zeros; device and layout are those of every program here."""
    zeros: torch.Tensor = aten.full.default(size, 0, dtype=dtype or x.dtype)
    return zeros


def empty_like(x: torch.Tensor, *, dtype: torch.dtype | None = None, **_: object) -> torch.Tensor:
    """``aten.empty_like`` as zeros."""
    return new_empty(x, x.shape, dtype=dtype)


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
    """``aten.convolution_backward`` by two convolutions; any dimension, groups, stride, padding and dilation.

    The input's gradient is the transposed convolution of the output's gradient. The weight's gradient is the
    convolution of the input with the output's gradient as its kernel, batch and channels exchanged, stride and
    dilation exchanged. A transposed convolution is the gradient of a plain one from its output to its input: the two
    exchange their places.
    """
    del bias_sizes, output_padding
    if x.dim() != weight.dim():
        return NotImplemented
    window = (stride, padding, dilation)
    grad_x = grad_w = grad_b = None
    if output_mask[0]:
        grad_x = _convolution_grad_input(grad, x, weight, *window, transposed, groups)
    if output_mask[1]:
        large, small = (grad, x) if transposed else (x, grad)
        grad_w = _convolution_grad_weight(small, large, weight, *window, groups)
    if output_mask[2]:
        grad_b = grad.sum([0, *range(2, grad.dim())])
    return grad_x, grad_w, grad_b


def _convolution_grad_input(
    grad: torch.Tensor,
    x: torch.Tensor,
    weight: torch.Tensor,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    transposed: bool,
    groups: int,
) -> torch.Tensor:
    dims = range(weight.dim() - 2)
    if transposed:
        plain: torch.Tensor = aten.convolution.default(
            grad, weight, None, stride, padding, dilation, False, [0] * len(dims), groups
        )
        for i in dims:
            # An output padding of a stride or more gives windows that no input has made.
            plain = plain.narrow(2 + i, 0, x.shape[2 + i])
        return plain
    missing = [
        x.shape[2 + i]
        - ((grad.shape[2 + i] - 1) * stride[i] - 2 * padding[i] + dilation[i] * (weight.shape[2 + i] - 1) + 1)
        for i in dims
    ]
    full: torch.Tensor = aten.convolution.default(grad, weight, None, stride, padding, dilation, True, missing, groups)
    return full


def _convolution_grad_weight(
    grad: torch.Tensor,
    x: torch.Tensor,
    weight: torch.Tensor,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
) -> torch.Tensor:
    batch, channels, *size = x.shape
    dims = range(len(size))
    order = [2, 1, 0, *(3 + i for i in dims)]
    image = x.view(batch, groups, channels // groups, *size).permute(order)
    image = image.reshape(channels // groups, groups * batch, *size)
    full: torch.Tensor = aten.convolution.default(
        image, grad.transpose(0, 1), None, dilation, padding, stride, False, [0] * len(size), groups
    ).transpose(0, 1)
    for i in dims:
        # A stride that does not divide the image leaves kernel positions beyond the kernel's own.
        full = full.narrow(2 + i, 0, weight.shape[2 + i])
    return full


def _products_or_convolutions(*args: Any) -> Any:  # noqa: ANN401 - the operator's own arguments
    """``aten.convolution_backward`` by products where ``convolution`` covers it, else by the runtime's convolutions."""
    gradients = im2col.convolution_backward(*args)
    return convolution_backward(*args) if gradients is NotImplemented else gradients


def _torch_entries(names: Sequence[Any], *, versions: str, reason: str) -> list[Decomposition]:
    found = get_decompositions(list(names))
    return [
        Decomposition(operator=operator, replacement=found[operator], versions=versions, reason=reason)
        for operator in names
    ]


EXECUTORCH: tuple[Decomposition, ...] = (
    Decomposition(
        operator=aten.max_pool2d_with_indices_backward.default,
        replacement=pooling.max_pool_backward,
        versions="executorch 1.5.1",
        reason="the kernel adds into memory that it does not set to zero: gradients grow with every call",
    ),
    Decomposition(
        operator=aten.convolution.default,
        replacement=im2col.convolution,
        versions="executorch 1.5.1",
        reason="the kernel loops over single values: 20 ms where products take 1 (6 to 16 channels, 5 x 5, batch 16)",
    ),
    Decomposition(
        operator=aten.convolution_backward.default,
        replacement=_products_or_convolutions,
        versions="executorch 1.5.1",
        reason="as slow as the forward kernel, and 2-D only",
    ),
    Decomposition(
        operator=aten.new_empty.default,
        replacement=new_empty,
        versions="executorch 1.5.1",
        reason="lowering fixes its size, and the sizes of all that follows, to the batch that was traced",
    ),
    Decomposition(
        operator=aten.empty_like.default,
        replacement=empty_like,
        versions="executorch 1.5.1",
        reason="lowering makes empty_permuted of it, for which there is no kernel",
    ),
    Decomposition(
        operator=aten.addmm.default,
        replacement=addmm,
        versions="executorch 1.5.1",
        reason="the kernel is a plain loop: 5 ms where mm takes 0.35 ([512, 256] @ [256, 64])",
    ),
    Decomposition(
        operator=aten.avg_pool2d_backward.default,
        replacement=pooling.avg_pool_backward,
        versions="executorch 1.5.1",
        reason="there is no kernel",
    ),
    Decomposition(
        operator=aten.threshold_backward.default,
        replacement=threshold_backward,
        versions="executorch 1.5.1",
        reason="there is no kernel, and where takes 7 ns a value, 2 more for its condition; this takes 2 in all",
    ),
    Decomposition(
        operator=aten.hardtanh_backward.default,
        replacement=hardtanh_backward,
        versions="executorch 1.5.1",
        reason="there is no kernel, and where takes 7 ns a value, 5 more for its condition; this takes 3 in all",
    ),
    Decomposition(
        operator=aten.constant_pad_nd.default,
        replacement=constant_pad,
        versions="executorch 1.5.1",
        reason="the kernel refuses negative padding",
    ),
    Decomposition(
        operator=aten._adaptive_avg_pool2d_backward.default,
        replacement=pooling.adaptive_avg_pool_backward,
        versions="executorch 1.5.1",
        reason="there is no kernel",
    ),
    *_torch_entries(
        (aten.silu_backward.default, aten.mish_backward.default),
        versions="executorch 1.5.1",
        reason="there is no kernel",
    ),
    *(
        Decomposition(
            operator=operator,
            replacement=replacement,
            versions="executorch 1.5.1",
            reason="there is no kernel of the functional form, and buffers must leave the step as outputs; sums of a "
            "whole batch at once lose digits",
        )
        for operator, replacement in (
            (aten.native_batch_norm.default, batch_norm.batch_norm),
            (aten._native_batch_norm_legit.default, batch_norm.batch_norm),
            (aten._native_batch_norm_legit.no_stats, batch_norm.batch_norm_without_statistics),
            (aten._native_batch_norm_legit_functional.default, batch_norm.batch_norm_functional),
            (aten.native_batch_norm_backward.default, batch_norm.batch_norm_backward),
        )
    ),
)

ONNX: tuple[Decomposition, ...] = (
    Decomposition(
        operator=aten.max_pool2d_with_indices_backward.default,
        replacement=pooling.max_pool_backward,
        versions="torch 2.13.0, onnxscript 0.7.2",
        reason="there is no translation",
    ),
    Decomposition(
        operator=aten.convolution_backward.default,
        replacement=convolution_backward,
        versions="torch 2.13.0, onnxscript 0.7.2",
        reason="there is no translation",
    ),
    Decomposition(
        operator=aten.avg_pool2d_backward.default,
        replacement=pooling.avg_pool_backward,
        versions="torch 2.13.0, onnxscript 0.7.2",
        reason="there is no translation",
    ),
    *(
        Decomposition(
            operator=operator,
            replacement=replacement,
            versions="torch 2.13.0, onnxscript 0.7.2",
            reason="there is no translation",
        )
        for operator, replacement in (
            (aten.max_pool3d_with_indices_backward.default, pooling.max_pool_backward),
            (aten.adaptive_max_pool2d_backward.default, pooling.adaptive_max_pool2d_backward),
            (aten.avg_pool3d_backward.default, pooling.avg_pool_backward),
            (aten._adaptive_avg_pool2d_backward.default, pooling.adaptive_avg_pool_backward),
        )
    ),
    *(
        Decomposition(
            operator=operator,
            replacement=pooling.avg_pool,
            versions="torch 2.13.0, onnxscript 0.7.2",
            reason="the translation forgets divisor_override",
        )
        for operator in (aten.avg_pool2d.default, aten.avg_pool3d.default)
    ),
    *_torch_entries(
        (aten.silu_backward.default, aten.mish_backward.default),
        versions="torch 2.13.0, onnxscript 0.7.2",
        reason="there is no translation",
    ),
    *_torch_entries(
        (
            aten.native_batch_norm.default,
            aten._native_batch_norm_legit.default,
            aten._native_batch_norm_legit.no_stats,
            aten._native_batch_norm_legit_functional.default,
            aten.native_batch_norm_backward.default,
        ),
        versions="torch 2.13.0, onnxscript 0.7.2",
        reason="there is no translation of the functional form and of the gradient",
    ),
    *_torch_entries(
        (aten.nll_loss_forward.default,),
        versions="torch 2.13.0, onnxscript 0.7.2",
        reason="its second output, by which the gradient of a mean is divided, is 1 instead of the batch's weight",
    ),
)

_TABLES: dict[str, tuple[Decomposition, ...]] = {"executorch": EXECUTORCH, "onnx": ONNX}


def decomposition_table(
    runtime: Literal["executorch", "onnx"], *, leave_out: Collection[str] = (), convolution: Convolution = "matmul"
) -> dict[Any, Callable[..., Any]]:
    """The table of one runtime as ``make_fx`` takes it.

    Args:
        runtime: which table.
        leave_out: names such as ``"aten.convolution"`` that keep the runtime's own operator.
        convolution: for ExecuTorch; ONNX Runtime's own are fast.

    Raises:
        ValueError: ``leave_out`` names an operator that the table does not hold.
    """
    entries = _TABLES[runtime]
    unknown = sorted(set(leave_out) - {entry.name for entry in entries})
    if unknown:
        raise ValueError(f"no decomposition for {runtime} of {unknown}")
    table = {entry.operator: entry.replacement for entry in entries if entry.name not in leave_out}
    if runtime == "executorch" and convolution == "native":
        table.pop(aten.convolution.default, None)
        if aten.convolution_backward.default in table:
            # The runtime's own gradient is for images only, and no faster than two convolutions.
            table[aten.convolution_backward.default] = convolution_backward
    return table
