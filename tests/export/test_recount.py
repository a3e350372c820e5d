"""A manifest that states other costs than its files have is refused with the place and both values."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import toy
from edited import edit_manifest

from pocketfleet.errors import BundleError
from pocketfleet.export.bundle import Bundle
from pocketfleet.export.bundle_writer import write_files
from pocketfleet.export.plan import make_plan
from pocketfleet.export.verification import verify_bundle
from pocketfleet.training.train_step import StepSettings


@pytest.mark.long
def test_every_bundle_agrees_with_its_files(normalised_bundle: Bundle) -> None:
    assert verify_bundle(normalised_bundle, toy.normalised_toy()).passed


def operator(manifest: dict[str, Any], runtime: str, name: str) -> dict[str, Any]:
    operators = manifest["footprint"][runtime]["operators"]["predict"]
    found: dict[str, Any] = next(cost for cost in operators if cost["name"] == name)
    return found


EDITS: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "arena": (
        lambda m: m["footprint"]["executorch"]["planned_bytes"].update(train_step=1),
        r"footprint\.executorch\.planned_bytes\.train_step is 1, counted again it is \d+; the manifest was edited",
    ),
    "peak": (
        lambda m: m["footprint"]["onnx"]["planned_bytes"].update(predict=1),
        # As in test_onnx: the transposed weight and the output of 5.
        r"footprint\.onnx\.planned_bytes\.predict is 1, counted again it is 128;",
    ),
    "flops": (
        lambda m: operator(m, "executorch", "mm").update(flops=[1, 1]),
        # 2 * 3 * 4 an example.
        r"footprint\.executorch\.operators\.predict\.\d+\.flops\.0 is 1, counted again it is 24;",
    ),
    "onnx flops": (
        lambda m: operator(m, "onnx", "Gemm").update(flops=[28, 1]),
        r"footprint\.onnx\.operators\.predict\.\d+\.flops\.1 is 1, counted again it is 140;",
    ),
    "operator": (
        lambda m: m["footprint"]["onnx"]["operators"]["predict"].pop(),
        r"footprint\.onnx\.operators\.predict is 1 long, counted again it is 2 long;",
    ),
    "size": (
        lambda m: m["footprint"]["executorch"]["file_bytes"].update({"model.pte": 7}),
        r"footprint\.executorch\.file_bytes\.model\.pte is 7, counted again it is \d+;",
    ),
    "weights": (
        lambda m: m["footprint"]["onnx"].update(weights_bytes=7),
        r"footprint\.onnx\.weights_bytes is 7, counted again it is 64;",
    ),
    "signature": (
        lambda m: m["signature"]["evaluate"]["outputs"][0].update(dtype="float64"),
        r"signature\.evaluate\.outputs\.0\.dtype is 'float64', counted again it is 'float32';",
    ),
    "versions": (
        lambda m: (
            m["exported_with"].update(executorch="1.4.0"),
            m["footprint"]["executorch"]["planned_bytes"].update(train_step=1),
        ),
        r"the versions differ \(executorch 1\.4\.0 then, 1\.5\.1 now\)\. Copy the bundle again, or export it again",
    ),
}
# Of each runtime a value, and what comes before costs.
SAMPLE = {"arena", "onnx flops", "signature", "versions"}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in SAMPLE else pytest.mark.long) for name in EDITS]
)
def test_edited_costs(copy: Path, name: str) -> None:
    edit, message = EDITS[name]
    edit_manifest(copy, edit)
    with pytest.raises(BundleError, match=rf"manifest\.json: .*{message}"):
        verify_bundle(Bundle.load(copy), toy.dense_toy())


@pytest.mark.long
def test_a_smaller_largest_batch(copy: Path) -> None:
    # Costs that agree with each other, counted for batches up to 4, of files made for batches up to 5.
    small = copy.parent / "small"
    small.mkdir()
    plan = make_plan(toy.dense_toy(), settings=StepSettings(), hyper={"learning_rate": 0.1}, max_batch=4)
    costs = write_files(small, plan).manifest.model_dump(mode="json")["footprint"]

    def edit(manifest: dict[str, Any]) -> None:
        true = manifest["footprint"]
        for runtime, footprint in costs.items():
            footprint["file_bytes"] = true[runtime]["file_bytes"]
        costs["executorch"]["planned_bytes"] = true["executorch"]["planned_bytes"]
        manifest.update(max_batch=4, footprint=costs)

    edit_manifest(copy, edit)
    # ExecuTorch's file declares the batch that its memory is planned for.
    with pytest.raises(BundleError, match=r"model\.pte: .* float32 \[5, 3\], the manifest says .* for batches of 4"):
        verify_bundle(Bundle.load(copy), toy.dense_toy())
