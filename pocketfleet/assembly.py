"""From an experiment's sections to the objects that they name, made and checked before anything is written."""

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from pocketfleet.device_sim.arrival import Arrival, with_use
from pocketfleet.device_sim.attack import Attack, Attackers, AttackKind, num_classes
from pocketfleet.device_sim.availability import Availability, make_availability
from pocketfleet.device_sim.device_data import DeviceData
from pocketfleet.device_sim.efficiency import Profile, load_profile
from pocketfleet.device_sim.fleet import DeviceOverride, Fleet, build_fleet
from pocketfleet.device_sim.program_cost import step_seconds_of, training_memory_bytes
from pocketfleet.device_sim.recording import Recording
from pocketfleet.device_sim.transfer import Outage
from pocketfleet.device_sim.workload import Workload
from pocketfleet.errors import InputError
from pocketfleet.experiment import Experiment
from pocketfleet.export.bundle import Bundle
from pocketfleet.export.model_version import check_same_tensors
from pocketfleet.privacy_parts import secure_plan
from pocketfleet.sections import FleetSection
from pocketfleet.training.adaptation import Adaptation, adapted
from pocketfleet.training.algorithm import Algorithm
from pocketfleet.training.algorithm_by_name import load_algorithm
from pocketfleet.training.batches import steps_of_epochs
from pocketfleet.training.codec.lossless import tensors_bytes
from pocketfleet.training.examples import Examples
from pocketfleet.training.selection import Selection
from pocketfleet.training.selection_by_name import load_selection
from pocketfleet.training.server_optimizer import (
    ServerAdagrad,
    ServerAdam,
    ServerMomentum,
    ServerOptimizer,
    ServerSgd,
    ServerYogi,
)
from pocketfleet.training.step_settings import chosen_terms
from pocketfleet.training.task import (
    ArrivingTask,
    Task,
    arrived_examples,
    check_task,
    initial_model,
    load_task,
)
from pocketfleet.training.traffic import Traffic
from pocketfleet.training.train_step import StepSettings
from pocketfleet.training.weights import Tensors, Weights
from pocketfleet.update_parts import codec_of, download_of, report_bytes

__all__ = [
    "Parts",
    "adaptation",
    "adapted_task",
    "batch_size",
    "bundle_hyper",
    "device_data",
    "fleet_days",
    "given_path",
    "make_algorithm",
    "make_attackers",
    "make_fleet",
    "step_terms",
    "workload",
]

_DAY_S = 86_400.0
_SERVER_OPTIMIZERS: Mapping[str, Callable[..., ServerOptimizer]] = {
    "sgd": ServerSgd,
    "momentum": ServerMomentum,
    "adam": ServerAdam,
    "yogi": ServerYogi,
    "adagrad": ServerAdagrad,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What an experiment names, made and checked before anything is written."""

    task: Task
    model: nn.Module
    data: DeviceData
    weights: Weights
    algorithm: Algorithm
    traffic: Traffic
    settings: StepSettings
    fleet: Fleet
    attackers: Attackers
    availability: Availability
    arrival: Arrival | None
    profile: Profile
    given_bundle: Bundle | None
    headline: str
    selection: Selection
    recording: Recording | None

    @classmethod
    def of(cls, experiment: Experiment, bundle_path: Path | None) -> "Parts":
        """Everything but the bundle's files.

        Args:
            experiment: what to run.
            bundle_path: a bundle whose programs are to be used; ``None`` exports anew.

        Raises:
            InputError: something that the experiment names is not there, or does not fit.
        """
        task = adapted_task(experiment)
        model = initial_model(task, seed=experiment.seed)
        data = device_data(experiment, task)
        richest = int(data.num_training.argmax())
        if data.num_training[richest] == 0:
            raise InputError("no device has any examples: lower fleet.devices or set partition.examples_per_device")
        sample = data.training(richest)
        weights = check_task(task, model, sample).with_frozen(data.scaling(model))
        algorithm = make_algorithm(experiment)
        plain, hyper = step_terms(experiment)
        settings = algorithm.step_settings(plain)
        traffic = Traffic.of(algorithm, weights, hyper)
        codec_of(experiment).check(traffic.report)
        secure_plan(experiment, traffic.report)
        download_of(experiment, traffic).check(weights)
        availability = fleet_days(experiment.fleet, seed=experiment.seed)
        return cls(
            task=task,
            model=model,
            data=data,
            weights=weights,
            algorithm=algorithm,
            traffic=traffic,
            settings=settings,
            attackers=make_attackers(experiment, data),
            fleet=make_fleet(experiment.fleet, seed=experiment.seed),
            availability=availability,
            arrival=_arrival(experiment, task, data, availability),
            profile=load_profile(experiment.fleet.profile, program=experiment.fleet.program),
            given_bundle=_given_bundle(
                bundle_path, experiment, settings, weights, batch_size=batch_size(experiment, data)
            ),
            headline=_headline(task, model, sample, of_release=experiment.release.metric),
            selection=load_selection(
                experiment.rounds.selection,
                experiment.rounds.selection_options,
                seed=experiment.seed,
                population=experiment.fleet.devices,
                window_s=experiment.rounds.selection_window_s,
                trains=not experiment.engine.timing_only,
            ),
            recording=_recording(experiment, data) if experiment.rounds.recording else None,
        )


def adaptation(experiment: Experiment) -> Adaptation:
    """Which of the model's weights the devices train."""
    training = experiment.training
    return Adaptation(trainable=tuple(training.trainable), lora_rank=training.lora_rank)


def adapted_task(experiment: Experiment) -> Task:
    """The experiment's task, its model trained as ``adaptation`` says."""
    return adapted(load_task(experiment.task.name, experiment.task.options), adaptation(experiment))


def _headline(task: Task, model: nn.Module, sample: Examples, *, of_release: str) -> str:
    """The task's first metric.

    Raises:
        InputError: it has none, or not the one that releases go by.
    """
    names = list(task.metrics(torch.func.functional_call(model.eval(), {}, (sample.x,)), sample.y))
    if not names:
        raise InputError(f"metrics of task {task.name!r} must return at least one tensor by name to be simulated")
    if of_release not in {"loss", *names}:
        raise InputError(
            f"release.metric must be one of {', '.join(['loss', *names])}, which task {task.name!r} measures, got "
            f"{of_release!r}"
        )
    return names[0]


def given_path(experiment: Experiment) -> Path | None:
    """The experiment's own bundle, if it names one."""
    return Path(experiment.task.bundle) if experiment.task.bundle else None


def _given_bundle(
    path: Path | None, experiment: Experiment, settings: StepSettings, weights: Weights, *, batch_size: int
) -> Bundle | None:
    """The bundle at ``path``, if there is one to use, found to fit."""
    if path is None:
        return None
    given = Bundle.load(path)
    way_out = "export one for this experiment, or leave task.bundle out"
    if given.settings != settings:
        raise InputError(
            f"task.bundle {path} was exported for {given.settings}, the experiment is {settings}: {way_out}"
        )
    if given.max_batch < batch_size:
        raise InputError(
            f"task.bundle {path} takes batches up to {given.max_batch}, training.batch_size is {batch_size}: {way_out}"
        )
    try:
        check_same_tensors(given, weights)
    except InputError as exc:
        raise InputError(f"task.bundle does not fit task {experiment.task.name!r}: {exc}; {way_out}") from exc
    return given


def device_data(experiment: Experiment, task: Task) -> DeviceData:
    """Which examples each device holds."""
    return DeviceData(
        task,
        devices=experiment.fleet.devices,
        seed=experiment.seed,
        arrives=experiment.data.arrival != "at_start",
        **experiment.partition.model_dump(),
    )


def _arrival(experiment: Experiment, task: Task, data: DeviceData, availability: Availability) -> Arrival | None:
    """What says which examples a device holds at a time; none where all are there from the start."""
    section = experiment.data
    if section.arrival == "at_start":
        return None
    schedule = with_use(section.examples_per_hour)
    if section.arrival == "task":
        if not isinstance(task, ArrivingTask):
            raise InputError(f'data.arrival "task" needs a task with a method arrivals, {task.name!r} has none')
        schedule = functools.partial(arrived_examples, task)
        # Tried once, before anything is written.
        schedule(np.zeros(1, dtype=np.int64), np.zeros(1), np.zeros(1))
    return Arrival(
        num_examples=data.num_training + data.num_held_out,
        schedule=schedule,
        day=availability,
        retention_s=section.retention_days * _DAY_S,
    )


def fleet_days(section: FleetSection, *, seed: int) -> Availability:
    """The days of the phones."""
    return make_availability(
        section.availability,
        seed=seed,
        trace_repeat=section.trace_repeat,
        trace_shift_s=section.trace_shift_s,
        always=section.always,
        time_zones=section.time_zones,
    )


def make_fleet(section: FleetSection, *, seed: int) -> Fleet:
    """The phones."""
    overrides = [
        DeviceOverride(
            devices="all" if override.devices == "all" else tuple(override.devices),
            **override.model_dump(exclude={"devices"}),
        )
        for override in section.overrides
    ]
    return build_fleet(
        devices=section.devices,
        seed=seed,
        mix=section.mix,
        catalogue=Path(section.catalogue) if section.catalogue else None,
        phones=section.phones,
        names=section.names,
        network=section.network,
        outage=Outage(mean_s=section.outage_mean_s, limit_s=section.outage_limit_s),
        threads=section.threads,
        overrides=overrides,
    )


def make_attackers(experiment: Experiment, data: DeviceData) -> Attackers:
    """Which devices harm the training.

    Raises:
        InputError: labels are to be flipped that are no classes.
    """
    section = experiment.fleet
    attacks = [
        Attack(kind=AttackKind(attack.kind), ratio=attack.ratio, devices=tuple(attack.devices), scale=attack.scale)
        for attack in section.attacks
    ]
    flips = any(attack.kind is AttackKind.LABEL_FLIP for attack in attacks)
    classes = num_classes(data.examples.y, task=experiment.task.name) if flips else 0
    return Attackers(attacks, devices=section.devices, seed=experiment.seed, classes=classes)


def step_terms(experiment: Experiment) -> tuple[StepSettings, dict[str, float]]:
    """Which terms a step has before the algorithm adds its own, and how strong they are."""
    training = experiment.training
    return chosen_terms(
        optimizer=training.optimizer,
        learning_rate=training.learning_rate,
        momentum=training.momentum,
        nesterov=training.nesterov,
        weight_decay=training.weight_decay,
        max_norm=training.max_norm,
    )


def bundle_hyper(experiment: Experiment, parts: Parts) -> dict[str, float]:
    """Hyper-parameters that the step takes, the algorithm's among them: the manifest's defaults."""
    algorithm, weights = parts.algorithm, parts.weights
    broadcast = algorithm.broadcast(algorithm.init(weights))
    terms = algorithm.client_start(weights, broadcast, algorithm.device_init(weights))
    values = {**step_terms(experiment)[1], **terms.hyper}
    return {name: values[name] for name in parts.settings.hyper_names}


def make_algorithm(experiment: Experiment) -> Algorithm:
    """The algorithm that the experiment names, with its server optimizer.

    Raises:
        InputError: there is none of that name, or a user's own is none.
    """
    section, server = experiment.algorithm, experiment.server
    optimizer = _SERVER_OPTIMIZERS[server.optimizer](**server.arguments())
    return load_algorithm(section.name, section.arguments(), server_optimizer=optimizer)


def batch_size(experiment: Experiment, data: DeviceData) -> int:
    """Examples a step; under FedSGD as many as the richest device trains on, so that each one's batch is all it has."""
    if experiment.algorithm.name == "fedsgd":
        return int(data.num_training.max())
    return experiment.training.batch_size


def workload(experiment: Experiment, parts: Parts, bundle: Bundle) -> Workload:
    """What a round asks of each device, and what that costs it, by the bundle's footprint."""
    program, fleet, traffic = experiment.fleet.program, parts.fleet, parts.traffic
    size = batch_size(experiment, parts.data)
    footprint = bundle.footprint(program)
    return Workload(
        num_training=parts.data.num_training,
        steps=_steps_wanted(experiment, parts.data.num_training, batch_size=size),
        num_examples=parts.data.num_training + parts.data.num_held_out,
        arrival=parts.arrival,
        epochs=0 if experiment.training.steps else experiment.training.epochs,
        step_s=step_seconds_of(footprint, fleet, profile=parts.profile, models=traffic.models),
        batch_size=size,
        training_memory_bytes=training_memory_bytes(footprint, parts.weights.trainable, models=traffic.models),
        bundle_bytes=bundle.download_bytes(program) + _file_bytes(traffic.first),
        weights_bytes=download_of(experiment, traffic).encoded_bytes(parts.weights) + _file_bytes(traffic.broadcast),
        update_bytes=report_bytes(experiment, traffic.report),
        partial_work=experiment.rounds.partial_work == "report",
    )


def _file_bytes(tensors: Tensors) -> int:
    """Size of a file that there is only where it holds something."""
    return tensors_bytes(tensors) if tensors else 0


def _steps_wanted(
    experiment: Experiment, num_training: np.ndarray[Any, Any], *, batch_size: int
) -> np.ndarray[Any, Any]:
    training = experiment.training
    if training.steps:
        return np.full(len(num_training), training.steps, dtype=np.int64)
    return steps_of_epochs(num_training, epochs=training.epochs, batch_size=batch_size)


def _recording(experiment: Experiment, data: DeviceData) -> Recording:
    """The log that the experiment names, found to fit."""
    if experiment.rounds.selection != "uniform":
        raise InputError(
            f'rounds.selection "{experiment.rounds.selection}" learns from what phones report, and those of '
            'rounds.recording report as they did: leave it at "uniform"'
        )
    recording = Recording.load(Path(experiment.rounds.recording))
    if recording.devices > experiment.fleet.devices:
        raise InputError(
            f"rounds.recording {experiment.rounds.recording} is of {recording.devices} devices, fleet.devices is "
            f"{experiment.fleet.devices}: set it to {recording.devices} or more"
        )
    worked = np.array(sorted(recording.stories), dtype=np.int64)
    without = worked[data.num_training[worked] == 0]
    if len(without) and not experiment.engine.timing_only:
        raise InputError(
            f"rounds.recording: device {without[0]} took part, and the partition deals it no examples to train on: set "
            "partition.examples_per_device, or replay the clock alone with --timing-only"
        )
    return recording
