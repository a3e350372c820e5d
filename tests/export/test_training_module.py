"""ExecuTorch's own training module learns what PyTorch learns, or is not written."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import toy
from torch import nn

from pocketfleet.errors import InputError
from pocketfleet.export import training_module
from pocketfleet.export.decompositions import decomposition_table
from pocketfleet.export.gate_report import GateReport
from pocketfleet.export.training_module import check_training_module, write_training_module
from pocketfleet.training.task import initial_model
from pocketfleet.training.weights import model_weights


class Twins(nn.Module):
    """Two layer normalisations, which start equal, then a frozen layer and a constant of the model's own."""

    scale: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.first, self.layer, self.second = nn.LayerNorm(3), nn.Linear(3, 3), nn.LayerNorm(3)
        self.last = nn.Linear(3, 4)
        self.last.weight.requires_grad_(False)
        self.register_buffer("scale", torch.tensor([1.0, 2.0, 3.0]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        output: torch.Tensor = self.last(self.second(self.layer(self.first(x)) * self.scale))
        return output


def twins_toy() -> toy.Toy:
    return toy.Toy(Twins, 3)


def report(task: toy.Toy, path: Path) -> GateReport:
    model, examples = initial_model(task, seed=0), task.train_examples()
    weights = model_weights(model, examples.x[:3])
    write_training_module(task, model, weights, examples, batch_size=6, path=path)
    return GateReport(check_training_module(path, task, model, weights, examples, batch_size=6))


@pytest.mark.parametrize("make_task", [toy.pooled_toy, twins_toy])
def test_it_learns_what_pytorch_learns(make_task: Callable[[], toy.Toy], tmp_path: Path) -> None:
    found = report(make_task(), tmp_path / "training_module.pte")
    assert found.passed, str(found)
    checks = {row.check.removeprefix("training module: ") for row in found.rows}
    assert checks == {"loss", "gradient, batch 6", "repeat", "weights", "20 steps"}


def test_weights_that_start_equal_would_share_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training_module, "_apart", lambda model: model)
    found = report(twins_toy(), tmp_path / "training_module.pte")
    # Why rule 3 is there. Only steps show it: the first gradients are right.
    assert {row.check for row in found.failures} == {"training module: 20 steps"}
    assert {"first.weight", "second.weight"} <= {row.tensor for row in found.failures}


def test_the_stock_gradient_of_a_pool_is_found_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stock = decomposition_table("executorch", leave_out=["aten.max_pool2d_with_indices_backward"])
    monkeypatch.setattr(training_module, "decomposition_table", lambda _runtime: stock)
    found = report(toy.pooled_toy(), tmp_path / "training_module.pte")
    # The kernel adds to what it left in its memory: each gradient holds those before it.
    assert "training module: gradient, batch 6" in {row.check for row in found.failures}


def test_buffers_that_training_changes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cannot hold buffers that training changes.*1\.running_mean"):
        report(toy.normalised_toy(), tmp_path / "training_module.pte")
    assert not (tmp_path / "training_module.pte").exists()


def test_dropout_is_refused(tmp_path: Path) -> None:
    dropping = toy.Toy(lambda: nn.Sequential(nn.Linear(3, 4), nn.Dropout(0.5)), 3)
    with pytest.raises(InputError, match=r"cannot take the masks of dropout"):
        report(dropping, tmp_path / "training_module.pte")
    assert not (tmp_path / "training_module.pte").exists()
