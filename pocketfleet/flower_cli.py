"""The command ``flower``: a Flower app with simulated phones as its clients."""

import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pocketfleet.errors import InputError
from pocketfleet.printing import print_table

if TYPE_CHECKING:
    from pocketfleet.device_sim.run import Run

__all__ = ["flower"]


def flower(
    app_dir: Annotated[Path, typer.Argument(metavar="APP", help="The app's folder, as for flwr run.")],
    fleet: Annotated[Path, typer.Option(metavar="FILE", help="A TOML file that describes the phones.")],
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change a key of the fleet.")
    ] = None,
    run_config: Annotated[
        list[str] | None,
        typer.Option("--run-config", metavar="KEY=VALUE", help="Change a key of the app's run configuration."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="The run directory.  [default: runs/<app>]")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an earlier run in --out.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print nothing but errors.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Run a Flower app, unchanged, with simulated phones as its clients, in virtual time."""
    from pocketfleet.device_sim.flower_api import check_installed
    from pocketfleet.experiment import parsed_settings
    from pocketfleet.flower_fleet import FlowerFleet

    phones = FlowerFleet.load(fleet, settings or [])
    check_installed()
    if quiet or as_json:
        logging.getLogger("flwr").setLevel(logging.ERROR)
    from pocketfleet.flower_run import run_flower

    changes = _flat(parsed_settings(run_config or []))
    run = run_flower(app_dir, phones, out or Path("runs") / app_dir.resolve().name, run_config=changes, force=force)
    if as_json:
        typer.echo(json.dumps(run.summary, indent=2))
    elif not quiet:
        _print_run(run)


def _flat(table: dict[str, Any], above: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in table.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{above}{key}.")
        elif isinstance(value, (bool, int, float, str)):
            flat[f"{above}{key}"] = value
        else:
            raise InputError(f"--run-config {above}{key} must be a number, a word or true/false, got {value!r}")
    return flat


def _print_run(run: "Run") -> None:
    summary, rounds = run.summary, run.rounds
    shown = rounds.tail(10)
    print_table(
        [
            {
                "exchange": row["round"],
                "messages": f"{row['message_type']} {row['group']}".strip(),
                "sent": row["assigned"],
                "replies": row["accepted"],
                "virtual s": f"{row['opened_s']:.1f} to {row['closed_s']:.1f}",
                "down, up": f"{row['downlink_bytes'] / 1e3:.1f}, {row['uplink_bytes'] / 1e3:.1f} kB",
                "J": f"{row['energy_joules']:.1f}",
            }
            for row in shown.to_dict("records")
        ],
        title=f"the last {len(shown)} exchanges of {len(rounds)}",
    )
    lost = ", ".join(f"{count} {reason}" for reason, count in summary["dropouts"].items())
    facts = {
        "ended": "the ServerApp is done" if summary["ended"] == "rounds" else "at messages.horizon_s",
        "phones": summary["devices"],
        "messages worked on": f"{summary['device_rounds']}: {summary['reports_accepted']} replies, "
        f"{lost or 'none lost'}, {summary['in_flight']} still under way at the end",
        "virtual time": f"{summary['virtual_seconds']:,.1f} s",
        "wall time": f"{summary['wall_seconds']:.1f} s",
        "energy": f"{summary['energy_joules']:.0f} J",
        **{f"{name.removeprefix('test_')}, last": f"{value:.4g}" for name, value in summary["metrics"]["last"].items()},
        "run directory": str(run.path),
    }
    print_table([{"run": name, "": value} for name, value in facts.items()])
