"""Runs a Flower app on simulated phones, in virtual time, and leaves a run directory."""

import traceback
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from pocketfleet.assembly import fleet_days, make_fleet
from pocketfleet.device_sim.eligibility import Rule
from pocketfleet.device_sim.events import SERVER, EventLog, EventsHash, in_order
from pocketfleet.device_sim.fleet import Fleet
from pocketfleet.device_sim.flower_api import (
    check_installed,
    flwr_version,
    seed_sampling,
    virtual_sleep,
    wait_virtually,
)
from pocketfleet.device_sim.flower_app import FlowerApp, opened_app
from pocketfleet.device_sim.flower_nodes import FlowerNodes
from pocketfleet.device_sim.phone_work import PhoneWork, host_peak_flops
from pocketfleet.device_sim.population import Population
from pocketfleet.device_sim.run import Run
from pocketfleet.device_sim.run_directory import RunDirectory
from pocketfleet.device_sim.tables import (
    EventTotals,
    device_table,
    ineligible,
    last_metrics,
    personalisation,
    server_rows,
    update_rows,
)
from pocketfleet.device_sim.workload import Workload
from pocketfleet.errors import InputError
from pocketfleet.flower_fleet import FlowerFleet

if TYPE_CHECKING:
    from pocketfleet.device_sim.flower_grid import PhoneGrid

__all__ = ["run_flower"]

_RUN_ID = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class _Examples:
    """What each device's last training reply spoke for; nothing is known of what it holds out."""

    num_training: npt.NDArray[np.int64]
    num_held_out: npt.NDArray[np.int64]


def run_flower(
    app_dir: Path | str,
    phones: FlowerFleet,
    out: Path | str,
    *,
    run_config: Mapping[str, Any] | None = None,
    force: bool = False,
) -> Run:
    """Run an app's ServerApp and ClientApp, unchanged, with phones as its clients.

    Args:
        app_dir: the folder that holds the app's pyproject.toml.
        phones: that its clients run on.
        out: the run directory; created, or replaced with ``force``.
        run_config: changes of the app's run configuration, by dotted key.
        force: replace an earlier run.

    Returns:
        The finished run. Its model is the app's own to save.

    Raises:
        InputError: Flower is not installed, the folder holds no app, the ServerApp raised, or ``out`` is in use.
    """
    check_installed()
    folder, path = Path(app_dir), Path(out)
    fleet, days = make_fleet(phones.fleet, seed=phones.seed), fleet_days(phones.fleet, seed=phones.seed)
    RunDirectory.check_free(path, force=force)
    with opened_app(folder, run_config or {}) as app:
        workload, log = _workload(phones, app), EventLog()
        population = Population(
            fleet=fleet,
            availability=days,
            rule=Rule(**phones.eligibility.model_dump()),
            workload=workload,
            seed=phones.seed,
            log=log,
            room_celsius=phones.fleet.room_celsius if phones.fleet.heat else None,
            memory_moments=phones.fleet.memory_moments,
        )
        # Here, since they need Flower.
        from pocketfleet.device_sim.flower_grid import PhoneGrid
        from pocketfleet.device_sim.flower_phones import FlowerPhones

        nodes = FlowerNodes(app.client_app, devices=len(fleet), run_id=_RUN_ID, run_config=app.run_config)
        working = FlowerPhones(
            population=population,
            workload=workload,
            nodes=nodes,
            work=_work(phones, fleet),
            log=log,
            deadline_s=phones.messages.deadline_s,
        )
        grid = PhoneGrid(working, nodes, run_id=_RUN_ID, horizon_s=phones.messages.horizon_s)
        directory = RunDirectory.create(path, phones.to_toml(), force=force)
        try:
            ended, in_flight = _serve(app, grid, seed=phones.seed)
            told = {"app": str(folder), "flwr": flwr_version(), "run_config": dict(run_config or {})}
            _finish(directory, app.name, grid, population, log, told, ended=ended, in_flight=in_flight)
        finally:
            directory.close()
    return Run(path)


def _workload(phones: FlowerFleet, app: FlowerApp) -> Workload:
    """What messages do not change; the rest the grid sets."""
    ones = np.ones(phones.fleet.devices, dtype=np.int64)
    return Workload(
        num_training=ones,
        steps=ones,
        step_s=ones.astype(np.float64),
        batch_size=1,
        training_memory_bytes=phones.flower.training_memory_bytes,
        bundle_bytes=app.bundle_bytes,
        weights_bytes=0,
        update_bytes=0,
        partial_work=False,
    )


def _work(phones: FlowerFleet, fleet: Fleet) -> PhoneWork:
    section = phones.flower
    given = {"train": section.train_flops_per_example, "evaluate": section.evaluate_flops_per_example}
    flops = given if section.train_flops_per_example > 0.0 else {}
    host_flops = section.host_gflops * 1e9 if flops or section.host_gflops > 0.0 else host_peak_flops()
    return PhoneWork(
        phone_flops=fleet.parallel_peak_flops,
        host_flops=host_flops,
        flops_per_example=flops,
        efficiency_ratio=section.efficiency_ratio,
    )


def _serve(app: FlowerApp, grid: "PhoneGrid", *, seed: int) -> tuple[str, int]:
    """Run the ServerApp to its end or the horizon: which, and how many attempts are still under way."""
    from flwr.app import Context, RecordDict

    from pocketfleet.device_sim.flower_grid import HorizonReached

    context = Context(run_id=_RUN_ID, node_id=0, node_config={}, state=RecordDict(), run_config=dict(app.run_config))
    wait_virtually(app.server_app, grid.wait_for_nodes)
    seed_sampling(seed)
    ended = "rounds"
    try:
        with virtual_sleep(grid.sleep, grid.wait_for_nodes):
            app.server_app(grid, context)
    except HorizonReached:
        ended = "horizon"
    except InputError:
        raise
    except Exception as exc:
        last = traceback.extract_tb(exc.__traceback__)[-1]
        raise InputError(
            f"the app's ServerApp raised {type(exc).__name__}: {exc} ({last.filename}, line {last.lineno}); --debug "
            "shows the way there"
        ) from exc
    finally:
        in_flight = grid.close()
    return ended, in_flight


def _finish(
    directory: RunDirectory,
    name: str,
    grid: "PhoneGrid",
    population: Population,
    log: EventLog,
    told: Mapping[str, Any],
    *,
    ended: str,
    in_flight: int,
) -> None:
    rows = _rows(grid)
    for row in rows:
        log.add(row["closed_s"], SERVER, row["round"], "close", reason=row["outcome"])
    directory.write_parts(0, {"events": log.take(), "rounds": server_rows(rows), "updates": update_rows([])})
    totals, digest = EventTotals(len(rows)), EventsHash()
    directory.write_table("events", _counted(directory, totals, digest))
    directory.write_table("updates", [update_rows([])])
    rounds = totals.round_table(server_rows(rows))
    devices = device_table(population.fleet, population.ledger, _examples(grid, len(population.fleet)))
    train = rounds[rounds["message_type"] == "train"] if rows else rounds
    metrics = [column for column in rounds.columns if column.startswith("test_")]
    headline = metrics[0].removeprefix("test_") if metrics else ""
    summary = {
        "task": name,
        "program": "Flower ClientApp",
        "runtime": "host",
        "timing_only": False,
        "flower": dict(told),
        "ended": ended,
        "rounds": int((train["outcome"] != "abandoned").sum()),
        "rounds_abandoned": int((train["outcome"] == "abandoned").sum()),
        "devices": len(population.fleet),
        "device_rounds": totals.assigned,
        "device_steps": int(rounds["steps"].sum()),
        "reports_accepted": totals.accepted,
        "dropouts": totals.dropouts,
        "ineligible": ineligible(population.ledger),
        "in_flight": in_flight,
        "non_finite_updates": 0,
        "virtual_seconds": grid.now_s,
        "wall_seconds": grid.wall_s(),
        "downlink_bytes": totals.downlink_bytes,
        "uplink_bytes": totals.uplink_bytes,
        "metered_bytes": totals.metered_bytes,
        "energy_joules": totals.energy_joules,
        "headline_metric": headline,
        "metrics": {"initial": {}, **last_metrics(rounds)},
        "personalisation": personalisation(devices, headline),
        "model_sha256": None,  # the model is the app's own to keep
        "events_sha256": digest.hexdigest(),
    }
    directory.finish({"rounds": rounds, "devices": devices}, {}, summary)


def _rows(grid: "PhoneGrid") -> list[dict[str, Any]]:
    """A row an exchange; the model's version counts those that gave the server something to make a model of."""
    rows, version = [], 0
    for exchange in grid.exchanges:
        row = exchange.row(model_version=version, until_s=grid.now_s)
        version += exchange.kind == "train" and row["accepted"] > 0
        rows.append(row | {"model_version": version})
    return rows


def _examples(grid: "PhoneGrid", devices: int) -> _Examples:
    trained = np.zeros(devices, dtype=np.int64)
    for exchange in grid.exchanges:
        if exchange.kind == "train":
            for answer in exchange.accepted():
                trained[answer.device] = answer.num_examples
    return _Examples(num_training=trained, num_held_out=np.zeros(devices, dtype=np.int64))


def _counted(directory: RunDirectory, totals: EventTotals, digest: EventsHash) -> Iterator[pd.DataFrame]:
    for piece in in_order(directory.parts("events")):
        totals.add(piece)
        digest.add(piece)
        yield piece
