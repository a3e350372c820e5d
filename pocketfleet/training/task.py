"""What is learnt: a model, a loss, metrics and examples, and how a task is found by name.

A task is any object with the attributes of ``Task``. A packaged one is found by its name, a user's own by
``module:factory``; the factory is called with the experiment's ``task.options``.
"""

import importlib
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from pocketfleet.errors import InputError
from pocketfleet.training.dropout import drawn
from pocketfleet.training.examples import ExampleDataset, Examples, as_examples
from pocketfleet.training.running_module import returning_module, running_module
from pocketfleet.training.tasks import packaged_tasks
from pocketfleet.training.train_step import StepSettings, TrainState, TrainStep
from pocketfleet.training.user_examples import UserExamples, joined
from pocketfleet.training.weights import Tensors, Weights, model_weights

__all__ = [
    "ArrivingTask",
    "ColumnarTask",
    "NaturalTask",
    "Task",
    "arrived_examples",
    "check_task",
    "initial_model",
    "load_factory",
    "load_task",
    "task_examples",
    "user_examples",
]

_TASK_PARTS = ("loss", "make_model", "metrics", "name", "test_examples", "train_examples")


@runtime_checkable
class Task(Protocol):
    """A model, its loss and metrics, and the examples that a partition splits over devices.

    ``loss(output, target)`` returns ``[batch]``, one loss an example; a scalar mean is accepted.
    ``metrics(output, target)`` returns tensors ``[batch]`` by name, one value an example, of which means are
    taken (a squared error, a 0 or 1 for a hit); both must be made of tensor operations, for they are exported.
    """

    name: str

    def make_model(self) -> nn.Module:
        """The model, called as ``model(x)``; torch's generator is seeded around the call."""
        ...

    def loss(self, output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """One loss an example, ``[batch]``."""
        ...

    def metrics(self, output: torch.Tensor, target: torch.Tensor) -> Tensors:
        """One value an example for each metric, ``[batch]``; the first one is the task's headline.

        Without any a task can be exported, but not simulated.
        """
        ...

    def train_examples(self) -> Examples | ExampleDataset:
        """What the devices hold together."""
        ...

    def test_examples(self) -> Examples | ExampleDataset:
        """What no device holds."""
        ...


@runtime_checkable
class NaturalTask(Task, Protocol):
    """A task whose examples already belong to users: ``partition.kind = "natural"``."""

    def device_examples(self, device: int) -> Examples | ExampleDataset:
        """The examples of user ``device`` (0, 1, ...)."""
        ...


@runtime_checkable
class ColumnarTask(Task, Protocol):
    """The same for many users: their examples are columns, perhaps on disk, and none is an object of its own."""

    def user_examples(self) -> UserExamples:
        """The examples of all users."""
        ...


@runtime_checkable
class ArrivingTask(Task, Protocol):
    """A task that knows when its devices' examples arrive: ``data.arrival = "task"``."""

    def arrivals(
        self,
        devices: npt.NDArray[np.int64],
        *,
        at_s: npt.NDArray[np.float64],
        use_s: npt.NDArray[np.float64],
    ) -> npt.NDArray[np.int64]:
        """How many examples have arrived by ``at_s`` on each device; columns ``[n]``, an entry by itself.

        Args:
            devices: users 0, 1, ...; one may come more than once.
            at_s: virtual seconds since the run began.
            use_s: for how many of them the device was in use.

        Returns:
            ``int64 [n]``, 0 or more, which never falls as ``at_s`` and ``use_s`` rise. More than the device has is all
            of them.
        """
        ...


def load_factory(path: str, *, key: str) -> Any:  # noqa: ANN401 - whatever the user's module holds
    """The object named ``module:attribute``; the working directory is searched last.

    Args:
        path: for example ``"mytask:make_task"``.
        key: the experiment's key that holds it, for the message.

    Raises:
        InputError: the module or the attribute is missing, or the module fails when imported.
    """
    module_name, _, attribute = path.partition(":")
    if not module_name or not attribute:
        raise InputError(f'{key} must be a packaged name or "module:factory", got {path!r}')
    here = str(Path.cwd())
    if here not in sys.path:
        # Appended, never first: a user's own folders called training/ or export/ must not shadow installed packages.
        sys.path.append(here)
    try:
        module = importlib.import_module(module_name)
    except Exception as exc:
        # What the module itself imports may be missing too: that is a failure of the module.
        if isinstance(exc, ModuleNotFoundError) and f"{module_name}.".startswith(f"{exc.name}."):
            raise InputError(
                f"{key}: no module named {exc.name!r} for {path!r}; start where {module_name.split('.')[0]}.py lies "
                f"(searched: the installed packages, then {here})"
            ) from exc
        raise InputError(f"{key}: importing {module_name!r} failed: {type(exc).__name__}: {exc}") from exc
    if not hasattr(module, attribute):
        raise InputError(f"{key}: module {module_name!r} has no {attribute!r}")
    return getattr(module, attribute)


def load_task(name: str, options: Mapping[str, Any] | None = None) -> Task:
    """A task by packaged name or ``module:factory``, made with ``options`` as keyword arguments.

    Raises:
        InputError: the name is unknown, the factory rejects the options, or what it returns is no task.
    """
    options = dict(options or {})
    if ":" in name:
        factory = load_factory(name, key="task.name")
    elif name in packaged_tasks():
        factory = importlib.import_module(f"pocketfleet.training.tasks.{name}").make_task
    else:
        raise InputError(
            f'task.name must be one of {sorted(packaged_tasks())} or a path such as "my_module:make_task", got {name!r}'
        )
    try:
        task = factory(**options)
    except Exception as exc:
        raise InputError(f"task {name!r} could not be made with options {options}: {_said(exc)}") from exc
    if not isinstance(task, Task):
        missing = [part for part in _TASK_PARTS if not hasattr(task, part)]
        raise InputError(f"{name!r} returned {type(task).__name__}, which is no task: it lacks {missing}")
    return task


def task_examples(task: Task, part: Literal["train", "test"]) -> Examples:
    """``train_examples`` or ``test_examples`` of a task, as tensors.

    Raises:
        InputError: the task fails to give them, or what it gives is no examples.
    """
    what = f"{part}_examples of task {task.name!r}"
    try:
        given = task.train_examples() if part == "train" else task.test_examples()
    except Exception as exc:
        raise InputError(f"{what} failed: {_said(exc)}") from exc
    return as_examples(given, what=what)


def user_examples(task: Task, users: int) -> UserExamples:
    """The examples that belong to users by nature, of ``users`` of them at least.

    Raises:
        InputError: the task knows no users or too few, fails to give their examples, or gives something else.
    """
    if isinstance(task, ColumnarTask):
        return _columns(task, users)
    if not isinstance(task, NaturalTask):
        raise InputError(
            f'partition.kind "natural" needs a task with device_examples or user_examples, {task.name!r} has neither'
        )
    return joined([_device_examples(task, device) for device in range(users)], what="device_examples")


def _columns(task: ColumnarTask, users: int) -> UserExamples:
    what = f"user_examples of task {task.name!r}"
    try:
        given = task.user_examples()
    except Exception as exc:
        raise InputError(f"{what} failed: {_said(exc)}") from exc
    if not isinstance(given, UserExamples):
        raise InputError(f"{what} must return UserExamples(x, y, offsets), got {type(given).__name__}")
    if len(given) < users:
        raise InputError(
            f"fleet.devices must be 1..{len(given)} (the users of task {task.name!r}, one a device, for partition.kind "
            f'"natural"), got {users}: lower it, or choose another partition'
        )
    return given


def _device_examples(task: NaturalTask, device: int) -> Examples:
    what = f"device_examples({device}) of task {task.name!r}"
    try:
        given = task.device_examples(device)
    except Exception as exc:
        raise InputError(f"{what} failed: {_said(exc)}") from exc
    return as_examples(given, what=what)


def arrived_examples(
    task: ArrivingTask,
    devices: npt.NDArray[np.int64],
    at_s: npt.NDArray[np.float64],
    use_s: npt.NDArray[np.float64],
) -> npt.NDArray[np.int64]:
    """``arrivals`` of a task, ``int64 [n]``.

    Raises:
        InputError: the task fails to tell, or what it tells is no count for each device.
    """
    what = f"arrivals of task {task.name!r}"
    try:
        given = np.asarray(task.arrivals(devices, at_s=at_s, use_s=use_s))
    except Exception as exc:
        raise InputError(f"{what} failed: {_said(exc)}") from exc
    if given.shape != devices.shape or not np.issubdtype(given.dtype, np.integer):
        raise InputError(
            f"{what} must return whole numbers of shape {devices.shape}, one for each device, got {given.dtype} of "
            f"shape {given.shape}"
        )
    if bool((given < 0).any()):
        raise InputError(f"{what} must return counts of 0 or more, got {int(given.min())}")
    return given.astype(np.int64)


def _said(error: Exception) -> str:
    return str(error) if isinstance(error, InputError) else f"{type(error).__name__}: {error}"


def initial_model(task: Task, *, seed: int) -> nn.Module:
    """The task's model with initial weights drawn from ``seed``; torch's global generator is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)  # noqa: TID251 - the one place that seeds a model
        model = task.make_model()
    if not isinstance(model, nn.Module):
        raise InputError(f"make_model of task {task.name!r} must return a torch.nn.Module, got {type(model).__name__}")
    return model


def check_task(task: Task, model: nn.Module, examples: Examples) -> Weights:
    """Try one loss, one gradient and the metrics on a few examples before anything is built on them.

    Returns:
        The model's weights.

    Raises:
        InputError: a shape, a type or a value is not what ``Task`` promises; the message says which.
    """
    few = as_examples(examples, what="train_examples")
    few = few.take(torch.arange(min(len(few), 3)))
    if len(few) == 0:
        raise InputError(f"task {task.name!r} has no training examples")
    weights = model_weights(model, few.x)
    step = TrainStep(model, task.loss, StepSettings())
    output = model.eval()(few.x)
    if not isinstance(output, torch.Tensor):
        raise InputError(
            f"the model of task {task.name!r} must return one tensor, got {type(output).__name__} from "
            f"{returning_module(model, few.x)}: wrap it in a module that returns the one that the loss needs"
        )
    try:
        loss = task.loss(output, few.y)
    except Exception as exc:
        raise InputError(
            f"the loss of task {task.name!r} fails on an output of shape {tuple(output.shape)} and targets of shape "
            f"{tuple(few.y.shape)}: {_said(exc)}"
        ) from exc
    if not isinstance(loss, torch.Tensor) or tuple(loss.shape) not in {(), (len(few),)}:
        shape = tuple(loss.shape) if isinstance(loss, torch.Tensor) else type(loss).__name__
        raise InputError(
            f"the loss of task {task.name!r} must return one value an example, shape ({len(few)},) for a batch of "
            f'{len(few)}, or their mean, shape (); got {shape}. With torch.nn.functional losses use reduction="none" '
            "and average all but the first dimension"
        )
    losses = _first_losses(task, step, weights, few)
    if not torch.equal(*losses) and bool(torch.isfinite(torch.stack(losses)).all()):
        raise InputError(
            f"the model of task {task.name!r} gives another loss each time it is called on the same examples, which "
            "can neither be exported nor replayed: look for what it remembers between calls, or draws apart from torch"
        )
    if not bool(torch.isfinite(losses[0])):
        raise InputError(
            f"the loss of task {task.name!r} is {float(losses[0])} on its first examples, untrained: look for "
            "a logarithm of 0, a division by 0, or examples with inf or nan"
        )
    _check_metrics(task, output, few.y)
    return weights


def _first_losses(task: Task, step: TrainStep, weights: Weights, few: Examples) -> list[torch.Tensor]:
    """The loss of the same step, taken twice."""
    start = TrainState.start(weights, step.settings)
    with running_module(step.model) as running:
        try:
            return [step.gradient(start, few.x, few.y, drawn(0))[0] for _ in range(2)]
        except InputError as exc:
            raise InputError(f"in {running.text(outside='no layer')}, {exc}") from exc
        except RuntimeError as exc:
            raise InputError(f"the loss of task {task.name!r} has no gradient: {exc}") from exc


def _check_metrics(task: Task, output: torch.Tensor, target: torch.Tensor) -> None:
    try:
        metrics = task.metrics(output, target)
    except (RuntimeError, TypeError, ValueError, LookupError) as exc:
        raise InputError(
            f"the metrics of task {task.name!r} fail on an output of shape {tuple(output.shape)} and targets of shape "
            f"{tuple(target.shape)}: {exc}"
        ) from exc
    if not isinstance(metrics, dict):
        raise InputError(f"metrics of task {task.name!r} must return tensors by name, got {metrics!r}")
    if "loss" in metrics:
        raise InputError(
            f"a metric of task {task.name!r} is called 'loss', the loss's own name; call it something else"
        )
    for name, value in metrics.items():
        if not isinstance(value, torch.Tensor) or tuple(value.shape) != (len(target),):
            shape = tuple(value.shape) if isinstance(value, torch.Tensor) else type(value).__name__
            raise InputError(
                f"metric {name!r} of task {task.name!r} must hold one value an example, shape ({len(target)},), "
                f"got {shape}"
            )
