"""From a bare model to a bundle, and what is refused before anything is written."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from edited import edit_manifest
from safetensors.torch import load_file, save_file
from torch import nn
from toy import drawn

from pocketfleet.errors import BundleError, InputError
from pocketfleet.export.bundle import Bundle
from pocketfleet.export.exporter import export_bundle
from pocketfleet.export.manifest import file_sha256
from pocketfleet.export.session import open_session
from pocketfleet.export.verification import verify_bundle
from pocketfleet.training.model_task import ModelTask
from pocketfleet.training.train_step import StepSettings

BATCH = (drawn(4, 6), torch.arange(4))
LOSS = nn.CrossEntropyLoss(reduction="none")
# Enough to see an optimizer's slots at work.
STEPS = 3


class Classifier(nn.Module):
    """A body that is larger than its head, with weights that are always the same."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(6, 32), nn.Tanh(), nn.Linear(32, 16), nn.Tanh())
        self.head = nn.Linear(16, 4)
        with torch.no_grad():
            for seed, value in enumerate(self.parameters()):
                value.copy_(drawn(*value.shape, seed=seed) * 0.3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        output: torch.Tensor = self.head(self.body(x))
        return output


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[nn.Module, Bundle]:
    """A model before it was exported, and the bundle that trains its head by Adam; the model must not have changed."""
    model = Classifier().eval()
    before = copy.deepcopy(model)
    out = tmp_path_factory.mktemp("head") / "bundle"
    bundle = export_bundle(model, LOSS, BATCH, trainable="head.*", optimizer="adam", out=str(out), gate_steps=STEPS)
    assert not any(module.training for module in model.modules())
    assert all(value.requires_grad and value.grad is None for value in model.parameters())
    assert all(torch.equal(value, before.state_dict()[name]) for name, value in model.state_dict().items())
    return before, bundle


@pytest.fixture(scope="module")
def for_onnx(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The whole model, for ONNX Runtime alone."""
    out = tmp_path_factory.mktemp("onnx") / "bundle"
    return export_bundle(Classifier(), LOSS, BATCH, optimizer="adam", out=out, only="onnx", gate_steps=STEPS)


def test_a_bare_model_with_its_own_weights(exported: tuple[nn.Module, Bundle]) -> None:
    model, bundle = exported
    loaded = Bundle.load(bundle.path)
    assert loaded.settings == StepSettings(optimizer="adam")
    assert loaded.hyper == {"learning_rate": 0.001, "beta1": 0.9, "beta2": 0.999, "epsilon": 1e-8}
    assert (loaded.max_batch, loaded.task.name, loaded.task.path) == (4, "Classifier", None)
    assert loaded.runtimes == ("executorch", "onnx")
    weights = loaded.weights()
    assert sorted(weights.trainable) == ["head.bias", "head.weight"]
    assert sorted(weights.frozen) == ["body.0.bias", "body.0.weight", "body.2.bias", "body.2.weight"]
    for name, value in (weights.trainable | weights.frozen).items():
        assert torch.equal(value, model.state_dict()[name]), name


def test_it_is_verified_with_the_model_at_hand(exported: tuple[nn.Module, Bundle]) -> None:
    model, bundle = exported
    report = verify_bundle(bundle, ModelTask(model, LOSS, BATCH, name="Classifier"), steps=STEPS)
    assert report.passed
    assert {row.runtime for row in report.rows} == {"executorch", "onnx"}


def test_without_the_model_verifying_says_what_to_do(exported: tuple[nn.Module, Bundle]) -> None:
    with pytest.raises(
        InputError, match=r"verify_bundle\(bundle, ModelTask\(model, loss, example_batch\)\), or export"
    ):
        verify_bundle(exported[1], steps=1)


def test_with_another_model_it_is_refused(exported: tuple[nn.Module, Bundle]) -> None:
    other = nn.Sequential()
    other.add_module("head", nn.Linear(6, 4))
    with pytest.raises(BundleError, match="its trainable weights are others"):
        verify_bundle(exported[1], ModelTask(other, LOSS, BATCH), steps=1)


def test_a_head_alone_is_smaller(exported: tuple[nn.Module, Bundle], for_onnx: Bundle) -> None:
    head, whole = exported[1], for_onnx
    sizes = [bundle.manifest.files["weights.safetensors"].bytes for bundle in (head, whole)]
    # Float32 weights: 16 * 4 + 4 of the head, and 6 * 32 + 32 + 32 * 16 + 16 of the body.
    assert sizes[1] - sizes[0] > 4 * 752
    arenas = [bundle.footprint("onnx").planned_bytes["train_step"] for bundle in (head, whole)]
    assert arenas[0] < 0.5 * arenas[1]
    # Predicting costs what it did.
    assert len({bundle.footprint("onnx").planned_bytes["predict"] for bundle in (head, whole)}) == 1


def test_one_runtime_alone(for_onnx: Bundle) -> None:
    assert {file.name for file in for_onnx.path.iterdir()} == {
        *("manifest.json", "train_step.onnx", "predict.onnx", "evaluate.onnx", "weights.safetensors")
    }
    assert "model.pte" not in for_onnx.manifest.files
    loaded = Bundle.load(for_onnx.path)
    assert loaded.runtimes == ("onnx",)
    with pytest.raises(InputError, match="was exported for onnx only: export it for executorch too"):
        loaded.footprint("executorch")
    report = verify_bundle(loaded, ModelTask(Classifier(), LOSS, BATCH), steps=STEPS)
    assert {row.runtime for row in report.rows} == {"onnx"}


def test_a_session_for_the_other_runtime(for_onnx: Bundle) -> None:
    with pytest.raises(InputError, match="was exported for onnx only: export it for executorch too"):
        open_session(for_onnx, "executorch")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_behind_a_right_hash(for_onnx: Bundle, tmp_path: Path, value: float) -> None:
    folder = tmp_path / "bundle"
    folder.mkdir()
    for file in for_onnx.path.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    weights = folder / "weights.safetensors"
    tensors = load_file(weights)
    tensors["head.bias"][2] = value
    save_file(tensors, weights)
    entry = {"bytes": weights.stat().st_size, "sha256": file_sha256(weights)}
    edit_manifest(folder, lambda manifest: manifest["files"].update({"weights.safetensors": entry}))
    with pytest.raises(BundleError, match=r"weights\.safetensors holds values that are no finite numbers"):
        Bundle.load(folder)


def test_weights_that_are_no_numbers_are_not_exported(tmp_path: Path) -> None:
    model = Classifier()
    with torch.no_grad():
        model.head.bias[0] = torch.nan
    refused(tmp_path, "finite|is nan on its first examples", model=model)


def test_weights_that_are_no_numbers_and_do_not_reach_the_loss(tmp_path: Path) -> None:
    model = Classifier()
    model.register_parameter("spare", nn.Parameter(torch.full((3,), torch.nan)))
    refused(tmp_path, "finite", model=model)


def refused(folder: Path, message: str, **arguments: Any) -> None:  # noqa: ANN401
    given = {"model": Classifier(), "loss": LOSS, "example_batch": BATCH, "gate_steps": STEPS, "only": "onnx"}
    with pytest.raises(InputError, match=message):
        export_bundle(**{"out": folder / "bundle", **given, **arguments})
    assert list(folder.iterdir()) == []


def broken(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    raise RuntimeError("no such loss")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"only": "tflite"}, r"^only must be executorch or onnx, got 'tflite'$"),
        ({"optimizer": "lion"}, r"^optimizer must be one of sgd, adam, adamw, got 'lion'$"),
        ({"nesterov": True}, r"^nesterov needs momentum$"),
        ({"optimizer": "adam", "momentum": 0.9}, r"^momentum and nesterov are SGD's"),
        ({"example_batch": (*BATCH, BATCH[1])}, r"must be a pair \(x, y\) of tensors, got 3 values"),
        ({"example_batch": BATCH[0]}, r"must be a pair \(x, y\) of tensors, got Tensor"),
        ({"example_batch": (BATCH[0], BATCH[1][:3])}, "as many inputs as targets"),
        ({"example_batch": (BATCH[0][:0], BATCH[1][:0])}, "max_batch must be 1 or more, got 0"),
        ({"example_batch": (drawn(4, 5), BATCH[1])}, r"does not accept the task's examples, .* \(3, 5\)"),
        ({"loss": broken}, r"the loss of task 'Classifier' fails on an output of shape \(3, 4\) .*: no such loss"),
        ({"loss": lambda output, _: output}, r"must return one value an example, shape \(3,\)"),
        ({"trainable": ["head.*", "tail.*"]}, r"no parameter of the model is named 'tail\.\*'"),
        ({"lora_rank": -1}, "the rank of LoRA must be 1 or more"),
        ({"max_batch": 0}, "max_batch must be 1 or more, got 0"),
        ({"gate_steps": 0}, "the gate needs 1 step or more, got 0"),
        ({"model": nn.Sequential(nn.Linear(6, 4), nn.RReLU())}, r"draws random numbers by aten\.rrelu_with_noise"),
        ({"model": nn.Sequential(nn.Flatten())}, "no parameter that requires a gradient: nothing to train"),
    ],
)
def test_what_is_refused_leaves_nothing_behind(tmp_path: Path, arguments: dict[str, Any], message: str) -> None:
    refused(tmp_path, message, **arguments)


def test_no_folder_to_write_to(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="missing is no folder; make it first"):
        export_bundle(Classifier(), LOSS, BATCH, out=tmp_path / "missing" / "bundle")


def test_a_quantised_predict_and_a_training_module(tmp_path: Path) -> None:
    bundle = export_bundle(
        nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 4)),
        nn.CrossEntropyLoss(reduction="none"),
        (drawn(12, 3), torch.arange(12) % 4),
        out=tmp_path / "bundle",
        only="executorch",
        int8_predict=True,
        training_module=True,
        gate_steps=2,
    )
    loaded = Bundle.load(bundle.path)
    assert loaded.manifest.predict == "xnnpack"
    assert loaded.manifest.int8 is not None
    # The first half calibrates, the second is compared on: six examples leave ranges that the others exceed.
    assert loaded.manifest.int8.examples == 6
    assert 0.0 < loaded.manifest.int8.output_error < 0.5
    assert "training_module.pte" in loaded.manifest.files


@pytest.mark.parametrize("extra", ["int8_predict", "training_module"])
def test_what_is_executorchs_is_refused_for_onnx_alone(extra: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"are ExecuTorch's: export for it too"):
        export_bundle(
            nn.Sequential(nn.Linear(3, 4)),
            nn.CrossEntropyLoss(),
            (drawn(4, 3), torch.arange(4)),
            out=tmp_path / "bundle",
            only="onnx",
            **{extra: True},
        )
    assert list(tmp_path.iterdir()) == []
