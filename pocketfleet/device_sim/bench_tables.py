"""A benchmark's results as rows to print: titles, and cells by column name."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from pocketfleet.device_sim.bench_comparison import Comparison, MergedRow
from pocketfleet.device_sim.bench_report import (
    BenchReport,
    PhoneMoment,
    ProcessRun,
    Profile,
    RuntimeMeasurement,
    SustainedPoint,
    WorkloadResult,
)

__all__ = ["Table", "comparison_table", "duration", "merged_table", "phones_table", "report_tables"]

# Operators of a profile that are printed by name; the rest is in the JSON.
_PRINTED_OPERATORS = 8
# A tenth of the curve at either end is compared.
_END_SHARE = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """A title and rows of cells by column name."""

    title: str
    rows: tuple[dict[str, Any], ...]


def duration(seconds: float) -> str:
    """Seconds in the unit that keeps three digits before the point or fewer."""
    for unit, size in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= size:
            return f"{seconds / size:,.3g} {unit}" if seconds < 100 * size else f"{seconds / size:,.0f} {unit}"
    return f"{seconds * 1e6:.3g} us"


def _energy(joules: float) -> str:
    return f"{joules:,.3g} J" if joules >= 1.0 else f"{joules * 1e3:.3g} mJ"


def report_tables(report: BenchReport) -> tuple[Table, ...]:
    """Everything that a report holds, in the order in which one reads it."""
    tables = [_latency_table(report), _memory_table(report), _batch_table(report)]
    tables += [
        _profile_table(result, measured, measured.profile)
        for result in report.results
        for measured in result.measured
        if measured.profile is not None
    ]
    tables += [_sustained_table(report), *(_prediction_table(result) for result in report.results)]
    return tuple(table for table in tables if table.rows)


def _each_run(report: BenchReport) -> list[tuple[dict[str, Any], RuntimeMeasurement, ProcessRun]]:
    """The first cells of a row, and what the row is about."""
    return [
        ({"workload": result.workload, "runtime": measured.runtime, "threads": run.threads}, measured, run)
        for result in report.results
        for measured in result.measured
        for run in measured.processes
    ]


def _latency_table(report: BenchReport) -> Table:
    rows = [
        {
            **first,
            "batch": run.steps[0].batch,
            "median": duration(run.steps[0].latency.median_s),
            "p95": duration(run.steps[0].latency.p95_s),
            "examples/s": f"{run.steps[0].examples_per_s:,.0f}",
            "GFLOPS": f"{run.steps[0].flops_per_s / 1e9:.2f}",
        }
        for first, _, run in _each_run(report)
    ]
    return Table(title=f"measured: a training step, on {report.host.name}, {report.host.cores} cores", rows=tuple(rows))


def _memory_table(report: BenchReport) -> Table:
    rows = [
        {
            **first,
            "load": duration(run.load_s),
            "first step": duration(run.first_step_s),
            "peak RSS": f"{run.peak_rss_bytes / 1e6:,.0f} MB",
            "by bundle": f"{_added_bytes(run) / 1e6:,.1f} MB",
            "download": f"{measured.download_bytes / 1e3:,.0f} kB",
        }
        for first, measured, run in _each_run(report)
    ]
    return Table(title="measured: loading and memory, in a fresh process each", rows=tuple(rows))


def _added_bytes(run: ProcessRun) -> int:
    return max(run.peak_rss_bytes - run.idle_rss_bytes, 0)


def _batch_table(report: BenchReport) -> Table:
    rows = []
    for result in report.results:
        for measured in result.measured:
            steps = sorted(measured.processes[0].steps, key=lambda step: step.batch)
            # A bundle of batch 1 has nothing to sweep.
            if len(steps) > 1:
                rows.append(
                    {"workload": result.workload, "runtime": measured.runtime}
                    | {f"batch {step.batch}": duration(step.latency.median_s) for step in steps}
                )
    return Table(title="measured: step by batch, one thread", rows=tuple(_aligned(rows)))


def _aligned(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows with the columns of all of them, in the order of the first that has each."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    return [{name: row.get(name, "") for name in columns} for row in rows]


def _profile_table(result: WorkloadResult, measured: RuntimeMeasurement, profile: Profile) -> Table:
    shown = profile.operators[:_PRINTED_OPERATORS]
    rest = profile.operators[_PRINTED_OPERATORS:]
    rows = [(row.name, f"{row.calls:g}", row.seconds) for row in shown]
    if rest:
        rows.append(
            (f"{len(rest)} others", f"{sum(row.calls for row in rest):g}", sum(row.seconds for row in rest)),
        )
    if profile.profiler_s:
        rows.append(("(profiler's notes)", "", profile.profiler_s))
    rows.append(("(unaccounted)", "", profile.unaccounted_s))
    return Table(
        title=f"measured: {result.workload} on {measured.runtime} by operator, batch {profile.batch}, "
        f"{duration(profile.step_s)} a step under the profiler",
        rows=tuple(
            {
                "operator": name,
                "calls": calls,
                "a step": duration(seconds) if seconds > 0 else f"{seconds * 1e6:.3g} us",
                "share": f"{seconds / profile.step_s:.1%}",
            }
            for name, calls, seconds in rows
        ),
    )


def _sustained_table(report: BenchReport) -> Table:
    rows = []
    for result in report.results:
        for measured in result.measured:
            if not measured.sustained:
                continue
            points = measured.sustained
            ends = max(len(points) // _END_SHARE, 1)
            first, last = (_mean_median_s(part) for part in (points[:ends], points[-ends:]))
            rows.append(
                {
                    "workload": result.workload,
                    "runtime": measured.runtime,
                    "lasted": f"{points[-1].at_s:,.0f} s",
                    "steps": f"{sum(point.latency.steps for point in points):,}",
                    "first tenth": duration(first),
                    "last tenth": duration(last),
                    "last / first": f"{last / first:.2f}",
                }
            )
    return Table(title="measured: sustained, one thread", rows=tuple(rows))


def _mean_median_s(points: Sequence[SustainedPoint]) -> float:
    return sum(point.latency.median_s for point in points) / len(points)


def _prediction_table(result: WorkloadResult) -> Table:
    phones: dict[str, dict[str, Any]] = {}
    for one in result.predicted:
        fits = "fits" if one.fits_memory else "DOES NOT FIT"
        row = phones.setdefault(one.phone, {"phone": one.phone})
        row[one.runtime] = f"{duration(one.step_s)}, {_energy(one.joules)}, {fits}"
    batch = result.predicted[0].batch if result.predicted else 0
    return Table(
        title=f"PREDICTED, not measured: {result.workload}, a step of {batch} on one thread (see docs/limits.md)",
        rows=tuple(phones.values()),
    )


def comparison_table(rows: Sequence[Comparison], *, where: str) -> Table:
    """Ratios to the baseline in ``where``."""
    first = rows[0]
    machine = "the same machine" if first.same_host else "ANOTHER MACHINE"
    return Table(
        title=f"measured: this over {where}, on {machine} (under 1 is better)",
        rows=tuple(
            {
                "workload": row.workload,
                "runtime": row.runtime,
                "threads": row.threads,
                "batch": row.batch,
                "step": f"{row.step_ratio:.2f}",
                "p95": f"{row.p95_ratio:.2f}",
                "load": f"{row.load_ratio:.2f}",
                "RSS": "" if row.rss_ratio is None else f"{row.rss_ratio:.2f}",
                "programs": "the same" if row.same_programs else "others",
            }
            for row in rows
        ),
    )


def merged_table(rows: Sequence[MergedRow]) -> Table:
    """Machines and phones by workload and runtime."""
    return Table(
        title="machines (measured) and phones (predicted)",
        rows=tuple(
            {
                "workload": row.workload,
                "runtime": row.runtime,
                "figures": row.figures,
                "device": row.device,
                "threads": row.threads,
                "batch": row.batch,
                "step": duration(row.step_s),
                "examples/s": f"{row.examples_per_s:,.0f}",
                "RSS": "" if row.peak_rss_bytes is None else f"{row.peak_rss_bytes / 1e6:.0f} MB",
                "energy": "" if row.joules is None else _energy(row.joules),
                "fits": "" if row.fits_memory is None else "yes" if row.fits_memory else "NO",
            }
            for row in rows
        ),
    )


def phones_table(reports: Sequence[BenchReport]) -> Table:
    """How the phones among the machines were before and after they measured; no rows: there is none."""
    return Table(
        title="phones that measured, before > after",
        rows=tuple(
            {
                "device": report.host.name,
                "memory": f"{phone.memory_bytes / 1e9:.1f} GB",
                "free": _before_after(phone.before, phone.after, lambda moment: moment.free_memory_bytes / 1e9, "GB"),
                "battery": _before_after(phone.before, phone.after, lambda moment: moment.battery_celsius, "C"),
                "into battery": _before_after(phone.before, phone.after, lambda moment: moment.battery_amperes, "A"),
                "thermal status": _before_after(phone.before, phone.after, lambda moment: moment.thermal_status, ""),
                "charging": "yes" if phone.before.charging and phone.after.charging else "no",
            }
            for report in reports
            if (phone := report.host.phone) is not None
        ),
    )


def _before_after(
    before: PhoneMoment, after: PhoneMoment, figure: Callable[[PhoneMoment], float | None], unit: str
) -> str:
    told = ["?" if (value := figure(moment)) is None else f"{value:.3g}" for moment in (before, after)]
    return f"{told[0]} > {told[1]} {unit}".rstrip()
