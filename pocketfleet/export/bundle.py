"""The folder that goes to a phone: manifest, programs, weights, hashes. Reading trusts nothing before it was checked.

==========================================================  ====================================================
``manifest.json``                                           what ``manifest.py`` describes
``model.pte``                                               the three methods for ExecuTorch
``train_step.onnx``, ``predict.onnx``, ``evaluate.onnx``    the same for ONNX Runtime; one runtime may be left out
``training_module.pte``                                     a joint graph for ExecuTorch's own trainer, if asked for
``weights.safetensors``                                     trainable weights and buffers
``frozen.safetensors``                                      frozen weights; only where there are any
==========================================================  ====================================================
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pocketfleet.errors import BundleError, InputError
from pocketfleet.export.footprint import Footprint
from pocketfleet.export.manifest import (
    FROZEN_FILE,
    MANIFEST_FILE,
    TOLD_CHARACTERS,
    TRAINING_MODULE_FILE,
    WEIGHTS_FILE,
    Manifest,
    TaskEntry,
    file_sha256,
    program_files,
    read_manifest,
)
from pocketfleet.export.plan import RUNTIMES
from pocketfleet.export.session import Runtime
from pocketfleet.export.signature import Signature, TensorSpec
from pocketfleet.training.adaptation import Adaptation
from pocketfleet.training.train_step import StepSettings
from pocketfleet.training.weights import Tensors, Weights, all_finite

__all__ = ["Bundle"]

# Programs hold no weights, but for a quantised copy and a joint graph; protobuf ends at 2 GiB.
_PROGRAM_LIMIT_BYTES = 2 * 1024**3
# What safetensors allows for names and shapes in front of the values.
_HEADER_LIMIT_BYTES = 100_000_000
# MobileNetV2's counts of operators fill about 1 MB of it; a parser needs many times a file's size.
_MANIFEST_LIMIT_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """A bundle whose files were found to be what its manifest says."""

    path: Path
    manifest: Manifest

    @classmethod
    def load(cls, path: Path, *, runtime: Runtime | None = None) -> "Bundle":
        """Read the bundle in the folder ``path`` and check every file in it.

        Args:
            path: the folder.
            runtime: a device's, which holds no more than this runtime's programs and the frozen weights; any other file
                is not looked at, and the initial weights only where they are there.

        Raises:
            BundleError: the manifest is of another version or not consistent; a file is missing, is a link, or differs
                in size or hash; the weights are not those of the signature.
            InputError: the bundle was not exported for ``runtime``.
        """
        path = Path(path)
        manifest_path = path / MANIFEST_FILE
        if not manifest_path.is_file() or manifest_path.is_symlink():
            raise BundleError(f"{path} is no bundle: it holds no {MANIFEST_FILE}; export one with pocketfleet export")
        if manifest_path.stat().st_size > _MANIFEST_LIMIT_BYTES:
            raise BundleError(f"{manifest_path} is larger than any manifest, {_MANIFEST_LIMIT_BYTES} bytes")
        try:
            text = manifest_path.read_text(encoding="utf-8")
        except UnicodeDecodeError as exc:
            raise BundleError(f"{manifest_path} is not UTF-8 text; export the bundle again") from exc
        manifest = read_manifest(text, where=str(manifest_path))
        _check_names(path, manifest)
        bundle = cls(path=path, manifest=manifest)
        _check_files(path, manifest, bundle._files_of(runtime))
        if bundle.has_weights or runtime is None:
            bundle.weights()
        return bundle

    def _files_of(self, runtime: Runtime | None) -> list[str]:
        """The files that a device with ``runtime`` holds, or all."""
        if runtime is None:
            return list(self.manifest.files)
        wanted = {*self.footprint(runtime).file_bytes, FROZEN_FILE}
        if self.has_weights:
            wanted.add(WEIGHTS_FILE)
        return [name for name in self.manifest.files if name in wanted]

    @property
    def has_weights(self) -> bool:
        """Whether the initial weights are there: a device may do without."""
        return (self.path / WEIGHTS_FILE).is_file()

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
    def runtimes(self) -> tuple[Runtime, ...]:
        """The runtimes that it was exported for."""
        return tuple(runtime for runtime in RUNTIMES if runtime in self.manifest.footprint)

    @property
    def adaptation(self) -> Adaptation:
        """Which weights of the task's model are trained."""
        entry = self.manifest.adaptation
        return Adaptation(trainable=tuple(entry.trainable), lora_rank=entry.lora_rank)

    @property
    def max_batch(self) -> int:
        """The largest batch that the programs accept."""
        return self.manifest.max_batch

    @property
    def task(self) -> TaskEntry:
        """How the task is found again."""
        return self.manifest.task

    def footprint(self, runtime: Literal["executorch", "onnx"]) -> Footprint:
        """What the methods cost on one runtime.

        Raises:
            InputError: the bundle was not exported for it.
        """
        if runtime not in self.manifest.footprint:
            raise InputError(
                f"{self.path} was exported for {' and '.join(self.runtimes)} only: export it for {runtime} too"
            )
        return self.manifest.footprint[runtime]

    def download_bytes(self, runtime: Literal["executorch", "onnx"]) -> int:
        """What a phone downloads once: the runtime's programs, the manifest, the frozen weights."""
        files = [*self.footprint(runtime).file_bytes, *([FROZEN_FILE] if FROZEN_FILE in self.manifest.files else [])]
        manifest_bytes = (self.path / MANIFEST_FILE).stat().st_size
        return manifest_bytes + sum(self.manifest.files[name].bytes for name in files)

    def weights(self, *, version: Path | None = None) -> Weights:
        """The initial weights, trainable, buffers and frozen.

        Args:
            version: a file with those of another model version; what it leaves out stays as it was at first.

        Raises:
            BundleError: names, shapes or types are not those of the signature.
        """
        inputs = self.signature.train_step.inputs
        groups = {role: [spec for spec in inputs if spec.role == role] for role in ("trainable", "buffer", "frozen")}
        wanted = [*groups["trainable"], *groups["buffer"]]
        if version is None or self.has_weights:
            tensors = _read_tensors(self.path / WEIGHTS_FILE, wanted)
            if version is not None:
                tensors |= _read_tensors(version, wanted, whole=False)
        else:
            tensors = _read_tensors(version, wanted)
        frozen = _read_tensors(self.path / FROZEN_FILE, groups["frozen"]) if groups["frozen"] else {}
        return Weights(
            trainable={spec.name: tensors[spec.name] for spec in groups["trainable"]},
            buffers={spec.name: tensors[spec.name] for spec in groups["buffer"]},
            frozen=frozen,
        )


def _check_names(path: Path, manifest: Manifest) -> None:
    frozen = bool(manifest.signature.train_step.input_names("frozen"))
    wanted = {WEIGHTS_FILE, *([FROZEN_FILE] if frozen else [])}
    if manifest.training_module:
        wanted.add(TRAINING_MODULE_FILE)
    wanted.update(name for runtime in manifest.footprint for name in program_files(runtime))
    if set(manifest.files) != wanted:
        raise BundleError(
            f"{path / MANIFEST_FILE}: files must be exactly {sorted(wanted)}, got "
            f"{str(sorted(manifest.files))[:TOLD_CHARACTERS]}; export the bundle again"
        )


def _check_files(path: Path, manifest: Manifest, names: Iterable[str]) -> None:
    for name in names:
        file, entry = path / name, manifest.files[name]
        if file.is_symlink() or not file.is_file():
            what = "is a link" if file.is_symlink() else "is no file" if file.exists() else "is missing"
            raise BundleError(f"{file} {what}: copy the whole bundle again, with its files as files")
        size = file.stat().st_size
        if size != entry.bytes:
            raise BundleError(
                f"{file} holds {size} bytes, not the {entry.bytes} of the manifest: copy the bundle again"
            )
        _check_size(file, size, manifest.signature)
        digest = file_sha256(file)
        if digest != entry.sha256:
            raise BundleError(
                f"{file} was altered: its SHA-256 is {digest}, the manifest says {entry.sha256}; copy the bundle "
                "again, or export it again if the change was meant"
            )


def _check_size(file: Path, size: int, signature: Signature) -> None:
    """Refuse, before it is read, a file that is larger than what it is for."""
    limit = _PROGRAM_LIMIT_BYTES
    roles = {WEIGHTS_FILE: ("trainable", "buffer"), FROZEN_FILE: ("frozen",)}.get(file.name)
    if roles:
        specs = [spec for spec in signature.train_step.inputs if spec.role in roles]
        limit = _HEADER_LIMIT_BYTES + sum(len(spec.name) + math.prod(spec.sizes(0)) * 8 for spec in specs)
    if size > limit:
        raise BundleError(f"{file} is larger than it can be, {size} bytes: at most {limit}; export the bundle again")


def _read_tensors(path: Path, specs: Iterable[TensorSpec], *, whole: bool = True) -> Tensors:
    """The tensors of a file, which must be those of ``specs``, or some of them without ``whole``."""
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        tensors: Tensors = load(path.read_bytes())
    except (SafetensorError, OSError) as exc:
        raise BundleError(f"{path} cannot be read: {exc}; copy the bundle again") from exc
    expected = {spec.name: (spec.shape, spec.dtype) for spec in specs}
    found = {name: (tuple(value.shape), str(value.dtype).removeprefix("torch.")) for name, value in tensors.items()}
    for name in sorted(found.keys() | (expected.keys() if whole else set())):
        if expected.get(name) != found.get(name):
            raise BundleError(
                f"{path}: tensor {repr(name)[:TOLD_CHARACTERS]} must be {_described(expected.get(name))}, got "
                f"{_described(found.get(name))}; export the bundle again"
            )
    if not all_finite(tensors):
        raise BundleError(f"{path} holds values that are no finite numbers; export the bundle again from sound weights")
    return {name: tensors[name] for name in expected if name in tensors}


def _described(entry: tuple[tuple[int | Literal["batch"], ...], str] | None) -> str:
    return f"{entry[1]} {list(entry[0])}" if entry else "absent"
