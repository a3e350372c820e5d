"""The on-device training benchmark: which measurements are made, in which order, each in a process of its own.

For every runtime of a bundle, one after the other and never two at a time:

1. one thread: loading, memory, latency at the batch that was asked for, then at every power of two up to the largest;
2. every further number of threads (2, 4, ... and all cores): the same at the one batch;
3. a profile by operator, on one thread;
4. if asked for, a sustained curve on one thread.

Then each phone's prediction, which runs nothing. ``docs/benchmark.md`` holds the rules for the reader.
"""

import importlib.metadata
import os
import platform
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pocketfleet
from pocketfleet.device_sim.bench_comparison import require_common, require_same_work
from pocketfleet.device_sim.bench_prediction import predict_phones
from pocketfleet.device_sim.bench_process import ProcessAnswer, ProcessRequest
from pocketfleet.device_sim.bench_report import (
    BenchReport,
    Host,
    Rules,
    RuntimeMeasurement,
    WorkloadResult,
    bundle_facts,
)
from pocketfleet.device_sim.bench_suite import suite_bundles
from pocketfleet.device_sim.efficiency import Profile
from pocketfleet.device_sim.phone import Phone
from pocketfleet.errors import InputError, PocketfleetError
from pocketfleet.export.bundle import Bundle
from pocketfleet.export.session import Runtime

__all__ = ["BenchPlan", "bench_bundle", "bench_suite", "parse_duration_s"]

Observer = Callable[[str], None]

_DURATION = re.compile(r"(\d+(?:\.\d+)?)(s|m|h)")
_UNIT_S = {"s": 1.0, "m": 60.0, "h": 3600.0}
# A day: longer is a mistyped unit.
_LONGEST_S = 86_400.0
_PACKAGES = ("torch", "executorch", "onnxruntime")


def _silent(line: str) -> None:
    """The observer of a benchmark that nobody watches."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchPlan:
    """What to measure.

    Attributes:
        runtimes: those to measure; empty means all that a bundle was exported for.
        batch: examples in a step; ``None`` is each bundle's largest.
        phones: those to predict for.
        profile: efficiencies to predict them by; ``None`` is the packaged ones.
        sustained_s: seconds of the sustained curve; 0 leaves it out.
        rules: how long each figure is measured.
        baseline: an earlier result that this one is to be compared with: other work is refused before it is measured.
    """

    runtimes: tuple[Runtime, ...] = ()
    batch: int | None = None
    phones: tuple[Phone, ...] = ()
    profile: Profile | None = None
    sustained_s: float = 0.0
    rules: Rules = field(default_factory=Rules)
    baseline: BenchReport | None = None


def parse_duration_s(text: str) -> float:
    """Seconds of a duration such as ``30s``, ``15m`` or ``1.5h``.

    Raises:
        InputError: it is no such duration, or not from one second to a day.
    """
    match = _DURATION.fullmatch(text)
    seconds = float(match[1]) * _UNIT_S[match[2]] if match else 0.0
    if not 1.0 <= seconds <= _LONGEST_S:
        raise InputError(f"--sustained must be 1s to 24h, written such as 30s, 15m or 1h, got {text!r}")
    return seconds


def bench_bundle(path: Path, plan: BenchPlan, *, observer: Observer = _silent) -> BenchReport:
    """Benchmark one bundle.

    Args:
        path: its folder.
        plan: what to measure.
        observer: told in a line what is measured next.

    Raises:
        InputError: ``path`` holds no bundle, or the bundle lacks a runtime or takes no such batch.
        PocketfleetError: a process died, or a step did not repeat itself.
    """
    host, bundle = _host(), Bundle.load(path)
    if plan.baseline is not None:
        require_common([bundle.task.name], plan.baseline)
    result = _measured(bundle, plan, workload=bundle.task.name, observer=observer)
    return BenchReport(suite=None, rules=plan.rules, host=host, results=(result,))


def bench_suite(
    version: str,
    plan: BenchPlan,
    *,
    folder: Path,
    workloads: Sequence[str] = (),
    observer: Observer = _silent,
) -> BenchReport:
    """Benchmark every workload of a suite.

    Args:
        version: ``"v1"``.
        plan: what to measure of each.
        folder: where its bundles are exported to, and found again by a later call.
        workloads: those to run; empty means all.
        observer: told in a line what is done next.

    Raises:
        InputError: there is no such suite or workload, or an error of ``bench_bundle``.
        PocketfleetError: as for ``bench_bundle``.
    """
    host = _host()
    results = [
        _measured(bundle, plan, workload=name, observer=observer)
        for name, bundle in suite_bundles(version, folder=folder, workloads=workloads, observer=observer)
    ]
    return BenchReport(suite=version, rules=plan.rules, host=host, results=tuple(results))


def _measured(bundle: Bundle, plan: BenchPlan, *, workload: str, observer: Observer) -> WorkloadResult:
    runtimes, batch, facts = _runtimes(bundle, plan), _batch(bundle, plan), bundle_facts(bundle)
    if plan.baseline is not None:
        require_same_work(workload, facts, plan.baseline)
    return WorkloadResult(
        workload=workload,
        bundle=facts,
        measured=tuple(
            _runtime_measured(bundle, plan, runtime, batch, lambda line: observer(f"{workload}, {line}"))
            for runtime in runtimes
        ),
        predicted=predict_phones(bundle, plan.phones, runtimes=runtimes, batch=batch, profile=plan.profile),
    )


def _runtimes(bundle: Bundle, plan: BenchPlan) -> tuple[Runtime, ...]:
    there: tuple[Runtime, ...] = tuple(sorted(bundle.manifest.footprint))
    missing = [runtime for runtime in plan.runtimes if runtime not in there]
    if missing:
        raise InputError(
            f"{bundle.path} was exported for {' and '.join(there)}, not for {missing[0]}: name another --runtime, or "
            "export the bundle for it"
        )
    return plan.runtimes or there


def _batch(bundle: Bundle, plan: BenchPlan) -> int:
    batch = bundle.max_batch if plan.batch is None else plan.batch
    if not 1 <= batch <= bundle.max_batch:
        raise InputError(
            f"--batch must be 1 to {bundle.max_batch}, the most that {bundle.path} takes, got {batch}: name a smaller "
            "one, or export with a larger --max-batch"
        )
    return batch


def _runtime_measured(
    bundle: Bundle, plan: BenchPlan, runtime: Runtime, batch: int, observer: Observer
) -> RuntimeMeasurement:
    def ask(what: Literal["steps", "profile", "sustained"], *batches: int, threads: int = 1) -> ProcessAnswer:
        with tempfile.TemporaryDirectory() as folder:
            request = ProcessRequest(
                what=what,
                bundle=str(bundle.path.absolute()),
                runtime=runtime,
                threads=threads,
                batches=batches,
                rules=plan.rules,
                sustained_s=plan.sustained_s,
                answer=str(Path(folder) / "answer.json"),
            )
            return _asked(request)

    processes = []
    for threads in _doubling(_cores()):
        observer(f"{runtime}: {threads} thread{'s' if threads > 1 else ''}")
        sweep = [size for size in _doubling(bundle.max_batch) if size != batch] if threads == 1 else []
        processes.append(ask("steps", batch, *sweep, threads=threads).steps)
    observer(f"{runtime}: profile by operator")
    profile = ask("profile", batch).profile
    if plan.sustained_s:
        observer(f"{runtime}: sustained for {plan.sustained_s:g} s")
    footprint = bundle.footprint(runtime)
    return RuntimeMeasurement(
        runtime=runtime,
        download_bytes=bundle.download_bytes(runtime),
        planned_memory_bytes=footprint.training_memory_bytes,
        processes=tuple(run for run in processes if run is not None),
        profile=profile,
        sustained=ask("sustained", batch).sustained if plan.sustained_s else (),
    )


def _asked(request: ProcessRequest) -> ProcessAnswer:
    """The answer of a fresh process.

    Raises:
        InputError: what it says of the user's input.
        PocketfleetError: it died, or what it says of itself.
    """
    root = str(Path(pocketfleet.__file__).parents[1])
    inherited = [os.environ["PYTHONPATH"]] if os.environ.get("PYTHONPATH") else []
    done = subprocess.run(
        # -P: a file of the user's in the working directory must not stand in for a module.
        [sys.executable, "-P", "-m", "pocketfleet.device_sim.bench_process"],
        input=request.model_dump_json(),
        env={**os.environ, "PYTHONPATH": os.pathsep.join([root, *inherited])},
        check=False,
        capture_output=True,
        text=True,
    )
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise PocketfleetError(
            f"the process that measured {request.runtime} ({request.what}, {request.threads} threads) ended with code "
            f"{done.returncode}: {last}; a code of -9 is mostly a machine out of memory"
        )
    answer = ProcessAnswer.model_validate_json(Path(request.answer).read_text(encoding="utf-8"))
    if answer.at_fault:
        raise (InputError if answer.at_fault == "input" else PocketfleetError)(answer.error)
    return answer


def _doubling(most: int) -> list[int]:
    """1, 2, 4, ... and ``most`` itself."""
    return sorted({*(2**power for power in range(most.bit_length())), most})


def _cores() -> int:
    """Cores that this process may use; a container has fewer than its machine."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _host() -> Host:
    versions = {name: importlib.metadata.version(name) for name in _PACKAGES}
    return Host(
        name=_processor_name(),
        machine=platform.machine(),
        system=platform.system(),
        cores=_cores(),
        load_average=os.getloadavg()[0],
        versions={"pocketfleet": pocketfleet.__version__, "python": platform.python_version(), **versions},
    )


def _processor_name() -> str:
    """The processor's own name where Linux tells it, else what Python knows; never the machine's name."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith(("model name", "Hardware")):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
