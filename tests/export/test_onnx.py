"""The ONNX files: standard operators, a stated opset, labelled inputs, no trace of where they were made."""

import importlib.metadata
from pathlib import Path

import onnx
import pytest
import torch
import toy
from torch import nn

from pocketfleet.export.bundle import Bundle
from pocketfleet.export.manifest import onnx_file
from pocketfleet.export.onnx import OPSET, OnnxSession, write_onnx
from pocketfleet.export.onnx_counting import count_onnx_file
from pocketfleet.export.program import METHODS, trace_programs
from pocketfleet.training.task import initial_model
from pocketfleet.training.train_step import StepSettings
from pocketfleet.training.weights import model_weights


def test_tried_versions() -> None:
    # A new minor version goes here once the tests of this folder pass with it.
    for name, tried in {"onnx": {"1.22", "1.23"}, "onnxscript": {"0.7"}, "onnxruntime": {"1.32"}}.items():
        assert importlib.metadata.version(name).rpartition(".")[0] in tried


@pytest.mark.parametrize("method", METHODS)
def test_files_are_standard_onnx(normalised_bundle: Bundle, method: str) -> None:
    model = onnx.load(normalised_bundle.path / onnx_file(method))
    onnx.checker.check_model(model, full_check=True)
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", OPSET)]
    assert {node.domain for node in model.graph.node} == {""}
    assert len(model.functions) == 0
    signature = normalised_bundle.signature.method(method)
    assert [value.name for value in model.graph.input] == [spec.label for spec in signature.inputs]


def test_files_do_not_say_where_they_were_made(normalised_bundle: Bundle) -> None:
    here = str(Path(__file__).parents[2]).encode()
    for method in METHODS:
        content = (normalised_bundle.path / onnx_file(method)).read_bytes()
        assert here not in content
        assert b"site-packages" not in content


class TinyConstant(nn.Module):
    """Divides by what is zero but for a constant that onnxscript's optimizer takes for zero."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(4, 3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        nothing = x - x
        return (x + nothing / (nothing + 1e-8)) @ self.weight.t()


def test_a_tiny_constant_stays(tmp_path: Path) -> None:
    task = toy.Toy(TinyConstant, 3)
    model, examples = initial_model(task, seed=0), task.train_examples()
    weights = model_weights(model, examples.x[:2])
    programs = trace_programs(task, model, weights, settings=StepSettings(), examples=examples, max_batch=4, table={})
    write_onnx(programs, tmp_path)
    session = OnnxSession(tmp_path, programs.signature, max_batch=4)
    # Every row of ones sums the three features; 0 / 0 would be no number.
    expected = examples.x[:2].sum(1, keepdim=True).expand(2, 4)
    torch.testing.assert_close(session.predict(weights, examples.x[:2]), expected)


def test_peak_of_values_alive(dense_bundle: Bundle) -> None:
    count = count_onnx_file(dense_bundle.path / onnx_file("predict"), batch=5)
    assert count.names == ("Transpose", "Gemm")
    # The transposed weight (12 floats) and the output (5 x 4) are alive together.
    assert count.peak_bytes == 4 * (12 + 20)
