"""Everything that settles a bundle's files, from what a caller gives."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import get_args

from pydantic import JsonValue
from torch import nn

from pocketfleet.errors import InputError
from pocketfleet.export.decompositions import Convolution
from pocketfleet.export.flat_method import example_batch
from pocketfleet.export.session import Runtime
from pocketfleet.training.adaptation import Adaptation, adapted
from pocketfleet.training.examples import Examples
from pocketfleet.training.feature_scaling import FeatureSums, frozen_scaling, has_scaling
from pocketfleet.training.task import Task, check_task, initial_model, task_examples
from pocketfleet.training.train_step import StepSettings, TrainStep
from pocketfleet.training.weights import Weights

__all__ = ["RUNTIMES", "Plan", "make_plan", "runtimes_of"]

RUNTIMES: tuple[Runtime, ...] = ("executorch", "onnx")


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Everything that settles a bundle's files.

    Attributes:
        task: what is learnt, adapted.
        task_path: by which ``load_task`` finds the task before its adaptation; ``None`` where it cannot.
        int8_predict: whether ``model.pte`` gets a quantised copy of ``predict``.
        training_module: whether there is a file for ExecuTorch's own ``TrainingModule``.
        convolution: how ExecuTorch convolves; ``None`` where the model has no convolution that leaves a choice.
        leave_out: by runtime, operators whose decomposition is not used.
    """

    task: Task
    task_path: str | None
    task_options: Mapping[str, JsonValue]
    adaptation: Adaptation
    model: nn.Module
    weights: Weights
    examples: Examples
    settings: StepSettings
    hyper: Mapping[str, float]
    max_batch: int
    runtimes: tuple[Runtime, ...] = RUNTIMES
    int8_predict: bool = False
    training_module: bool = False
    convolution: Convolution | None = None
    leave_out: Mapping[Runtime, Collection[str]] = field(default_factory=dict)


def runtimes_of(only: str | None) -> tuple[Runtime, ...]:
    """Both runtimes, or the one that is named.

    Raises:
        InputError: there is no such runtime.
    """
    if only is None:
        return RUNTIMES
    if only not in get_args(Runtime):
        raise InputError(f"only must be {' or '.join(RUNTIMES)}, got {only!r}")
    return tuple(runtime for runtime in RUNTIMES if runtime == only)


def make_plan(
    task: Task,
    *,
    settings: StepSettings,
    hyper: Mapping[str, float],
    max_batch: int,
    task_path: str | None = None,
    task_options: Mapping[str, JsonValue] | None = None,
    adaptation: Adaptation | None = None,
    weights: Weights | None = None,
    seed: int = 0,
    only: str | None = None,
    int8_predict: bool = False,
    training_module: bool = False,
    convolution: Convolution | None = None,
) -> Plan:
    """What ``export_task`` settles before it writes; its arguments and errors."""
    missing = [name for name in settings.hyper_names if name not in hyper]
    if missing:
        raise InputError(f"hyper-parameters missing: {missing}; the step's settings want {list(settings.hyper_names)}")
    if max_batch < 1:
        raise InputError(f"max_batch must be 1 or more, got {max_batch}")
    if only == "onnx" and (int8_predict or training_module):
        raise InputError("int8 predictions and training modules are ExecuTorch's: export for it too")
    if only == "onnx" and convolution is not None:
        raise InputError("the way of convolutions is ExecuTorch's: export for it too")
    adaptation = adaptation or Adaptation()
    task = adapted(task, adaptation)
    examples = task_examples(task, "train")
    model = initial_model(task, seed=seed)
    own = check_task(task, model, examples)
    if weights is None:
        weights = own
        if has_scaling(model):
            weights = weights.with_frozen(frozen_scaling(model, [FeatureSums.of(examples.x)]))
    plan = Plan(
        task=task,
        task_path=task_path,
        task_options=dict(task_options or {}),
        adaptation=adaptation,
        model=model,
        weights=weights,
        examples=examples,
        settings=settings,
        hyper=hyper,
        max_batch=max_batch,
        runtimes=runtimes_of(only),
        int8_predict=int8_predict,
        training_module=training_module,
    )
    return replace(plan, convolution=_convolution(plan, convolution))


def _convolution(plan: Plan, wanted: Convolution | None) -> Convolution | None:
    """The way that is wanted, else the faster one; ``None`` where there is no choice."""
    if wanted is not None and wanted not in get_args(Convolution):
        raise InputError(f"convolution must be {' or '.join(get_args(Convolution))}, got {wanted!r}")
    if "executorch" not in plan.runtimes:
        return None
    from pocketfleet.export.convolution_choice import chosen_convolution

    step = TrainStep(plan.model, plan.task.loss, plan.settings)
    batch = example_batch(plan.examples, batch=plan.max_batch)
    return chosen_convolution(step, plan.weights, batch, wanted=wanted)
