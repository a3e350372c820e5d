"""The ONNX files: standard operators, a stated opset, labelled inputs, no trace of where they were made."""

import importlib.metadata
import tracemalloc
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
import toy
from torch import nn

from pocketfleet.export.bundle import Bundle
from pocketfleet.export.decompositions import decomposition_table
from pocketfleet.export.manifest import onnx_file
from pocketfleet.export.onnx import OPSET, OnnxSession, write_onnx
from pocketfleet.export.program import trace_programs
from pocketfleet.export.signature import METHODS
from pocketfleet.training.examples import Examples
from pocketfleet.training.task import initial_model
from pocketfleet.training.train_step import StepSettings, TrainState, hyper_tensors, predict
from pocketfleet.training.weights import Tensors, Weights, model_weights

SETTINGS = StepSettings()


def weights_of(state: TrainState) -> Weights:
    return Weights(trainable=state.trainable, buffers=state.buffers, frozen=state.frozen)


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


def _session(task: toy.Toy, folder: Path, *, max_batch: int = 4) -> tuple[OnnxSession, TrainState, Examples]:
    model, examples = initial_model(task, seed=0), task.train_examples()
    weights = model_weights(model, examples.x[:2])
    programs = trace_programs(
        task,
        model,
        weights,
        settings=SETTINGS,
        examples=examples,
        max_batch=max_batch,
        table=decomposition_table("onnx"),
    )
    write_onnx(programs, folder)
    session = OnnxSession(folder, programs.signature, max_batch=max_batch)
    return session, TrainState.start(weights, SETTINGS), examples


def _frozen_trunk() -> nn.Module:
    """5 million frozen weights (20 MB) under a head of four outputs."""
    trunk = nn.Linear(3, 1250), nn.Linear(1250, 4000)
    for layer in trunk:
        layer.requires_grad_(requires_grad=False)
    return nn.Sequential(*trunk, nn.Linear(4000, 4))


def test_no_weight_is_copied_from_step_to_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    session, state, examples = _session(toy.Toy(_frozen_trunk, 3), tmp_path)
    method = session._methods["train_step"]
    bound: dict[str, dict[str, int]] = {"in": {}, "out": {}}
    monkeypatch.setattr(method, "_memory", Recorder(method._memory, bound))
    x, y, hyper = examples.x[:4], examples.y[:4], hyper_tensors(SETTINGS, {"learning_rate": 0.1})
    _, first = session.train_step(state, x, y, hyper)
    frozen = {f"frozen/{name}": value.data_ptr() for name, value in state.frozen.items()}
    assert frozen.items() <= bound["in"].items()
    assert {f"trainable/{name}/out": value.data_ptr() for name, value in first.trainable.items()}.items() <= bound[
        "out"
    ].items()
    bound["in"].clear()
    tracemalloc.start()
    session.train_step(first, x, y, hyper)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # Only what moved is bound again: the head, where the first step has left it.
    assert bound["in"] == {f"trainable/{name}": value.data_ptr() for name, value in first.trainable.items()}
    # numpy reports its memory to tracemalloc; the trunk alone is 20 MB, the head 64 kB.
    assert peak < 50_000


class Recorder:
    """Passes bindings on and notes the address of each."""

    def __init__(self, memory: Any, bound: dict[str, dict[str, int]]) -> None:  # noqa: ANN401 - the runtime's own
        self._memory, self._bound = memory, bound

    def bind_input(self, name: str, *rest: Any) -> None:  # noqa: ANN401 - passed on
        self._bound["in"][name] = rest[-1]
        self._memory.bind_input(name, *rest)

    def bind_output(self, name: str, *rest: Any) -> None:  # noqa: ANN401 - passed on
        self._bound["out"][name] = rest[-1]
        self._memory.bind_output(name, *rest)


def test_results_outlive_later_calls_and_inputs_stay(tmp_path: Path) -> None:
    session, state, examples = _session(toy.dense_toy(), tmp_path)
    hyper = hyper_tensors(SETTINGS, {"learning_rate": 0.1})
    before = {name: value.clone() for name, value in state.trainable.items()}
    results = []
    for start in (0, 4):
        x, y = examples.x[start : start + 4], examples.y[start : start + 4]
        loss, end = session.train_step(state, x, y, hyper)
        values = {"loss": loss, "output": session.predict(weights_of(state), x), **end.trainable}
        results.append((values, {name: value.clone() for name, value in values.items()}))
    for values, copies in results:
        assert all(torch.equal(values[name], copies[name]) for name in values)
    assert not torch.equal(results[0][0]["output"], results[1][0]["output"])
    assert all(torch.equal(state.trainable[name], value) for name, value in before.items())


def test_an_input_of_another_shape_or_type_is_refused(tmp_path: Path) -> None:
    session, state, examples = _session(toy.dense_toy(), tmp_path)
    weights = weights_of(state)
    with pytest.raises(Exception, match=r"[Ii]nvalid dimensions"):
        session.predict(weights, examples.x[:2, :2])
    with pytest.raises(Exception, match="Unexpected input data type"):
        session.predict(weights, examples.x[:2].double())


class Fold(nn.Module):
    """Returns two rows an example: its output is no plain batch."""

    def __init__(self) -> None:
        super().__init__()
        self.dense = nn.Linear(3, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.dense(x).reshape(-1, 4)


class TwoRows(toy.Toy):
    def loss(self, output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return super().loss(output[::2], target) + super().loss(output[1::2], target)

    def metrics(self, output: torch.Tensor, target: torch.Tensor) -> Tensors:
        return super().metrics(output[::2], target)


def test_an_output_may_be_a_multiple_of_the_batch(tmp_path: Path) -> None:
    session, state, examples = _session(TwoRows(Fold, 3), tmp_path)
    weights = weights_of(state)
    for batch in (1, 3, 2):
        expected = predict(Fold(), weights, examples.x[:batch])
        torch.testing.assert_close(session.predict(weights, examples.x[:batch]), expected)


class Shares(nn.Module):
    """Splits its features, which torch's translation puts into a sequence."""

    def __init__(self) -> None:
        super().__init__()
        self.dense = nn.Linear(3, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        first, second = self.dense(x).chunk(2, dim=1)
        return first * second.tanh()


def test_splits_are_of_tensors_and_constants_are_folded(tmp_path: Path) -> None:
    _session(toy.Toy(Shares, 3), tmp_path)
    operators = [node.op_type for node in onnx.load(tmp_path / onnx_file("predict")).graph.node]
    assert "Split" in operators
    assert not {"SplitToSequence", "SequenceAt", "CastLike"} & set(operators)
