"""Losses, metrics and models as users write them become files that pass the gate on both runtimes."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
import toy
from torch import nn
from torch.nn import functional as F

from pocketfleet.errors import GateError
from pocketfleet.export.bundle import Bundle
from pocketfleet.export.exporter import export_task, write_bundle
from pocketfleet.export.manifest import onnx_file
from pocketfleet.export.plan import make_plan
from pocketfleet.training.task import Task
from pocketfleet.training.train_step import StepSettings
from pocketfleet.training.weights import Tensors

ARGUMENTS: dict[str, Any] = {"settings": StepSettings(), "hyper": {"learning_rate": 0.1}, "max_batch": 4}
Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
CLASS_WEIGHTS = torch.tensor([1.0, 2.0, 3.0, 4.0])


class WithLoss(toy.Toy):
    """A dense layer under a loss of the user's."""

    def __init__(self, loss: Loss) -> None:
        super().__init__(lambda: nn.Sequential(nn.Linear(3, 4)), 3)
        self._loss = loss

    def loss(self, output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return self._loss(output, target)


class WithMetric(toy.Toy):
    """A dense layer, and a metric with a constant."""

    def metrics(self, output: torch.Tensor, target: torch.Tensor) -> Tensors:
        hits = super().metrics(output, target)["accuracy"]
        return {"cost": hits + (output.softmax(1) * CLASS_WEIGHTS).sum(1)}


class Scaled(nn.Module):
    """A constant as a plain attribute, and one made while the model runs."""

    def __init__(self) -> None:
        super().__init__()
        self.dense = nn.Linear(3, 4)
        self.factor = torch.tensor([[1.0, 2.0, 3.0], [0.5, 0.0, 1.0], [0.0, 1.0, 0.0]])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        # The constant is the left factor: its sizes settle how much a product costs.
        moved = (self.factor @ x.t()).t() + torch.tensor([0.5, 0.25, 1.0])
        output: torch.Tensor = self.dense(moved)
        return output


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_a_loss_that_is_a_mean(tmp_path: Path, smoothing: float) -> None:
    task = WithLoss(lambda output, target: F.cross_entropy(output, target, label_smoothing=smoothing))
    assert export_task(task, out=tmp_path / "bundle", **ARGUMENTS).signature.train_step.outputs[0].shape == ()


def test_the_stock_gradient_of_a_mean_is_caught_and_named(tmp_path: Path) -> None:
    plan = make_plan(WithLoss(F.cross_entropy), **ARGUMENTS)
    plan = dataclasses.replace(plan, leave_out={"onnx": ["aten.nll_loss_forward"]})
    # Not divided by the batch of 4, it is 4 times the true gradient: off by 3 of it.
    with pytest.raises(
        GateError, match=r"the onnx program.*batch 4 of 0\.bias is off by 3\.0e\+00.*nll_loss_forward leaves"
    ):
        write_bundle(plan, out=tmp_path / "bundle", force=False, gated=True)


CONSTANTS: dict[str, Callable[[], Task]] = {
    "made in the loss": lambda: WithLoss(
        lambda output, target: F.cross_entropy(
            output, target, weight=torch.tensor([1.0, 2.0, 3.0, 4.0]), reduction="none"
        )
    ),
    "made before the loss": lambda: WithLoss(
        lambda output, target: F.cross_entropy(output, target, weight=CLASS_WEIGHTS)
    ),
    "in a metric": lambda: WithMetric(lambda: nn.Sequential(nn.Linear(3, 4)), 3),
}


@pytest.mark.parametrize("where", CONSTANTS)
def test_a_constant(tmp_path: Path, where: str) -> None:
    bundle = export_task(CONSTANTS[where](), out=tmp_path / "bundle", **ARGUMENTS)
    assert CLASS_WEIGHTS.tolist() in [np.ravel(value).tolist() for value in initializers(bundle, "evaluate")]


def initializers(bundle: Bundle, method: str) -> list[Any]:
    graph = onnx.load(bundle.path / onnx_file(method)).graph
    signature = bundle.signature.method(method)
    assert [value.name for value in graph.input] == [spec.label for spec in signature.inputs]
    return [onnx.numpy_helper.to_array(constant).tolist() for constant in graph.initializer]


def test_constants_in_the_model(tmp_path: Path) -> None:
    bundle = export_task(toy.Toy(Scaled, 3), out=tmp_path / "bundle", **ARGUMENTS)
    assert initializers(bundle, "predict") == [Scaled().factor.tolist(), [0.5, 0.25, 1.0]]
    for runtime in ("executorch", "onnx"):
        footprint = bundle.footprint(runtime)  # type: ignore[arg-type]
        products = [cost for cost in footprint.operators["predict"] if cost.kind == "matmul"]
        # 3 x 3 by 3 x batch; then as in any dense layer of 3 to 4, 2 * 3 * 4 an example, and on ONNX its 4 biases.
        dense = 28 if runtime == "onnx" else 24
        assert [cost.flops for cost in products] == [(18, 72), (dense, 4 * dense)]
        # The constant is read too: 9 floats, and 3 in and out an example.
        assert products[0].bytes == (4 * 15, 4 * 33)
