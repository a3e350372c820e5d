"""Programs that are really exported wrong, each in a way in which exports do go wrong, and the check that sees it.

The stock gradient of max-pooling is in ``test_bundle``, dropout drawn by the runtime in ``test_dropout_export``.
"""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from toy import drawn

from pocketfleet.errors import BundleError
from pocketfleet.export import onnx
from pocketfleet.export.decompositions import decomposition_table
from pocketfleet.export.executorch import ExecutorchSession, write_executorch
from pocketfleet.export.gate import run_gate
from pocketfleet.export.gate_report import GateReport
from pocketfleet.export.manifest import PTE_FILE
from pocketfleet.export.onnx import OnnxSession, write_onnx
from pocketfleet.export.program import Programs, trace_programs
from pocketfleet.export.session import EagerSession, Runtime, Session
from pocketfleet.export.signature import Signature, TensorSpec
from pocketfleet.training.model_task import ModelTask
from pocketfleet.training.train_step import StepSettings
from pocketfleet.training.weights import Weights, model_weights

MAX_BATCH = 4
STEPS = 3
both_runtimes = pytest.mark.parametrize("runtime", ["executorch", "onnx"])


class Square(nn.Module):
    """Two layers of one shape."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)
        with torch.no_grad():
            for seed, value in enumerate(self.parameters()):
                value.copy_(drawn(*value.shape, seed=seed) * 0.5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        output: torch.Tensor = self.second(self.first(x).tanh())
        return output


class FoldedBias(Square):
    """What a tracer makes of a bias that it takes for a constant: its value is right, and it never moves."""

    def __init__(self) -> None:
        super().__init__()
        self.constant = self.second.bias.detach().clone()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        output: torch.Tensor = nn.functional.linear(self.first(x).tanh(), self.second.weight, self.constant)
        return output


class Normalised(nn.Module):
    """Inputs over their norms, and a small constant against inputs that are zero."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        output: torch.Tensor = self.linear(x / (x.square().sum(dim=1, keepdim=True).sqrt() + 1e-8))
        return output


def task_of(model: nn.Module, x: torch.Tensor | None = None) -> ModelTask:
    x = drawn(8, 4) if x is None else x
    return ModelTask(model, nn.CrossEntropyLoss(reduction="none"), (x, torch.arange(len(x)) % 4))


def weights_of(task: ModelTask) -> Weights:
    return model_weights(task.make_model(), task.train_examples().x)


def traced(task: ModelTask, runtime: Runtime) -> Programs:
    return trace_programs(
        task,
        task.make_model(),
        weights_of(task),
        settings=StepSettings(),
        examples=task.train_examples(),
        max_batch=MAX_BATCH,
        table=decomposition_table(runtime),
    )


def written(programs: Programs, runtime: Runtime, folder: Path, *, read_with: Signature | None = None) -> Session:
    """A session over really written files."""
    signature = read_with or programs.signature
    if runtime == "executorch":
        write_executorch(programs, folder / PTE_FILE)
        return ExecutorchSession(folder / PTE_FILE, signature, max_batch=MAX_BATCH)
    write_onnx(programs, folder)
    return OnnxSession(folder, signature, max_batch=MAX_BATCH)


def gated(session: Session, task: ModelTask) -> GateReport:
    return run_gate(
        {"planted": session},
        EagerSession(task, task.make_model(), StepSettings()),
        weights=weights_of(task),
        examples=task.train_examples(),
        settings=StepSettings(),
        hyper={"learning_rate": 0.1},
        max_batch=MAX_BATCH,
        steps=STEPS,
    )


def failed(report: GateReport, check: str) -> set[str]:
    return {row.tensor for row in report.failures if row.check == check}


def swapped(specs: tuple[TensorSpec, ...]) -> tuple[TensorSpec, ...]:
    """The two weights, which have one shape, under each other's name."""
    others = {"first.weight": "second.weight", "second.weight": "first.weight"}
    return tuple(dataclasses.replace(spec, name=others.get(spec.name, spec.name)) for spec in specs)


def with_swapped(programs: Programs, side: str) -> Programs:
    step = programs.signature.train_step
    changed: dict[str, Any] = {side: swapped(getattr(step, side))}
    signature = dataclasses.replace(programs.signature, train_step=dataclasses.replace(step, **changed))
    assert signature != programs.signature
    return dataclasses.replace(programs, signature=signature)


@both_runtimes
def test_what_is_exported_right_passes(runtime: Runtime, tmp_path: Path) -> None:
    task = task_of(Square())
    assert gated(written(traced(task, runtime), runtime, tmp_path), task).passed


@both_runtimes
def test_shifted_names_of_inputs(runtime: Runtime, tmp_path: Path) -> None:
    task = task_of(Square())
    report = gated(written(with_swapped(traced(task, runtime), "inputs"), runtime, tmp_path), task)
    assert {"first.weight", "second.weight"} <= failed(report, "gradient, batch 4")
    assert failed(report, f"{STEPS} steps")
    # The other programs are right, whatever they are given.
    assert not failed(report, "predict, batch 4")


def test_shifted_names_of_outputs(tmp_path: Path) -> None:
    # ExecuTorch's outputs have places and no names.
    task = task_of(Square())
    programs = traced(task, "onnx")
    with pytest.raises(BundleError, match=r"train_step\.onnx: number 2 of the outputs is trainable/second\.weight/out"):
        written(with_swapped(programs, "outputs"), "onnx", tmp_path, read_with=programs.signature)


@both_runtimes
def test_a_folded_bias(runtime: Runtime, tmp_path: Path) -> None:
    task = task_of(Square())
    programs = traced(task_of(FoldedBias()), runtime)
    assert programs.signature == traced(task, runtime).signature
    report = gated(written(programs, runtime, tmp_path), task)
    for size in (4, 2, 1):
        assert failed(report, f"gradient, batch {size}") == {"second.bias"}
    assert "second.bias" in failed(report, f"{STEPS} steps")


def test_a_small_constant_that_an_optimizer_takes_for_zero(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from onnxscript import optimizer

    x = drawn(8, 4)
    x[::3] = 0.0
    task = task_of(Normalised(), x)
    (tmp_path / "right").mkdir()
    assert gated(written(traced(task, "onnx"), "onnx", tmp_path / "right"), task).passed
    monkeypatch.setattr(onnx, "_fold_constants", optimizer.optimize)
    report = gated(written(traced(task, "onnx"), "onnx", tmp_path), task)
    # 0 / 0 reaches the weight's gradient and every prediction.
    assert "linear.weight" in failed(report, "gradient, batch 4")
    assert failed(report, "predict, batch 4") == {"output"}
