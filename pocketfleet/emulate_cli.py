"""The command ``emulate``: service and devices on this machine; ``cli`` puts it on its program.

Everything heavy is imported inside the command, so that ``--help`` is quick.
"""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from pocketfleet.printing import print_table

__all__ = ["emulate"]


def emulate(
    experiment: Annotated[str, typer.Argument(help="A packaged experiment, or a path to a TOML file.")],
    devices: Annotated[int | None, typer.Option(min=1, help="A process each.  [default: fleet.devices]")] = None,
    speed: Annotated[float, typer.Option(help="So many of the phones' seconds pass in one.")] = 1.0,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change a key, such as rounds.count=5.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="The folder of everything.  [default: emulations/<experiment>]")
    ] = None,
    crashes: Annotated[
        float, typer.Option(metavar="RATIO", help="The chance of a device to die, at each of a round's five moments.")
    ] = 0.0,
    breaks: Annotated[float, typer.Option(metavar="RATIO", help="The chance of a connection to break.")] = 0.0,
    force: Annotated[bool, typer.Option("--force", help="Replace an earlier emulation in --out.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print nothing but errors.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Run the service and a process a device on this machine: real HTTP, real training, phones' limits."""
    from pocketfleet.emulation import EmulationPlan
    from pocketfleet.emulation import emulate as run
    from pocketfleet.experiment import Experiment

    more = [f"fleet.devices={devices}"] if devices is not None else []
    target = out or Path("emulations") / Path(experiment).stem
    plan = EmulationPlan(out=target, speed=speed, crash_ratio=crashes, break_ratio=breaks, force=force)

    def tell(line: str) -> None:
        if not (quiet or as_json):
            typer.echo(f"emulate: {line}", err=True)

    try:
        summary = run(Experiment.load(experiment, [*(settings or []), *more]), plan, tell=tell)
    except KeyboardInterrupt as interrupt:
        typer.echo(f"pocketfleet: interrupted; everything is stopped, and {target} left as it is", err=True)
        # 128 and the number of the signal, as a shell reports it.
        raise typer.Exit(130) from interrupt
    if as_json:
        typer.echo(json.dumps(summary, indent=2))
    elif not quiet:
        _print(summary, target)


def _print(summary: dict[str, Any], target: Path) -> None:
    print_table([_device_row(row) for row in summary["devices"]], title="devices; seconds are the phones'")
    facts = {
        "versions": summary["versions"],
        "reports accepted": summary["reports_accepted"],
        "crashes, as drawn": summary["crashes"],
        "model_sha256": summary["model_sha256"],
        "folder": target,
    }
    print_table([{"emulation": name, "": value} for name, value in facts.items()])


def _device_row(row: dict[str, Any]) -> dict[str, Any]:
    others = ", ".join(f"{count} {word}" for word, count in row["other_outcomes"].items())
    return {
        "device": row["name"],
        "phone": row["phone"],
        "reports": f"{row['accepted']} accepted{', ' + others if others else ''}",
        "down, train, up, s": f"{row['download_s']:.1f}, {row['train_s']:.1f}, {row['upload_s']:.1f}",
        "expected, s": f"{row['expected_s']:.1f}",
        "steps, late": f"{row['steps']}, {row['late_steps']}",
        "down, up, KB": f"{row['down_bytes'] / 1e3:.0f}, {row['up_bytes'] / 1e3:.0f}",
        "RSS, MB": f"{row['peak_rss_bytes'] / 1e6:.0f}",
    }
