"""Results beside one another: a later one against an earlier one, and those of many machines and phones in one table.

Rules:

1. A ratio is this result over the baseline: under 1 is faster, smaller or lighter.
2. Only equal work is compared: the same workload, runtime, threads and batch. Results on other machines, or of other
   programs for the same work, may be: which it was is said beside the ratios.
3. In a merged table a *predicted* row never stands for a measured one; it is marked as what it is.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pocketfleet.device_sim.bench_report import (
    BenchReport,
    BundleFacts,
    ProcessRun,
    RuntimeMeasurement,
    WorkloadResult,
)
from pocketfleet.errors import InputError

__all__ = [
    "Comparison",
    "MergedRow",
    "compare_reports",
    "merge_reports",
    "require_common",
    "require_same_work",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Ratios of one workload, runtime, number of threads and batch; see rule 1.

    ``rss_ratio`` is ``None`` where the two processes held different batches.
    """

    workload: str
    runtime: str
    threads: int
    batch: int
    step_ratio: float
    p95_ratio: float
    load_ratio: float
    rss_ratio: float | None
    same_programs: bool
    same_host: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class MergedRow:
    """A machine's or a phone's step of one workload; ``peak_rss_bytes`` is ``None`` where nothing ran."""

    workload: str
    runtime: str
    device: str
    figures: Literal["measured", "predicted"]
    threads: int
    batch: int
    step_s: float
    examples_per_s: float
    peak_rss_bytes: int | None
    joules: float | None
    fits_memory: bool | None


def compare_reports(report: BenchReport, baseline: BenchReport) -> tuple[Comparison, ...]:
    """Ratios of ``report`` to ``baseline``, in the order of ``report``.

    Raises:
        InputError: the two hold no workload in common, or one of the same name that is other work, or the baseline
            measured none of the same runtimes, threads and batches.
    """
    earlier = {result.workload: result for result in baseline.results}
    require_common([result.workload for result in report.results], baseline)
    same_host = (report.host.name, report.host.cores) == (baseline.host.name, baseline.host.cores)
    rows = []
    for now in report.results:
        if now.workload in earlier:
            require_same_work(now.workload, now.bundle, baseline)
            rows += _workload_ratios(now, earlier[now.workload], same_host=same_host)
    if not rows:
        raise InputError(
            "the baseline holds no runtime, threads and batch that were measured now: measure with the same --runtime "
            "and --batch"
        )
    return tuple(rows)


def require_common(workloads: Sequence[str], baseline: BenchReport) -> None:
    """Raise ``InputError`` unless a baseline measured at least one of some workloads."""
    known = [result.workload for result in baseline.results]
    if not set(workloads) & set(known):
        raise InputError(
            f"the baseline measured {', '.join(known)}, this is {', '.join(workloads)}: a baseline must be a result of "
            "the same bundle or suite"
        )


def require_same_work(workload: str, bundle: BundleFacts, baseline: BenchReport) -> None:
    """Raise ``InputError`` if a baseline's workload of that name is other work than the bundle's."""
    for result in baseline.results:
        if result.workload == workload and result.bundle.workload_sha256 != bundle.workload_sha256:
            raise InputError(
                f"the baseline measured another bundle of {workload!r}: its model, its step's settings or its largest "
                f"batch ({result.bundle.max_batch} there, {bundle.max_batch} here) differ, so its figures are of other "
                "work: measure that bundle again"
            )


def _workload_ratios(now: WorkloadResult, before: WorkloadResult, *, same_host: bool) -> list[Comparison]:
    same_programs = now.bundle.programs_sha256 == before.bundle.programs_sha256
    earlier = _runs(before.measured)
    rows = []
    for (runtime, threads), run in _runs(now.measured).items():
        if (runtime, threads) not in earlier:
            continue
        old = earlier[runtime, threads]
        old_steps = {step.batch: step.latency for step in old.steps}
        # Loading and memory are of the first batch that the process ran.
        same_first = run.steps[0].batch == old.steps[0].batch
        rows += [
            Comparison(
                workload=now.workload,
                runtime=runtime,
                threads=threads,
                batch=step.batch,
                step_ratio=step.latency.median_s / old_steps[step.batch].median_s,
                p95_ratio=step.latency.p95_s / old_steps[step.batch].p95_s,
                load_ratio=run.load_s / old.load_s,
                rss_ratio=run.peak_rss_bytes / max(old.peak_rss_bytes, 1) if same_first else None,
                same_programs=same_programs,
                same_host=same_host,
            )
            for step in run.steps
            if step.batch in old_steps
        ]
    return rows


def _runs(measured: Sequence[RuntimeMeasurement]) -> dict[tuple[str, int], ProcessRun]:
    return {(one.runtime, run.threads): run for one in measured for run in one.processes}


def merge_reports(reports: Sequence[tuple[Path, BenchReport]]) -> tuple[MergedRow, ...]:
    """One table of all results, by workload, then runtime, the fastest first.

    A machine is named by its processor; two of one name by their files too. A phone that several results predict alike
    is one row.

    Raises:
        InputError: a workload of one name is other work in another file; the message names both.
    """
    first: dict[str, tuple[Path, str]] = {}
    rows: list[MergedRow] = []
    names = [report.host.name for _, report in reports]
    for path, report in reports:
        host = report.host.name if names.count(report.host.name) == 1 else f"{report.host.name} ({path.stem})"
        for result in report.results:
            known_path, known = first.setdefault(result.workload, (path, result.bundle.workload_sha256))
            if known != result.bundle.workload_sha256:
                raise InputError(
                    f"{known_path} and {path} measured different bundles of {result.workload!r}, whose figures do not "
                    "belong in one table: measure the same bundle on both machines"
                )
            rows += _measured_rows(result, host)
            rows += _predicted_rows(result)
    # A dictionary keeps the first of equal rows.
    distinct = dict.fromkeys(rows)
    return tuple(sorted(distinct, key=lambda row: (row.workload, row.runtime, row.figures, row.batch, row.step_s)))


def _measured_rows(result: WorkloadResult, host: str) -> list[MergedRow]:
    return [
        MergedRow(
            workload=result.workload,
            runtime=one.runtime,
            device=host,
            figures="measured",
            threads=run.threads,
            batch=run.steps[0].batch,
            step_s=run.steps[0].latency.median_s,
            examples_per_s=run.steps[0].examples_per_s,
            peak_rss_bytes=run.peak_rss_bytes,
            joules=None,
            fits_memory=None,
        )
        for one in result.measured
        for run in one.processes
    ]


def _predicted_rows(result: WorkloadResult) -> list[MergedRow]:
    return [
        MergedRow(
            workload=result.workload,
            runtime=one.runtime,
            device=one.phone,
            figures="predicted",
            threads=1,
            batch=one.batch,
            step_s=one.step_s,
            examples_per_s=one.batch / one.step_s,
            peak_rss_bytes=None,
            joules=one.joules,
            fits_memory=one.fits_memory,
        )
        for one in result.predicted
    ]
