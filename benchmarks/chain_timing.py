"""Seconds of single operators on both runtimes, as measurements that ``pocketfleet calibrate`` reads.

Every figure is a slope: a program repeats a link of one to two operators, one after the other, and the time of a long
chain less that of a short one, over the difference in length, is what a link costs. The shortest of many calls counts,
short and long chains taking turns: other work on the machine only adds.

Tried with torch 2.13.0, executorch 1.5.1, onnxruntime 1.32.0.
"""

import functools
import math
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from executorch.exir import to_edge
from executorch.extension.pybindings.portable_lib import _load_for_executorch_from_buffer
from onnx import TensorProto, helper, numpy_helper
from operator_chains import Chain, Step
from torch import Tensor, nn

from pocketfleet.device_sim.measurement import Measurement, Work
from pocketfleet.device_sim.operator_class import operator_class
from pocketfleet.export.footprint import TensorShape, operator_cost

SHORT, LONG = 1, 9


class Repeated(nn.Module):
    """A chain as a module whose every tensor is an input, as in a weightless training program."""

    def __init__(self, link: tuple[Step, ...], links: int) -> None:
        super().__init__()
        self.link, self.links = link, links

    def forward(self, running: Tensor, *operands: Tensor) -> Tensor:
        """Apply the links one after the other."""
        for _ in range(self.links):
            rest = iter(operands)
            for step in self.link:
                running = step.eager(running, *(next(rest) for _ in step.operands))
        return running


def operands(chain: Chain) -> tuple[Tensor, ...]:
    """The operands of its link, in order."""
    return tuple(tensor for step in chain.link for tensor in step.operands)


def executorch_call(chain: Chain, links: int) -> Callable[[], Sequence[Any]]:
    """A chain as an ExecuTorch program, ready to call."""
    inputs = (chain.running, *operands(chain))
    exported = torch.export.export(Repeated(chain.link, links), inputs)
    # The loaded module points into the buffer and does not own it.
    buffer = to_edge(exported).to_executorch().buffer
    module = _load_for_executorch_from_buffer(buffer)

    def call() -> Sequence[Any]:
        assert buffer
        outputs: Sequence[Any] = module.run_method("forward", inputs)
        return outputs

    return call


def onnx_nodes(chain: Chain, links: int) -> tuple[list[Any], list[Any], str]:
    """Nodes of a chain from ``x``, their constants, and the name of what comes out."""
    nodes: list[Any] = []
    constants: list[Any] = []
    running = "x"
    for number in range(links):
        names = (f"operand{place}" for place in range(len(operands(chain))))
        for place, step in enumerate(chain.link):
            own = [next(names) for _ in step.operands]
            inputs = [*own, running] if step.running_last else [running, *own]
            running = f"y{number}.{place}"
            settings = [
                numpy_helper.from_array(np.array(values, dtype=np.int64), f"{running}.{index}")
                for index, values in enumerate(step.constants)
            ]
            constants += settings
            inputs += [setting.name for setting in settings]
            nodes.append(helper.make_node(step.onnx, inputs, [running], **dict(step.attributes)))
    return nodes, constants, running


def onnx_call(chain: Chain, links: int, *, threads: int) -> Callable[[], Sequence[Any]]:
    """A chain as a session of stock ONNX Runtime, ready to call."""
    feeds = {"x": chain.running.numpy()}
    feeds |= {f"operand{place}": tensor.numpy() for place, tensor in enumerate(operands(chain))}
    inputs = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(value.dtype), list(value.shape))
        for name, value in feeds.items()
    ]
    nodes, constants, last = onnx_nodes(chain, links)
    result = helper.make_tensor_value_info(last, TensorProto.FLOAT, list(chain.running.shape))
    graph = helper.make_graph(nodes, "chain", inputs, [result], initializer=constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    onnx.checker.check_model(model)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return functools.partial(session.run, None, feeds)


def ready(chain: Chain, links: int, *, runtime: str, threads: int) -> Callable[[], Sequence[Any]]:
    """A chain on a runtime; ExecuTorch's threads are the process's, and set by the caller."""
    return executorch_call(chain, links) if runtime == "executorch" else onnx_call(chain, links, threads=threads)


def link_s(short: Callable[[], object], long: Callable[[], object], *, budget_s: float) -> float:
    """Seconds of one link, by the slope of two lengths whose calls take turns."""
    best, started_s = [math.inf, math.inf], time.perf_counter()
    turns = 0
    while turns < 3 or time.perf_counter() - started_s < budget_s:
        for which, call in enumerate((short, long)):
            for _ in range(3):
                before_s = time.perf_counter()
                call()
                best[which] = min(best[which], time.perf_counter() - before_s)
        turns += 1
    return (best[1] - best[0]) / (LONG - SHORT)


def works(chain: Chain, runtime: str, *, links: int) -> tuple[Work, ...]:
    """What so many links do, counted as a bundle's footprint counts."""
    running, found = chain.running, []
    for step in chain.link:
        result = step.eager(running, *step.operands)
        name = step.aten if runtime == "executorch" else step.onnx
        shapes = [TensorShape(tuple(value.shape), value.element_size()) for value in (running, *step.operands, result)]
        transposed = step.onnx == "ConvTranspose"
        kind, flops, moved = operator_cost(name, shapes[:-1], shapes[-1:], transposed=transposed)
        found.append(
            Work(
                operator_class=operator_class(kind, name, flops=flops),
                operators=links,
                flops=links * flops,
                bytes=links * moved,
            )
        )
        running = result
    return tuple(found)


def measure_chain(
    chain: Chain, runtime: str, *, peak_flops: float, memory_bytes_per_s: float, budget_s: float
) -> Measurement:
    """One chain on one runtime; it must compute what eager PyTorch does, for a figure of wrong work is worth none."""
    short, long = (ready(chain, links, runtime=runtime, threads=1) for links in (SHORT, LONG))
    check(chain, short)
    seconds = link_s(short, long, budget_s=budget_s)
    return measurement(chain, runtime, seconds, links=1, threads=1, machine=(peak_flops, memory_bytes_per_s))


def measure_threaded_chain(
    chain: Chain, runtime: str, *, threads: int, peak_flops: float, memory_bytes_per_s: float, budget_s: float
) -> Measurement:
    """A long chain on more threads, whole: a difference of two times is too uncertain where threads wait for cores."""
    long = ready(chain, LONG, runtime=runtime, threads=threads)
    check(chain, ready(chain, SHORT, runtime=runtime, threads=threads))
    best, started_s = math.inf, time.perf_counter()
    while best == math.inf or time.perf_counter() - started_s < budget_s:
        before_s = time.perf_counter()
        long()
        best = min(best, time.perf_counter() - before_s)
    return measurement(chain, runtime, best, links=LONG, threads=threads, machine=(peak_flops, memory_bytes_per_s))


def measurement(
    chain: Chain, runtime: str, seconds: float, *, links: int, threads: int, machine: tuple[float, float]
) -> Measurement:
    """The row of a chain; ``machine`` is the peak of a core and the bandwidth."""
    peak_flops, memory_bytes_per_s = machine
    return Measurement(
        name=f"{chain.name}/{runtime}" + (f"/{threads}" if threads > 1 else ""),
        phone="host",
        runtime=runtime,
        scope="operators",
        model="",
        threads=threads,
        seconds=seconds,
        peak_flops=peak_flops,
        parallel_peak_flops=threads * peak_flops,
        memory_bytes_per_s=memory_bytes_per_s,
        inference_flops=0.0,
        inference_s=0.0,
        work=works(chain, runtime, links=links),
    )


def check(chain: Chain, short: Callable[[], Sequence[Any]]) -> None:
    """A chain of one link computes what eager PyTorch does."""
    expected = Repeated(chain.link, SHORT)(chain.running, *operands(chain))
    np.testing.assert_allclose(np.asarray(short()[0]), expected.numpy(), rtol=1e-3, atol=1e-3)
