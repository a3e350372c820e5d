"""Liars: sizes and hashes are right, and the rest agrees as far as a liar can make it (``attacked``)."""

import json
import math
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from attacked import MAX_BATCH, Manifest, Place, outcome
from safetensors.torch import load_file, save_file

pytestmark = pytest.mark.usefixtures("little_memory")


def specs(manifest: Manifest, role: str, name: str) -> Iterator[dict[str, Any]]:
    for method in manifest["signature"].values():
        for part in ("inputs", "outputs"):
            yield from (spec for spec in method[part] if (spec["role"], spec["name"]) == (role, name))


def everywhere(role: str, name: str, /, **changes: object) -> Callable[[Manifest], None]:
    def edit(manifest: Manifest) -> None:
        found = list(specs(manifest, role, name))
        assert found
        for spec in found:
            spec.update(changes)

    return edit


def without(role: str, name: str) -> Callable[[Manifest], None]:
    def edit(manifest: Manifest) -> None:
        for method in manifest["signature"].values():
            for part in ("inputs", "outputs"):
                method[part] = [spec for spec in method[part] if (spec["role"], spec["name"]) != (role, name)]

    return edit


def reorder(method: str, part: str) -> Callable[[Manifest], None]:
    return lambda manifest: manifest["signature"][method][part].reverse()


def batches_of(count: int) -> Callable[[Manifest], None]:
    def edit(manifest: Manifest) -> None:
        manifest["max_batch"] = count
        for footprint in manifest["footprint"].values():
            footprint["max_batch"] = count

    return edit


def without_momentum(manifest: Manifest) -> None:
    manifest["settings"]["momentum"] = False
    del manifest["hyper"]["momentum"]
    for method in manifest["signature"].values():
        for part in ("inputs", "outputs"):
            method[part] = [s for s in method[part] if s["role"] != "slot" and s["name"] != "momentum"]


def swap_names(manifest: Manifest) -> None:
    pair = [list(specs(manifest, "trainable", name)) for name in ("1.weight", "4.weight")]
    for one, other in zip(*pair, strict=True):
        one["name"], other["name"] = other["name"], one["name"]


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (
            everywhere("x", "x", shape=["batch", 4]),
            "model.pte: number 21 of the inputs of train_step is float32 [5, 3]",
        ),
        (everywhere("x", "x", shape=["batch"]), "number"),
        (everywhere("x", "x", dtype="int64"), "number"),
        (everywhere("x", "x", dtype="float64"), "number"),
        (everywhere("x", "x", dtype="load"), "no tensor of a bundle"),
        (everywhere("y", "y", dtype="float32"), "number"),
        (everywhere("output", "output", shape=["batch", 5]), "number"),
        (everywhere("output", "output", dtype="int64"), "number"),
        (everywhere("output", "output", shape=[]), "number"),
        (everywhere("metric", "accuracy", name="precision"), "number"),
        (everywhere("metric", "accuracy", dtype="int64"), "number"),
        (everywhere("loss", "loss", dtype="float64"), "number"),
        (everywhere("uniform", "0", shape=["batch", 5]), "number"),
        (everywhere("uniform", "0", name="1"), "must be"),
        (everywhere("trainable", "1.weight", shape=[4, 2]), "must be"),
        (everywhere("trainable", "1.weight", shape=[2**40, 2**40]), "no tensor of a bundle"),
        (everywhere("trainable", "1.weight", shape=[2**30, 2**30, 2**30]), "signature"),
        (everywhere("trainable", "1.weight", shape=[4, -4]), "no tensor of a bundle"),
        (everywhere("trainable", "1.weight", shape=[1] * 100), "no tensor of a bundle"),
        (everywhere("frozen", "0.weight", shape=[3, 4]), "0.weight"),
        (everywhere("frozen", "0.weight", role="trainable"), "must be"),
        (without("uniform", "0"), "number"),
        (without("metric", "accuracy"), "number"),
        (without("x", "x"), "one batch x"),
        (without("frozen", "0.bias"), "0.bias"),
        (without("hyper", "momentum"), "must be"),
        (reorder("train_step", "inputs"), "in order"),
        (reorder("train_step", "outputs"), "must be"),
        (reorder("predict", "inputs"), "must be"),
        (reorder("evaluate", "outputs"), "the loss"),
        (swap_names, "in order"),
        (without_momentum, "number"),
        (batches_of(MAX_BATCH + 1), "model.pte: number"),
        (batches_of(MAX_BATCH - 1), "model.pte: number"),
        (batches_of(10**30), "model.pte: number"),
        (batches_of(0), "max_batch"),
        (lambda m: m["footprint"].pop("onnx"), "files must be exactly"),
        (lambda m: m["files"].update({"x" * 100_000: m["files"].pop("model.pte")}), "files must be exactly"),
        (lambda m: m["footprint"]["onnx"]["file_bytes"].update({"../secret": 64}), "file_bytes"),
        (lambda m: m.update(training_module=True), "files must be exactly"),
        (lambda m: m.update(predict=None), "predict"),
        (lambda m: m.update(schema_version=m["schema_version"] - 1), "schema_version"),
        (lambda m: m.update(schema_version=m["schema_version"] + 1), "schema_version"),
        (lambda m: m["hyper"].update(learning_rate=math.nan), "hyper"),
        (lambda m: m["hyper"].update(learning_rate=math.inf), "hyper"),
    ],
)
def test_a_manifest_that_lies(edit: Callable[[Manifest], None], message: str, place: Place) -> None:
    manifest = place.manifest()
    edit(manifest)
    place.write_manifest(manifest)
    assert message in outcome(place)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda tensors: tensors.update({"1.bias": torch.zeros(5)}), "tensor '1.bias' must be float32 [4]"),
        (lambda tensors: tensors.update({"1.bias": torch.zeros(4, dtype=torch.float64)}), "got float64 [4]"),
        (lambda tensors: tensors.update({"1.bias": torch.full((4,), math.nan)}), "no finite numbers"),
        (lambda tensors: tensors.update({"1.bias": torch.full((4,), -math.inf)}), "no finite numbers"),
        (lambda tensors: tensors.update({"2.running_var": torch.full((4,), math.inf)}), "no finite numbers"),
        (lambda tensors: tensors.update({"../secret": torch.zeros(1)}), "'../secret' must be absent"),
        (lambda tensors: tensors.pop("1.bias"), "got absent"),
        (lambda tensors: tensors.update({"!" * 100_000: torch.zeros(1)}), "must be absent"),
    ],
)
def test_weights_that_are_others(edit: Callable[[Any], None], message: str, place: Place) -> None:
    file = place.bundle / "weights.safetensors"
    tensors = load_file(file)
    edit(tensors)
    save_file(tensors, file)
    place.lie()
    told = outcome(place)
    assert message in told
    assert "weights.safetensors" in told


@pytest.mark.parametrize("length", [2**63, 2**40, 99_999_999, 2, 0])
def test_a_header_of_weights_that_claims_another_length(length: int, place: Place) -> None:
    file = place.bundle / "weights.safetensors"
    file.write_bytes(length.to_bytes(8, "little") + place.contents[file.name][8:])
    place.lie()
    assert "weights.safetensors cannot be read" in outcome(place)


@pytest.mark.parametrize("end", [2**62, 10**9, -1])
def test_a_header_of_weights_that_claims_other_places(end: int, place: Place) -> None:
    file = place.bundle / "weights.safetensors"
    header = json.dumps({"1.bias": {"dtype": "F32", "shape": [end // 4], "data_offsets": [0, end]}}).encode()
    file.write_bytes(len(header).to_bytes(8, "little") + header)
    place.lie()
    assert "weights.safetensors cannot be read" in outcome(place)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("predict.onnx", "evaluate.onnx"),
        ("predict.onnx", "train_step.onnx"),
        ("model.pte", "predict.onnx"),
        ("weights.safetensors", "frozen.safetensors"),
        ("weights.safetensors", "model.pte"),
    ],
)
def test_files_that_took_each_others_places(one: str, other: str, place: Place) -> None:
    (place.bundle / one).write_bytes(place.contents[other])
    (place.bundle / other).write_bytes(place.contents[one])
    place.lie()
    told = outcome(place)
    assert one in told or other in told


# A native runtime may end the process over a program that is none: each is opened in another one.
OPENED_APART = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import attacked
from pocketfleet.errors import BundleError
for line in sys.stdin:
    try:
        attacked.run(Path(line.strip()))
    except BundleError as exc:
        print("refused", str(exc).replace("\\n", " / "), flush=True)
    else:
        print("works", flush=True)
"""


def test_programs_that_are_none(attacked_bundle: Place, tmp_path: Path) -> None:
    garbage = {
        "empty": lambda _: b"",
        "zeros": lambda content: bytes(len(content)),
        "cut in half": lambda content: content[: len(content) // 2],
        "cut at the end": lambda content: content[:-8],
        "text": lambda _: b"PK\x03\x04" + b"x" * 5000,
    }
    places = []
    for name in ("model.pte", "train_step.onnx"):
        for kind, change in garbage.items():
            place = Place(tmp_path / f"{kind}, {name}", attacked_bundle.contents, attacked_bundle.expected)
            place.folder.mkdir()
            place.restore()
            (place.bundle / name).write_bytes(change(attacked_bundle.contents[name]))
            place.lie()
            places.append(place)
    done = subprocess.run(
        [sys.executable, "-c", OPENED_APART, str(Path(__file__).parent)],
        input="".join(f"{place.bundle}\n" for place in places),
        capture_output=True,
        text=True,
        check=False,
    )
    told = done.stdout.splitlines()
    assert done.returncode == 0, done.stderr[-2000:]
    assert len(told) == len(places)
    for place, line in zip(places, told, strict=True):
        assert line.startswith(f"refused {place.bundle}"), line


def test_a_program_whose_values_lie_elsewhere_reads_nothing(place: Place) -> None:
    import onnx

    file = place.bundle / "predict.onnx"
    model = onnx.load_model_from_string(file.read_bytes())
    tensor = model.graph.initializer.add()
    tensor.name, tensor.data_type, tensor.data_location = "secret", onnx.TensorProto.FLOAT, onnx.TensorProto.EXTERNAL
    tensor.dims.append(16)
    location = tensor.external_data.add()
    location.key, location.value = "location", "../secret"
    file.write_bytes(model.SerializeToString())
    place.lie()
    assert "predict.onnx keeps values in other files" in outcome(place)
