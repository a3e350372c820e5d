"""Runs an experiment: puts task, bundle, phones and coordinator together, simulates, leaves a run directory."""

import contextlib
import functools
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from pocketfleet.assembly import Parts, given_path, workload
from pocketfleet.bundling import make_bundle
from pocketfleet.device_sim.clock_only import ClockOnly
from pocketfleet.device_sim.device_store import DeviceStore
from pocketfleet.device_sim.eligibility import Rule
from pocketfleet.device_sim.engine_plan import chunk_size
from pocketfleet.device_sim.evaluators import Evaluators
from pocketfleet.device_sim.events import EventLog, EventsHash, in_order
from pocketfleet.device_sim.global_model import GlobalModel
from pocketfleet.device_sim.population import Population
from pocketfleet.device_sim.release_trials import ReleaseTrials
from pocketfleet.device_sim.run import Run
from pocketfleet.device_sim.run_directory import EXPERIMENT, RELEASED, TRANSCRIPT, RunDirectory
from pocketfleet.device_sim.secure_stages import Group
from pocketfleet.device_sim.secure_sum import SecureSum
from pocketfleet.device_sim.simulator import Outcome, Simulator
from pocketfleet.device_sim.stage_clock import StageClock, Watch, unwatched
from pocketfleet.device_sim.tables import (
    EventTotals,
    device_table,
    final_states,
    ineligible,
    last_metrics,
    personalisation,
)
from pocketfleet.device_sim.workers import Trainers
from pocketfleet.engine import check_engine, make_workers, planned, planned_way
from pocketfleet.errors import InputError
from pocketfleet.experiment import Experiment
from pocketfleet.export.bundle import Bundle
from pocketfleet.export.session import EagerSession
from pocketfleet.export.staging import clear_stale, staged
from pocketfleet.input_files import INPUTS, check_unchanged, input_hashes
from pocketfleet.privacy_parts import privacy_summary, private_run, secure_plan, with_noise_found
from pocketfleet.round_parts import make_rounds, release_plan, schedule
from pocketfleet.training.codec.error_feedback import first_residual
from pocketfleet.training.update import tensors_to_bytes
from pocketfleet.update_parts import aggregator_factory, codec_of, download_of
from pocketfleet.whole_file import write_whole

__all__ = ["resume", "simulate"]

Observer = Callable[[str, Mapping[str, Any]], None]
# Members of a group whose messages a reader can follow, and a file of some KB holds.
_MOST_EXPLAINED = 8
# What may change when a run is continued: nothing that its bundle or its past depends on.
_CHANGEABLE = (
    "rounds.count",
    "rounds.horizon_s",
    "training.learning_rate",
    "engine.backend",
    "engine.address",
    "engine.processes",
    "engine.checkpoint_share",
)


def _silent(stage: str, row: Mapping[str, Any]) -> None:
    """The observer of a run that nobody watches."""


def simulate(
    experiment: Experiment,
    out: Path | str,
    *,
    force: bool = False,
    observer: Observer = _silent,
    profile: StageClock | None = None,
) -> Run:
    """Run an experiment from its beginning.

    Args:
        experiment: what to run.
        out: the run directory; created, or replaced with ``force``.
        force: replace an earlier run.
        observer: told of stages (``"export"``, ``"simulate"``) with an empty row, and of ``"round"`` with its row.
        profile: counts the wall time of the simulation by stage.

    Returns:
        The finished run.

    Raises:
        InputError: the experiment, its task or ``out`` does not allow it; ``out`` is as it was, or resumable.
    """
    path = Path(out)
    check_engine(experiment)
    parts = Parts.of(experiment, given_path(experiment))
    experiment = with_noise_found(experiment, parts.traffic.report)
    RunDirectory.check_free(path, force=force)
    with _staged(path) as staging:
        if parts.given_bundle is None:
            observer("export", {})
        make_bundle(experiment, parts, staging / "bundle")
        experiment = planned(experiment, parts, staging / "bundle")
        directory = RunDirectory.create(path, experiment.to_toml(), force=force)
        try:
            directory.write_text(INPUTS, json.dumps(input_hashes(experiment)))
            (staging / "bundle").rename(path / "bundle")
        except BaseException:
            directory.close()
            raise
    return _run(experiment, parts, directory, observer, profile)


@contextlib.contextmanager
def _staged(path: Path) -> Iterator[Path]:
    """An empty folder beside the run directory, this process's own; removed at the end.

    Exported here, a model that cannot be exported leaves no run, and an earlier one whole.
    """
    path = path.absolute()
    with contextlib.ExitStack() as stack:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            clear_stale(path)
            folder = stack.enter_context(staged(path))
        except OSError as exc:
            raise InputError(f"--out {path}: cannot write beside it: {exc}") from exc
        yield folder


def resume(
    out: Path | str,
    settings: Sequence[str] = (),
    *,
    observer: Observer = _silent,
    profile: StageClock | None = None,
) -> Run:
    """Continue a run that was killed or that diverged, from its last checkpoint; a finished one is returned as it is.

    Args:
        out: the run directory.
        settings: changes such as ``"training.learning_rate=0.001"``; see ``simulate``.
        observer: as in ``simulate``.
        profile: as in ``simulate``.

    Raises:
        InputError: there is no run at ``out``, or a setting cannot change any more.
    """
    path = Path(out)
    for setting in settings:
        key = setting.partition("=")[0].strip()
        if key not in _CHANGEABLE:
            raise InputError(f"--resume can change {', '.join(_CHANGEABLE)}; {key} is settled: start a new run for it")
    directory = RunDirectory.reopen(path)
    try:
        if directory.complete:
            ended = _ended(path, settings)
            directory.close()
            return ended
        experiment = Experiment.from_toml((path / EXPERIMENT).read_text(), settings, name=str(path / EXPERIMENT))
        check_engine(experiment)
        if (path / INPUTS).exists():
            check_unchanged(experiment, (path / INPUTS).read_text())
        bundled = (path / "bundle").exists()
        parts = Parts.of(experiment, path / "bundle" if bundled else given_path(experiment))
        if not bundled:
            if parts.given_bundle is None:
                observer("export", {})
            make_bundle(experiment, parts, path / "bundle")
        experiment = planned(experiment, parts, path / "bundle")
        directory.write_text(EXPERIMENT, experiment.to_toml())
    except BaseException:
        directory.close()
        raise
    return _run(experiment, parts, directory, observer, profile)


def _ended(path: Path, settings: Sequence[str]) -> Run:
    """A finished run as it is; how it would be computed further does not matter any more."""
    changing = [setting for setting in settings if not setting.startswith("engine.")]
    if changing:
        raise InputError(f"the run in {path} has ended; start a new one to change {changing[0]!r}")
    return Run(path)


def _run(
    experiment: Experiment, parts: Parts, directory: RunDirectory, observer: Observer, profile: StageClock | None
) -> Run:
    clock = profile or StageClock()
    watch: Watch = clock.watched if profile else unwatched
    disk = watch(directory, "disk")
    try:
        bundle = Bundle.load(directory.path / "bundle")
        log = watch(EventLog(), "events")
        population = Population(
            fleet=parts.fleet,
            availability=parts.availability,
            rule=Rule(**experiment.eligibility.model_dump()),
            workload=workload(experiment, parts, bundle),
            seed=experiment.seed,
            log=log,
            room_celsius=experiment.fleet.room_celsius if experiment.fleet.heat else None,
            memory_moments=experiment.fleet.memory_moments,
        )
        observer("simulate", {})
        with contextlib.ExitStack() as stack:
            model = _learner(experiment, parts, bundle, directory.path / "device_store", stack, watch)
            releases = _releases(experiment, parts, bundle, population, model, log)
            rounds = make_rounds(experiment, population, log, parts)
            stack.enter_context(clock.running())
            simulator = Simulator(
                rounds=watch(rounds, "physics"),
                schedule=schedule(experiment),
                population=population,
                model=watch(model, "server"),
                directory=disk,
                log=log,
                observer=functools.partial(observer, "round"),
                releases=watch(releases, "evaluation") if releases is not None else None,
            )
            simulator.restore()
            rounds.watch(watch)
            outcome = simulator.run()
            _finish(experiment, parts, disk, population, model, outcome, releases)
    finally:
        directory.close()
    return Run(directory.path)


def _learner(
    experiment: Experiment, parts: Parts, bundle: Bundle, kept: Path, stack: contextlib.ExitStack, watch: Watch
) -> GlobalModel | ClockOnly:
    """What makes the next model; its worker processes end with ``stack``."""
    if experiment.engine.timing_only:
        # Nobody trains: the store of no device.
        return ClockOnly(weights=parts.weights, store=DeviceStore(kept, devices=0))
    trainers: Trainers = stack.enter_context(make_workers(experiment, bundle.path))
    return GlobalModel(
        weights=parts.weights,
        algorithm=parts.algorithm,
        session=watch(EagerSession(parts.task, parts.model, parts.settings), "evaluation"),
        test=parts.data.test,
        headline=parts.headline,
        trainers=watch(trainers, "training"),
        store=watch(DeviceStore(kept, devices=experiment.fleet.devices), "disk"),
        population=experiment.fleet.devices,
        chunk_size=chunk_size(planned_way(experiment), experiment.engine.chunk),
        make_aggregator=aggregator_factory(experiment, kept.parent),
        make_sum=_make_sum(experiment, parts, kept.parent),
        staleness_exponent=experiment.rounds.staleness_exponent,
        download=watch(download_of(experiment, parts.traffic), "codec") if experiment.codec.download_bits else None,
        residual=first_residual(codec_of(experiment), parts.traffic.report),
        privacy=private_run(experiment, parts.traffic.report),
    )


def _make_sum(experiment: Experiment, parts: Parts, path: Path) -> Callable[[Group, int, int], SecureSum] | None:
    """What makes the secure sum of a group, its round and version; messages of small groups go to ``path``."""
    plan = secure_plan(experiment, parts.traffic.report)
    if plan is None:
        return None
    masks = experiment.secure_aggregation.masks
    return lambda group, round_index, version: SecureSum(
        plan,
        group,
        round_index=round_index,
        model_version=version,
        masks=masks,
        transcript=path / TRANSCRIPT if len(group.flights) <= _MOST_EXPLAINED else None,
    )


def _releases(
    experiment: Experiment,
    parts: Parts,
    bundle: Bundle,
    population: Population,
    model: GlobalModel | ClockOnly,
    log: EventLog,
) -> ReleaseTrials | None:
    """The gate of the run's versions, if it has one."""
    plan = release_plan(experiment)
    if plan is None:
        return None
    return ReleaseTrials(
        plan,
        metric=experiment.release.metric,
        evaluators=Evaluators(
            fleet=parts.fleet,
            availability=parts.availability,
            rule=Rule(**experiment.eligibility.model_dump()),
            workload=workload(experiment, parts, bundle),
            seed=experiment.seed,
        ),
        session=EagerSession(parts.task, parts.model, parts.settings),
        data=parts.data,
        newest=lambda: model.weights,
        ledger=population.ledger,
        log=log,
    )


def _finish(
    experiment: Experiment,
    parts: Parts,
    directory: RunDirectory,
    population: Population,
    model: GlobalModel | ClockOnly,
    outcome: Outcome,
    releases: ReleaseTrials | None,
) -> None:
    rounds = directory.read_parts("rounds")
    totals, digest = EventTotals(len(rounds)), EventsHash()
    directory.write_table("events", _counted(in_order(directory.parts("events")), totals, digest))
    directory.write_table("updates", map(pd.read_parquet, directory.parts("updates")))
    rounds = totals.round_table(rounds)
    devices = device_table(parts.fleet, population.ledger, parts.data, parts.attackers)
    summary = {
        "task": experiment.task.name,
        "program": experiment.fleet.program,
        "runtime": experiment.engine.runtime,
        "timing_only": experiment.engine.timing_only,
        "ended": outcome.reason,
        "rounds": int((rounds["outcome"] != "abandoned").sum()),
        "rounds_abandoned": int((rounds["outcome"] == "abandoned").sum()),
        **_without_sum(experiment, rounds),
        "devices": len(parts.fleet),
        **({"devices_spent": outcome.num_spent} if experiment.privacy.max_participations else {}),
        "device_rounds": totals.assigned,
        "device_steps": int(rounds["steps"].sum()),
        "reports_accepted": totals.accepted,
        "dropouts": totals.dropouts,
        "ineligible": ineligible(population.ledger),
        "in_flight": outcome.in_flight,
        "non_finite_updates": int(rounds["non_finite"].sum()),
        "virtual_seconds": outcome.virtual_s,
        "wall_seconds": outcome.wall_s,
        "downlink_bytes": totals.downlink_bytes,
        "uplink_bytes": totals.uplink_bytes,
        "metered_bytes": totals.metered_bytes,
        "energy_joules": totals.energy_joules,
        "headline_metric": parts.headline,
        "metrics": {"initial": outcome.metrics_initial, **last_metrics(rounds)},
        "personalisation": personalisation(devices, parts.headline),
        "model_sha256": model.sha256,
        "events_sha256": digest.hexdigest(),
    }
    tables = {"rounds": rounds, "devices": devices}
    if model.figures:
        summary["privacy"] = privacy_summary(experiment, model.figures)
    if releases is not None:
        tables["releases"] = directory.read_parts("releases")
        summary["release"] = {"released_version": releases.released, **final_states(tables["releases"])}
        weights = releases.released_weights
        write_whole(directory.path / RELEASED, tensors_to_bytes(weights.trainable | weights.buffers))
    model.store.save_index()
    directory.finish(tables, model.weights.trainable | model.weights.buffers, summary)


def _without_sum(experiment: Experiment, rounds: pd.DataFrame) -> dict[str, int]:
    """Rounds whose model is the last one again, where sums hide their parts."""
    if not experiment.secure_aggregation.enabled:
        return {}
    return {"rounds_without_sum": int((rounds["outcome"] == "no_sum").sum())}


def _counted(events: Iterable[pd.DataFrame], totals: EventTotals, digest: EventsHash) -> Iterator[pd.DataFrame]:
    """The same pieces, each added to the totals and the hash as it passes."""
    for piece in events:
        totals.add(piece)
        digest.add(piece)
        yield piece
