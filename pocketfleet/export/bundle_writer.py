"""Writes a bundle's files into a folder: traces, lowers, counts, hashes. It neither gates nor moves the folder."""

import dataclasses
import importlib.metadata
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from torch._ops import OpOverload

from pocketfleet.errors import InputError
from pocketfleet.export.decompositions import decomposition_table
from pocketfleet.export.footprint import Footprint
from pocketfleet.export.gate_report import Suspects
from pocketfleet.export.int8_accuracy import Int8Accuracy
from pocketfleet.export.manifest import (
    FROZEN_FILE,
    MANIFEST_FILE,
    PTE_FILE,
    SCHEMA_VERSION,
    TRAINING_MODULE_FILE,
    WEIGHTS_FILE,
    AdaptationEntry,
    FileEntry,
    Manifest,
    TaskEntry,
    file_sha256,
)
from pocketfleet.export.plan import RUNTIMES, Plan
from pocketfleet.export.program import Programs, trace_programs
from pocketfleet.export.recount import executorch_footprint, onnx_footprint
from pocketfleet.export.session import EagerSession, Runtime
from pocketfleet.export.unsupported import UnsupportedError
from pocketfleet.training.update import tensors_to_bytes

__all__ = ["Written", "footprint_of", "installed_versions", "trace", "write_files"]

# Whose versions the manifest records.
_DISTRIBUTIONS = ("torch", "executorch", "onnx", "onnxscript", "onnxruntime")


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
    programs = {runtime: trace(plan, runtime) for runtime in plan.runtimes}
    (folder / WEIGHTS_FILE).write_bytes(tensors_to_bytes(plan.weights.trainable | plan.weights.buffers))
    if plan.weights.frozen:
        (folder / FROZEN_FILE).write_bytes(tensors_to_bytes(plan.weights.frozen))
    footprints: dict[Runtime, Footprint] = {
        runtime: _lowered(plan, runtime, programs[runtime], folder) for runtime in plan.runtimes
    }
    if plan.training_module:
        _write_training_module(plan, folder)
    manifest = Manifest(
        schema_version=SCHEMA_VERSION,
        task=TaskEntry(name=plan.task.name, path=plan.task_path, options=dict(plan.task_options)),
        adaptation=AdaptationEntry(trainable=list(plan.adaptation.trainable), lora_rank=plan.adaptation.lora_rank),
        settings=dataclasses.asdict(plan.settings),
        hyper={name: float(plan.hyper[name]) for name in plan.settings.hyper_names},
        max_batch=plan.max_batch,
        signature=programs[plan.runtimes[0]].signature,
        footprint=footprints,
        predict=_predict_engine(plan, folder),
        int8=_int8_accuracy(plan, folder),
        training_module=plan.training_module,
        convolution=plan.convolution,
        files={path.name: _file_entry(path) for path in sorted(folder.iterdir())},
        exported_with=installed_versions(),
        minimum_runtime=_minimum_versions(),
    )
    (folder / MANIFEST_FILE).write_text(manifest.model_dump_json(), encoding="utf-8")
    suspects: dict[str, Suspects] = {
        runtime: _suspects(programs[runtime], footprints[runtime]) for runtime in plan.runtimes
    }
    return Written(manifest=manifest, suspects=suspects)


def trace(plan: Plan, runtime: Runtime) -> Programs:
    """The plan's three methods, made for one runtime; ``InputError`` where they cannot be traced."""
    return trace_programs(
        plan.task,
        plan.model,
        plan.weights,
        settings=plan.settings,
        examples=plan.examples,
        max_batch=plan.max_batch,
        table=decomposition_table(
            runtime, leave_out=plan.leave_out.get(runtime, ()), convolution=plan.convolution or "matmul"
        ),
    )


def footprint_of(plan: Plan, runtime: Runtime, folder: Path) -> Footprint:
    """What the plan's programs cost on one runtime, whose files are written into ``folder``."""
    return _lowered(plan, runtime, trace(plan, runtime), folder)


def _lowered(plan: Plan, runtime: Runtime, programs: Programs, folder: Path) -> Footprint:
    """Write a runtime's files; whatever an exporter raises for a model it does not know becomes an ``InputError``."""
    write = {"executorch": _write_executorch, "onnx": _write_onnx}[runtime]
    try:
        return write(plan, programs, folder)
    except UnsupportedError as exc:
        raise InputError(
            f"the model cannot be exported for {runtime}: {exc.sentence(plan.model)}. Way out: "
            f"{_way_out(plan, runtime, exc)}. docs/limits.md lists the layers that export"
        ) from exc
    except InputError:
        raise
    except Exception as exc:
        # The reason is the first line; what follows are graphs and pleas to report a bug.
        reason = (str(exc).splitlines() or [""])[0][:300]
        raise InputError(
            f"the model cannot be exported for {runtime} yet ({type(exc).__name__}: {reason}). Replace the layer "
            "that it comes from: docs/limits.md lists those that export"
        ) from exc


def _way_out(plan: Plan, runtime: Runtime, error: UnsupportedError) -> str:
    ways = [
        f'export for {other} alone, where it runs (--only {other}, in Python only="{other}")'
        for other in RUNTIMES
        if other != runtime and _runs_on(plan, other)
    ]
    if error.only_gradients and _runs_forward(plan, runtime):
        ways.append("train only what lies behind it (--trainable), if anything does, so that it runs forward only")
    return ", or ".join([*ways, "replace the layer"])


def _runs_forward(plan: Plan, runtime: Runtime) -> bool:
    """Whether a runtime takes and runs the model without its training step."""
    from pocketfleet.export import executorch, onnx

    module = {"executorch": executorch, "onnx": onnx}[runtime]
    return _works(lambda folder: module.try_forward(trace(plan, runtime), folder))


def _runs_on(plan: Plan, runtime: Runtime) -> bool:
    """Whether a runtime takes the plan's programs and runs them once; whether they are right is the gate's to say."""
    if runtime == "onnx" and (plan.int8_predict or plan.training_module):
        return False
    from pocketfleet.export.executorch import write_executorch
    from pocketfleet.export.onnx import write_onnx

    if runtime == "onnx":
        return _works(lambda folder: write_onnx(trace(plan, runtime), folder))
    return _works(lambda folder: write_executorch(trace(plan, runtime), folder / PTE_FILE))


def _works(attempt: Callable[[Path], object]) -> bool:
    """Whether an attempt succeeds in some folder."""
    try:
        with tempfile.TemporaryDirectory() as folder:
            attempt(Path(folder))
    except Exception:  # noqa: BLE001 - whatever it raises, it is no way out
        return False
    return True


def _write_executorch(plan: Plan, programs: Programs, folder: Path) -> Footprint:
    from pocketfleet.export.delegated_predict import check_delegated_predict, write_fastest_predict
    from pocketfleet.export.int8_predict import calibration_split, quantised_program

    eager = EagerSession(plan.task, plan.model, plan.settings)
    int8 = None
    if plan.int8_predict:
        int8 = quantised_program(plan.model, plan.weights, calibration_split(plan.examples)[0], plan.max_batch)
    operators = write_fastest_predict(
        programs,
        folder / PTE_FILE,
        check=lambda path: check_delegated_predict(path, programs, eager, weights=plan.weights, x=plan.examples.x),
        int8=int8,
    )
    return executorch_footprint(folder, programs.signature, max_batch=programs.max_batch, operators=operators)


def _predict_engine(plan: Plan, folder: Path) -> Literal["xnnpack", "portable"] | None:
    if "executorch" not in plan.runtimes:
        return None
    from pocketfleet.export.executorch import predict_is_delegated

    return "xnnpack" if predict_is_delegated(folder / PTE_FILE) else "portable"


def _int8_accuracy(plan: Plan, folder: Path) -> Int8Accuracy | None:
    if not plan.int8_predict:
        return None
    from pocketfleet.export.int8_predict import calibration_split, compare_int8

    others = calibration_split(plan.examples)[1]
    return compare_int8(folder / PTE_FILE, plan.task, plan.model, plan.weights, others, max_batch=plan.max_batch)


def _write_training_module(plan: Plan, folder: Path) -> None:
    from pocketfleet.export.training_module import write_training_module

    path = folder / TRAINING_MODULE_FILE
    write_training_module(plan.task, plan.model, plan.weights, plan.examples, batch_size=plan.max_batch, path=path)


def _write_onnx(_plan: Plan, programs: Programs, folder: Path) -> Footprint:
    from pocketfleet.export.onnx import write_onnx

    write_onnx(programs, folder)
    return onnx_footprint(folder, programs.signature, max_batch=programs.max_batch)


def _file_entry(path: Path) -> FileEntry:
    return FileEntry(bytes=path.stat().st_size, sha256=file_sha256(path))


def installed_versions() -> dict[str, str]:
    """Versions of what exports: ``pocketfleet`` and the distributions that it leans on."""
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
    program = programs.graphs["train_step"]
    nodes = {node.name: node for node in program.graph.nodes}
    # Constants of the task are placeholders too, but no inputs of the user's.
    inputs = program.graph_signature.user_inputs
    readers = {
        spec.name: tuple(str(user.target) for user in list(nodes[str(name)].users)[:3])
        for spec, name in zip(programs.signature.train_step.inputs, inputs, strict=True)
        if spec.role == "trainable"
    }
    operators = {cost.name for cost in footprint.operators["train_step"]}
    if footprint.runtime == "onnx":
        # What is known to be wrong there is the translation of an operator of torch's, which the file does not name.
        targets = [str(node.target) for node in nodes.values() if isinstance(node.target, OpOverload)]
        operators |= {target.split(".")[1] for target in targets}
    return Suspects(operators=frozenset(operators), readers=readers)
