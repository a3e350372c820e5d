"""The command line. Exit codes: 0 done, 2 the user's input, 1 our failure; tracebacks only with ``--debug``.

Everything heavy is imported inside the command that needs it, so that ``--help`` is quick.
"""

import atexit
import gc
import json
import sys
import traceback
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pocketfleet import (
    admin_cli,
    bench_cli,
    bundle_cli,
    calibrate_cli,
    days_cli,
    emulate_cli,
    flower_cli,
    join_cli,
    list_cli,
    plan_cli,
    report_cli,
    serve_cli,
    sweep_cli,
    trace_cli,
)
from pocketfleet.errors import InputError, PocketfleetError, PocketfleetWarning
from pocketfleet.printing import print_table

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pocketfleet.device_sim.run import Run
    from pocketfleet.device_sim.stage_clock import Stage, StageClock
    from pocketfleet.progress import Progress

__all__ = ["app", "main"]

app = typer.Typer(
    name="pocketfleet",
    help="Trains models on a fleet of phones you do not have.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

Debug = Annotated[bool, typer.Option("--debug", help="Show tracebacks.")]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]


@app.callback()
def _options(context: typer.Context, debug: Debug = False) -> None:
    context.obj = {"debug": debug}


@app.command()
def simulate(
    experiment: Annotated[
        str | None, typer.Argument(help="A packaged experiment (see: list experiments), or a path to a TOML file.")
    ] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change a key, such as rounds.count=50.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="The run directory.  [default: runs/<experiment>]")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an earlier run in --out.")] = False,
    resume: Annotated[
        Path | None, typer.Option(metavar="RUN", help="Continue this run directory from its last checkpoint.")
    ] = None,
    timing_only: Annotated[
        bool,
        typer.Option(
            "--timing-only", help="Everything but the arithmetic: same events, no model (engine.timing_only)."
        ),
    ] = False,
    profile: Annotated[
        bool, typer.Option("--profile", help="Tell where the wall time went, and write it to profile.json in the run.")
    ] = False,
    explain: Annotated[
        bool,
        typer.Option(
            "--explain", help="Tell the last secure sum step by step: who sent what, and what the server could read."
        ),
    ] = False,
    plot: Annotated[bool, typer.Option("--plot", help="Draw plot.png into the run directory.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print nothing but errors.")] = False,
    as_json: Json = False,
) -> None:
    """Let a simulated fleet train a model in virtual time."""
    from pocketfleet.device_sim.stage_clock import StageClock
    from pocketfleet.progress import Progress

    if (experiment is None) == (resume is None):
        raise InputError("simulate takes an experiment, or --resume with the directory of an earlier run")
    if resume is not None and (out is not None or force or timing_only):
        raise InputError(
            "--resume goes on in its own directory as it began: leave out --out, --force and --timing-only"
        )
    target = resume or out or Path("runs") / Path(str(experiment)).stem
    progress = Progress(shown=not (quiet or as_json))
    clock = StageClock() if profile else None
    try:
        if experiment is not None:
            timing = ["engine.timing_only=true"] if timing_only else []
            run = _started(experiment, [*(settings or []), *timing], target, force, progress, clock)
        else:
            run = _resumed(target, settings or [], progress, clock)
    except KeyboardInterrupt as interrupt:
        going = resume is not None or progress.simulating
        advice = f"continue with: pocketfleet simulate --resume {target}" if going else "nothing was written yet"
        typer.echo(f"pocketfleet: interrupted; {advice}", err=True)
        # 128 and the number of the signal, as a shell reports it.
        raise typer.Exit(130) from interrupt
    if clock is not None:
        (run.path / "profile.json").write_text(json.dumps(clock.seconds, indent=2) + "\n")
    picture = run.plot() if plot else None
    if as_json:
        typer.echo(json.dumps(run.summary, indent=2))
    elif not quiet:
        _print_run(run, picture)
        if clock is not None:
            print_table(_stages(clock.seconds), title="wall time of the simulation by stage")
    if explain:
        from pocketfleet.device_sim.explained_sum import explained_sum

        for line in explained_sum(run):
            typer.echo(line, err=as_json)


def _stages(seconds: "Mapping[Stage, float]") -> list[dict[str, str]]:
    total_s = sum(seconds.values()) or 1.0
    return [
        {"stage": stage, "seconds": f"{spent_s:.2f}", "share": f"{spent_s / total_s:.1%}"}
        for stage, spent_s in sorted(seconds.items(), key=lambda item: -item[1])
    ]


def _started(
    source: str, settings: list[str], target: Path, force: bool, progress: "Progress", clock: "StageClock | None"
) -> "Run":
    from pocketfleet.experiment import Experiment

    experiment = Experiment.load(source, settings)
    progress.expect(experiment.rounds.count, name=Path(source).stem)
    with progress:
        from pocketfleet.simulation import simulate

        return simulate(experiment, target, force=force, observer=progress, profile=clock)


def _resumed(target: Path, settings: list[str], progress: "Progress", clock: "StageClock | None") -> "Run":
    progress.expect(0, name=target.name)
    with progress:
        from pocketfleet.simulation import resume

        return resume(target, settings, observer=progress, profile=clock)


@app.command()
def init(name: Annotated[str, typer.Argument(help="A Python name, such as mytask.")]) -> None:
    """Write a commented task module, its data and an experiment file to start from: NAME.py, NAME.csv, NAME.toml."""
    from pocketfleet.starter import write_starter

    for path in write_starter(name, Path()):
        typer.echo(f"wrote {path}")
    typer.echo(f"next: pocketfleet simulate {name}.toml")


for command in (bundle_cli.export, bundle_cli.verify, bundle_cli.inspect, bundle_cli.explain):
    app.command()(command)
app.command()(bench_cli.bench)
app.command(name="merge-bench")(bench_cli.merge_bench)
app.command()(calibrate_cli.calibrate)
app.command(name="list")(list_cli.list_)
app.command(name="convert-trace")(trace_cli.convert_trace)
app.command()(sweep_cli.sweep)
app.command()(plan_cli.plan)
app.command()(sweep_cli.compare)
app.command()(days_cli.days)
app.command()(flower_cli.flower)
app.command()(report_cli.report)
app.command()(serve_cli.serve)
app.command()(join_cli.join)
app.command()(emulate_cli.emulate)
app.add_typer(admin_cli.admin, name="admin")


@app.command()
def doctor(as_json: Json = False) -> None:
    """Tell what works on this machine, what does not, and what to do about it."""
    from pocketfleet.doctor import examine

    findings = examine()
    rows = [{"what": one.what, "works": one.works, "found": one.found, "do": one.advice} for one in findings]
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
    else:
        print_table([{**row, "works": "yes" if row["works"] else "no"} for row in rows])
    if not all(one.works for one in findings):
        raise typer.Exit(1)


def main() -> None:
    """The program ``pocketfleet``: runs a command and turns errors into exit codes."""
    # The interpreter's last collection walks through all of torch, about a second, for a process that ends anyway.
    atexit.register(gc.freeze)
    debug = "--debug" in sys.argv
    if debug:
        # The flag may stand anywhere on the line.
        sys.argv.remove("--debug")
        sys.argv.insert(1, "--debug")
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _told(warnings.showwarning)
            app()
    except InputError as error:
        _fail(error, code=2, debug=debug)
    except PocketfleetError as error:
        _fail(error, code=1, debug=debug)
    except Exception as error:  # noqa: BLE001 - the outermost handler: what gets here is our failure
        _fail(error, code=1, debug=debug, prefix=f"internal error ({type(error).__name__}; --debug shows where): ")


def _told(otherwise: "Callable[..., None]") -> "Callable[..., None]":
    """Prints our own warnings as one line each."""

    def show(message: Warning | str, category: type[Warning], *rest: Any) -> None:  # noqa: ANN401 - as the library's
        if issubclass(category, PocketfleetWarning):
            typer.echo(f"pocketfleet: {message}", err=True)
        else:
            otherwise(message, category, *rest)

    return show


def _fail(error: Exception, *, code: int, debug: bool, prefix: str = "") -> None:
    if debug:
        traceback.print_exc()
    typer.echo(f"pocketfleet: {prefix}{error}", err=True)
    raise SystemExit(code)


def _print_run(run: "Run", picture: Path | None) -> None:
    summary = run.summary
    metrics = summary["metrics"]
    rows: list[dict[str, Any]] = [
        {
            "figure": name,
            "untrained": f"{metrics['initial'][name]:.4g}",
            "last": f"{value:.4g}",
            "mean of last (up to) five": f"{metrics['mean_of_last_five'][name]:.4g}",
        }
        for name, value in metrics["last"].items()
    ]
    print_table(rows)
    lost = ", ".join(f"{count} {_FATES.get(reason, reason)}" for reason, count in summary["dropouts"].items())
    facts = {
        "ended": _ENDINGS[summary["ended"]],
        "rounds": f"{summary['rounds']} {'would have ' if summary['timing_only'] else ''}made a model, "
        f"{summary['rounds_abandoned']} abandoned"
        + (f", {summary['rounds_without_sum']} of the models without a sum" if "rounds_without_sum" in summary else ""),
        "phones": f"{summary['devices']}"
        + (f", {summary['devices_spent']} in as many models as they may be" if "devices_spent" in summary else ""),
        "assignments": f"{summary['device_rounds']}: {summary['reports_accepted']} reports accepted, "
        f"{lost or 'none lost'}, {summary['in_flight']} still under way at the end",
        **_ineligible_fact(summary),
        "virtual time": _duration(summary["virtual_seconds"]),
        "wall time": f"{summary['wall_seconds']:.1f} s (export and loading apart)",
        "downloaded, uploaded": f"{summary['downlink_bytes'] / 1e6:.1f} MB, {summary['uplink_bytes'] / 1e6:.1f} MB; "
        f"{summary['metered_bytes'] / 1e6:.1f} MB metered",
        "energy": f"{summary['energy_joules']:.0f} J",
        **_personalisation_fact(summary["personalisation"]),
        **_privacy_fact(summary.get("privacy")),
        "run directory": str(run.path),
    }
    if picture is not None:
        facts["plot"] = str(picture)
    print_table([{"run": name, "": value} for name, value in facts.items()])


_ENDINGS = {
    "rounds": "all rounds done",
    "horizon": "at rounds.horizon_s, the round under way not counted",
    "privacy_spent": "fewer phones than a round needs may still be in a model: privacy.max_participations",
}


# What a reader may take for a fault: asking more phones than are wanted is what rounds.over_selection is for.
_FATES = {"late": "late (the cohort was full)"}


def _duration(seconds: float) -> str:
    """Seconds with the unit that a reader thinks in."""
    for unit, size in (("days", 86_400.0), ("h", 3600.0), ("min", 60.0)):
        if seconds >= 2 * size:
            return f"{seconds / size:,.1f} {unit} ({seconds:,.0f} s)"
    return f"{seconds:,.1f} s"


def _ineligible_fact(summary: dict[str, Any]) -> dict[str, str]:
    """Why phones were not asked; with no round done it is the first thing to know."""
    if not summary["ineligible"]:
        return {}
    counts = ", ".join(f"{count} {reason}" for reason, count in summary["ineligible"].items())
    advice = "" if summary["rounds"] else "; see [eligibility], fleet.network, fleet.availability, rounds.deadline_s"
    return {"phones once ineligible": counts + advice}


def _privacy_fact(found: dict[str, Any] | None) -> dict[str, str]:
    if found is None:
        return {}
    if found["epsilon"] is None:
        return {"privacy": "none: updates were clipped, and no noise was added"}
    how = "of the phone that took part most often"
    if found["accounting"] == "poisson":
        how = "if rounds were random samples that nobody knows, which is an assumption"
    return {"privacy": f"epsilon {found['epsilon']:.3g} at delta {found['delta']:.3g}, {how}"}


def _personalisation_fact(found: dict[str, Any]) -> dict[str, str]:
    if not found["devices"]:
        return {}
    return {
        f"held-out {found['metric']}": f"{found['global']:.4g} by the global model, {found['personalised']:.4g} by the "
        f"phone's own after training (mean of {found['devices']} phones)"
    }
