"""Training loops as source text: those in Python and for Node are run, and train as eager PyTorch does."""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
import toy
from safetensors.torch import load_file, save_file
from torch import nn

from pocketfleet.errors import GateError
from pocketfleet.export import exporter
from pocketfleet.export.bundle import Bundle
from pocketfleet.export.exporter import export_bundle
from pocketfleet.export.session import EagerSession
from pocketfleet.export.signature import TensorSpec
from pocketfleet.export.snippets import write_snippets
from pocketfleet.export.snippets.inputs import StepInputs
from pocketfleet.export.snippets.kotlin import kotlin
from pocketfleet.export.snippets.node import node
from pocketfleet.export.snippets.python import python_executorch, python_onnx
from pocketfleet.export.snippets.swift import swift
from pocketfleet.export.verification import verify_bundle
from pocketfleet.training.examples import Examples
from pocketfleet.training.model_task import ModelTask
from pocketfleet.training.task import Task
from pocketfleet.training.train_step import TrainState, hyper_tensors
from pocketfleet.training.weights import Weights

ONNXRUNTIME_NODE = "onnxruntime-node@1.30.0"
LOSS = nn.CrossEntropyLoss(reduction="none")
WRITERS = {"onnx.py": python_onnx, "executorch.py": python_executorch, "mjs": node, "kt": kotlin, "swift": swift}
EPOCHS = 10
STEPS = 2
every_language = pytest.mark.parametrize("language", WRITERS)


class Exported(NamedTuple):
    """A bundle, what it was exported from, and examples that are no multiple of its largest batch."""

    bundle: Bundle
    task: Task
    examples: Examples


class Headed(nn.Module):
    """Batch normalisation in a frozen body."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Tanh())
        self.head = nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        output: torch.Tensor = self.head(self.body(x))
        return output


def with_drawn_weights(model: nn.Module) -> nn.Module:
    with torch.no_grad():
        for seed, value in enumerate(model.parameters()):
            value.copy_(toy.drawn(*value.shape, seed=seed) * 0.5)
    return model


def exported(model: nn.Module, out: Path, **arguments: Any) -> Exported:  # noqa: ANN401
    """For batches of up to 4, with 7 examples."""
    x, y = toy.drawn(7, 6, seed=9), torch.arange(7) % 4
    options: dict[str, Any] = {"max_batch": 4, "gate_steps": STEPS, "snippets": True} | arguments
    bundle = export_bundle(with_drawn_weights(model), LOSS, (x, y), out=out, **options)
    return Exported(bundle, ModelTask(model, LOSS, (x, y)), Examples(x, y))


@pytest.fixture(scope="module")
def headed(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """Adam on a head, for both runtimes."""
    out = tmp_path_factory.mktemp("headed") / "bundle"
    return exported(Headed(), out, trainable="head.*", optimizer="adam", learning_rate=0.02)


@pytest.fixture(scope="module")
def every_term(normalised_bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """A step with every term, whose snippets were written after the export."""
    out = tmp_path_factory.mktemp("every_term") / "bundle"
    bundle = Bundle.load(shutil.copytree(normalised_bundle.path, out))
    assert write_snippets(bundle) == out / "snippets"
    task = toy.normalised_toy()
    # 8 and 5.
    return Exported(bundle, task, task.train_examples().take(torch.arange(13)))


@pytest.fixture(scope="module")
def for_executorch(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 4))
    out = tmp_path_factory.mktemp("executorch") / "bundle"
    return exported(model, out, optimizer="adam", learning_rate=0.02, only="executorch")


@pytest.fixture(scope="module")
def dropping(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """Dropout, for ONNX Runtime alone."""
    model = nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Dropout(0.2), nn.Linear(16, 4))
    out = tmp_path_factory.mktemp("dropping") / "bundle"
    return exported(model, out, optimizer="adam", learning_rate=0.05, only="onnx")


@pytest.fixture(scope="module")
def node_modules(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """``onnxruntime-node``, whose package holds the libraries for processors; its script would fetch others."""
    npm = shutil.which("npm")
    if npm is None:
        (pytest.fail if "CI" in os.environ else pytest.skip)(f"npm is not on the path: it installs {ONNXRUNTIME_NODE}")
    folder = tmp_path_factory.mktemp("npm")
    (folder / "package.json").write_text("{}")
    call = [npm, "install", "--ignore-scripts", "--prefer-offline", "--no-package-lock", "--save-exact"]
    done = subprocess.run([*call, ONNXRUNTIME_NODE], cwd=folder, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    yield folder / "node_modules"
    # 290 MB.
    shutil.rmtree(folder)


class Trained(NamedTuple):
    losses: list[float]
    prediction: list[float]
    weights: dict[str, torch.Tensor]


def run(program: list[str], source: Exported, place: Path, *, own_examples: bool) -> Trained:
    """Run a program in the folder ``place``, on the source's examples or on those that it makes up."""
    arguments = []
    if own_examples:
        save_file({"x": source.examples.x, "y": source.examples.y}, place / "examples.safetensors")
        arguments = ["examples.safetensors"]
    done = subprocess.run([*program, *arguments], cwd=place, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    steps, predicts, prediction = done.stdout.partition("predicts")
    assert predicts
    losses = [float(line.split()[1]) for line in steps.splitlines() if re.match(r"\d+ \d", line)]
    values = [float(value) for value in re.findall(r"-?\d+\.\d+(?:e-?\d+)?", prediction)]
    return Trained(losses, values, load_file(place / "trained.safetensors"))


def run_python(source: Exported, place: Path, *, own_examples: bool = True) -> Trained:
    program = [sys.executable, str(source.bundle.path / "snippets" / "train.py")]
    return run(program, source, place, own_examples=own_examples)


def run_node(source: Exported, node_modules: Path, place: Path, *, own_examples: bool = True) -> Trained:
    """With the package in a folder above the bundle."""
    (place / "node_modules").symlink_to(node_modules)
    copy = shutil.copytree(source.bundle.path, place / "bundle")
    return run(["node", str(copy / "snippets" / "train.mjs")], source, place, own_examples=own_examples)


def eager(source: Exported) -> Trained:
    """What the loop should come to."""
    bundle, task, (x, y) = source.bundle, source.task, (source.examples.x, source.examples.y)
    session = EagerSession(task, task.make_model(), bundle.settings)
    state, losses = TrainState.start(bundle.weights(), bundle.settings), []
    hyper = hyper_tensors(bundle.settings, bundle.hyper)
    for start in [*range(0, len(x), bundle.max_batch)] * EPOCHS:
        rows = slice(start, start + bundle.max_batch)
        loss, state = session.train_step(state, x[rows], y[rows], hyper)
        losses.append(float(loss))
    end = Weights(trainable=state.trainable, buffers=state.buffers, frozen=state.frozen)
    return Trained(losses, session.predict(end, x[:1]).flatten().tolist(), state.trainable | state.buffers)


def check_against_eager(found: Trained, source: Exported) -> None:
    expected = eager(source)
    assert len(found.losses) == 2 * EPOCHS
    assert found.losses == pytest.approx(expected.losses, rel=1e-5, abs=1e-5)
    assert found.weights.keys() == expected.weights.keys()
    before = source.bundle.weights()
    for name, value in expected.weights.items():
        torch.testing.assert_close(found.weights[name], value, rtol=1e-5, atol=1e-5)
    moved = [name for name, value in before.trainable.items() if not torch.equal(found.weights[name], value)]
    assert len(moved) == len(before.trainable)
    assert found.prediction == pytest.approx(expected.prediction, abs=1e-4)


@pytest.mark.parametrize("source", ["headed", "every_term", "for_executorch"])
def test_python_trains_as_eager_does(source: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    found = request.getfixturevalue(source)
    check_against_eager(run_python(found, tmp_path), found)


@pytest.mark.parametrize("source", ["headed", "every_term"])
def test_node_trains_as_eager_does(
    source: str, request: pytest.FixtureRequest, node_modules: Path, tmp_path: Path
) -> None:
    found = request.getfixturevalue(source)
    check_against_eager(run_node(found, node_modules, tmp_path), found)


def check_learnt(found: Trained) -> None:
    assert len(found.losses) == 2 * EPOCHS
    # A guess among four classes costs 1.4 at the start; 7 examples are soon learnt by heart.
    assert sum(found.losses[-4:]) < 0.5 * sum(found.losses[:4])
    assert all(bool(value.isfinite().all()) for value in found.weights.values())


def test_python_draws_dropouts_dice(dropping: Exported, tmp_path: Path) -> None:
    check_learnt(run_python(dropping, tmp_path))


def test_node_draws_dropouts_dice(dropping: Exported, node_modules: Path, tmp_path: Path) -> None:
    check_learnt(run_node(dropping, node_modules, tmp_path))


@pytest.mark.parametrize("source", ["headed", "for_executorch"])
def test_python_makes_up_examples(source: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    found = run_python(request.getfixturevalue(source), tmp_path, own_examples=False)
    # One batch of the largest size, all of one class.
    assert len(found.losses) == EPOCHS
    assert found.losses[-1] < found.losses[0]


def test_node_makes_up_examples(headed: Exported, node_modules: Path, tmp_path: Path) -> None:
    found = run_node(headed, node_modules, tmp_path, own_examples=False)
    assert len(found.losses) == EPOCHS
    assert found.losses[-1] < found.losses[0]


@pytest.mark.parametrize(
    ("source", "files"),
    [
        ("headed", ["README.md", "Train.kt", "Train.swift", "train.mjs", "train.py"]),
        ("for_executorch", ["README.md", "Train.kt", "Train.swift", "train.py"]),
        ("dropping", ["README.md", "train.mjs", "train.py"]),
    ],
)
def test_a_bundle_gets_the_languages_of_its_runtimes(
    source: str, files: list[str], request: pytest.FixtureRequest
) -> None:
    folder = request.getfixturevalue(source).bundle.path / "snippets"
    assert sorted(path.name for path in folder.iterdir()) == files
    readme = (folder / "README.md").read_text()
    assert re.findall(r"^\| `([^`]+)` \|", readme, re.MULTILINE) == sorted(files[1:], key=readme.index)
    assert "float32 [n, 6]" in readme
    assert "left out" not in readme


def test_the_command_line_writes_them_too(pocketfleet: Callable[..., Any], tmp_path: Path) -> None:
    called = pocketfleet("export", "boston", "--out", "bundle", "--only", "onnx", "--gate-steps", 1, "--snippets")
    assert called.code == 0, called.err
    assert "hyper/learning_rate" in (tmp_path / "bundle" / "snippets" / "train.py").read_text()


def test_the_folder_is_no_part_of_the_bundle(headed: Exported, tmp_path: Path) -> None:
    bundle, task, _ = headed
    assert not [name for name in bundle.manifest.files if "snippets" in name or "train.py" in name]
    sizes = bundle.download_bytes("onnx")
    copy = shutil.copytree(bundle.path, tmp_path / "bundle")
    (copy / "snippets" / "train.py").write_text("edited")
    assert Bundle.load(copy).download_bytes("onnx") == sizes
    assert verify_bundle(bundle, task, steps=1).passed


def test_it_is_replaced_with_its_bundle(tmp_path: Path) -> None:
    out = tmp_path / "bundle"
    first = exported(nn.Sequential(nn.Linear(6, 4)), out, only="onnx")
    assert (first.bundle.path / "snippets" / "train.py").is_file()
    exported(nn.Sequential(nn.Linear(6, 4)), out, only="onnx", snippets=False, force=True)
    assert not (out / "snippets").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


@pytest.mark.parametrize("failing", ["require", "write_snippets"])
def test_an_export_that_fails_leaves_nothing(failing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise GateError("no")

    monkeypatch.setattr(exporter, failing, fail)
    with pytest.raises(GateError, match="no"):
        exported(nn.Sequential(nn.Linear(6, 4)), tmp_path / "bundle", only="onnx")
    assert list(tmp_path.iterdir()) == []


def inputs(*, y: str = "int64", frozen: str = "float32") -> StepInputs:
    """Made up: every role, two sites of dropout, a name that needs care in Kotlin."""
    weight, power = (3, 2), ()
    specs = [
        TensorSpec(role="trainable", name="a$b.weight", shape=weight, dtype="float32"),
        TensorSpec(role="buffer", name="count", shape=(), dtype="int64"),
        TensorSpec(role="slot", name="beta1_power", shape=power, dtype="float32"),
        TensorSpec(role="slot", name="beta2_power", shape=power, dtype="float32"),
        TensorSpec(role="slot", name="first_moment/a$b.weight", shape=weight, dtype="float32"),
        TensorSpec(role="frozen", name="table", shape=(5,), dtype=frozen),
        TensorSpec(role="anchor", name="a$b.weight", shape=weight, dtype="float32"),
        TensorSpec(role="correction", name="a$b.weight", shape=weight, dtype="float32"),
        TensorSpec(role="x", name="x", shape=("batch", 3, 4), dtype="float32"),
        TensorSpec(role="y", name="y", shape=("batch",), dtype=y),
        TensorSpec(role="hyper", name="learning_rate", shape=(), dtype="float32"),
        TensorSpec(role="hyper", name="epsilon", shape=(), dtype="float32"),
        TensorSpec(role="uniform", name="0", shape=("batch", 7), dtype="float32"),
        TensorSpec(role="uniform", name="1", shape=(2, "batch"), dtype="float32"),
    ]
    hyper = {"learning_rate": 0.125, "epsilon": 1e-08}
    return StepInputs(task='My "task"\n*/', max_batch=37, specs=tuple(specs), hyper=hyper)


@every_language
def test_labels_come_in_the_order_of_the_step(language: str) -> None:
    text = WRITERS[language](inputs())
    wanted = [spec.label for spec in inputs().specs if spec.role not in {"x", "y", "uniform"}]
    if language == "kt":
        wanted = [label.replace("$", r"\$") for label in wanted]
    listed = re.findall(r'"((?:trainable|buffer|slot|frozen|anchor|correction|hyper)/[^"]+)"', text)
    # The two powers are named once more, where they start at one.
    powers = {"slot/beta1_power", "slot/beta2_power"}
    assert [label for label in listed if label not in powers] == [label for label in wanted if label not in powers]
    assert [listed.count(label) for label in sorted(powers)] == [2, 2]


# What is not a line feed, and some tool or other takes for the end of a line.
@pytest.mark.parametrize("separator", ["\x0b", "\x0c", "\x1c", "\x85", "\u2028", "\u2029"])
@every_language
def test_a_name_with_a_separator_stays_on_its_line(language: str, separator: str) -> None:
    plain, name = inputs(), f"a{separator}b.weight"
    specs = tuple(replace(spec, name=spec.name.replace("a$b.weight", name)) for spec in plain.specs)
    text = WRITERS[language](replace(plain, specs=specs, task="plain"))
    label = json.dumps(f"trainable/{name}", ensure_ascii=False)
    assert sum(label in line for line in text.split("\n")) == 1
    assert text.count("\n") == WRITERS[language](replace(plain, task="plain")).count("\n")


@every_language
def test_numbers_of_the_bundle_are_in_the_text(language: str) -> None:
    text = WRITERS[language](inputs())
    assert re.search(r"max_?batch = 37\b", text, re.IGNORECASE)
    assert re.search(r'hyper/learning_rate"(:| to|,) 0\.125', text)
    assert re.search(r'hyper/epsilon"(:| to|,) 1e-08', text)
    assert re.search(r"\bn, 7\b", text)
    assert re.search(r"\b2, n\b", text)
    assert "{{" not in text
    assert "?" + "uniform" not in text
    # The task's name stays in its comment's line.
    assert '"My \\"task\\"\\n*/" on ' in text.splitlines()[0]


def without(*roles: str) -> StepInputs:
    whole = inputs()
    specs = tuple(spec for spec in whole.specs if spec.role not in roles)
    return StepInputs(task="plain", max_batch=37, specs=specs, hyper=whole.hyper)


@every_language
def test_what_a_bundle_lacks_is_not_written(language: str) -> None:
    whole = WRITERS[language](inputs())
    for role, words in {
        "slot": ["slot/", "_power"],
        "frozen": ["frozen"],
        "anchor": ["anchor"],
        "correction": ["correction"],
        "uniform": ["*dice", "masks", 'inputs["uniform'],
        "buffer": ["buffer/"],
    }.items():
        part = WRITERS[language](without(role)).lower()
        assert any(word in whole.lower() for word in words)
        assert not [word for word in words if word in part], role


def test_python_is_python() -> None:
    for given in (inputs(), without("slot", "frozen", "anchor", "correction", "uniform", "buffer")):
        for writer in (python_onnx, python_executorch):
            ast.parse(writer(given))


def test_types_are_those_of_the_bundle() -> None:
    text = kotlin(inputs(y="uint8"))
    assert "y: ByteArray" in text
    assert "Tensor.fromBlobUnsigned(y.copyOfRange(start, end), longArrayOf(n))" in text
    assert "Tensor.fromBlob(x.copyOfRange(start * 12, end * 12), longArrayOf(n, 3, 4))" in text
    # What a step returns: floats, and one count.
    assert text.count("DType.") == 1
    assert "DType.INT64 -> Tensor.fromBlob(tensor.dataAsLongArray" in text
    assert "DType" not in kotlin(without("buffer"))
    text = swift(inputs(y="bool"))
    assert "y: [Bool]" in text
    assert "Tensor<Float>(Array(x[start * 12..<end * 12]), shape: [n, 3, 4]).anyTensor" in text
    assert '["F32": .float, "I64": .long]' in text
    text = node(inputs(y="int32"))
    assert 'y: new ort.Tensor("int32", new Int32Array(37), [37])' in text
    assert "F32: [" in text
    assert "I32: [" in text
    assert "I64: [" in text


def test_a_language_without_a_type_is_left_out(
    headed: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = Bundle.load(shutil.copytree(headed.bundle.path, tmp_path / "bundle"))
    shutil.rmtree(bundle.path / "snippets")
    monkeypatch.setattr(StepInputs, "of", classmethod(lambda _, __: inputs(frozen="bool")))
    folder = write_snippets(bundle)
    assert sorted(path.name for path in folder.iterdir()) == ["README.md", "Train.swift", "train.mjs", "train.py"]
    assert "| `Train.kt` | left out: its tensors on this runtime lack bool |" in (folder / "README.md").read_text()
