"""Chains of single operators, of the sizes that small networks have; ``chain_timing`` times them."""

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

# Matrix products of LeNet at batch 16 (its convolutions as columns, its dense layers) and of a small transformer, as
# rows, inner, columns.
PRODUCTS = ((9216, 25, 6), (1024, 150, 16), (16, 256, 120), (16, 64, 64), (512, 64, 64), (512, 64, 256), (4, 32, 32))
# Products of each head of its attention: heads times examples, rows, inner, columns.
BATCHED_PRODUCTS = ((64, 32, 16, 32),)
# Convolutions of LeNet, a residual network and a mobile one: channels, output channels, side, kernel, groups.
CONVOLUTIONS = ((1, 6, 28, 5, 1), (6, 16, 12, 5, 1), (16, 16, 16, 3, 1), (32, 32, 16, 1, 1), (32, 32, 16, 3, 32))
CONVOLVED_EXAMPLES = 4
# There by a convolution without padding, back by a transposed one, as gradients of inputs and weights are taken: the
# kernel of the latter is as large as a picture. Examples, channels, output channels, side, kernel.
TRANSPOSED = ((4, 6, 16, 12, 5), (6, 4, 8, 12, 8), (4, 8, 8, 16, 3))
# Rows and columns of what is not a product: from a bias to the activations of a batch of pictures.
TABLES = ((1, 16), (64, 64), (432, 128))
POOLED_SIDES = (8, 24)


@dataclass(frozen=True, kw_only=True)
class Step:
    """One operator of a link: what it does in PyTorch, and what it is in each runtime."""

    eager: Callable[..., Tensor]
    aten: str
    onnx: str
    operands: tuple[Tensor, ...] = ()
    attributes: tuple[tuple[str, Any], ...] = ()
    # Inputs of the ONNX operator that are settings, not data.
    constants: tuple[tuple[int, ...], ...] = ()
    # Whether the running value is the last input, not the first.
    running_last: bool = False


@dataclass(frozen=True, kw_only=True)
class Chain:
    """A link, and the value that runs through it; its shape comes back at the end."""

    name: str
    running: Tensor
    link: tuple[Step, ...]
    # Of the two; a kernel that only one has cannot be measured on the other.
    runtimes: tuple[str, ...] = ("executorch", "onnx")


def filled(*shape: int, scale: float = 1.0) -> Tensor:
    """Values without a pattern that a kernel could exploit; no random draw needed."""
    return torch.sin(torch.arange(math.prod(shape), dtype=torch.float32) * 12.9898).reshape(shape) * scale


def product_chains() -> list[Chain]:
    """There and back: ``[rows, inner] @ [inner, columns] @ [columns, inner]``."""
    chains = []
    for rows, inner, columns in PRODUCTS:
        there, back = filled(inner, columns, scale=inner**-0.5), filled(columns, inner, scale=columns**-0.5)
        link = tuple(Step(eager=torch.mm, aten="mm", onnx="MatMul", operands=(side,)) for side in (there, back))
        chains.append(Chain(name=f"mm-{rows}x{inner}x{columns}", running=filled(rows, inner), link=link))
    for heads, rows, inner, columns in BATCHED_PRODUCTS:
        there, back = filled(heads, inner, columns, scale=0.25), filled(heads, columns, inner, scale=0.25)
        link = tuple(Step(eager=torch.bmm, aten="bmm", onnx="MatMul", operands=(side,)) for side in (there, back))
        chains.append(Chain(name=f"bmm-{heads}x{rows}x{inner}", running=filled(heads, rows, inner), link=link))
    return chains


def convolution_chains() -> list[Chain]:
    """There and back with as much padding as keeps the side."""
    chains = []
    for channels, out_channels, side, kernel, groups in CONVOLUTIONS:
        scale, pads = (channels // groups * kernel**2) ** -0.5, kernel // 2
        eager = functools.partial(F.conv2d, padding=pads, groups=groups)
        weights = (
            filled(out_channels, channels // groups, kernel, kernel, scale=scale),
            filled(channels, out_channels // groups, kernel, kernel, scale=scale),
        )
        attributes = (("pads", [pads] * 4), ("group", groups))
        link = tuple(
            Step(eager=eager, aten="convolution", onnx="Conv", operands=(weight,), attributes=attributes)
            for weight in weights
        )
        name = f"conv-{channels}x{out_channels}x{side}-k{kernel}-g{groups}"
        chains.append(Chain(name=name, running=filled(CONVOLVED_EXAMPLES, channels, side, side), link=link))
    return chains


def transposed_chains() -> list[Chain]:
    """There without padding and back with a transposed convolution."""
    chains = []
    for examples, channels, out_channels, side, kernel in TRANSPOSED:
        weight = filled(out_channels, channels, kernel, kernel, scale=(channels * kernel**2) ** -0.5)
        link = (
            Step(eager=F.conv2d, aten="convolution", onnx="Conv", operands=(weight,)),
            Step(eager=F.conv_transpose2d, aten="convolution", onnx="ConvTranspose", operands=(weight,)),
        )
        name = f"transposed-{channels}x{out_channels}x{side}-k{kernel}"
        chains.append(Chain(name=name, running=filled(examples, channels, side, side), link=link))
    return chains


def table_chains(rows: int, columns: int) -> list[Chain]:
    """Operators over a table of so many values, one kind a chain."""
    size, running = f"{rows}x{columns}", filled(rows, columns)
    left, right = filled(rows, columns), filled(rows, columns)
    index = torch.arange(rows * columns).reshape(rows, columns) % columns
    norm_operands = (filled(columns), filled(columns))

    def centred(value: Tensor) -> Tensor:
        return value.sum(dim=1, keepdim=True)

    def normed(value: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return F.layer_norm(value, (columns,), weight, bias)

    links = {
        "arithmetic": (
            Step(eager=torch.mul, aten="mul", onnx="Mul", operands=(left,)),
            Step(eager=torch.add, aten="add", onnx="Add", operands=(right,)),
        ),
        "relu": (
            Step(eager=torch.relu, aten="relu", onnx="Relu"),
            Step(eager=torch.sub, aten="sub", onnx="Sub", operands=(right,)),
        ),
        "tanh": (Step(eager=torch.tanh, aten="tanh", onnx="Tanh"),),
        "sigmoid": (Step(eager=torch.sigmoid, aten="sigmoid", onnx="Sigmoid"),),
        "softmax": (Step(eager=functools.partial(torch.softmax, dim=1), aten="_softmax", onnx="Softmax"),),
        "layer-norm": (
            Step(eager=normed, aten="native_layer_norm", onnx="LayerNormalization", operands=norm_operands),
        ),
        "sum": (
            Step(eager=centred, aten="sum", onnx="ReduceSum", constants=((1,),)),
            Step(eager=lambda total, other: other - total, aten="sub", onnx="Sub", operands=(left,), running_last=True),
        ),
        "where": (
            Step(
                eager=lambda value, chosen, other: torch.where(chosen, other, value),
                aten="where",
                onnx="Where",
                operands=(left > 0, right),
                running_last=True,
            ),
        ),
        "gather": (
            Step(
                eager=lambda value, places: value.gather(1, places),
                aten="gather",
                onnx="GatherElements",
                operands=(index,),
                attributes=(("axis", 1),),
            ),
        ),
    }
    return [Chain(name=f"{name}-{size}", running=running, link=link) for name, link in links.items()]


def strided_chain(rows: int, columns: int) -> Chain:
    """Transposition; ONNX Runtime would take it out of a chain."""
    strided = Step(
        eager=lambda value: torch.as_strided_copy(value, (rows, columns), (1, rows)),
        aten="as_strided_copy",
        onnx="Transpose",
    )
    return Chain(
        name=f"strided-{rows}x{columns}", running=filled(rows, columns), link=(strided,), runtimes=("executorch",)
    )


def border_chain(side: int) -> Chain:
    """A border of pictures put on and taken off."""
    border = (
        Step(
            eager=functools.partial(F.pad, pad=(1, 1, 1, 1)),
            aten="constant_pad_nd",
            onnx="Pad",
            constants=((0, 0, 1, 1, 0, 0, 1, 1),),
        ),
        Step(
            eager=lambda value: value[:, :, 1:-1, 1:-1].clone(),
            aten="slice_copy",
            onnx="Slice",
            constants=((1, 1), (side + 1, side + 1), (2, 3)),
        ),
    )
    return Chain(name=f"border-{side}", running=filled(4, 6, side, side), link=border)


def pooling_chains() -> list[Chain]:
    """Max-pooling over 2 x 2, and a border that brings the side back."""
    chains = []
    for side in POOLED_SIDES:
        pads = side // 2
        link = (
            Step(
                eager=functools.partial(F.max_pool2d, kernel_size=2),
                aten="max_pool2d_with_indices",
                onnx="MaxPool",
                attributes=(("kernel_shape", [2, 2]), ("strides", [2, 2])),
            ),
            Step(
                eager=functools.partial(F.pad, pad=(0, pads, 0, pads)),
                aten="constant_pad_nd",
                onnx="Pad",
                constants=((0, 0, 0, 0, 0, 0, pads, pads),),
            ),
        )
        chains.append(Chain(name=f"max-pool-{side}", running=filled(4, 6, side, side), link=link))
    return chains


def all_chains() -> list[Chain]:
    """Every chain, in order of kind and size."""
    tables = [chain for size in TABLES for chain in (*table_chains(*size), strided_chain(*size))]
    borders = [border_chain(side) for side in POOLED_SIDES]
    return [*product_chains(), *convolution_chains(), *transposed_chains(), *tables, *borders, *pooling_chains()]
