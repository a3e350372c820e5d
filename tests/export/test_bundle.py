"""A bundle is whole or not there, and what was altered is refused with the file's name."""

import dataclasses
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import toy
from edited import edit_manifest

from pocketfleet.errors import BundleError, GateError, InputError
from pocketfleet.export import exporter
from pocketfleet.export.bundle import Bundle
from pocketfleet.export.exporter import export_task, write_bundle
from pocketfleet.export.manifest import file_sha256
from pocketfleet.export.plan import make_plan
from pocketfleet.export.verification import verify_bundle
from pocketfleet.training.feature_scaling import FeatureScaling
from pocketfleet.training.task import load_task
from pocketfleet.training.train_step import StepSettings
from pocketfleet.training.update import tensors_to_bytes

ARGUMENTS: dict[str, Any] = {"settings": StepSettings(), "hyper": {"learning_rate": 0.1}, "max_batch": 4}


def test_what_is_in_it(normalised_bundle: Bundle) -> None:
    loaded = Bundle.load(normalised_bundle.path)
    assert loaded.manifest == normalised_bundle.manifest
    assert {file.name for file in loaded.path.iterdir()} == {
        *("manifest.json", "model.pte", "train_step.onnx", "predict.onnx", "evaluate.onnx", "weights.safetensors")
    }
    assert loaded.settings.nesterov
    assert loaded.hyper["max_norm"] == 0.5
    assert loaded.max_batch == 8
    assert set(loaded.weights().buffers) == {"1.num_batches_tracked", "1.running_mean", "1.running_var"}
    once = ("model.pte", "manifest.json")
    assert loaded.download_bytes("executorch") == sum((loaded.path / name).stat().st_size for name in once)
    assert loaded.manifest.exported_with["torch"].startswith("2.13")


def test_initial_weights_come_from_the_seed_and_are_the_callers_if_given(dense_bundle: Bundle) -> None:
    task = toy.dense_toy()
    again, other = (make_plan(task, **ARGUMENTS, seed=seed).weights for seed in (0, 1))
    assert torch.equal(again.trainable["0.weight"], dense_bundle.weights().trainable["0.weight"])
    assert not torch.equal(other.trainable["0.weight"], again.trainable["0.weight"])
    assert make_plan(task, **ARGUMENTS, weights=other).weights is other


def test_feature_scaling_comes_from_the_training_examples(boston_bundle: Bundle) -> None:
    x = load_task("boston").train_examples().x  # type: ignore[union-attr]
    frozen = boston_bundle.weights().frozen
    torch.testing.assert_close(frozen["0.mean"], x.mean(0))
    torch.testing.assert_close(frozen["0.scale"], x.std(0, unbiased=False), rtol=1e-4, atol=1e-6)
    assert isinstance(load_task("boston").make_model()[0], FeatureScaling)  # type: ignore[index]


def test_verify_finds_the_task_by_itself(boston_bundle: Bundle) -> None:
    report = verify_bundle(boston_bundle)
    assert report.passed
    assert {row.runtime for row in report.rows} == {"executorch", "onnx"}


def test_verify_against_another_task(dense_bundle: Bundle) -> None:
    with pytest.raises(BundleError, match="was not exported from task 'toy': its trainable weights are others"):
        verify_bundle(dense_bundle, toy.normalised_toy())


def test_an_altered_constant_is_seen_behind_right_hashes(tmp_path: Path) -> None:
    task = toy.dense_toy()
    plan = make_plan(toy.AlteredLoss(task), **ARGUMENTS)
    bundle = write_bundle(plan, out=tmp_path / "bundle", force=False, gated=False)
    assert Bundle.load(bundle.path).manifest == bundle.manifest
    with pytest.raises(GateError, match=r"the executorch program.*gradient, batch 4 of 0\.bias is off by 1\.0e-02"):
        verify_bundle(bundle, task)


def test_the_stock_max_pool_gradient_is_caught_and_nothing_is_written(tmp_path: Path) -> None:
    plan = make_plan(toy.pooled_toy(), **ARGUMENTS)
    plan = dataclasses.replace(plan, leave_out={"executorch": ["aten.max_pool2d_with_indices_backward"]})
    with pytest.raises(
        GateError,
        match=r"the executorch program.* of 0\.(weight|bias) is off.*max_pool2d_with_indices_backward adds into",
    ) as raised:
        write_bundle(plan, out=tmp_path / "bundle", force=False, gated=True)
    assert "onnx" not in str(raised.value)
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_left_of_a_model_that_cannot_be_exported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(folder: Path, _: object) -> None:
        (folder / "model.pte").write_bytes(b"half")
        raise InputError("no ONNX form")

    monkeypatch.setattr(exporter, "write_files", fail)
    with pytest.raises(InputError, match="no ONNX form"):
        export_task(toy.dense_toy(), out=tmp_path / "bundle", **ARGUMENTS)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"hyper": {}}, r"hyper-parameters missing: \['learning_rate'\]"),
        ({"max_batch": 0}, "max_batch must be 1 or more, got 0"),
        ({"out": Path("missing/bundle")}, "missing is no folder; make it first"),
    ],
)
def test_wrong_arguments(tmp_path: Path, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        export_task(toy.dense_toy(), **{"out": tmp_path / "bundle", **ARGUMENTS, **arguments})


def rewrite(out: Path, source: Path, monkeypatch: pytest.MonkeyPatch, *, force: bool) -> Bundle:
    """An export whose files are copied from a bundle instead of made."""

    def copy_files(folder: Path, _: object) -> Any:  # noqa: ANN401
        shutil.copytree(source, folder, dirs_exist_ok=True)
        return type("Written", (), {"manifest": Bundle.load(folder).manifest, "suspects": {}})

    monkeypatch.setattr(exporter, "write_files", copy_files)
    return export_task(toy.dense_toy(), out=out, force=force, **ARGUMENTS)


def test_a_bundle_that_is_there_is_replaced_by_force_only(
    dense_bundle: Bundle, copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (copy / "notes.txt").write_text("of the old bundle")
    with pytest.raises(InputError, match="bundle exists; choose another name or use force"):
        rewrite(copy, dense_bundle.path, monkeypatch, force=False)
    rewrite(copy, dense_bundle.path, monkeypatch, force=True)
    assert not (copy / "notes.txt").exists()
    assert [entry.name for entry in copy.parent.iterdir()] == ["bundle"]


def test_a_folder_that_is_no_bundle_is_never_replaced(
    dense_bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "thesis").mkdir()
    with pytest.raises(InputError, match="thesis exists and is no bundle; it is not replaced"):
        rewrite(tmp_path / "thesis", dense_bundle.path, monkeypatch, force=True)


@pytest.mark.parametrize("name", ["model.pte", "train_step.onnx", "weights.safetensors"])
def test_one_altered_byte(copy: Path, name: str) -> None:
    content = bytearray((copy / name).read_bytes())
    content[len(content) // 2] ^= 1
    (copy / name).write_bytes(content)
    with pytest.raises(BundleError, match=rf"{name} was altered: its SHA-256 is .*; copy the bundle again"):
        Bundle.load(copy)


def test_a_file_of_another_size(copy: Path) -> None:
    (copy / "model.pte").write_bytes(b"short")
    with pytest.raises(BundleError, match=r"model\.pte holds 5 bytes, not the \d+ of the manifest"):
        Bundle.load(copy)


def test_a_missing_file(copy: Path) -> None:
    (copy / "predict.onnx").unlink()
    with pytest.raises(BundleError, match=r"predict\.onnx is missing"):
        Bundle.load(copy)


def test_a_link_is_refused(copy: Path) -> None:
    (copy / "model.pte").rename(copy.parent / "elsewhere.pte")
    (copy / "model.pte").symlink_to(copy.parent / "elsewhere.pte")
    with pytest.raises(BundleError, match=r"model\.pte is a link"):
        Bundle.load(copy)


def test_a_device_holds_one_runtimes_files(copy: Path) -> None:
    weights = Bundle.load(copy).weights()
    version = copy / "version.safetensors"
    moved = {name: value + 1.0 for name, value in weights.trainable.items()}
    version.write_bytes(tensors_to_bytes(moved | weights.buffers))
    (copy / "train_step.onnx").unlink()
    (copy / "weights.safetensors").unlink()
    bundle = Bundle.load(copy, runtime="executorch")
    assert not bundle.has_weights
    assert all(torch.equal(bundle.weights(version=version).trainable[name], value) for name, value in moved.items())
    with pytest.raises(BundleError, match=r"train_step\.onnx is missing"):
        Bundle.load(copy, runtime="onnx")
    with pytest.raises(BundleError, match="is missing"):
        Bundle.load(copy)


def test_a_version_may_leave_weights_as_they_were(copy: Path) -> None:
    first, version = Bundle.load(copy).weights(), copy / "version.safetensors"
    name = next(iter(first.trainable))
    version.write_bytes(tensors_to_bytes({name: first.trainable[name] + 1.0}))
    found = Bundle.load(copy, runtime="onnx").weights(version=version)
    assert torch.equal(found.trainable[name], first.trainable[name] + 1.0)
    others = [other for other in first.trainable if other != name]
    assert others
    assert all(torch.equal(found.trainable[other], first.trainable[other]) for other in others)
    version.write_bytes(tensors_to_bytes({"strange": torch.zeros(1)}))
    with pytest.raises(BundleError, match="'strange' must be absent"):
        Bundle.load(copy, runtime="onnx").weights(version=version)


def test_no_bundle(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"is no bundle: it holds no manifest\.json"):
        Bundle.load(tmp_path)


@pytest.mark.parametrize("name", ["../model.pte", "/etc/passwd", "folder/model.pte", "..", ""])
def test_a_path_out_of_the_bundle(copy: Path, name: str) -> None:
    edit_manifest(copy, lambda manifest: manifest["files"].update({name: manifest["files"]["model.pte"]}))
    with pytest.raises(BundleError, match=r"manifest\.json: files.*must be a plain file name"):
        Bundle.load(copy)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda m: m.update(schema_version=1), "schema_version must be 3, got 1; export the bundle again"),
        (lambda m: m.update(comment="mine"), "comment: Extra inputs are not permitted"),
        (lambda m: m.pop("hyper"), "hyper: Field required"),
        (lambda m: m.update(max_batch="5"), "max_batch: Input should be a valid integer"),
        (lambda m: m["signature"]["predict"].update(extra=1), "signature.predict.extra: Unexpected keyword"),
        (lambda m: m["footprint"]["onnx"].update(extra=1), "footprint.onnx.extra: Unexpected keyword"),
        (
            lambda m: m["footprint"]["onnx"].update(max_batch="5"),
            "footprint.onnx.max_batch: Input should be a valid int",
        ),
        (lambda m: m["settings"].update(momentum=True), r"hyper must hold exactly \['learning_rate', 'momentum'\]"),
        (lambda m: m["settings"].pop("momentum"), "settings must hold exactly"),
        (lambda m: m["files"].pop("predict.onnx"), "files must be exactly"),
        (lambda m: m["files"]["model.pte"].update(sha256="0"), "sha256: String should match pattern"),
        (
            lambda m: m["signature"]["train_step"]["inputs"][1].update(shape=[4, 2]),
            r"train_step\.outputs\.2 must be trainable/0\.weight float32 \[4, 2\], got .* \[4, 3\]",
        ),
        (
            lambda m: m["signature"]["train_step"]["inputs"][1].update(name="0.other"),
            r"train_step\.outputs\.2 must be trainable/0\.other",
        ),
    ],
)
def test_an_edited_manifest(copy: Path, edit: Callable[[dict[str, Any]], None], message: str) -> None:
    edit_manifest(copy, edit)
    with pytest.raises(BundleError, match=message):
        Bundle.load(copy)


def test_a_manifest_that_is_no_json(copy: Path) -> None:
    (copy / "manifest.json").write_bytes(b"\xff\xfe")
    with pytest.raises(BundleError, match="is not UTF-8 text"):
        Bundle.load(copy)
    (copy / "manifest.json").write_text("{")
    with pytest.raises(BundleError, match="Invalid JSON"):
        Bundle.load(copy)


def test_weights_in_place_of_others(copy: Path) -> None:
    from safetensors.torch import save_file

    save_file({"0.weight": torch.zeros(4, 3), "0.bias": torch.zeros(5)}, copy / "weights.safetensors")
    file = copy / "weights.safetensors"
    entry = {"bytes": file.stat().st_size, "sha256": file_sha256(file)}
    edit_manifest(copy, lambda manifest: manifest["files"].update({"weights.safetensors": entry}))
    with pytest.raises(BundleError, match=r"tensor '0.bias' must be float32 \[4\], got float32 \[5\]"):
        Bundle.load(copy)


def test_importing_loads_no_runtime() -> None:
    program = (
        "import sys, pocketfleet.export, pocketfleet.export.bundle\n"
        "loaded = {'executorch', 'onnx', 'onnxscript', 'onnxruntime'} & sys.modules.keys()\n"
        "assert not loaded, loaded"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_an_export_says_nothing_of_its_own(tmp_path: Path) -> None:
    program = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "import toy\n"
        "from pathlib import Path\n"
        "from pocketfleet.export.exporter import export_task\n"
        "from pocketfleet.training.train_step import StepSettings\n"
        "export_task(toy.pooled_toy(), out=Path(sys.argv[2]), settings=StepSettings(),\n"
        "              hyper={'learning_rate': 0.1}, max_batch=4)\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program, str(Path(__file__).parent), str(tmp_path / "bundle")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
