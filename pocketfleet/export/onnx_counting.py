"""Costs of the operators in an ONNX file at one batch size, from the shapes that torch wrote into it.

1. A size is a number or an expression in the batch, its only symbol: ``s0``, ``784*s0``, ``s0 + 1``.
2. What torch left out (values inside the translation of one of its operators) is filled in by ONNX's shape inference.
3. A value that is no tensor, or whose shape nobody tells, counts as no bytes.

Tried with onnx 1.22 on files that torch 2.13.0 writes.
"""

import ast
import operator
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pocketfleet.export.footprint import Kind, TensorShape, operator_cost

__all__ = ["OnnxCount", "count_onnx_file"]

# Of which torch writes sizes.
_ARITHMETIC: Mapping[type[ast.operator], Callable[[int, int], int]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
}
_UNKNOWN = TensorShape((0,), 0)
# Operators that give another shape to the same memory.
_VIEWS = {"Reshape", "Squeeze", "Unsqueeze", "Flatten", "Identity"}


@dataclass(frozen=True, slots=True, kw_only=True)
class OnnxCount:
    """A file's operators in order, each with its layer, kind, operations and bytes; the most bytes alive at once."""

    names: tuple[str, ...]
    layers: tuple[str, ...]
    costs: tuple[tuple[Kind, int, int], ...]
    peak_bytes: int


def _size(expression: str, symbols: Mapping[str, int]) -> int | None:
    """A size at one batch; ``None`` where it is more than arithmetic over known symbols."""
    try:
        return _evaluate(ast.parse(expression, mode="eval").body, symbols)
    except (KeyError, SyntaxError):
        return None


def _evaluate(node: ast.expr, symbols: Mapping[str, int]) -> int:
    """Arithmetic only, for a file comes from anywhere; ``KeyError`` for anything else."""
    match node:
        case ast.Constant(value=int(number)):
            return number
        case ast.Name(id=name):
            return symbols[name]
        case ast.BinOp(left=left, op=operation, right=right):
            return _ARITHMETIC[type(operation)](_evaluate(left, symbols), _evaluate(right, symbols))
        case _:
            raise KeyError(ast.dump(node))


def _tensor_types(graph: Any) -> Iterator[tuple[str, Any]]:  # noqa: ANN401 - an onnx GraphProto
    """Names and types of the values that are tensors of known rank."""
    for value in (*graph.input, *graph.output, *graph.value_info):
        tensor = value.type.tensor_type
        if tensor.elem_type and tensor.HasField("shape"):
            yield value.name, tensor


def _infer(path: Path, *, batch: int) -> Any:  # noqa: ANN401 - an onnx GraphProto
    """The file's graph with the shapes of its values at one batch size."""
    import onnx

    model = onnx.load(path)
    sizes = [dim for _, tensor in _tensor_types(model.graph) for dim in tensor.shape.dim if dim.dim_param]
    # Inputs depend on the batch alone. Names that shape inference made up ("unk__7") are found further on only.
    inputs = [dim for value in model.graph.input for dim in value.type.tensor_type.shape.dim]
    symbols = {dim.dim_param: batch for dim in inputs if dim.dim_param}
    for dim in sizes:
        size = _size(dim.dim_param, symbols)
        if size is not None:
            dim.dim_value = size
    return onnx.shape_inference.infer_shapes(model, data_prop=True).graph


def _shapes(graph: Any) -> dict[str, TensorShape]:  # noqa: ANN401 - an onnx GraphProto
    import onnx

    shapes = {}
    for name, tensor in _tensor_types(graph):
        if any(not dim.HasField("dim_value") for dim in tensor.shape.dim):
            continue
        item_bytes = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type).itemsize
        shapes[name] = TensorShape(tuple(dim.dim_value for dim in tensor.shape.dim), item_bytes)
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
            [shapes.get(name, _UNKNOWN) for name in node.input if name],
            [shapes.get(name, _UNKNOWN) for name in node.output if name],
        )
        for node in computing
    )
    return OnnxCount(
        names=tuple(node.op_type for node in computing),
        # As onnx.py names operators.
        layers=tuple(node.name.rpartition(":")[0] for node in computing),
        costs=costs,
        peak_bytes=_peak_bytes(nodes, shapes),
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
