"""The command ``list``: what an experiment or another command can name, and what a service has."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from pocketfleet.errors import InputError
from pocketfleet.printing import print_table

__all__ = ["list_"]

Rows = list[dict[str, Any]]


def _experiments() -> Rows:
    from pocketfleet.experiment import packaged_experiments

    return [{"experiment": name, "what": text} for name, text in packaged_experiments().items()]


def _tasks() -> Rows:
    from pocketfleet.training.tasks import packaged_tasks

    return [{"task": name, "what": text} for name, text in packaged_tasks().items()]


def _phones() -> Rows:
    from pocketfleet.device_sim.phone import load_phones

    return [
        {
            "phone": phone.name,
            "year": phone.year,
            "soc": phone.soc,
            "GFLOPS, one thread": f"{phone.peak_flops_one_thread / 1e9:.1f}",
            "free RAM, GB": f"{phone.free_memory_bytes / 1e9:.1f}",
            "battery, Wh": f"{phone.battery_joules / 3600:.1f}",
        }
        for phone in load_phones()
    ]


def _mixes() -> Rows:
    from pocketfleet.device_sim.mix import load_mix, mix_names

    rows = []
    for name in mix_names():
        weights = load_mix(name)
        first = sorted(weights, key=lambda phone: -weights[phone])[:3]
        total = sum(weights.values())
        most = ", ".join(f"{phone} {100 * weights[phone] / total:.0f} %" for phone in first)
        rows.append({"mix": name, "phones": len(weights), "most of them": most})
    return rows


def _networks() -> Rows:
    from pocketfleet.device_sim.network import load_scenario, scenario_names
    from pocketfleet.device_sim.network_plan import plan_names

    rows: Rows = []
    for scenario in map(load_scenario, scenario_names()):
        down, up, latency = (
            quantity.median for quantity in (scenario.down_bits_per_s, scenario.up_bits_per_s, scenario.latency_s)
        )
        rows.append(
            {
                "network": scenario.name,
                "down, Mbit/s": f"{down / 1e6:.1f}",
                "up, Mbit/s": f"{up / 1e6:.1f}",
                "round trip, ms": f"{latency * 1e3:.0f}",
                "metered": "yes" if scenario.metered else "no",
            }
        )
    blank = dict.fromkeys(rows[0], "by place")
    return [*rows, *({**blank, "network": name, "metered": "off Wi-Fi"} for name in plan_names())]


def _rounds(state: Path, database: str) -> Rows:
    from pocketfleet.training.server.administration import round_rows

    return round_rows(state, database_url=database)


def _models(state: Path, database: str) -> Rows:
    from pocketfleet.training.server.administration import model_rows

    shown = ("version", "round", "made_s", "num_updates", "train_loss", "model_sha256", "files_kept", "in_use")
    # Of a gate, where there is one.
    judged = ("state", "reason", "evaluations", "tried", "released")
    rows = model_rows(state, database_url=database)
    names = (*shown, *(judged if any(row["state"] for row in rows) else ()))
    return [{name: row[name] for name in names} for row in rows]


def _devices(state: Path, database: str) -> Rows:
    from pocketfleet.training.server.administration import device_rows

    return [
        {**row, "phone": json.loads(row["phone"]).get("model", "")} for row in device_rows(state, database_url=database)
    ]


_OF_SERVICES: dict[str, Callable[[Path, str], Rows]] = {"rounds": _rounds, "models": _models, "devices": _devices}
_LISTS: dict[str, Callable[[], Rows]] = {
    "experiments": _experiments,
    "tasks": _tasks,
    "phones": _phones,
    "mixes": _mixes,
    "networks": _networks,
}
_NAMES = f"{', '.join(list(_LISTS)[:-1])} or {list(_LISTS)[-1]}"
_SERVED = f"{', '.join(list(_OF_SERVICES)[:-1])} or {list(_OF_SERVICES)[-1]}"


def list_(
    what: Annotated[str, typer.Argument(help=f"{_NAMES}; of a service: {_SERVED}")],
    state: Annotated[Path | None, typer.Option(metavar="DIR", help="The service's --state.")] = None,
    database: Annotated[
        str, typer.Option(metavar="URL", help="The service's --database.  [default: SQLite in the state folder]")
    ] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """List what is packaged: experiments, tasks, phones, mixes, networks (medians); or what a service has."""
    if what in _OF_SERVICES:
        if state is None:
            raise InputError(f"list {what} is of a service: name its --state")
        rows = _OF_SERVICES[what](state, database)
    elif what in _LISTS:
        if state is not None or database:
            raise InputError(f"list {what} is of what is packaged: leave --state and --database out")
        rows = _LISTS[what]()
    else:
        raise InputError(f"list takes {_NAMES}, or {_SERVED} with the --state of a service, got {what!r}")
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
    else:
        print_table(rows)
