"""Writes a bundle's files into a folder: traces, lowers, counts, hashes. It neither gates nor moves the folder."""

import dataclasses
import importlib.metadata
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import JsonValue
from torch import nn

from pocketfleet.export.decompositions import decomposition_table
from pocketfleet.export.footprint import Footprint, build_footprint
from pocketfleet.export.gate_report import Suspects
from pocketfleet.export.manifest import (
    FROZEN_FILE,
    MANIFEST_FILE,
    PTE_FILE,
    SCHEMA_VERSION,
    WEIGHTS_FILE,
    FileEntry,
    Manifest,
    TaskEntry,
    file_sha256,
    onnx_file,
)
from pocketfleet.export.program import METHODS, Programs, trace_programs
from pocketfleet.export.session import Runtime
from pocketfleet.training.examples import Examples
from pocketfleet.training.task import Task
from pocketfleet.training.train_step import StepSettings
from pocketfleet.training.weights import Tensors, Weights

__all__ = ["Plan", "Written", "write_files"]

RUNTIMES: tuple[Runtime, ...] = ("executorch", "onnx")
# Whose versions the manifest records.
_DISTRIBUTIONS = ("torch", "executorch", "onnx", "onnxscript", "onnxruntime")


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Everything that settles a bundle's files.

    ``leave_out`` names, by runtime, operators whose decomposition is not used.
    """

    task: Task
    task_path: str
    task_options: Mapping[str, JsonValue]
    model: nn.Module
    weights: Weights
    examples: Examples
    settings: StepSettings
    hyper: Mapping[str, float]
    max_batch: int
    leave_out: Mapping[Runtime, Collection[str]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """The manifest of the files, and where to look when a runtime's program fails its gate."""

    manifest: Manifest
    suspects: Mapping[str, Suspects]


def write_files(folder: Path, plan: Plan) -> Written:
    """Write every file of the bundle, the manifest last.

    Raises:
        InputError: the model cannot be exported.
    """
    programs = {runtime: _trace(plan, runtime) for runtime in RUNTIMES}
    _save_tensors(folder / WEIGHTS_FILE, plan.weights.trainable | plan.weights.buffers)
    if plan.weights.frozen:
        _save_tensors(folder / FROZEN_FILE, plan.weights.frozen)
    footprints: dict[Runtime, Footprint] = {
        "executorch": _write_executorch(programs["executorch"], folder),
        "onnx": _write_onnx(programs["onnx"], folder),
    }
    manifest = Manifest(
        schema_version=SCHEMA_VERSION,
        task=TaskEntry(name=plan.task.name, path=plan.task_path, options=dict(plan.task_options)),
        settings=dataclasses.asdict(plan.settings),
        hyper={name: float(plan.hyper[name]) for name in plan.settings.hyper_names},
        max_batch=plan.max_batch,
        signature=programs["onnx"].signature,
        footprint=footprints,
        files={path.name: _file_entry(path) for path in sorted(folder.iterdir())},
        exported_with=_versions(),
        minimum_runtime=_minimum_versions(),
    )
    (folder / MANIFEST_FILE).write_text(manifest.model_dump_json(), encoding="utf-8")
    suspects: dict[str, Suspects] = {runtime: _suspects(programs[runtime], footprints[runtime]) for runtime in RUNTIMES}
    return Written(manifest=manifest, suspects=suspects)


def _trace(plan: Plan, runtime: Runtime) -> Programs:
    return trace_programs(
        plan.task,
        plan.model,
        plan.weights,
        settings=plan.settings,
        examples=plan.examples,
        max_batch=plan.max_batch,
        table=decomposition_table(runtime, leave_out=plan.leave_out.get(runtime, ())),
    )


def _write_executorch(programs: Programs, folder: Path) -> Footprint:
    from pocketfleet.export.executorch import planned_memory, write_executorch

    path = folder / PTE_FILE
    operators = write_executorch(programs, path)
    return build_footprint(
        "executorch",
        programs.signature,
        max_batch=programs.max_batch,
        operators=operators,
        planned_bytes=planned_memory(path),
        file_bytes=_sizes([path]),
    )


def _write_onnx(programs: Programs, folder: Path) -> Footprint:
    from pocketfleet.export.onnx import count_onnx, write_onnx

    write_onnx(programs, folder)
    operators, peaks = count_onnx(folder, max_batch=programs.max_batch)
    return build_footprint(
        "onnx",
        programs.signature,
        max_batch=programs.max_batch,
        operators=operators,
        planned_bytes=peaks,
        file_bytes=_sizes(folder / onnx_file(method) for method in METHODS),
    )


def _sizes(paths: Iterable[Path]) -> dict[str, int]:
    return {path.name: path.stat().st_size for path in paths}


def _file_entry(path: Path) -> FileEntry:
    return FileEntry(bytes=path.stat().st_size, sha256=file_sha256(path))


def _save_tensors(path: Path, tensors: Tensors) -> None:
    from safetensors.torch import save

    path.write_bytes(save({name: value.detach().contiguous() for name, value in tensors.items()}))


def _versions() -> dict[str, str]:
    import pocketfleet

    return {"pocketfleet": pocketfleet.__version__} | {
        name: importlib.metadata.version(name) for name in _DISTRIBUTIONS
    }


def _minimum_versions() -> dict[str, str]:
    from pocketfleet.export.executorch import MINIMUM_VERSION as EXECUTORCH
    from pocketfleet.export.onnx import MINIMUM_VERSION as ONNXRUNTIME
    from pocketfleet.export.onnx import OPSET

    return {"executorch": EXECUTORCH, "onnxruntime": ONNXRUNTIME, "onnx_opset": str(OPSET)}


def _suspects(programs: Programs, footprint: Footprint) -> Suspects:
    graph = programs.graphs["train_step"].graph
    placeholders = [node for node in graph.nodes if node.op == "placeholder"]
    specs = programs.signature.train_step.inputs
    readers = {
        spec.name: tuple(str(user.target) for user in list(node.users)[:3])
        for spec, node in zip(specs, placeholders, strict=True)
        if spec.role == "trainable"
    }
    return Suspects(
        operators=frozenset(cost.name for cost in footprint.operators["train_step"]),
        readers=readers,
    )
