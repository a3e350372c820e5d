"""``manifest.json``: everything that one must know to run a bundle's programs and to trust its files.

Unknown keys, missing keys and wrong types are refused. Programs, weights and sizes are described here; the files
themselves are ``bundle.py``'s.
"""

import dataclasses
import hashlib
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, JsonValue, ValidationError, model_validator

from pocketfleet.errors import BundleError
from pocketfleet.export.decompositions import Convolution
from pocketfleet.export.footprint import Footprint
from pocketfleet.export.int8_accuracy import Int8Accuracy
from pocketfleet.export.signature import METHODS, Signature
from pocketfleet.export.signature_rules import check_signature_rules
from pocketfleet.training.train_step import StepSettings

__all__ = [
    "FROZEN_FILE",
    "MANIFEST_FILE",
    "PTE_FILE",
    "SCHEMA_VERSION",
    "TOLD_CHARACTERS",
    "TRAINING_MODULE_FILE",
    "WEIGHTS_FILE",
    "AdaptationEntry",
    "FileEntry",
    "Manifest",
    "TaskEntry",
    "file_sha256",
    "onnx_file",
    "program_files",
    "read_manifest",
]

MANIFEST_FILE = "manifest.json"
PTE_FILE = "model.pte"
WEIGHTS_FILE = "weights.safetensors"
FROZEN_FILE = "frozen.safetensors"
TRAINING_MODULE_FILE = "training_module.pte"
# Raised whenever a reader of the old form would misunderstand the new one.
SCHEMA_VERSION: Literal[3] = 3

# So many characters of what a file says are repeated in a message.
TOLD_CHARACTERS = 500
_STRICT = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)


def onnx_file(method: str) -> str:
    """The file name of one ONNX method."""
    return f"{method}.onnx"


def program_files(runtime: Literal["executorch", "onnx"]) -> tuple[str, ...]:
    """The files that hold one runtime's three methods."""
    return (PTE_FILE,) if runtime == "executorch" else tuple(map(onnx_file, METHODS))


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _plain_file_name(name: str) -> str:
    """A file directly in the bundle: no folder, no way out of it."""
    if name in {"", ".", ".."} or "\\" in name or "\0" in name or PurePosixPath(name).name != name:
        raise ValueError(f"must be a plain file name, got {name!r}")
    return name


FileName = Annotated[str, AfterValidator(_plain_file_name)]


class FileEntry(BaseModel):
    """Size in bytes and SHA-256 (hexadecimal) of one file."""

    model_config = _STRICT

    # As a signed 64-bit number, which is what file systems count in.
    bytes: int = Field(ge=0, lt=2**63)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")


class TaskEntry(BaseModel):
    """The task's own name, and the path and options by which ``load_task`` makes it again.

    ``path`` is ``None`` for a model that was exported without a task.
    """

    model_config = _STRICT

    name: str
    path: str | None
    options: dict[str, JsonValue]


class AdaptationEntry(BaseModel):
    """Which weights are trained, by the fields of ``training.adaptation.Adaptation``."""

    model_config = _STRICT

    trainable: list[str]
    lora_rank: int = Field(ge=0)


class Manifest(BaseModel):
    """See the attributes' comments; shapes hold numbers and ``"batch"``."""

    model_config = _STRICT

    schema_version: Literal[3]
    task: TaskEntry
    adaptation: AdaptationEntry
    # Which terms the training step has, by the fields of StepSettings.
    settings: dict[str, bool | str]
    # Defaults of the hyper-parameters that the step takes.
    hyper: dict[str, float]
    max_batch: int = Field(ge=1)
    signature: Signature
    # By runtime that the bundle was exported for.
    footprint: dict[Literal["executorch", "onnx"], Footprint] = Field(min_length=1)
    # What ExecuTorch's predict runs on; none where there is no ExecuTorch program.
    predict: Literal["xnnpack", "portable"] | None
    # How far the method predict_int8 is from float32; none where the file lacks it.
    int8: Int8Accuracy | None
    # Whether the folder holds the joint graph for ExecuTorch's own TrainingModule.
    training_module: bool
    # How ExecuTorch convolves: as products, or by its own kernels; none where the model leaves no choice.
    convolution: Convolution | None
    files: dict[FileName, FileEntry]
    # Distribution names to the versions that exported the bundle.
    exported_with: dict[str, str]
    # The oldest versions of the runtimes that run it, and the ONNX opset.
    minimum_runtime: dict[str, str]

    @model_validator(mode="after")
    def _agrees_with_itself(self) -> "Manifest":
        known = {field.name for field in dataclasses.fields(StepSettings)}
        if set(self.settings) != known:
            raise ValueError(f"settings must hold exactly {sorted(known)}, got {sorted(self.settings)}")
        try:
            names = self.step_settings.hyper_names
        except TypeError as exc:
            raise ValueError(f"settings: {exc}") from exc
        if set(self.hyper) != set(names):
            raise ValueError(f"hyper must hold exactly {sorted(names)}, got {sorted(self.hyper)}")
        for runtime, footprint in self.footprint.items():
            if footprint.runtime != runtime or set(footprint.operators) != set(METHODS):
                raise ValueError(f"footprint.{runtime} must count {list(METHODS)} on {runtime}")
            if set(footprint.file_bytes) != set(program_files(runtime)):
                raise ValueError(f"footprint.{runtime}.file_bytes must hold exactly {list(program_files(runtime))}")
            if footprint.max_batch != self.max_batch:
                raise ValueError(f"footprint.{runtime}.max_batch is {footprint.max_batch}, max_batch {self.max_batch}")
        if (self.predict is None) != ("executorch" not in self.footprint):
            raise ValueError(f"predict must say what ExecuTorch's runs on, and only where there is one: {self.predict}")
        check_signature_rules(self.signature, self.step_settings)
        return self

    @property
    def step_settings(self) -> StepSettings:
        """The settings that the training step was traced with."""
        terms: dict[str, Any] = dict(self.settings)
        return StepSettings(**terms)


def read_manifest(text: str, *, where: str) -> Manifest:
    """Parse and check a manifest.

    Args:
        text: JSON.
        where: names the file in messages.

    Raises:
        BundleError: it is no manifest of this schema version.
    """
    try:
        return Manifest.model_validate_json(text)
    except ValidationError as exc:
        first = exc.errors(include_url=False)[0]
        key = ".".join(str(part) for part in first["loc"])[:TOLD_CHARACTERS] or "the whole"
        if first["loc"] == ("schema_version",):
            raise BundleError(
                f"{where}: schema_version must be {SCHEMA_VERSION}, got {repr(first['input'])[:TOLD_CHARACTERS]}; "
                "export the bundle again with this version of pocketfleet, or use the version that exported it"
            ) from exc
        raise BundleError(
            f"{where}: {key}: {first['msg'][:TOLD_CHARACTERS]} ({exc.error_count()} such problems); the file is "
            "damaged or was edited: export the bundle again"
        ) from exc
