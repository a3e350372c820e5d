"""A bundle that was damaged, or that lies, works as before or is refused by name; whatever was done to it.

A refusal is a ``BundleError`` of one paragraph that names the file. Nothing beside the bundle is read or written, and
no memory is taken for what is not there.
"""

import copy as copying
import dataclasses
import json
import math
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import toy
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
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
    bundle, results = Bundle.load(path), {}
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


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Place:
    folder = tmp_path_factory.mktemp("fuzzed")
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


@pytest.fixture
def place(exported: Place) -> Place:
    exported.restore()
    return exported


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


@pytest.fixture(scope="module", autouse=True)
def _little_memory(exported: Place) -> Iterator[None]:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    # Kilobytes on Linux.
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 < MEMORY_LIMIT_BYTES


def repeat(examples: int, strategy: st.SearchStrategy[Any], check: Callable[[Any], None]) -> None:
    """Check so many examples of a strategy."""

    @settings(max_examples=examples, deadline=None, suppress_health_check=list(HealthCheck))
    @given(strategy)
    def all_of_them(example: Any) -> None:  # noqa: ANN401 - whatever the strategy draws
        check(example)

    all_of_them()


def test_untouched_it_works(place: Place) -> None:
    assert outcome(place) == "works"


# ---- damage: bytes that are not those of the export


@st.composite
def damages(draw: st.DrawFn) -> tuple[str, Callable[[bytes], bytes]]:
    """A file, and what happens to its bytes."""
    name = draw(st.sampled_from(FILES))
    kind = draw(st.sampled_from(["flip", "cut", "extend", "insert", "drop", "empty"]))
    share, extra = draw(st.floats(0, 1, exclude_max=True)), draw(st.binary(min_size=1, max_size=40))

    def damage(content: bytes) -> bytes:
        at = int(share * len(content))
        return {
            "flip": content[:at] + bytes([content[at] ^ (extra[0] or 1)]) + content[at + 1 :],
            "cut": content[:at],
            "extend": content + extra,
            "insert": content[:at] + extra + content[at:],
            "drop": content[:at] + content[at + len(extra) :],
            "empty": b"",
        }[kind]

    return name, damage


@pytest.mark.parametrize("examples", EXAMPLES)
def test_damaged_bytes(examples: int, place: Place) -> None:
    refused: set[str] = set()

    def check(example: tuple[str, Callable[[bytes], bytes]]) -> None:
        name, damage = example
        changed = damage(place.contents[name])
        (place.bundle / name).write_bytes(changed)
        message = outcome(place)
        if name != "manifest.json" and changed != place.contents[name]:
            assert name in message
            refused.add(name)
        (place.bundle / name).write_bytes(place.contents[name])

    repeat(examples, damages(), check)
    assert len(refused) > 2


# ---- manifests that no export writes

VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 2, 2**31, 2**63, 10**30, -(10**30), 10**4000),
    *(0.5, -1e300, math.nan, math.inf, -math.inf),
    *(
        "",
        "../x",
        "../secret",
        "/etc/passwd",
        "a/b",
        "..",
        "C:\\x",
        "a\0b",
        "\ud800",
        "ünïcödé ☃",
        "batch",
        "x" * 100_000,
    ),
    *([], {}, [0] * 100_000, ["batch", "batch"], {"../x": {"bytes": 1, "sha256": "0" * 64}}),
)


@st.composite
def edits(draw: st.DrawFn, within: tuple[str, ...] = ()) -> Callable[[Manifest], None]:
    """One change somewhere in a manifest, or in the part of it at the path ``within``."""
    turns = draw(st.lists(st.floats(0, 1, exclude_max=True), min_size=1, max_size=7))
    kind = draw(st.sampled_from(["replace", "delete", "rename", "add", "twice", "swap", "number"]))
    value, other = draw(st.sampled_from(VALUES)), draw(st.floats(0, 1, exclude_max=True))

    def edit(manifest: Manifest) -> None:
        inside: Any = manifest
        for step in within:
            inside = inside[step]
        parent, key = inside, None
        for turn in turns:
            entries = list(inside) if isinstance(inside, dict) else range(len(inside))
            if not entries:
                break
            parent, key = inside, entries[int(turn * len(entries))]
            inside = parent[key]
            if not isinstance(inside, dict | list):
                break
        if key is None:
            return
        entries = list(parent) if isinstance(parent, dict) else list(range(len(parent)))
        second = entries[int(other * len(entries))]
        if kind == "replace":
            parent[key] = copying.deepcopy(value)
        elif kind == "delete":
            del parent[key]
        elif kind == "rename" and isinstance(parent, dict):
            parent[value if isinstance(value, str) else str(key) + "_"] = parent.pop(key)
        elif kind == "add" and isinstance(inside, dict):
            inside["extra" if not isinstance(value, str) else value] = 0
        elif kind == "twice" and isinstance(parent, list):
            parent.insert(second, parent[key])
        elif kind == "swap":
            parent[key], parent[second] = parent[second], parent[key]
        elif kind == "number" and isinstance(parent[key], int) and not isinstance(parent[key], bool):
            parent[key] += 1

    return edit


@pytest.mark.parametrize("examples", EXAMPLES)
@pytest.mark.parametrize("within", [(), ("signature",), ("signature", "train_step", "inputs"), ("files",)])
def test_an_edited_manifest(examples: int, within: tuple[str, ...], place: Place) -> None:
    outcomes: list[str] = []

    def check(edit: Callable[[Manifest], None]) -> None:
        manifest = place.manifest()
        edit(manifest)
        place.write_manifest(manifest)
        message = outcome(place)
        # Sizes, names, types and order: nothing of a signature and of the files can be another.
        assert message != "works" or not within or manifest == place.manifest()
        outcomes.append(message)

    repeat(examples, edits(within), check)
    assert any(message != "works" for message in outcomes)


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000 + "]" * 100_000,
        '{"a":' * 100_000 + "1" + "}" * 100_000,
        '{"schema_version": 2, "schema_version": 1}',
        "null",
        "[]",
        "1e999999",
        "9" * 100_000,
        "\ufeff{}",
    ],
    ids=["lists", "objects", "twice", "null", "list", "exponent", "digits", "mark"],
)
def test_a_manifest_that_is_none(text: str, place: Place) -> None:
    (place.bundle / "manifest.json").write_text(text)
    assert "manifest.json" in outcome(place)


def test_deep_options_are_refused_or_harmless(place: Place) -> None:
    deep = place.contents["manifest.json"].replace(
        b'"options":{}', b'"options":{"a":' + b"[" * 5000 + b"]" * 5000 + b"}"
    )
    assert deep != place.contents["manifest.json"]
    (place.bundle / "manifest.json").write_bytes(deep)
    assert "manifest.json" in outcome(place)


# ---- liars: sizes and hashes are right, and the rest agrees as far as a liar can make it


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
import test_bundle_fuzz as fuzz
from pocketfleet.errors import BundleError
for line in sys.stdin:
    try:
        fuzz.run(Path(line.strip()))
    except BundleError as exc:
        print("refused", str(exc).replace("\\n", " / "), flush=True)
    else:
        print("works", flush=True)
"""


def test_programs_that_are_none(exported: Place, tmp_path: Path) -> None:
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
            place = Place(tmp_path / f"{kind}, {name}", exported.contents, exported.expected)
            place.folder.mkdir()
            place.restore()
            (place.bundle / name).write_bytes(change(exported.contents[name]))
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


# ---- files that are no files


@pytest.mark.parametrize("name", FILES)
def test_a_link_in_place_of_a_file(name: str, place: Place) -> None:
    (place.folder / "there").write_bytes(place.contents[name])
    (place.bundle / name).unlink()
    (place.bundle / name).symlink_to(place.folder / "there")
    assert name in outcome(place)
    (place.folder / "there").unlink()
    assert name in outcome(place)


@pytest.mark.parametrize("name", FILES)
def test_something_else_in_place_of_a_file(name: str, place: Place) -> None:
    for make in (os.mkfifo, Path.mkdir):
        (place.bundle / name).unlink()
        make(place.bundle / name)
        assert name in outcome(place)
        place.restore()


def test_a_link_to_the_bundle_is_the_bundle(place: Place) -> None:
    place.bundle.rename(place.folder / "moved")
    place.bundle.symlink_to(place.folder / "moved")
    try:
        found = run(place.bundle)
    finally:
        shutil.rmtree(place.folder / "moved")
    for runtime, values in place.expected.items():
        assert all(map(torch.equal, found[runtime], values))
    assert "is no bundle" in outcome(place)


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_is_far_too_large(name: str, place: Place) -> None:
    """As large as it likes to say, and empty: a sparse file takes no disk."""
    with (place.bundle / name).open("r+b") as file:
        file.truncate(2**40)
    assert name in outcome(place)
    if name != "manifest.json":
        manifest = place.manifest()
        manifest["files"][name]["bytes"] = 2**40
        place.write_manifest(manifest)
        assert "is larger than it can be" in outcome(place)
