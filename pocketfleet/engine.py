"""From an experiment to who trains: the way of computing, and the processes that compute."""

import functools
import math
import warnings
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path

import torch

from pocketfleet.assembly import (
    Parts,
    adapted_task,
    batch_size,
    device_data,
    make_algorithm,
    make_attackers,
    step_terms,
    workload,
)
from pocketfleet.device_sim.batched_client import BatchedClient
from pocketfleet.device_sim.client import Client
from pocketfleet.device_sim.cluster import RayWorkers, check_ray
from pocketfleet.device_sim.device_data import DeviceData
from pocketfleet.device_sim.engine_plan import Way, candidates
from pocketfleet.device_sim.engine_probe import Probed, probe
from pocketfleet.device_sim.workers import ChunkTrainer, Trainers, Workers, cores
from pocketfleet.errors import InputError, PocketfleetWarning
from pocketfleet.experiment import Experiment
from pocketfleet.export.bundle import Bundle
from pocketfleet.export.session import EagerSession, Session, open_session
from pocketfleet.training.algorithm import Algorithm
from pocketfleet.training.batched_step import BatchedStep, maskable
from pocketfleet.training.task import Task, check_task, initial_model
from pocketfleet.training.torch_compiler import compiler_failure
from pocketfleet.training.train_step import StepSettings, TrainStep
from pocketfleet.training.unfolded_convolution import UnfoldedConvolutions
from pocketfleet.update_parts import aggregator_factory, uplink_of
from pocketfleet.update_sections import AggregationSection, CodecSection, SecureAggregationSection

__all__ = ["check_engine", "make_trainer", "make_workers", "planned", "planned_way"]

# Examples on which a model is tried for whether its batches may be padded.
_TRIED = 4
# What several processes must save to be started: to load torch and the task takes each of them some five seconds of a
# core, measured on two.
_WORTH_WORKERS_S = 10.0


def check_engine(experiment: Experiment) -> None:
    """Whether this machine has what the experiment is computed with.

    Raises:
        InputError: Ray is not installed, or torch sees no such device.
    """
    engine = experiment.engine
    if engine.backend == "ray":
        check_ray()
    if engine.device == "cuda" and not torch.cuda.is_available():
        raise InputError('engine.device is "cuda", and torch sees no such device here: leave it at "cpu"')


def planned(experiment: Experiment, parts: Parts, bundle_path: Path) -> Experiment:
    """The experiment with its way of computing settled: nothing in ``[engine]`` is ``auto`` any more.

    But for a cluster's processes: how many cores it has may change.

    Raises:
        InputError: the way that is asked for is not possible.
    """
    if experiment.engine.timing_only:
        return experiment
    if experiment.engine.compile and (failure := compiler_failure()):
        # What torch says of a missing compiler ends with a full stop, or not.
        reason = f"engine.compile is left out, torch's compiler does not work here: {failure.rstrip('.')}"
        warnings.warn(reason, PocketfleetWarning, stacklevel=2)
        experiment = _with_engine(experiment, compile=False, plan_reason=reason)
    probed = None
    if experiment.engine.plan == "auto":
        probed = _probed(experiment, parts, bundle_path)
        compiles = experiment.engine.compile and probed.way.startswith("batched")
        reason = "; ".join(filter(None, [experiment.engine.plan_reason, probed.reason]))
        if compiles != experiment.engine.compile:
            reason += "; engine.compile is of mapped devices alone, and left out"
        experiment = _with_engine(experiment, plan=probed.way, plan_reason=reason, compile=compiles)
    if experiment.engine.processes != "auto" or experiment.engine.backend == "ray":
        return experiment
    seconds = math.nan if probed is None else probed.step_s * _steps(experiment, parts, bundle_path)
    # Not a number either where nothing was timed: one process then.
    if not seconds * (1 - 1 / cores()) > _WORTH_WORKERS_S:
        return _with_engine(experiment, processes=1)
    reason = f"{experiment.engine.plan_reason}; {cores()} processes, since one would train for some {seconds:.0f} s"
    return _with_engine(experiment, processes=cores(), plan_reason=reason)


def _probed(experiment: Experiment, parts: Parts, bundle_path: Path) -> Probed:
    engine, cohort = experiment.engine, experiment.rounds.cohort
    if engine.runtime != "torch":
        return Probed(way="each", reason=f"the programs of {engine.runtime} train device by device", step_s=math.nan)
    ways = candidates(parts.model, cohort=cohort, onnx=_has_onnx(bundle_path))
    if engine.device == "cuda":
        ways = tuple(way for way in ways if way.startswith("batched")) or ("batched",)
    algorithm, honest = parts.algorithm, _honest(experiment)
    probed = probe(
        ways,
        lambda way: make_trainer(honest, str(bundle_path), way=way, data=parts.data),
        parts.data,
        parts.weights,
        cohort=cohort,
        chunk=engine.chunk,
        broadcast=algorithm.broadcast(algorithm.init(parts.weights)),
        device_start=algorithm.device_init(parts.weights),
    )
    if any(way.startswith("batched") for way in ways):
        return probed
    return replace(probed, reason=f"{probed.reason}; {cohort} devices a round are too few to map")


def _steps(experiment: Experiment, parts: Parts, bundle_path: Path) -> float:
    """Steps of all devices in all rounds, if every round takes its cohort."""
    steps = workload(experiment, parts, Bundle.load(bundle_path)).steps
    return float(steps.mean()) * experiment.rounds.cohort * experiment.rounds.count


def _honest(experiment: Experiment) -> Experiment:
    """The experiment as what ways are compared by.

    What attackers report may be no number, and rules may drop it; a codec costs all ways alike, and tells less apart; a
    secure sum is of a round, not of a way.
    """
    plain = {
        "fleet": experiment.fleet.model_copy(update={"attacks": []}),
        "aggregation": AggregationSection(),
        "codec": CodecSection(),
        "secure_aggregation": SecureAggregationSection(),
    }
    return experiment.model_copy(update=plain)


def _with_engine(experiment: Experiment, **changed: object) -> Experiment:
    engine = experiment.engine.model_copy(update=changed)
    return experiment.model_copy(update={"engine": engine})


def _has_onnx(bundle_path: Path) -> bool:
    return "onnx" in Bundle.load(bundle_path).runtimes


def make_workers(experiment: Experiment, bundle_path: Path) -> AbstractContextManager[Trainers]:
    """The processes that train the experiment's cohorts, each with a trainer of its own.

    Raises:
        InputError: the experiment asks for Ray, which is not installed.
    """
    engine = experiment.engine
    processes = 0 if engine.processes == "auto" else engine.processes
    if engine.backend == "ray":
        return RayWorkers(
            functools.partial(make_trainer, experiment),
            processes=processes,
            address=engine.address,
            files=_files(bundle_path) if _runs_programs(experiment) else {},
        )
    make_here = functools.partial(make_trainer, experiment, str(bundle_path))
    return Workers(make_here, processes=processes or cores())


def _runs_programs(experiment: Experiment) -> bool:
    """Whether trainers need the bundle's files."""
    return experiment.engine.runtime != "torch" or planned_way(experiment) == "each_onnx"


def _files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def make_trainer(
    experiment: Experiment, bundle_path: str, *, way: Way | None = None, data: DeviceData | None = None
) -> ChunkTrainer:
    """Who trains chunks in this process, made of the experiment: a worker process shares no objects with its parent.

    Args:
        experiment: planned, but for ``way``.
        bundle_path: the run's bundle.
        way: in place of the experiment's.
        data: the fleet's examples, if they are there already.

    Raises:
        InputError: the way is not possible for this task.
    """
    task = adapted_task(experiment)
    algorithm = make_algorithm(experiment)
    settings = algorithm.step_settings(step_terms(experiment)[0])
    way = way or planned_way(experiment)
    data = data or device_data(experiment, task)
    if way.startswith("batched"):
        return _batched(experiment, task, data, algorithm, settings, unfolded=way == "batched_unfolded")
    return Client(
        session=_session(experiment, task, settings, bundle_path, way),
        data=data,
        algorithm=algorithm,
        settings=settings,
        hyper=step_terms(experiment)[1],
        batch_size=batch_size(experiment, data),
        personalised=experiment.training.personalised,
        make_aggregator=aggregator_factory(experiment),
        attackers=make_attackers(experiment, data) if experiment.fleet.attacks else None,
        uplink=uplink_of(experiment),
    )


def planned_way(experiment: Experiment) -> Way:
    """The way of a planned experiment."""
    plan = experiment.engine.plan
    if plan == "auto":
        raise ValueError("the experiment is not planned yet")
    return plan


def _session(experiment: Experiment, task: Task, settings: StepSettings, bundle_path: str, way: Way) -> Session:
    runtime = experiment.engine.runtime
    if way == "each_onnx":
        runtime = "onnx"
    if runtime == "torch":
        memory_format = torch.channels_last if way == "each_channels_last" else torch.contiguous_format
        return EagerSession(task, initial_model(task, seed=experiment.seed), settings, memory_format=memory_format)
    if runtime == "executorch":
        from pocketfleet.export.executorch import limit_threads

        # One thread a process, as for torch: processes share the machine's cores.
        limit_threads(1)
    return open_session(Bundle.load(Path(bundle_path)), runtime)


def _batched(
    experiment: Experiment,
    task: Task,
    data: DeviceData,
    algorithm: Algorithm,
    settings: StepSettings,
    *,
    unfolded: bool,
) -> BatchedClient:
    model = initial_model(task, seed=experiment.seed)
    few = data.training(int(data.num_training.argmax()))
    few = few.take(torch.arange(min(len(few), _TRIED)))
    weights = check_task(task, model, few)
    if tuple(task.loss(model.eval()(few.x), few.y).shape) != (len(few),):
        raise InputError(
            f'engine.plan "batched" needs a loss of one value an example, that of task {task.name!r} is their mean: '
            'return the values, or set engine.plan to "each"'
        )
    step = TrainStep(model, task.loss, settings)
    return BatchedClient(
        task=task,
        step=BatchedStep(
            step,
            masked=len(few) > 1 and maskable(model, task.loss, weights, few.x, few.y),
            compiled=experiment.engine.compile,
            running=UnfoldedConvolutions if unfolded else nullcontext,
        ),
        train_step=step,
        data=data,
        algorithm=algorithm,
        settings=settings,
        hyper=step_terms(experiment)[1],
        batch_size=batch_size(experiment, data),
        chunk=experiment.engine.chunk,
        device=experiment.engine.device,
        personalised=experiment.training.personalised,
        make_aggregator=aggregator_factory(experiment),
        attackers=make_attackers(experiment, data) if experiment.fleet.attacks else None,
        uplink=uplink_of(experiment),
    )
