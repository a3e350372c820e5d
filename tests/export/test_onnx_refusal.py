"""What torch's exporter and ONNX Runtime say about operators."""

import numpy as np
import onnx
import onnxruntime
import pytest

from pocketfleet.export.onnx import session_options
from pocketfleet.export.onnx_refusal import run_refusal, translation_refusal
from pocketfleet.export.unsupported import Unsupported


def session(operator: str, element: int, sizes: list[int | str], **attributes: object) -> onnxruntime.InferenceSession:
    """One operator of one input, named as our files name them."""
    node = onnx.helper.make_node(operator, ["x"], ["y"], name="body.3:7", **attributes)
    inputs = [onnx.helper.make_tensor_value_info("x", element, sizes)]
    outputs = [onnx.helper.make_tensor_value_info("y", element, None)]
    graph = onnx.helper.make_graph([node], "graph", inputs, outputs)
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=10)
    options = session_options(threads=1)
    # Nothing but what ends the process: the errors are wanted.
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def found(error: Exception, operator: str) -> str:
    """The problem of the one operator that an error names."""
    refusal = run_refusal(error)
    assert refusal is not None, error
    assert refusal.found == (Unsupported(operator=f"ONNX's {operator}", layer="body.3"),)
    return refusal.problem


def test_an_operator_without_an_implementation() -> None:
    with pytest.raises(Exception, match="NOT_IMPLEMENTED") as raised:
        session("LRN", onnx.TensorProto.DOUBLE, [1, 2, 3, 3], size=3)
    assert "which ONNX Runtime 1." in found(raised.value, "LRN")


def test_an_operator_that_refuses_its_attributes() -> None:
    with pytest.raises(Exception, match="axis") as raised:
        session("Softmax", onnx.TensorProto.FLOAT, ["n"], axis=4)
    assert "'axis' must be in" in found(raised.value, "Softmax")


def test_an_operator_that_refuses_its_input() -> None:
    opened = session("DepthToSpace", onnx.TensorProto.FLOAT, ["n", "c", "h", "w"], blocksize=3)
    with pytest.raises(Exception, match="DepthToSpace") as raised:
        opened.run(None, {"x": np.ones((1, 4, 2, 2), np.float32)})
    assert "depth" in found(raised.value, "DepthToSpace")


def test_errors_that_name_no_operator() -> None:
    assert run_refusal(ValueError("no memory")) is None
    assert translation_refusal(ValueError("no memory")) is None
