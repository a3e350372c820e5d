"""A task of the user's own data and model: what the options of every reader have in common."""

import math
from collections.abc import Callable
from typing import Any

from torch import nn

from pocketfleet.errors import InputError
from pocketfleet.training.converted import Converted
from pocketfleet.training.objective import CLASSES, NUMBERS, Objective, perceptron
from pocketfleet.training.task import load_factory
from pocketfleet.training.users_task import UsersTask

__all__ = ["own_data_task"]


def own_data_task(
    name: str, columns: Converted, *, model: str, loss: str, metrics: str, hidden: list[int] | None
) -> UsersTask:
    """The task.

    Args:
        name: by which messages call it.
        columns: the data.
        model: ``module:factory`` of the user's, called without arguments; empty: linear layers over standardised
            features.
        loss: ``module:function``; empty: cross-entropy for integer targets, squared error for floats.
        metrics: ``module:function``; empty: accuracy, or squared and absolute error.
        hidden: widths of the hidden layers where ``model`` is empty.

    Raises:
        InputError: the data need a model of the user's, or one of the names leads nowhere.
    """
    y = columns.users.y
    usual = NUMBERS if y.dtype.is_floating_point else CLASSES
    objective = Objective(
        _found(loss, key="loss") if loss else usual.loss,
        _found(metrics, key="metrics") if metrics else usual.metrics,
    )
    return UsersTask(
        name,
        users=columns.users,
        test=columns.test,
        make_model=_found(model, key="model") if model else _default_model(name, columns, hidden or []),
        objective=objective,
    )


def _found(path: str, *, key: str) -> Callable[..., Any]:
    found = load_factory(path, key=f"task.options.{key}")
    if not callable(found):
        raise InputError(f"task.options.{key}: {path!r} is {type(found).__name__}, which cannot be called")
    called: Callable[..., Any] = found
    return called


def _default_model(name: str, columns: Converted, hidden: list[int]) -> Callable[[], nn.Module]:
    x, y = columns.users.x, columns.users.y
    if not x.dtype.is_floating_point or (not y.dtype.is_floating_point and y.dim() > 1):
        raise InputError(
            f"task {name!r} has x of shape {tuple(x.shape[1:])} ({x.dtype}) and y of shape {tuple(y.shape[1:])}, for "
            'which there is no usual model: set task.options.model to one of yours, "my_module:make_model"'
        )
    if min([1, *hidden]) < 1:
        raise InputError(f"task.options.hidden must hold widths of 1 or more, got {hidden}")
    outputs = math.prod(y.shape[1:]) if y.dtype.is_floating_point else _classes(columns)
    widths = [math.prod(x.shape[1:]), *hidden, outputs]
    if x.dim() == 2:
        return lambda: perceptron(widths, scaled=True)
    return lambda: nn.Sequential(nn.Flatten(), perceptron(widths))


def _classes(columns: Converted) -> int:
    return 1 + max(int(y.max()) if len(y) else 0 for y in (columns.users.y, columns.test.y))
