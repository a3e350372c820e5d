"""Costs of the operators in an ONNX file at one batch size, from the shapes that torch wrote into it.

What torch left out (values inside the translation of one of its operators) is filled in by ONNX's shape inference.

Tried with onnx 1.22 on files that torch 2.13.0 writes.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pocketfleet.export.footprint import Kind, TensorShape, operator_cost

__all__ = ["OnnxCount", "count_onnx_file"]

# How torch writes a size that depends on the batch, its only symbol: "s0", "784*s0".
_MULTIPLE_OF_BATCH = re.compile(r"(?:(\d+)\*)?[A-Za-z_]\w*")
# Operators that give another shape to the same memory.
_VIEWS = {"Reshape", "Squeeze", "Unsqueeze", "Flatten", "Identity"}


@dataclass(frozen=True, slots=True, kw_only=True)
class OnnxCount:
    """A file's operators in order, each with its kind, operations and bytes; and the most bytes alive at once."""

    names: tuple[str, ...]
    costs: tuple[tuple[Kind, int, int], ...]
    peak_bytes: int


def _infer(path: Path, *, batch: int) -> Any:  # noqa: ANN401 - an onnx GraphProto
    """The file's graph with the shapes of all values at one batch size."""
    import onnx

    model = onnx.load(path)
    for value in (*model.graph.input, *model.graph.value_info, *model.graph.output):
        for dim in value.type.tensor_type.shape.dim:
            found = _MULTIPLE_OF_BATCH.fullmatch(dim.dim_param)
            if found:
                dim.dim_value = int(found[1] or 1) * batch
    return onnx.shape_inference.infer_shapes(model, data_prop=True).graph


def _shapes(graph: Any) -> dict[str, TensorShape]:  # noqa: ANN401 - an onnx GraphProto
    import onnx

    shapes = {}
    for value in (*graph.input, *graph.output, *graph.value_info):
        tensor = value.type.tensor_type
        item_bytes = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type).itemsize
        shapes[value.name] = TensorShape(tuple(dim.dim_value for dim in tensor.shape.dim), item_bytes)
    # A task's own constants.
    for constant in graph.initializer:
        item_bytes = onnx.helper.tensor_dtype_to_np_dtype(constant.data_type).itemsize
        shapes[constant.name] = TensorShape(tuple(constant.dims), item_bytes)
    return shapes


def _constant_values(graph: Any) -> set[str]:  # noqa: ANN401 - an onnx GraphProto
    """Names of the values that follow from shapes and constants alone."""
    known = {"", *(tensor.name for tensor in graph.initializer)}
    for node in graph.node:
        if node.op_type == "Shape" or known.issuperset(node.input):
            known.update(node.output)
    return known


def count_onnx_file(path: Path, *, batch: int) -> OnnxCount:
    """Count the file at ``path``, one of the methods written by ``onnx.py``."""
    graph = _infer(path, batch=batch)
    shapes, constant = _shapes(graph), _constant_values(graph)
    nodes = [node for node in graph.node if not constant.issuperset(node.output)]
    computing = [node for node in nodes if node.op_type not in _VIEWS]
    costs = tuple(
        operator_cost(
            node.op_type,
            [shapes[name] for name in node.input if name in shapes],
            [shapes[name] for name in node.output if name in shapes],
        )
        for node in computing
    )
    return OnnxCount(
        names=tuple(node.op_type for node in computing), costs=costs, peak_bytes=_peak_bytes(nodes, shapes)
    )


def _peak_bytes(nodes: list[Any], shapes: dict[str, TensorShape]) -> int:
    """The most bytes of values alive at once, each from its operator to its last use; outputs live to the end."""
    owner: dict[str, str] = {}
    made: dict[str, int] = {}
    last: dict[str, int] = {}
    for place, node in enumerate(nodes):
        for name in node.input:
            last[owner.get(name, name)] = place
        for name in node.output:
            if node.op_type in _VIEWS:
                owner[name] = owner.get(node.input[0], node.input[0])
            elif name in shapes:
                made[name] = place
    change = [0] * (len(nodes) + 1)
    for name, place in made.items():
        change[place] += shapes[name].bytes
        if name in last:
            change[last[name] + 1] -= shapes[name].bytes
    alive = peak = 0
    for step in change:
        alive += step
        peak = max(peak, alive)
    return peak
