"""The commands ``bench`` and ``merge-bench``; ``cli`` puts them on its program.

Everything heavy is imported inside the command that needs it, so that ``--help`` is quick.
"""

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pocketfleet.errors import InputError
from pocketfleet.printing import print_table

if TYPE_CHECKING:
    from pocketfleet.export.session import Runtime

__all__ = ["bench", "merge_bench"]


def bench(
    bundle: Annotated[Path | None, typer.Argument(help="A bundle's folder; or --suite.")] = None,
    suite: Annotated[str | None, typer.Option(help="Six workloads that everybody has: v1.")] = None,
    workload: Annotated[
        list[str] | None, typer.Option(help="This workload of the suite only; may be repeated.")
    ] = None,
    bundles: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Keep the suite's bundles here, and use those that are there.")
    ] = None,
    runtime: Annotated[str | None, typer.Option(help="executorch or onnx.  [default: all of the bundle]")] = None,
    batch: Annotated[int | None, typer.Option(help="Examples in a step.  [default: the bundle's largest]")] = None,
    phones: Annotated[str, typer.Option(help='Predict for "all", "none", or names with commas between.')] = "all",
    profile: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Predict by this profile of calibrate.  [default: packaged]")
    ] = None,
    sustained: Annotated[
        str | None, typer.Option(metavar="TIME", help="Time steps for so long, such as 15m, for each runtime.")
    ] = None,
    steps: Annotated[int, typer.Option(min=1, help="Time so many steps at least.")] = 20,
    seconds: Annotated[float, typer.Option(min=0.0, help="Time steps for so long at least.")] = 1.0,
    json_file: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write the result here.")] = None,
    plot: Annotated[Path | None, typer.Option(metavar="FILE", help="Draw the result here, a PNG.")] = None,
    baseline: Annotated[Path | None, typer.Option(metavar="FILE", help="Print ratios to this earlier --json.")] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print nothing but errors.")] = False,
) -> None:
    """Time a bundle's training steps on this machine, and predict them for the catalogue's phones."""
    from pocketfleet.device_sim.bench import BenchPlan, bench_bundle, bench_suite, parse_duration_s
    from pocketfleet.device_sim.bench_comparison import compare_reports
    from pocketfleet.device_sim.bench_plot import check_picture, plot_report
    from pocketfleet.device_sim.bench_prediction import chosen_phones
    from pocketfleet.device_sim.bench_report import Rules, read_report
    from pocketfleet.device_sim.bench_tables import comparison_table, report_tables
    from pocketfleet.device_sim.efficiency import load_profile

    # Whatever is wrong is told before minutes of measuring.
    if (bundle is None) == (suite is None):
        raise InputError("bench takes a bundle's folder, or --suite v1")
    if suite is None and (workload or bundles):
        raise InputError("--workload and --bundles go with --suite")
    _check_targets(json_file, plot)
    if plot is not None:
        check_picture(plot)
    earlier = None if baseline is None else read_report(baseline)
    plan = BenchPlan(
        runtimes=_runtimes(runtime),
        batch=batch,
        phones=chosen_phones(phones),
        profile=load_profile(profile or ""),
        sustained_s=parse_duration_s(sustained) if sustained is not None else 0.0,
        rules=Rules(least_steps=steps, least_s=seconds),
        baseline=earlier,
    )

    def observer(line: str) -> None:
        if not quiet:
            typer.echo(f"bench: {line}", err=True)

    with tempfile.TemporaryDirectory() as folder:
        report = (
            bench_bundle(bundle, plan, observer=observer)
            if bundle is not None
            else bench_suite(
                str(suite), plan, folder=bundles or Path(folder), workloads=workload or (), observer=observer
            )
        )
    if json_file is not None:
        report.write(json_file)
    if plot is not None:
        plot_report(report, plot)
    tables = report_tables(report)
    if earlier is not None:
        tables = (*tables, comparison_table(compare_reports(report, earlier), where=str(baseline)))
    for table in () if quiet else tables:
        print_table(list(table.rows), title=table.title)


def merge_bench(
    files: Annotated[list[Path], typer.Argument(help="Results that bench --json wrote, of any machines.")],
    json_file: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write the rows here.")] = None,
) -> None:
    """Put results of several machines, and the phones they predict, into one table."""
    import dataclasses
    import json

    from pocketfleet.device_sim.bench_comparison import merge_reports
    from pocketfleet.device_sim.bench_report import read_report
    from pocketfleet.device_sim.bench_tables import merged_table, phones_table

    _check_targets(json_file)
    reports = [(path, read_report(path)) for path in files]
    rows = merge_reports(reports)
    if json_file is not None:
        json_file.write_text(json.dumps([dataclasses.asdict(row) for row in rows], indent=2) + "\n", encoding="utf-8")
    for table in (merged_table(rows), phones_table([report for _, report in reports])):
        if table.rows:
            print_table(list(table.rows), title=table.title)


def _runtimes(name: str | None) -> "tuple[Runtime, ...]":
    if name is None:
        return ()
    if name == "executorch":
        return ("executorch",)
    if name == "onnx":
        return ("onnx",)
    raise InputError(f"--runtime must be executorch or onnx, got {name!r}")


def _check_targets(*files: Path | None) -> None:
    """Refuse a file that cannot be written before minutes of measuring."""
    for file in files:
        if file is not None and (file.is_dir() or not file.parent.is_dir()):
            raise InputError(f"{file} cannot be written: name a file in a folder that is there")
