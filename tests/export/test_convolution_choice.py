"""ExecuTorch's convolutions: the way that is told, else the faster one; the manifest says which."""

from pathlib import Path

import pytest
import torch
from families.family import seeded
from torch import nn
from toy import drawn, pooled_toy

from pocketfleet.errors import InputError
from pocketfleet.export import Bundle, export_bundle
from pocketfleet.export.convolution_choice import chosen_convolution
from pocketfleet.export.decompositions import Convolution
from pocketfleet.training.examples import Examples
from pocketfleet.training.task import check_task, initial_model, task_examples
from pocketfleet.training.train_step import Loss, StepSettings, TrainStep
from pocketfleet.training.weights import model_weights


def _image_model() -> nn.Module:
    return nn.Sequential(nn.Conv2d(2, 4, 3, padding=1, groups=2), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3))


def _sequence_model() -> nn.Module:
    return nn.Sequential(nn.Conv1d(2, 4, 3, stride=2, groups=2), nn.ReLU(), nn.Flatten(), nn.Linear(16, 3))


def _exported(out: Path, convolution: Convolution | None, *, sequence: bool = False) -> Bundle:
    model = seeded(_sequence_model if sequence else _image_model)
    x = drawn(4, 2, 9) if sequence else drawn(4, 2, 6, 6)
    batch = (x, torch.arange(4) % 3)
    return export_bundle(model, nn.CrossEntropyLoss(), batch, out=out, only="executorch", convolution=convolution)


def _operators(bundle: Bundle) -> set[str]:
    return {operator.name for operator in bundle.footprint("executorch").train_step}


@pytest.fixture(scope="module")
def native_images(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return _exported(tmp_path_factory.mktemp("native") / "bundle", "native")


@pytest.mark.parametrize("sequence", [False, True])
def test_native_convolutions_train_behind_the_same_gate(
    native_images: Bundle, tmp_path: Path, *, sequence: bool
) -> None:
    bundle = _exported(tmp_path / "bundle", "native", sequence=True) if sequence else native_images
    assert bundle.manifest.convolution == "native"
    assert "convolution" in _operators(bundle)
    assert "convolution_backward" not in _operators(bundle)


def test_products_hold_columns_in_memory_and_native_convolutions_do_not(native_images: Bundle, tmp_path: Path) -> None:
    native, products = native_images, _exported(tmp_path / "products", "matmul")
    assert products.manifest.convolution == "matmul"
    assert "convolution" not in _operators(products)
    arenas = [bundle.footprint("executorch").planned_bytes["predict"] for bundle in (native, products)]
    # The columns: 2 channels x 9 places x 36 windows x 4 examples of 4 bytes.
    assert arenas[1] - arenas[0] >= 2 * 9 * 36 * 4 * 4 // 2


def _loss(output: torch.Tensor, _target: torch.Tensor) -> torch.Tensor:
    return output.flatten(1).square().mean(dim=1)


def _chosen(
    model: nn.Module, x: torch.Tensor, *, loss: Loss = _loss, wanted: Convolution | None = None
) -> Convolution | None:
    step = TrainStep(model, loss, StepSettings())
    return chosen_convolution(
        step, model_weights(model, torch.cat([x, x])), Examples(x, torch.zeros(len(x))), wanted=wanted
    )


def test_the_faster_way_is_taken_and_named() -> None:
    # 64 channels of 3 x 3 from 64: a kernel that loops over single values takes a hundred times as long.
    assert _chosen(nn.Conv2d(64, 64, 3), drawn(4, 64, 12, 12)) == "matmul"


class _InOneMode(nn.Module):
    """A convolution that one mode alone reaches, behind a dropout and a batch norm."""

    def __init__(self, *, training: bool) -> None:
        super().__init__()
        self.front = nn.Sequential(nn.Dropout(0.5), nn.BatchNorm2d(1))
        self.branch = nn.Conv2d(1, 1, 3)
        self.branch_mode = training

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.front(x)
        output: torch.Tensor = self.branch(x) if self.training == self.branch_mode else x
        return output


@pytest.mark.parametrize("training", [False, True])
def test_a_convolution_that_one_mode_alone_reaches(*, training: bool) -> None:
    assert _chosen(_InOneMode(training=training), drawn(2, 1, 5, 5), wanted="native") == "native"


def test_a_convolution_in_the_loss() -> None:
    def blurred(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return _loss(nn.functional.conv2d(output, torch.ones(1, 1, 2, 2)), target)

    model = nn.Sequential(nn.Linear(4, 4))
    assert _chosen(model, drawn(2, 1, 4, 4), wanted="native") is None
    assert _chosen(model, drawn(2, 1, 4, 4), loss=blurred, wanted="native") == "native"


def test_a_model_that_fails_is_left_to_tracing() -> None:
    # One value a channel: batch norm cannot train.
    model = nn.Sequential(nn.Conv2d(1, 1, 3), nn.BatchNorm2d(1), nn.Conv2d(1, 1, 1))
    assert _chosen(model, drawn(1, 1, 3, 3), wanted="native") == "native"


def test_no_choice_without_a_convolution_that_can_be_a_product(tmp_path: Path) -> None:
    dense, transposed = nn.Linear(3, 2), nn.ConvTranspose2d(1, 1, 2)
    assert _chosen(dense, drawn(2, 3), wanted="native") is None
    assert _chosen(transposed, drawn(2, 1, 4, 4), wanted="native") is None
    x, y = drawn(4, 3), torch.arange(4) % 2
    bundle = export_bundle(dense, nn.CrossEntropyLoss(), (x, y), out=tmp_path / "bundle", convolution="native")
    assert bundle.manifest.convolution is None


def test_a_task_with_convolutions_has_the_choice() -> None:
    task = pooled_toy()
    examples = task_examples(task, "train")
    model = initial_model(task, seed=0)
    step = TrainStep(model, task.loss, StepSettings())
    weights = check_task(task, model, examples)
    assert chosen_convolution(step, weights, examples.take(torch.arange(2)), wanted="native") == "native"


def test_another_word_and_another_runtime_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="convolution must be matmul or native, got 'fast'"):
        _exported(tmp_path / "bundle", "fast")  # type: ignore[arg-type]
    model, batch = nn.Linear(3, 2), (drawn(4, 3), torch.arange(4) % 2)
    with pytest.raises(InputError, match="ExecuTorch's: export for it too"):
        export_bundle(model, nn.CrossEntropyLoss(), batch, out=tmp_path / "bundle", only="onnx", convolution="matmul")
    assert list(tmp_path.iterdir()) == []
