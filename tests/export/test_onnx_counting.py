"""Costs counted from files: sizes that are expressions, values that are no tensors, shapes that nobody tells."""

from pathlib import Path
from typing import Any

import onnx
import pytest
from onnx import TensorProto, helper

from pocketfleet.export import Bundle
from pocketfleet.export.manifest import onnx_file
from pocketfleet.export.onnx_counting import count_onnx_file

FLOAT = TensorProto.FLOAT


def _write(path: Path, nodes: list[Any], inputs: list[Any], known: list[Any]) -> Path:
    graph = helper.make_graph(nodes, "g", inputs, [], value_info=known)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)]), path)
    return path


@pytest.mark.parametrize(
    ("size", "rows"),
    [("s0", 5), ("6*s0", 30), ("s0 + 1", 6), ("4*s0*s0 - 2", 98), ("(s0 + 2)//2", 3), ("Mod(s0, 2)", 0), ("unk__7", 0)],
)
def test_a_size_is_any_arithmetic_on_the_batch(tmp_path: Path, size: str, rows: int) -> None:
    x = helper.make_tensor_value_info("x", FLOAT, ["s0", 3])
    # The size of the middle one is torch's word alone: no inference can find it.
    middle = helper.make_tensor_value_info("m", FLOAT, [size, 3])
    nodes = [helper.make_node("NonZero", ["x"], ["places"]), helper.make_node("Abs", ["m"], ["out"])]
    path = _write(tmp_path / "f.onnx", nodes, [x, middle][:1], [middle])
    count = count_onnx_file(path, batch=5)
    assert count.names == ("NonZero", "Abs")
    # Input and output of the second, 3 floats a row; what is unknown counts as no bytes.
    assert count.costs[1] == ("other", 3 * rows, 2 * 3 * rows * 4)


def test_a_sequence_counts_as_no_bytes(tmp_path: Path) -> None:
    x = helper.make_tensor_value_info("x", FLOAT, ["s0", 4])
    length = helper.make_node("Constant", [], ["two"], value=helper.make_tensor("v", TensorProto.INT64, [], [2]))
    first = helper.make_node("Constant", [], ["zero"], value=helper.make_tensor("v", TensorProto.INT64, [], [0]))
    nodes = [
        length,
        first,
        helper.make_node("SplitToSequence", ["x", "two"], ["parts"], axis=1),
        helper.make_node("SequenceAt", ["parts", "zero"], ["part"]),
    ]
    known = [helper.make_tensor_value_info("part", FLOAT, ["s0", 2])]
    count = count_onnx_file(_write(tmp_path / "f.onnx", nodes, [x], known), batch=3)
    assert count.names == ("SplitToSequence", "SequenceAt")
    assert count.peak_bytes == 3 * 2 * 4


def test_a_product_of_unknown_factors_is_counted_as_nothing(tmp_path: Path) -> None:
    x = helper.make_tensor_value_info("x", FLOAT, ["s0", 4])
    nodes = [helper.make_node("SomethingNew", ["x"], ["a"]), helper.make_node("MatMul", ["a", "a"], ["b"])]
    count = count_onnx_file(_write(tmp_path / "f.onnx", nodes, [x], []), batch=3)
    assert count.costs[1] == ("matmul", 0, 0)


def test_peak_of_values_alive(dense_bundle: Bundle) -> None:
    count = count_onnx_file(dense_bundle.path / onnx_file("predict"), batch=5)
    assert count.names == ("Transpose", "Gemm")
    # The transposed weight (12 floats) and the output (5 x 4) are alive together.
    assert count.peak_bytes == 4 * (12 + 20)
