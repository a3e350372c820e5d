"""What a service did, as a run directory: ``Run`` opens it, ``report`` draws its page, ``simulate`` replays it."""

import json
import shutil
from pathlib import Path

import pandas as pd

from pocketfleet.assembly import Parts
from pocketfleet.device_sim.events import EventsHash
from pocketfleet.device_sim.recorded_run import RecordedRun, recorded_run
from pocketfleet.device_sim.recording import DECISIONS, decisions_table
from pocketfleet.device_sim.run import Run
from pocketfleet.device_sim.run_directory import EXPERIMENT, MODEL, SUMMARY
from pocketfleet.device_sim.tables import EventTotals, last_metrics, personalisation
from pocketfleet.errors import InputError
from pocketfleet.experiment import Experiment
from pocketfleet.privacy_parts import privacy_summary, with_noise_found
from pocketfleet.round_parts import round_plan
from pocketfleet.training.coordinator_by_plan import make_coordinator
from pocketfleet.training.round import RoundPlan
from pocketfleet.training.server.blob_folder import BlobFolder
from pocketfleet.training.server.recorded_log import RecordedLog, read_log
from pocketfleet.whole_folder import whole_folder

__all__ = ["export_service"]


def export_service(out: Path | str, state: Path, *, database_url: str = "", force: bool = False) -> Run:
    """Write what a service did so far; it may go on meanwhile.

    Args:
        out: the run directory, there whole or not at all.
        state: the service's state folder.
        database_url: of its database, if that is not in the folder.
        force: replace an earlier run at ``out``.

    Raises:
        InputError: there is no service's state, or ``out`` is in use.
    """
    out = Path(out)
    if not (state / EXPERIMENT).is_file():
        raise InputError(f"{state} is no service's state, it holds no {EXPERIMENT}: name the --state of serve")
    _check_free(out, force=force)
    experiment = Experiment.from_toml((state / EXPERIMENT).read_text(), name=str(state / EXPERIMENT))
    log = read_log(state, database_url=database_url)
    if log.models.empty:
        raise InputError(f"the service of {state} has made no version yet, not even the untrained one: let it start")
    parts = Parts.of(experiment, state / "bundle")
    plan = round_plan(experiment)
    run = recorded_run(
        log,
        coordinator=make_coordinator(plan, population=experiment.service.max_devices, selection=parts.selection),
        deadline_s=plan.deadline_s,
        buffered=not isinstance(plan, RoundPlan),
    )
    newest = log.models.iloc[-1]
    try:
        with whole_folder(out) as folder:
            shutil.copy(state / EXPERIMENT, folder / EXPERIMENT)
            shutil.copytree(state / "bundle", folder / "bundle")
            (folder / MODEL).write_bytes(BlobFolder(state / "files").read(newest["weights_sha256"]))
            decisions_table(log.decisions, log.reports).to_parquet(folder / DECISIONS, index=False)
            private = with_noise_found(experiment, parts.traffic.report)
            _write_tables(folder, run, private, log, headline=parts.headline)
    except (OSError, ValueError) as exc:
        raise InputError(f"cannot export {state} to {out}: {exc}") from exc
    return Run(out)


def _check_free(out: Path, *, force: bool) -> None:
    if not out.exists():
        return
    if not out.is_dir() or not (out / EXPERIMENT).is_file():
        if out.is_dir() and not any(out.iterdir()):
            return
        raise InputError(f"{out} holds something that is no run of pocketfleet: name another folder")
    if not force:
        raise InputError(f"{out} holds a run already: name another folder, or replace it with --force")


def _write_tables(folder: Path, run: RecordedRun, experiment: Experiment, log: RecordedLog, *, headline: str) -> None:
    totals, digest = EventTotals(len(run.rounds)), EventsHash()
    totals.add(run.events)
    digest.add(run.events)
    rounds = totals.round_table(run.rounds)
    tables: dict[str, pd.DataFrame] = {
        "events": run.events,
        "rounds": rounds,
        "devices": run.devices,
        "updates": run.updates,
    }
    for name, table in tables.items():
        table.to_parquet(folder / f"{name}.parquet", index=False)
    newest = log.models.iloc[-1]
    summary = {
        "task": experiment.task.name,
        "program": experiment.fleet.program,
        "runtime": experiment.engine.runtime,
        "timing_only": False,
        "ended": "rounds" if newest["version"] >= experiment.rounds.count else "horizon",
        "rounds": int((rounds["outcome"] != "abandoned").sum()),
        "rounds_abandoned": int((rounds["outcome"] == "abandoned").sum()),
        "devices": log.devices,
        "device_rounds": totals.assigned,
        "device_steps": int(rounds["steps"].sum()),
        "reports_accepted": totals.accepted,
        "dropouts": totals.dropouts,
        "ineligible": {},
        "in_flight": run.in_flight,
        "non_finite_updates": int(rounds["non_finite"].sum()),
        "virtual_seconds": run.end_s,
        "wall_seconds": run.end_s,
        "downlink_bytes": totals.downlink_bytes,
        "uplink_bytes": totals.uplink_bytes,
        "metered_bytes": totals.metered_bytes,
        "energy_joules": totals.energy_joules,
        "headline_metric": headline,
        "metrics": {"initial": {}, **last_metrics(rounds)},
        "personalisation": personalisation(run.devices, headline),
        "model_sha256": newest["model_sha256"],
        "events_sha256": digest.hexdigest(),
        # What is not a simulation says so.
        "service": {"population": experiment.service.population, "version": int(newest["version"])},
    }
    if not log.privacy.empty:
        newest_row = rounds.iloc[-1]
        figures = {name: float(newest_row[name]) for name in ("epsilon", "clip_norm")}
        summary["privacy"] = privacy_summary(experiment, figures)
    (folder / SUMMARY).write_text(json.dumps(summary, indent=2) + "\n")
