"""The command ``plan``; ``cli`` puts it on its program.

Everything heavy is imported inside the command that needs it, so that ``--help`` is quick.
"""

import dataclasses
import json
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pocketfleet.errors import InputError
from pocketfleet.printing import print_table

if TYPE_CHECKING:
    from pocketfleet.deployment import Deployment
    from pocketfleet.device_sim.deployment_plan import DeploymentPlan, Figure
    from pocketfleet.sweep_plan import PlannedRun

__all__ = ["plan"]

_PLAN = "plan.json"
_STAGES = {"export": "exporting and checking the model", "simulate": "started", "done": "done", "failed": "failed"}


def plan(
    experiment: Annotated[str, typer.Argument(help="A packaged experiment, or a path to a TOML file.")],
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change a key, such as rounds.cohort=50.")
    ] = None,
    days: Annotated[float, typer.Option(help="Virtual days to simulate, in place of rounds.horizon_s.")] = 7.0,
    target: Annotated[
        str | None, typer.Option(metavar="METRIC=VALUE", help="Train, and tell when the metric got there (>=, <= too).")
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Runs, a seed each; figures come with their range.")] = 1,
    processes: Annotated[int, typer.Option(min=1, help="Runs at once.")] = 2,
    out: Annotated[Path | None, typer.Option(help="The folder of the runs.  [default: runs/<experiment>-plan]")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an earlier plan in --out.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Keep finished runs in --out, go on with others.")] = False,
    csv_file: Annotated[Path | None, typer.Option("--csv", metavar="FILE", help="Write the figures here.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the plan as JSON.")] = False,
) -> None:
    """Simulate a deployment's days: what users pay, what the server bears, who drops out when, how long it takes."""
    from pocketfleet.device_sim.sweep_directory import SweepDirectory

    folder = out or Path("runs") / f"{Path(experiment).stem}-plan"
    SweepDirectory.check(folder, force=force, resume=resume)
    if csv_file is not None and (csv_file.is_dir() or not csv_file.parent.is_dir()):
        raise InputError(f"{csv_file} cannot be written: name a file in a folder that is there")
    from pocketfleet.deployment import plan_deployment
    from pocketfleet.device_sim.milestone import parse_target

    wanted = parse_target(target) if target is not None else None
    deployment = plan_deployment(experiment, settings or [], days=days, seeds=seeds, target=wanted, out=folder)
    try:
        with SweepDirectory.open(folder, force=force, resume=resume) as directory:
            (folder / _PLAN).unlink(missing_ok=True)
            _run(deployment, directory, processes=processes, shown=not as_json)
    except KeyboardInterrupt as interrupt:
        again = [one for one in sys.argv[1:] if one not in {"--force", "--resume"}]
        typer.echo(f"pocketfleet: interrupted; continue with: pocketfleet {shlex.join([*again, '--resume'])}", err=True)
        # 128 and the number of the signal, as a shell reports it.
        raise typer.Exit(130) from interrupt
    _tell(deployment, folder, csv_file=csv_file, as_json=as_json)


def _run(deployment: "Deployment", directory: Any, *, processes: int, shown: bool) -> None:  # noqa: ANN401 - lazy
    """Run what has not ended; ends the command if a run failed."""
    from pocketfleet.sweep_processes import run_all
    from pocketfleet.sweep_rows import SweepRows

    for run in deployment.runs:
        run.check_match()
    rows = SweepRows(deployment.runs)
    asked = {"plan": deployment.experiment.model_dump(mode="json", exclude_none=True)}
    directory.write(asked, rows.table())
    failed: list[str] = []

    def told(run: "PlannedRun", stage: str, text: str) -> None:
        if shown:
            typer.echo(f"plan: {run.name}: {_STAGES[stage]}", err=True)
        if stage in {"done", "failed"}:
            rows.ended(run, text)
            directory.write(asked, rows.table())
        if stage == "failed":
            failed.append(f"{run.name}: {text}")

    run_all(deployment.runs, processes=processes, told=told)
    for line in failed:
        typer.echo(f"pocketfleet: {line}", err=True)
    if failed:
        raise typer.Exit(1)


def _tell(deployment: "Deployment", folder: Path, *, csv_file: Path | None, as_json: bool) -> None:
    """Make the plan of the finished runs, write it and print it."""
    from pocketfleet.device_sim.comparison_tables import csv_text
    from pocketfleet.device_sim.deployment_plan import ASSUMPTIONS, make_plan
    from pocketfleet.device_sim.run import Run
    from pocketfleet.round_parts import round_plan
    from pocketfleet.whole_file import write_whole

    count = deployment.experiment.rounds.count
    made = make_plan(
        [Run(run.path) for run in deployment.runs],
        round_plan=round_plan(deployment.experiment),
        count=count,
        update_bytes=deployment.update_bytes,
        target=deployment.target,
    )
    figures = [dataclasses.asdict(figure) for figure in made.figures]
    whole = {
        "days": list(made.days),
        "runs": [str(run.path) for run in deployment.runs],
        "rounds_wanted": count,
        "target": deployment.target.text if deployment.target else None,
        "figures": figures,
        "hours": list(made.hours),
        "assumptions": ASSUMPTIONS,
    }
    write_whole(folder / _PLAN, json.dumps(whole, indent=2) + "\n")
    if csv_file is not None:
        write_whole(csv_file, csv_text(figures))
    if as_json:
        typer.echo(json.dumps(whole, indent=2))
        return
    _print_plan(made, deployment)
    typer.echo(f"plan: {folder / _PLAN}")


_USERS = {
    "battery_percent_per_month_all": "battery, % of one full charge",
    "battery_percent_per_month_assigned": "the same, phones that were asked",
    "battery_percent_per_training_day": "the same, a training day",
    "metered_mb_per_month_all": "metered MB",
    "metered_mb_per_month_assigned": "the same, phones that were asked",
    "unmetered_mb_per_month_all": "unmetered MB",
    "unmetered_mb_per_month_assigned": "the same, phones that were asked",
    "training_minutes_per_month_all": "training, minutes",
    "training_minutes_per_month_assigned": "the same, phones that were asked",
}


def _print_plan(made: "DeploymentPlan", deployment: "Deployment") -> None:
    from pocketfleet.device_sim.deployment_plan import ASSUMPTIONS

    days = ", ".join(f"{one:.3g}" for one in made.days)
    rows = [
        {"of a user and month": title, **_quantiles(made, name), "rests on": made.figure(f"{name}_p50").rests_on}
        for name, title in _USERS.items()
    ]
    print_table(rows, title=f"Users: 30 days, scaled from {days} simulated")
    told = [one for one in made.figures if not any(one.name.startswith(name) for name in _USERS)]
    print_table(
        [{"figure": one.name, "value": _text(one), "rests on": one.rests_on} for one in told], title="Fleet and server"
    )
    print_table([_hour(row) for row in made.hours], title="By hour of the day: rounds that began, attempts that ended")
    print_table([{"rests on": name, "known error": text} for name, text in ASSUMPTIONS.items()])
    for line in _verdicts(made, deployment):
        typer.echo(line)


def _quantiles(made: "DeploymentPlan", name: str) -> dict[str, str]:
    return {quantile: _text(made.figure(f"{name}_{quantile}")) for quantile in ("p50", "p95", "p99")}


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def _text(figure: "Figure") -> str:
    low, high = _number(figure.low), _number(figure.high)
    return _number(figure.value) if low == high else f"{_number(figure.value)} ({low} to {high})"


def _hour(row: dict[str, Any]) -> dict[str, str]:
    shares = {name: value for name, value in row.items() if name.startswith("lost_ratio_")}
    lost = {name.removeprefix("lost_ratio_"): value for name, value in shares.items() if value}
    reasons = ", ".join(f"{word} {100.0 * value:.1f} %" for word, value in lost.items())
    return {
        "hour": f"{row['hour']:02d}",
        "rounds": _number(row["rounds"]),
        "abandoned": _number(row["abandoned"]),
        "p50 s": _number(row["round_p50_s"]),
        "p95 s": _number(row["round_p95_s"]),
        "attempts": _number(row["attempts_ended"]),
        "lost to": reasons or "-",
    }


def _verdicts(made: "DeploymentPlan", deployment: "Deployment") -> list[str]:
    """When the models wanted and the target were there, in plain words."""
    count = deployment.experiment.rounds.count
    asked = [(f"{count:,} models", "days_to_rounds", made.figure("days_to_rounds_at_mean_pace"))]
    if deployment.target is not None:
        asked.append((deployment.target.text, "days_to_target", made.figure("target_metric_best")))
    lines = []
    for what, name, hint in asked:
        reached, least = made.figure(name), made.figure(f"{name}_at_least")
        if reached.value is not None:
            lines.append(f"{what}: after {_text(reached)} days")
            continue
        more = f"at the mean pace, after {_text(hint)} days" if name == "days_to_rounds" else f"best {_text(hint)}"
        lines.append(f"{what}: not reached in every run, so it takes more than {_number(least.low)} days ({more})")
    return lines
