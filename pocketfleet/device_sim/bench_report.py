"""What a benchmark leaves behind: its JSON form, versioned, and how one is read back.

Rules:

1. What was *measured* is under ``measured``, what a model of a phone *predicts* under ``predicted``; no figure is
   in both, and no measured one is ever computed from a predicted one.
2. Base units throughout: seconds, bytes, joules, operations.
3. ``workload_sha256`` is what is trained: task, terms of the step, largest batch, every shape and type. Two results
   compare where it is equal. ``programs_sha256`` is how: the programs' files. It may differ, as between two exporters.
4. Unknown keys, missing keys and wrong types are refused. What a phone tells of itself, ``host.phone``, is there where
   a phone measured.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pocketfleet.errors import InputError
from pocketfleet.export.bundle import Bundle
from pocketfleet.export.session import Runtime
from pocketfleet.whole_file import write_whole

__all__ = [
    "SCHEMA_VERSION",
    "BenchReport",
    "BundleFacts",
    "Host",
    "Latency",
    "OperatorRow",
    "PhoneFacts",
    "PhoneMoment",
    "PhonePrediction",
    "ProcessRun",
    "Profile",
    "Rules",
    "RuntimeMeasurement",
    "StepTimes",
    "SustainedPoint",
    "WorkloadResult",
    "bundle_facts",
    "read_report",
]

# Raised whenever a reader of the old form would misunderstand the new one.
SCHEMA_VERSION: Literal[2] = 2
_STRICT = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)
# How a file of ours is known before its version is looked at.
_KIND: Literal["pocketfleet-bench"] = "pocketfleet-bench"


class Rules(BaseModel):
    """The run rules that the figures were taken under; see docs/benchmark.md.

    Timing goes on until both ``least_steps`` and ``least_s`` are reached.
    """

    model_config = _STRICT

    warm_up_steps: int = Field(ge=1, default=5)
    # A p95 of 20 is the second largest: the least of which one is worth printing.
    least_steps: int = Field(ge=1, default=20)
    # Long enough that a scheduler's time slice of some milliseconds does not settle the median of a short step.
    least_s: float = Field(ge=0.0, default=1.0)


class PhoneMoment(BaseModel):
    """A phone just before the first measurement or just after the last; ``None``: it does not tell.

    ``battery_amperes`` is positive into the battery and negative out of it, as Android counts it; ``thermal_status`` is
    Android's severity, 0 (none) to 6 (shutdown); ``free_memory_bytes`` what the system would still give to apps.
    """

    model_config = _STRICT

    battery_ratio: float | None = Field(ge=0.0, le=1.0)
    charging: bool
    battery_amperes: float | None
    battery_volts: float | None = Field(gt=0.0)
    battery_celsius: float | None = Field(ge=-100.0, le=200.0)
    thermal_status: int | None = Field(ge=0, le=6)
    free_memory_bytes: int = Field(ge=0)


class PhoneFacts(BaseModel):
    """A phone that measured, in its maker's words, and how it was before and after."""

    model_config = _STRICT

    model: str
    manufacturer: str
    memory_bytes: int = Field(ge=0)
    before: PhoneMoment
    after: PhoneMoment


class Host(BaseModel):
    """The machine that measured.

    ``load_average`` is the runnable processes in the minute before it began, ``None`` where the system keeps that from
    programs, as Android does; ``phone`` is there where the machine is one.
    """

    model_config = _STRICT

    name: str
    machine: str
    system: str
    cores: int = Field(ge=1)
    load_average: float | None = Field(ge=0.0)
    versions: dict[str, str]
    phone: PhoneFacts | None = None


class Latency(BaseModel):
    """Seconds of a step over ``steps`` timed ones."""

    model_config = _STRICT

    steps: int = Field(ge=1)
    median_s: float = Field(gt=0.0)
    p95_s: float = Field(gt=0.0)
    minimum_s: float = Field(gt=0.0)


class StepTimes(BaseModel):
    """One batch size: latency, and what follows from its median."""

    model_config = _STRICT

    batch: int = Field(ge=1)
    latency: Latency
    examples_per_s: float = Field(gt=0.0)
    # Operations that the program's operators were counted to need, over the median.
    flops_per_s: float = Field(ge=0.0)


class ProcessRun(BaseModel):
    """One fresh process: one runtime, one number of threads.

    ``idle_rss_bytes`` is held just before the bundle is opened, with Python, torch and the runtime loaded;
    ``peak_rss_bytes`` is the most from then until the first batch size was timed.
    """

    model_config = _STRICT

    threads: int = Field(ge=1)
    load_s: float = Field(gt=0.0)
    first_step_s: float = Field(gt=0.0)
    idle_rss_bytes: int = Field(ge=0)
    peak_rss_bytes: int = Field(ge=0)
    # The batch that was asked for comes first, then the sweep.
    steps: tuple[StepTimes, ...] = Field(min_length=1)


class OperatorRow(BaseModel):
    """All calls of one operator within a step."""

    model_config = _STRICT

    name: str
    calls: float = Field(ge=0.0)
    seconds: float = Field(ge=0.0)


class Profile(BaseModel):
    """One step by operator, in the runtime's own words, under its profiler and on one thread.

    ``profiler_s`` is what the profiler took for its own notes outside of operators, where that is known;
    ``unaccounted_s`` is ``step_s`` less that and the operators' seconds.
    """

    model_config = _STRICT

    batch: int = Field(ge=1)
    steps: int = Field(ge=1)
    step_s: float = Field(gt=0.0)
    profiler_s: float = Field(ge=0.0)
    unaccounted_s: float
    operators: tuple[OperatorRow, ...]


class SustainedPoint(BaseModel):
    """One stretch of a sustained run; ``at_s`` is its end, counted from the run's start."""

    model_config = _STRICT

    at_s: float = Field(gt=0.0)
    latency: Latency


class RuntimeMeasurement(BaseModel):
    """All that was measured of one runtime on this machine; ``download_bytes`` is what a phone fetches once."""

    model_config = _STRICT

    runtime: Runtime
    download_bytes: int = Field(ge=0)
    planned_memory_bytes: int = Field(ge=0)
    processes: tuple[ProcessRun, ...]
    profile: Profile | None
    sustained: tuple[SustainedPoint, ...]


class PhonePrediction(BaseModel):
    """What ``compute``, ``memory`` and the catalogue say of a phone on which nothing ran: a step on one thread."""

    model_config = _STRICT

    phone: str
    runtime: Runtime
    batch: int = Field(ge=1)
    step_s: float = Field(gt=0.0)
    joules: float = Field(ge=0.0)
    fits_memory: bool


class BundleFacts(BaseModel):
    """Which bundle; see rule 3."""

    model_config = _STRICT

    task: str
    max_batch: int = Field(ge=1)
    workload_sha256: str
    programs_sha256: str
    exported_with: dict[str, str]


class WorkloadResult(BaseModel):
    """One bundle."""

    model_config = _STRICT

    workload: str
    bundle: BundleFacts
    measured: tuple[RuntimeMeasurement, ...]
    predicted: tuple[PhonePrediction, ...]


class BenchReport(BaseModel):
    """One call of ``pocketfleet bench``: a bundle, or all bundles of a suite."""

    model_config = _STRICT

    schema_version: Literal[2] = SCHEMA_VERSION
    kind: Literal["pocketfleet-bench"] = _KIND
    suite: str | None
    rules: Rules
    host: Host
    results: tuple[WorkloadResult, ...] = Field(min_length=1)

    def write(self, path: Path) -> None:
        """Write it so that it is there whole or not at all.

        Raises:
            InputError: ``path`` cannot be written.
        """
        try:
            write_whole(path, self.model_dump_json(indent=2) + "\n")
        except OSError as exc:
            raise InputError(
                f"{path} cannot be written: {exc.strerror}; name a file in a folder that is there"
            ) from exc


def bundle_facts(bundle: Bundle) -> BundleFacts:
    """What identifies a bundle in a report."""
    manifest = bundle.manifest
    trained = manifest.model_dump(mode="json", include={"settings", "max_batch", "signature"})
    # The weights' values cost nothing: a bundle with trained weights is the same work.
    programs = {name: entry.sha256 for name, entry in manifest.files.items() if name.endswith((".pte", ".onnx"))}
    return BundleFacts(
        task=bundle.task.name,
        max_batch=bundle.max_batch,
        workload_sha256=_sha256({"task": bundle.task.name, **trained}),
        programs_sha256=_sha256(programs),
        exported_with=manifest.exported_with,
    )


def _sha256(value: Mapping[str, object]) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def read_report(path: Path) -> BenchReport:
    """The report in a file that ``pocketfleet bench --json`` wrote.

    Raises:
        InputError: it is not there, is no such report, or is one of another schema version.
    """
    way_out = "name a file that pocketfleet bench --json wrote"
    try:
        text = path.read_text(encoding="utf-8")
        raw = json.loads(text)
    except (OSError, ValueError) as exc:
        raise InputError(f"{path} cannot be read as JSON ({exc}); {way_out}") from exc
    if not isinstance(raw, dict) or raw.get("kind") != _KIND:
        raise InputError(f"{path} is no result of a benchmark (kind is not {_KIND!r}); {way_out}")
    if raw.get("schema_version") != SCHEMA_VERSION:
        raise InputError(
            f"{path}: schema_version must be {SCHEMA_VERSION}, got {raw.get('schema_version')!r}; measure again with "
            "this version of pocketfleet, or compare with the version that wrote it"
        )
    try:
        return BenchReport.model_validate_json(text)
    except ValidationError as exc:
        first = exc.errors(include_url=False)[0]
        key = ".".join(str(part) for part in first["loc"])
        raise InputError(
            f"{path}: {key}: {first['msg']} ({exc.error_count()} such problems); the file was edited or is of another "
            "version: measure again"
        ) from exc
