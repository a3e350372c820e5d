"""A bundle that was damaged, or that lies, works as before or is refused by name; whatever was done to it.

A refusal is a ``BundleError`` of one paragraph that names the file. Nothing beside the bundle is read or written, and
no memory is taken for what is not there.
"""

import dataclasses
import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import toy
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from pocketfleet.errors import BundleError
from pocketfleet.export.bundle import Bundle
from pocketfleet.export.exporter import export_task
from pocketfleet.export.manifest import file_sha256
from pocketfleet.export.session import open_session
from pocketfleet.training.adaptation import Adaptation
from pocketfleet.training.train_step import StepSettings, TrainState, hyper_tensors

Manifest = dict[str, Any]
SETTINGS = StepSettings(momentum=True)
HYPER = {"learning_rate": 0.1, "momentum": 0.9}
MAX_BATCH = 5
FILES = (
    *("manifest.json", "model.pte", "train_step.onnx", "predict.onnx", "evaluate.onnx"),
    *("weights.safetensors", "frozen.safetensors"),
)
# What a refusal may take beside: a few copies of a bundle of 200 kB, and two runtimes.
MEMORY_LIMIT_BYTES = 500_000_000
EXAMPLES = [200, pytest.param(3000, marks=pytest.mark.long)]


@dataclasses.dataclass(frozen=True)
class Place:
    """A folder that holds a bundle to damage and files that are none of its business."""

    folder: Path
    contents: dict[str, bytes]
    expected: dict[str, list[torch.Tensor]]

    @property
    def bundle(self) -> Path:
        return self.folder / "bundle"

    def restore(self) -> None:
        if self.bundle.is_symlink():
            self.bundle.unlink()
        shutil.rmtree(self.bundle, ignore_errors=True)
        self.bundle.mkdir()
        for name, content in self.contents.items():
            (self.bundle / name).write_bytes(content)

    def manifest(self) -> Manifest:
        manifest: Manifest = json.loads(self.contents["manifest.json"])
        return manifest

    def write_manifest(self, manifest: Manifest) -> None:
        (self.bundle / "manifest.json").write_text(json.dumps(manifest))

    def lie(self, edit: Callable[[Manifest], None] = lambda _: None) -> None:
        """Edit the manifest, which then states sizes and hashes of the files as they are."""
        manifest = self.manifest()
        edit(manifest)
        for name in manifest["files"]:
            path = self.bundle / name
            manifest["files"][name] = {"bytes": path.stat().st_size, "sha256": file_sha256(path)}
        for footprint in manifest["footprint"].values():
            for name in footprint["file_bytes"]:
                footprint["file_bytes"][name] = (self.bundle / name).stat().st_size
        self.write_manifest(manifest)


def make_model() -> nn.Module:
    return nn.Sequential(
        nn.Linear(3, 4),
        nn.Linear(4, 4),
        nn.BatchNorm1d(4),
        nn.Tanh(),
        nn.Linear(4, 4),
        nn.Dropout(0.3),
        nn.Linear(4, 4),
    )


def run(path: Path) -> dict[str, list[torch.Tensor]]:
    """What a step, a prediction and an evaluation give, by runtime."""
    bundle = Bundle.load(path)
    results: dict[str, list[torch.Tensor]] = {}
    x, y = toy.drawn(3, 3), torch.tensor([0, 3, 1])
    for runtime in bundle.runtimes:
        session = open_session(bundle, runtime)
        weights = bundle.weights()
        loss, end = session.train_step(
            TrainState.start(weights, SETTINGS), x, y, hyper_tensors(SETTINGS, HYPER), dropout_seed=1
        )
        results[runtime] = [loss, *end.trainable.values(), *end.buffers.values(), *end.optimizer_slots.values()]
        results[runtime] += [session.predict(weights, x), *session.evaluate(weights, x, y).values()]
    return results


def exported_into(folder: Path) -> Place:
    export_task(
        toy.Toy(make_model, 3),
        out=folder / "bundle",
        settings=SETTINGS,
        hyper=HYPER,
        max_batch=MAX_BATCH,
        gate_steps=2,
        adaptation=Adaptation(trainable=("1.*", "2.*", "4.*", "6.*")),
    )
    contents = {path.name: path.read_bytes() for path in (folder / "bundle").iterdir()}
    assert set(contents) == set(FILES)
    (folder / "x").write_bytes(contents["model.pte"])
    (folder / "secret").write_bytes(b"\0" * 64)
    return Place(folder, contents, run(folder / "bundle"))


_opened: list[str] = []
_watching = False


def _note(event: str, arguments: tuple[Any, ...]) -> None:
    if _watching and event == "open" and isinstance(arguments[0], str | bytes | os.PathLike):
        _opened.append(os.fsdecode(arguments[0]))


sys.addaudithook(_note)


def outcome(place: Place) -> str:
    """``"works"``, or the message of the refusal; fails where a bundle does neither."""
    global _watching
    _opened.clear()
    before = {path: path.read_bytes() for path in place.folder.iterdir() if path.is_file()}
    _watching = True
    try:
        found = run(place.bundle)
    except BundleError as exc:
        message = str(exc)
    else:
        message = "works"
        assert found
        for runtime, values in found.items():
            assert len(values) == len(place.expected[runtime])
            assert all(map(torch.equal, values, place.expected[runtime]))
    finally:
        _watching = False
    beside = place.folder.resolve()
    for name in _opened:
        path = Path(name).resolve()
        assert place.bundle.resolve() in path.parents or beside not in path.parents, name
    assert {path: path.read_bytes() for path in place.folder.iterdir() if path.is_file()} == before
    if message != "works":
        assert "\n" not in message
        assert len(message) < 2000
        assert str(place.bundle) in message
    return message


def repeat(examples: int, strategy: st.SearchStrategy[Any], check: Callable[[Any], None]) -> None:
    """Check so many examples of a strategy."""

    @settings(max_examples=examples, deadline=None, suppress_health_check=list(HealthCheck))
    @given(strategy)
    def all_of_them(example: Any) -> None:  # noqa: ANN401 - whatever the strategy draws
        check(example)

    all_of_them()
