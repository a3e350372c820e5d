"""Runs an experiment: puts task, bundle, phones and coordinator together, simulates, leaves a run directory."""

import functools
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from pocketfleet.device_sim.availability import Availability, make_availability
from pocketfleet.device_sim.client import Client
from pocketfleet.device_sim.compute import load_efficiency, step_seconds
from pocketfleet.device_sim.device_data import DeviceData
from pocketfleet.device_sim.device_store import DeviceStore
from pocketfleet.device_sim.eligibility import Rule
from pocketfleet.device_sim.events import EventLog, events_sha256, ordered
from pocketfleet.device_sim.fleet import DeviceOverride, Fleet, build_fleet
from pocketfleet.device_sim.global_model import GlobalModel
from pocketfleet.device_sim.population import Population, Workload
from pocketfleet.device_sim.report import Run
from pocketfleet.device_sim.run_directory import EXPERIMENT, RunDirectory
from pocketfleet.device_sim.simulator import Outcome, Schedule, Simulator
from pocketfleet.device_sim.tables import device_table, dropouts, ineligible, last_metrics, personalisation, round_table
from pocketfleet.device_sim.workers import Workers
from pocketfleet.errors import InputError
from pocketfleet.experiment import Experiment
from pocketfleet.export.bundle import Bundle, export_bundle
from pocketfleet.export.model_version import check_same_tensors, with_weights
from pocketfleet.export.session import EagerSession, Session, open_session
from pocketfleet.training.algorithm import Algorithm, FedAvg, FedProx
from pocketfleet.training.batches import steps_of_epochs
from pocketfleet.training.codec import LosslessCodec
from pocketfleet.training.round import RoundPlan
from pocketfleet.training.server_optimizer import ServerMomentum, ServerOptimizer, ServerSgd
from pocketfleet.training.task import Task, check_task, initial_model, load_factory, load_task
from pocketfleet.training.train_step import StepSettings
from pocketfleet.training.weights import Weights

__all__ = ["resume", "simulate"]

Observer = Callable[[str, Mapping[str, Any]], None]
# What may change when a run is continued: nothing that its bundle or its past depends on.
_CHANGEABLE = (
    "rounds.count",
    "rounds.horizon_s",
    "training.learning_rate",
    "engine.processes",
    "engine.checkpoint_every",
)


def _silent(stage: str, row: Mapping[str, Any]) -> None:
    """The observer of a run that nobody watches."""


def simulate(experiment: Experiment, out: Path | str, *, force: bool = False, observer: Observer = _silent) -> Run:
    """Run an experiment from its beginning.

    Args:
        experiment: what to run.
        out: the run directory; created, or replaced with ``force``.
        force: replace an earlier run.
        observer: told of stages (``"export"``, ``"simulate"``) with an empty row, and of ``"round"`` with its row.

    Returns:
        The finished run.

    Raises:
        InputError: the experiment, its task or ``out`` does not allow it; ``out`` is as it was, or resumable.
    """
    path = Path(out)
    parts = _Parts.of(experiment, _given_path(experiment))
    RunDirectory.check_free(path, force=force)
    staging = _staging(path)
    try:
        _make_bundle(experiment, parts, staging / "bundle", observer)
        directory = RunDirectory.create(path, experiment.to_toml(), force=force)
        try:
            (staging / "bundle").rename(path / "bundle")
        except BaseException:
            directory.close()
            raise
    finally:
        shutil.rmtree(staging)
    return _run(experiment, parts, directory, observer)


def _staging(path: Path) -> Path:
    """An empty folder beside the run directory.

    Exported here, a model that cannot be exported leaves no run, and an earlier one whole. What a kill left of an
    earlier export is replaced.
    """
    folder = path.with_name(f".{path.name}.export")
    try:
        if folder.exists():
            shutil.rmtree(folder)
        folder.mkdir(parents=True)
    except OSError as exc:
        raise InputError(f"--out {path}: cannot write beside it: {exc}") from exc
    return folder


def resume(out: Path | str, settings: Sequence[str] = (), *, observer: Observer = _silent) -> Run:
    """Continue a run that was killed or that diverged, from its last checkpoint; a finished one is returned as it is.

    Args:
        out: the run directory.
        settings: changes such as ``"training.learning_rate=0.001"``; see ``simulate``.
        observer: as in ``simulate``.

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
        bundled = (path / "bundle").exists()
        parts = _Parts.of(experiment, path / "bundle" if bundled else _given_path(experiment))
        directory.write_text(EXPERIMENT, experiment.to_toml())
        if not bundled:
            _make_bundle(experiment, parts, path / "bundle", observer)
    except BaseException:
        directory.close()
        raise
    return _run(experiment, parts, directory, observer)


def _ended(path: Path, settings: Sequence[str]) -> Run:
    """A finished run as it is; how it would be computed further does not matter any more."""
    changing = [setting for setting in settings if not setting.startswith("engine.")]
    if changing:
        raise InputError(f"the run in {path} has ended; start a new one to change {changing[0]!r}")
    return Run(path)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Parts:
    """What an experiment names, made and checked before anything is written."""

    task: Task
    model: nn.Module
    data: DeviceData
    weights: Weights
    algorithm: Algorithm
    settings: StepSettings
    fleet: Fleet
    availability: Availability
    given_bundle: Bundle | None
    headline: str

    @classmethod
    def of(cls, experiment: Experiment, bundle_path: Path | None) -> "_Parts":
        task = load_task(experiment.task.name, experiment.task.options)
        model = initial_model(task, seed=experiment.seed)
        data = _device_data(experiment, task)
        richest = int(data.num_training.argmax())
        if data.num_training[richest] == 0:
            raise InputError("no device has any examples: lower fleet.devices or set partition.examples_per_device")
        sample = data.training(richest)
        weights = check_task(task, model, sample).with_frozen(data.scaling(model))
        algorithm = _algorithm(experiment)
        settings = algorithm.step_settings(_step_settings(experiment))
        return cls(
            task=task,
            model=model,
            data=data,
            weights=weights,
            algorithm=algorithm,
            settings=settings,
            fleet=_fleet(experiment),
            availability=make_availability(experiment.fleet.availability, seed=experiment.seed),
            given_bundle=_given_bundle(bundle_path, experiment, settings, weights),
            headline=next(iter(task.metrics(torch.func.functional_call(model.eval(), {}, (sample.x,)), sample.y))),
        )


def _run(experiment: Experiment, parts: _Parts, directory: RunDirectory, observer: Observer) -> Run:
    try:
        bundle = Bundle.load(directory.path / "bundle")
        log = EventLog()
        population = Population(
            fleet=parts.fleet,
            availability=parts.availability,
            rule=Rule(**experiment.eligibility.model_dump()),
            workload=_workload(experiment, parts, bundle),
            seed=experiment.seed,
            log=log,
        )
        make_client = functools.partial(_make_client, experiment, str(bundle.path))
        observer("simulate", {})
        with Workers(make_client, processes=experiment.engine.processes) as workers:
            model = GlobalModel(
                weights=parts.weights,
                algorithm=parts.algorithm,
                session=EagerSession(parts.task, parts.model, parts.settings),
                test=parts.data.test,
                headline=parts.headline,
                workers=workers,
                store=DeviceStore(directory.path / "device_store"),
            )
            simulator = Simulator(
                plan=_round_plan(experiment),
                schedule=_schedule(experiment),
                population=population,
                model=model,
                directory=directory,
                log=log,
                observer=functools.partial(observer, "round"),
            )
            simulator.restore()
            outcome = simulator.run()
        _finish(experiment, parts, directory, population, model, outcome)
    finally:
        directory.close()
    return Run(directory.path)


def _finish(
    experiment: Experiment,
    parts: _Parts,
    directory: RunDirectory,
    population: Population,
    model: GlobalModel,
    outcome: Outcome,
) -> None:
    events = ordered(directory.read_parts("events"))
    rounds = round_table(directory.read_parts("rounds"), events)
    devices = device_table(parts.fleet, population.ledger, parts.data)
    reports = events[events["kind"] == "report"]
    summary = {
        "task": experiment.task.name,
        "program": experiment.fleet.program,
        "runtime": experiment.engine.runtime,
        "ended": outcome.reason,
        "rounds": int((rounds["outcome"] != "abandoned").sum()),
        "rounds_abandoned": int((rounds["outcome"] == "abandoned").sum()),
        "devices": len(parts.fleet),
        "device_rounds": int((events["kind"] == "assign").sum()),
        "device_steps": int(rounds["steps"].sum()),
        "reports_accepted": int((reports["reason"] == "accepted").sum()),
        "dropouts": dropouts(events),
        "ineligible": ineligible(events),
        "in_flight": outcome.in_flight,
        "non_finite_updates": int(rounds["non_finite"].sum()),
        "virtual_seconds": outcome.virtual_s,
        "wall_seconds": outcome.wall_s,
        "downlink_bytes": int(events.loc[events["kind"] == "download", "bytes"].sum()),
        "uplink_bytes": int(events.loc[events["kind"] == "upload", "bytes"].sum()),
        "energy_joules": float(events["joules"].sum()),
        "headline_metric": parts.headline,
        "metrics": {"initial": outcome.metrics_initial, **last_metrics(rounds)},
        "personalisation": personalisation(devices, parts.headline),
        "model_sha256": model.sha256,
        "events_sha256": events_sha256(events),
    }
    tables = {"events": events, "rounds": rounds, "devices": devices}
    directory.finish(tables, model.weights.trainable | model.weights.buffers, summary)


def _device_data(experiment: Experiment, task: Task) -> DeviceData:
    return DeviceData(task, devices=experiment.fleet.devices, seed=experiment.seed, **experiment.partition.model_dump())


def _fleet(experiment: Experiment) -> Fleet:
    section = experiment.fleet
    overrides = [
        DeviceOverride(
            devices="all" if override.devices == "all" else tuple(override.devices),
            **override.model_dump(exclude={"devices"}),
        )
        for override in section.overrides
    ]
    return build_fleet(
        devices=section.devices,
        seed=experiment.seed,
        mix=section.mix,
        phones=section.phones,
        names=section.names,
        network=section.network,
        overrides=overrides,
    )


def _step_settings(experiment: Experiment) -> StepSettings:
    training = experiment.training
    return StepSettings(
        momentum=training.momentum > 0.0,
        nesterov=training.nesterov,
        weight_decay=training.weight_decay > 0.0,
        clipping=training.max_norm > 0.0,
    )


def _hyper(experiment: Experiment) -> dict[str, float]:
    training = experiment.training
    return {
        "learning_rate": training.learning_rate,
        "momentum": training.momentum,
        "weight_decay": training.weight_decay,
        "max_norm": training.max_norm,
    }


def _algorithm(experiment: Experiment) -> Algorithm:
    name, server = experiment.algorithm.name, experiment.server
    optimizer: ServerOptimizer = ServerSgd(learning_rate=server.learning_rate)
    if server.optimizer == "momentum":
        optimizer = ServerMomentum(learning_rate=server.learning_rate, momentum=server.momentum)
    if name == "fedavg":
        return FedAvg(server_optimizer=optimizer)
    if name == "fedprox":
        return FedProx(server_optimizer=optimizer, proximal_mu=experiment.algorithm.proximal_mu)
    if ":" not in name:
        raise InputError(f'algorithm.name must be "fedavg", "fedprox" or "my_module:make_algorithm", got {name!r}')
    algorithm = load_factory(name, key="algorithm.name")(server_optimizer=optimizer)
    if not isinstance(algorithm, Algorithm):
        raise InputError(
            f"{name!r} returned {type(algorithm).__name__}, which lacks parts of training.algorithm.Algorithm"
        )
    return algorithm


def _make_bundle(experiment: Experiment, parts: _Parts, out: Path, observer: Observer) -> None:
    """The bundle of this run: the given one's programs, or a new export."""
    if parts.given_bundle is not None:
        with_weights(parts.given_bundle, parts.weights, out=out)
        return
    observer("export", {})
    export_bundle(
        parts.task,
        out=out,
        settings=parts.settings,
        hyper=_bundle_hyper(experiment, parts),
        max_batch=experiment.training.batch_size,
        weights=parts.weights,
        task_path=experiment.task.name,
        task_options=experiment.task.options,
    )


def _given_path(experiment: Experiment) -> Path | None:
    return Path(experiment.task.bundle) if experiment.task.bundle else None


def _given_bundle(path: Path | None, experiment: Experiment, settings: StepSettings, weights: Weights) -> Bundle | None:
    """The bundle at ``path``, if there is one to use, found to fit."""
    if path is None:
        return None
    given = Bundle.load(path)
    way_out = "export one for this experiment, or leave task.bundle out"
    if given.settings != settings:
        raise InputError(f"task.bundle {path} was exported {given.settings}, the experiment is {settings}: {way_out}")
    if given.max_batch < experiment.training.batch_size:
        raise InputError(
            f"task.bundle {path} takes batches up to {given.max_batch}, training.batch_size is "
            f"{experiment.training.batch_size}: {way_out}"
        )
    try:
        check_same_tensors(given, weights)
    except InputError as exc:
        raise InputError(f"task.bundle does not fit task {experiment.task.name!r}: {exc}; {way_out}") from exc
    return given


def _bundle_hyper(experiment: Experiment, parts: _Parts) -> dict[str, float]:
    terms = parts.algorithm.client_start(parts.weights, parts.algorithm.init(parts.weights), {})
    values = {**_hyper(experiment), **terms.hyper}
    return {name: values[name] for name in parts.settings.hyper_names}


def _workload(experiment: Experiment, parts: _Parts, bundle: Bundle) -> Workload:
    program = experiment.fleet.program
    footprint = bundle.footprint(program)
    step = footprint.operators["train_step"]
    return Workload(
        num_training=parts.data.num_training,
        steps=_steps_wanted(experiment, parts.data.num_training),
        step_s=step_seconds(
            kind=[operator.kind for operator in step],
            # Of each pair the second is at the largest batch: every step is charged as a full one.
            flops=[operator.flops[1] for operator in step],
            bytes=[operator.bytes[1] for operator in step],
            peak_flops=parts.fleet.peak_flops,
            memory_bytes_per_s=parts.fleet.memory_bytes_per_s,
            efficiency=load_efficiency(program),
        ),
        batch_size=experiment.training.batch_size,
        training_memory_bytes=footprint.training_memory_bytes,
        bundle_bytes=bundle.download_bytes(program),
        weights_bytes=LosslessCodec().encoded_bytes(parts.weights),
        update_bytes=LosslessCodec().encoded_bytes(parts.weights),
        partial_work=experiment.rounds.partial_work == "report",
    )


def _steps_wanted(experiment: Experiment, num_training: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    training = experiment.training
    if training.steps:
        return np.full(len(num_training), training.steps, dtype=np.int64)
    steps = [
        steps_of_epochs(int(count), epochs=training.epochs, batch_size=training.batch_size) for count in num_training
    ]
    return np.array(steps, dtype=np.int64)


def _round_plan(experiment: Experiment) -> RoundPlan:
    rounds = experiment.rounds
    return RoundPlan(
        cohort=rounds.cohort,
        over_selection=rounds.over_selection,
        minimum_ratio=rounds.minimum_ratio,
        deadline_s=rounds.deadline_s,
        interval_s=rounds.interval_s,
    )


def _schedule(experiment: Experiment) -> Schedule:
    return Schedule(
        count=experiment.rounds.count,
        horizon_s=experiment.rounds.horizon_s,
        evaluate_every=experiment.rounds.evaluate_every,
        checkpoint_every=experiment.engine.checkpoint_every,
    )


def _make_client(experiment: Experiment, bundle_path: str) -> Client:
    """The client of this process, rebuilt from the experiment: a worker process shares no memory with its parent."""
    task = load_task(experiment.task.name, experiment.task.options)
    algorithm = _algorithm(experiment)
    settings = algorithm.step_settings(_step_settings(experiment))
    runtime = experiment.engine.runtime
    session: Session
    if runtime == "torch":
        session = EagerSession(task, initial_model(task, seed=experiment.seed), settings)
    else:
        if runtime == "executorch":
            from pocketfleet.export.executorch import limit_threads

            # One thread a process, as for torch: processes share the machine's cores.
            limit_threads(1)
        session = open_session(Bundle.load(Path(bundle_path)), runtime)
    return Client(
        session=session,
        data=_device_data(experiment, task),
        algorithm=algorithm,
        settings=settings,
        hyper=_hyper(experiment),
        batch_size=experiment.training.batch_size,
    )
