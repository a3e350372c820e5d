"""The commands ``sweep`` and ``compare``; ``cli`` puts them on its program.

Everything heavy is imported inside the command that needs it, so that ``--help`` is quick.
"""

import json
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pocketfleet.errors import InputError
from pocketfleet.printing import print_table

if TYPE_CHECKING:
    from pocketfleet.device_sim.sweep_directory import SweepDirectory
    from pocketfleet.sweep_plan import PlannedRun

__all__ = ["compare", "sweep"]

Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]


def sweep(
    experiment: Annotated[str, typer.Argument(help="A packaged experiment, or a path to a TOML file.")],
    vary: Annotated[
        list[str] | None,
        typer.Option("--vary", metavar="KEY=V1,V2,...", help="Values to try; every combination of several --vary."),
    ] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change a key in all runs.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="The sweep's folder.  [default: runs/<experiment>-sweep]")] = None,
    processes: Annotated[int, typer.Option(min=1, help="Runs at once; each has engine.processes of its own.")] = 2,
    force: Annotated[bool, typer.Option("--force", help="Replace an earlier sweep in --out.")] = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Keep the finished runs in --out, go on with the others.")
    ] = False,
    timing_only: Annotated[
        bool, typer.Option("--timing-only", help="Everything but the arithmetic: same events, no model.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print nothing but errors.")] = False,
    as_json: Json = False,
) -> None:
    """Simulate every combination of some keys' values, side by side, and put the results into one table."""
    from pocketfleet.device_sim.sweep import parse_variations
    from pocketfleet.device_sim.sweep_directory import SweepDirectory

    variations = parse_variations(vary or [])
    target = out or Path("runs") / f"{Path(experiment).stem}-sweep"
    SweepDirectory.check(target, force=force, resume=resume)
    from pocketfleet.sweep_plan import plan_runs

    try:
        given = [*(settings or []), *(["engine.timing_only=true"] if timing_only else [])]
        runs = plan_runs(experiment, variations, given, target)
        plan = {"experiment": experiment, "vary": {one.key: one.values for one in variations}, "set": given}
        with SweepDirectory.open(target, force=force, resume=resume) as directory:
            rows = _swept(runs, plan, directory, processes=processes, shown=not (quiet or as_json))
    except KeyboardInterrupt as interrupt:
        typer.echo(f"pocketfleet: interrupted; {_advice(target)}", err=True)
        # 128 and the number of the signal, as a shell reports it.
        raise typer.Exit(130) from interrupt
    if as_json:
        typer.echo(json.dumps(rows, indent=2, default=str))
    elif not quiet:
        _print_rows(rows, keys=[one.key for one in variations], notes=["status"])
        typer.echo(f"table: {target / 'sweep.csv'}, {target / 'sweep.json'}")
    failed = [f"{row['run']}: {row['problem']}" for row in rows if row["status"] != "done"]
    for line in failed:
        typer.echo(f"pocketfleet: {line}", err=True)
    if failed:
        raise typer.Exit(1)


def _advice(target: Path) -> str:
    """How to go on with what was begun, if anything was."""
    if not (target / "sweep.json").is_file():
        return "nothing was written yet"
    again = [one for one in sys.argv[1:] if one not in {"--force", "--resume"}]
    return f"continue with: pocketfleet {shlex.join([*again, '--resume'])}"


def _swept(
    runs: "Sequence[PlannedRun]",
    plan: Mapping[str, Any],
    directory: "SweepDirectory",
    *,
    processes: int,
    shown: bool,
) -> list[dict[str, Any]]:
    """The rows of all runs, after those that were missing have run."""
    from pocketfleet.sweep_processes import run_all
    from pocketfleet.sweep_rows import SweepRows

    for run in runs:
        run.check_match()
    rows = SweepRows(runs)
    directory.write(plan, rows.table())

    def told(run: "PlannedRun", stage: str, text: str) -> None:
        if shown:
            typer.echo(f"sweep: {run.name}: {_STAGES[stage]}", err=True)
        if stage in {"done", "failed"}:
            rows.ended(run, text)
            directory.write(plan, rows.table())

    run_all(runs, processes=processes, told=told)
    return rows.table()


_STAGES = {"export": "exporting and checking the model", "simulate": "started", "done": "done", "failed": "failed"}


def compare(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN RUN ...", help="Directories of finished runs.")],
    csv_file: Annotated[Path | None, typer.Option("--csv", metavar="FILE", help="Write the rows here.")] = None,
    as_json: Json = False,
) -> None:
    """Put finished runs into one table: where their experiments differ, and by how much the results do."""
    from pocketfleet.device_sim.comparison_tables import csv_text
    from pocketfleet.device_sim.run import Run
    from pocketfleet.device_sim.run_comparison import compared_keys, comparison_rows
    from pocketfleet.whole_file import write_whole

    if len(runs) < 2:
        raise InputError("compare takes two runs or more; the differences are to the first")
    if len({path.resolve() for path in runs}) < len(runs):
        raise InputError("compare takes each run once: the same folder is named twice")
    if csv_file is not None and (csv_file.is_dir() or not csv_file.parent.is_dir()):
        raise InputError(f"{csv_file} cannot be written: name a file in a folder that is there")
    opened = [Run(path) for path in runs]
    rows = comparison_rows(opened)
    if csv_file is not None:
        write_whole(csv_file, csv_text(rows))
    if as_json:
        typer.echo(json.dumps(rows, indent=2, default=str))
    else:
        _print_rows(rows, keys=compared_keys(opened))


def _print_rows(rows: list[dict[str, Any]], *, keys: Sequence[str], notes: Sequence[str] = ()) -> None:
    from pocketfleet.device_sim.comparison_tables import comparison_tables

    for table in comparison_tables(rows, keys=keys, notes=notes):
        print_table(list(table.rows), title=table.title)
