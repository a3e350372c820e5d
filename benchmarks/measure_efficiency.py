"""Measure what ExecuTorch and ONNX Runtime make of one thread, and print rows for the efficiency table.

Every figure is a slope: a program repeats an operator, one after the other, and the time of a long chain less
that of a short one, over the difference in length, is what one operator costs. The intercept is the fixed cost of
a call. Minimum over repeats: other work on the machine only adds.

    python benchmarks/measure_efficiency.py

Tried with torch 2.13.0, executorch 1.5.1, onnxruntime 1.32.0.
"""

import functools
import importlib.metadata
import math
import os
import platform
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from executorch.exir import to_edge
from executorch.extension.pybindings.portable_lib import _load_for_executorch_from_buffer
from onnx import TensorProto, helper
from torch import Tensor, nn

SHORT, LONG = 1, 9
BATCH = 16
# The matrix products of LeNet at batch 16: its convolutions as im2col, then its dense layers. (rows, inner, columns)
MATMULS = ((9216, 25, 6), (1024, 150, 16), (BATCH, 256, 120), (BATCH, 120, 84))
# LeNet's convolutions. (input channels, output channels, input side); kernel 5, no padding.
CONVOLUTIONS = ((1, 6, 28), (6, 16, 12))
KERNEL = 5
# Elements of LeNet's first activation: 16 x 6 x 24 x 24 floats are 216 KiB.
ELEMENTS = BATCH * 6 * 24 * 24


@dataclass(frozen=True, kw_only=True)
class Chain:
    """One repeated link: a name for each operator, its inputs after the running value, and FLOPs of the link."""

    operators: tuple[str, ...]
    running: Tensor
    inputs: tuple[Tensor, ...]
    flops: float


def filled(*shape: int, scale: float = 1.0) -> Tensor:
    """Values without a pattern that a kernel could exploit; no random draw needed."""
    return torch.sin(torch.arange(math.prod(shape), dtype=torch.float32) * 12.9898).reshape(shape) * scale


def minimum_s(call: Callable[[], object], *, budget_s: float = 1.0) -> float:
    """The fastest call within a time budget, after one to warm up."""
    call()
    best, spent = math.inf, 0.0
    while spent < budget_s:
        start = time.perf_counter()
        call()
        elapsed = time.perf_counter() - start
        best, spent = min(best, elapsed), spent + elapsed
    return best


def host_peak_flops() -> float:
    """The best rate of a large one-thread FP32 matrix product: a lower bound of the core's peak."""
    rates = []
    for side in (128, 192, 256, 384, 512):
        left, right = filled(side, side), filled(side, side)
        rates.append(2 * side**3 / minimum_s(functools.partial(torch.mm, left, right), budget_s=0.5))
    return max(rates)


def matmul_chain(rows: int, inner: int, columns: int) -> Chain:
    """There and back: ``[rows, inner] @ [inner, columns] @ [columns, inner]``."""
    there, back = filled(inner, columns, scale=inner**-0.5), filled(columns, inner, scale=columns**-0.5)
    flops = 2.0 * 2 * rows * inner * columns
    return Chain(operators=("mm", "mm"), running=filled(rows, inner), inputs=(there, back), flops=flops)


def convolution_chain(channels: int, out_channels: int, side: int) -> Chain:
    """There without padding and back with full padding, so that the shape returns."""
    scale = (channels * KERNEL**2) ** -0.5
    there, back = filled(out_channels, channels, KERNEL, KERNEL), filled(channels, out_channels, KERNEL, KERNEL)
    pixels = (side - KERNEL + 1) ** 2 + side**2
    return Chain(
        operators=("conv_there", "conv_back"),
        running=filled(BATCH, channels, side, side),
        inputs=(there * scale, back * scale),
        flops=2.0 * BATCH * channels * out_channels * KERNEL**2 * pixels,
    )


def backward_chain(channels: int, out_channels: int, side: int) -> Chain:
    """The gradients of input, weight and bias; the input's gradient is the next link's input."""
    smaller = side - KERNEL + 1
    weight = filled(out_channels, channels, KERNEL, KERNEL, scale=(channels * KERNEL**2) ** -0.5)
    return Chain(
        operators=("conv_backward",),
        running=filled(BATCH, channels, side, side),
        inputs=(filled(BATCH, out_channels, smaller, smaller), weight),
        flops=2.0 * 2 * BATCH * channels * out_channels * KERNEL**2 * smaller**2,
    )


def elementwise_chain(elements: int) -> Chain:
    """A product and a sum over ``elements`` floats."""
    inputs = (filled(elements), filled(elements))
    return Chain(operators=("mul", "add"), running=filled(elements), inputs=inputs, flops=2.0 * elements)


class Repeated(nn.Module):
    """A chain as a module whose every tensor is an input, as in a weightless training program."""

    def __init__(self, operators: tuple[str, ...], links: int) -> None:
        super().__init__()
        self.operators, self.links = operators, links

    def forward(self, running: Tensor, first: Tensor, second: Tensor) -> Tensor:
        """Apply the links one after the other."""
        for _ in range(self.links):
            if self.operators == ("conv_backward",):
                running = torch.ops.aten.convolution_backward(
                    first, running, second, [second.shape[0]], [1, 1], [0, 0], [1, 1], False, [0, 0], 1, [True] * 3
                )[0]
                continue
            for operator, operand in zip(self.operators, (first, second), strict=True):
                running = EAGER[operator](running, operand)
        return running


EAGER: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "mm": torch.mm,
    "conv_there": torch.nn.functional.conv2d,
    "conv_back": lambda running, weight: torch.nn.functional.conv2d(running, weight, padding=KERNEL - 1),
    "mul": torch.mul,
    "add": torch.add,
}
ONNX_NODES: dict[str, tuple[str, dict[str, list[int]]]] = {
    "mm": ("MatMul", {}),
    "conv_there": ("Conv", {}),
    "conv_back": ("Conv", {"pads": [KERNEL - 1] * 4}),
    "mul": ("Mul", {}),
    "add": ("Add", {}),
}


def executorch_call(chain: Chain, links: int) -> Callable[[], Sequence[Any]]:
    """A chain as an ExecuTorch program, ready to call."""
    inputs = (chain.running, *chain.inputs)
    exported = torch.export.export(Repeated(chain.operators, links), inputs)
    # The loaded module points into the buffer and does not own it.
    buffer = to_edge(exported).to_executorch().buffer
    module = _load_for_executorch_from_buffer(buffer)

    def call() -> Sequence[Any]:
        assert buffer
        outputs: Sequence[Any] = module.run_method("forward", inputs)
        return outputs

    return call


def onnx_call(chain: Chain, links: int) -> Callable[[], Sequence[Any]]:
    """A chain as a session of stock ONNX Runtime, ready to call."""
    feeds = {name: value.numpy() for name, value in zip("xab", (chain.running, *chain.inputs), strict=True)}
    nodes, running = [], "x"
    for step in range(links * len(chain.operators)):
        kind, attributes = ONNX_NODES[chain.operators[step % len(chain.operators)]]
        nodes.append(helper.make_node(kind, [running, "ab"[step % 2]], [f"y{step}"], **attributes))
        running = f"y{step}"
    values = [helper.make_tensor_value_info(n, TensorProto.FLOAT, list(v.shape)) for n, v in feeds.items()]
    result = helper.make_tensor_value_info(running, TensorProto.FLOAT, list(chain.running.shape))
    graph = helper.make_graph(nodes, "chain", values, [result])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    onnx.checker.check_model(model)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return functools.partial(session.run, None, feeds)


Build = Callable[[Chain, int], Callable[[], Sequence[Any]]]


def link_s(build: Build, chain: Chain) -> tuple[float, float]:
    """Seconds of one link, and of a call without any, by the slope of two lengths."""
    short, long = (minimum_s(build(chain, links)) for links in (SHORT, LONG))
    slope = (long - short) / (LONG - SHORT)
    return slope, short - SHORT * slope


def checked(build: Build, chain: Chain) -> None:
    """The program computes what eager PyTorch does: a figure of wrong work is worth nothing."""
    result = build(chain, 1)()
    expected = Repeated(chain.operators, 1)(chain.running, *chain.inputs)
    np.testing.assert_allclose(np.asarray(result[0]), expected.numpy(), rtol=1e-3, atol=1e-3)


def ratio(build: Build, chains: tuple[Chain, ...], *, dispatch_s: float, peak_flops: float) -> float:
    """Achieved over peak of some chains together, dispatch taken off."""
    seconds = 0.0
    for chain in chains:
        checked(build, chain)
        seconds += link_s(build, chain)[0] - len(chain.operators) * dispatch_s
    return sum(chain.flops for chain in chains) / seconds / peak_flops


def main() -> None:
    """Print the table's rows as CSV."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    torch.set_num_threads(1)
    peak = host_peak_flops()
    forward = tuple(convolution_chain(*shape) for shape in CONVOLUTIONS)
    backward = tuple(backward_chain(*shape) for shape in CONVOLUTIONS)
    runtimes: tuple[tuple[str, str, Build, tuple[Chain, ...], str], ...] = (
        ("executorch", "executorch", executorch_call, forward + backward, "forward and backward"),
        ("onnx", "onnxruntime", onnx_call, forward, "forward only: stock ONNX has no backward"),
    )
    print("runtime,parameter,value,confidence,source")
    for runtime, package, build, convolutions, convolution_note in runtimes:
        host = (
            f"{platform.machine()} {os.cpu_count()} cores, {package} {importlib.metadata.version(package)}, one thread"
        )
        tail = f'"{host}: benchmarks/measure_efficiency.py, '
        tiny_s, fixed_s = link_s(build, elementwise_chain(BATCH))
        dispatch_s = tiny_s / 2
        figures = (
            ("matmul", tuple(matmul_chain(*shape) for shape in MATMULS), "LeNet's products at batch 16"),
            ("convolution", convolutions, f"LeNet's convolutions at batch 16, {convolution_note}"),
            ("other", (elementwise_chain(ELEMENTS),), f"product and sum of {ELEMENTS} floats"),
        )
        for parameter, chains, note in figures:
            value = ratio(build, chains, dispatch_s=dispatch_s, peak_flops=peak)
            print(f'{runtime},{parameter},{value:.4f},measured,{tail}{note}; upper bound"')
        print(f'{runtime},dispatch_s,{dispatch_s:.3g},measured,{tail}slope of a chain of sums of 16 floats"')
        print(f'{runtime},fixed_s,{fixed_s:.3g},measured,{tail}intercept of that chain, called from Python"')
        print(f'{runtime},host_peak_flops,{peak:.4g},measured,{tail}best torch FP32 matrix product; lower bound"')
    print(f"torch {torch.__version__}, Python {platform.python_version()}", file=sys.stderr)


if __name__ == "__main__":
    main()
