"""The folder that goes to a phone: manifest, programs, weights, hashes.

==========================================================  ====================================================
``manifest.json``                                           what ``manifest.py`` describes
``model.pte``                                               the three methods for ExecuTorch
``train_step.onnx``, ``predict.onnx``, ``evaluate.onnx``    the same for ONNX Runtime
``weights.safetensors``                                     trainable weights and buffers
``frozen.safetensors``                                      frozen weights; only where there are any
==========================================================  ====================================================

It is written into a hidden folder beside its place, gated there, and renamed: a folder with the bundle's name is a
whole bundle that passed its gate. Reading trusts nothing in it before it was checked.
"""

import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import JsonValue
from torch import nn

from pocketfleet.errors import BundleError, InputError
from pocketfleet.export.bundle_writer import RUNTIMES, Plan, installed_versions, trace, write_files
from pocketfleet.export.footprint import Footprint
from pocketfleet.export.gate import run_gate
from pocketfleet.export.gate_report import GateReport, Suspects, require
from pocketfleet.export.manifest import (
    FROZEN_FILE,
    MANIFEST_FILE,
    PTE_FILE,
    WEIGHTS_FILE,
    Manifest,
    TaskEntry,
    file_sha256,
    onnx_file,
    read_manifest,
)
from pocketfleet.export.program import METHODS, Signature, TensorSpec
from pocketfleet.export.recount import check_costs
from pocketfleet.export.session import EagerSession, open_session
from pocketfleet.training.feature_scaling import FeatureSums, frozen_scaling, has_scaling
from pocketfleet.training.task import Task, check_task, initial_model, load_task, task_examples
from pocketfleet.training.train_step import StepSettings
from pocketfleet.training.weights import Tensors, Weights

__all__ = ["Bundle", "export_bundle", "verify_bundle"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """A bundle whose files were found to be what its manifest says."""

    path: Path
    manifest: Manifest

    @classmethod
    def load(cls, path: Path) -> "Bundle":
        """Read the bundle in the folder ``path`` and check every file in it.

        Raises:
            BundleError: the manifest is of another version or not consistent; a file is missing, is a link, or differs
                in size or hash; the weights are not those of the signature.
        """
        path = Path(path)
        manifest_path = path / MANIFEST_FILE
        if not manifest_path.is_file() or manifest_path.is_symlink():
            raise BundleError(f"{path} is no bundle: it holds no {MANIFEST_FILE}; export one with pocketfleet export")
        try:
            text = manifest_path.read_text(encoding="utf-8")
        except UnicodeDecodeError as exc:
            raise BundleError(f"{manifest_path} is not UTF-8 text; export the bundle again") from exc
        manifest = read_manifest(text, where=str(manifest_path))
        _check_files(path, manifest)
        bundle = cls(path=path, manifest=manifest)
        bundle.weights()
        return bundle

    @property
    def signature(self) -> Signature:
        """Names, shapes and types of every input and output."""
        return self.manifest.signature

    @property
    def settings(self) -> StepSettings:
        """Which terms the training step has."""
        return self.manifest.step_settings

    @property
    def hyper(self) -> dict[str, float]:
        """Defaults of the hyper-parameters."""
        return dict(self.manifest.hyper)

    @property
    def max_batch(self) -> int:
        """The largest batch that the programs accept."""
        return self.manifest.max_batch

    @property
    def task(self) -> TaskEntry:
        """How the task is found again."""
        return self.manifest.task

    def footprint(self, runtime: Literal["executorch", "onnx"]) -> Footprint:
        """What the methods cost on one runtime."""
        return self.manifest.footprint[runtime]

    def download_bytes(self, runtime: Literal["executorch", "onnx"]) -> int:
        """What a phone downloads once: the runtime's programs, the manifest, the frozen weights."""
        files = [*self.footprint(runtime).file_bytes, *([FROZEN_FILE] if FROZEN_FILE in self.manifest.files else [])]
        manifest_bytes = (self.path / MANIFEST_FILE).stat().st_size
        return manifest_bytes + sum(self.manifest.files[name].bytes for name in files)

    def weights(self) -> Weights:
        """The initial weights, trainable, buffers and frozen.

        Raises:
            BundleError: names, shapes or types are not those of the signature.
        """
        inputs = self.signature.train_step.inputs
        groups = {role: [spec for spec in inputs if spec.role == role] for role in ("trainable", "buffer", "frozen")}
        wanted = [*groups["trainable"], *groups["buffer"]]
        tensors = _read_tensors(self.path / WEIGHTS_FILE, wanted)
        frozen = _read_tensors(self.path / FROZEN_FILE, groups["frozen"]) if groups["frozen"] else {}
        return Weights(
            trainable={spec.name: tensors[spec.name] for spec in groups["trainable"]},
            buffers={spec.name: tensors[spec.name] for spec in groups["buffer"]},
            frozen=frozen,
        )


def _check_files(path: Path, manifest: Manifest) -> None:
    frozen = bool(manifest.signature.train_step.input_names("frozen"))
    wanted = {PTE_FILE, WEIGHTS_FILE, *map(onnx_file, METHODS), *([FROZEN_FILE] if frozen else [])}
    if set(manifest.files) != wanted:
        raise BundleError(
            f"{path / MANIFEST_FILE}: files must be exactly {sorted(wanted)}, got {sorted(manifest.files)}; export the "
            "bundle again"
        )
    for name, entry in manifest.files.items():
        file = path / name
        if file.is_symlink() or not file.is_file():
            what = "is a link" if file.is_symlink() else "is missing"
            raise BundleError(f"{file} {what}: copy the whole bundle again, with its files as files")
        size = file.stat().st_size
        if size != entry.bytes:
            raise BundleError(
                f"{file} holds {size} bytes, not the {entry.bytes} of the manifest: copy the bundle again"
            )
        digest = file_sha256(file)
        if digest != entry.sha256:
            raise BundleError(
                f"{file} was altered: its SHA-256 is {digest}, the manifest says {entry.sha256}; copy the bundle "
                "again, or export it again if the change was meant"
            )


def _read_tensors(path: Path, specs: Iterable[TensorSpec]) -> Tensors:
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        tensors: Tensors = load(path.read_bytes())
    except (SafetensorError, OSError) as exc:
        raise BundleError(f"{path} cannot be read: {exc}; copy the bundle again") from exc
    expected = {spec.name: (spec.shape, spec.dtype) for spec in specs}
    found = {name: (tuple(value.shape), str(value.dtype).removeprefix("torch.")) for name, value in tensors.items()}
    for name in sorted(expected.keys() | found.keys()):
        if expected.get(name) != found.get(name):
            raise BundleError(
                f"{path}: tensor {name!r} must be {_described(expected.get(name))}, got {_described(found.get(name))}; "
                "export the bundle again"
            )
    return {name: tensors[name] for name in expected}


def _described(entry: tuple[tuple[int | Literal["batch"], ...], str] | None) -> str:
    return f"{entry[1]} {list(entry[0])}" if entry else "absent"


def export_bundle(
    task: Task,
    *,
    out: Path,
    settings: StepSettings,
    hyper: Mapping[str, float],
    max_batch: int,
    task_path: str | None = None,
    task_options: Mapping[str, JsonValue] | None = None,
    weights: Weights | None = None,
    seed: int = 0,
    force: bool = False,
) -> Bundle:
    """Export a task's programs for both runtimes, gate them, and put the bundle at ``out``.

    Args:
        task: what is learnt.
        out: the folder to make; its parent exists.
        settings: which terms the training step has.
        hyper: defaults of the hyper-parameters that ``settings`` wants; others are ignored.
        max_batch: the largest batch; memory on the phone is planned for it.
        task_path: by which ``load_task`` finds the task again; its own name if left out.
        task_options: with which ``load_task`` makes the task again.
        weights: the initial weights; if left out, of a model initialised from ``seed``, its feature scaling set from
            the sums of all training examples.
        seed: of the initial weights.
        force: replace a bundle that is there.

    Raises:
        InputError: the model cannot be exported, an argument is wrong, or ``out`` is there and ``force`` is not set.
        GateError: a program computes something else than PyTorch does.
        Either way nothing is written.
    """
    plan = make_plan(
        task,
        settings=settings,
        hyper=hyper,
        max_batch=max_batch,
        task_path=task_path,
        task_options=task_options,
        weights=weights,
        seed=seed,
    )
    return write_bundle(plan, out=out, force=force, gated=True)


def make_plan(
    task: Task,
    *,
    settings: StepSettings,
    hyper: Mapping[str, float],
    max_batch: int,
    task_path: str | None = None,
    task_options: Mapping[str, JsonValue] | None = None,
    weights: Weights | None = None,
    seed: int = 0,
) -> Plan:
    """What ``export_bundle`` settles before it writes; its arguments and errors."""
    missing = [name for name in settings.hyper_names if name not in hyper]
    if missing:
        raise InputError(f"hyper-parameters missing: {missing}; the step's settings want {list(settings.hyper_names)}")
    if max_batch < 1:
        raise InputError(f"max_batch must be 1 or more, got {max_batch}")
    examples = task_examples(task, "train")
    model = initial_model(task, seed=seed)
    own = check_task(task, model, examples)
    if weights is None:
        weights = own
        if has_scaling(model):
            weights = weights.with_frozen(frozen_scaling(model, [FeatureSums.of(examples.x)]))
    return Plan(
        task=task,
        task_path=task_path or task.name,
        task_options=dict(task_options or {}),
        model=model,
        weights=weights,
        examples=examples,
        settings=settings,
        hyper=hyper,
        max_batch=max_batch,
    )


def write_bundle(plan: Plan, *, out: Path, force: bool, gated: bool) -> Bundle:
    """Write, gate and rename; without the gate only for tests that need a wrong bundle with a right manifest."""
    out = Path(out)
    _check_place(out, force=force)
    with _hidden_folder_beside(out) as folder:
        written = write_files(folder, plan)
        bundle = Bundle.load(folder)
        if gated:
            require(_gate(bundle, plan.task, plan.model), written.suspects)
        _put(folder, out)
    return Bundle(path=out, manifest=written.manifest)


def verify_bundle(bundle: Bundle, task: Task | None = None) -> GateReport:
    """Check a bundle's files, run its gate again from the bundle's own weights, and count its costs again.

    Args:
        bundle: its folder is read again.
        task: what it was exported from; if left out, found by the path and the options in the manifest.

    Raises:
        InputError: the task is not found.
        BundleError: a file changed since it was loaded, the weights are not those of the task's model, or the manifest
            states other costs than those of the files.
        GateError: a program computes something else than PyTorch does.
    """
    bundle = Bundle.load(bundle.path)
    if task is None:
        task = load_task(bundle.task.path, bundle.task.options)
    examples = task_examples(task, "train")
    model = initial_model(task, seed=0)
    own, found = check_task(task, model, examples), bundle.weights()
    for group in ("trainable", "buffers", "frozen"):
        wanted = {name: value.shape for name, value in getattr(own, group).items()}
        if wanted != {name: value.shape for name, value in getattr(found, group).items()}:
            raise BundleError(
                f"{bundle.path} was not exported from task {task.name!r}: its {group} weights are others than those of "
                f"the task's model; it names the task {bundle.task.path!r} with options {bundle.task.options}"
            )
    report = _gate(bundle, task, model)
    operators: dict[str, Suspects] = {
        runtime: Suspects(operators=frozenset(cost.name for cost in bundle.footprint(runtime).operators["train_step"]))
        for runtime in RUNTIMES
    }
    require(report, operators)
    plan = Plan(
        task=task,
        task_path=bundle.task.path,
        task_options=bundle.task.options,
        model=model,
        weights=found,
        examples=examples,
        settings=bundle.settings,
        hyper=bundle.hyper,
        max_batch=bundle.max_batch,
    )
    check_costs(bundle.path, bundle.manifest, trace(plan, "executorch"), versions=installed_versions())
    return report


def _gate(bundle: Bundle, task: Task, model: nn.Module) -> GateReport:
    return run_gate(
        {runtime: open_session(bundle, runtime) for runtime in RUNTIMES},
        EagerSession(task, model, bundle.settings),
        weights=bundle.weights(),
        examples=task_examples(task, "train"),
        settings=bundle.settings,
        hyper=bundle.hyper,
        max_batch=bundle.max_batch,
    )


def _check_place(out: Path, *, force: bool) -> None:
    if not out.parent.is_dir():
        raise InputError(f"{out.parent} is no folder; make it first")
    if not (out.exists() or out.is_symlink()):
        return
    if not force:
        raise InputError(f"{out} exists; choose another name or use force to replace it")
    if out.is_symlink() or not (out / MANIFEST_FILE).is_file():
        raise InputError(f"{out} exists and is no bundle; it is not replaced, move it away")


@contextmanager
def _hidden_folder_beside(out: Path) -> Iterator[Path]:
    """A new folder on the same disk as ``out``, removed at the end unless it was renamed."""
    folder = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    try:
        # mkdtemp's folders are private; a bundle is as open as any new folder.
        folder.chmod(0o777 & ~_umask())
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _umask() -> int:
    mask = os.umask(0o022)
    os.umask(mask)
    return mask


def _put(folder: Path, out: Path) -> None:
    """Rename ``folder`` to ``out``; a bundle that is there is moved aside first and removed last."""
    if not out.exists():
        folder.rename(out)
        return
    with _hidden_folder_beside(out) as aside:
        out.rename(aside / "old")
        folder.rename(out)
