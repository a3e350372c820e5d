"""A task over the columns of many users: examples that are there, with a model and an objective for them."""

from collections.abc import Callable

import torch
from torch import nn

from pocketfleet.errors import InputError
from pocketfleet.training.examples import Examples
from pocketfleet.training.objective import Objective
from pocketfleet.training.user_examples import UserExamples
from pocketfleet.training.weights import Tensors

__all__ = ["UsersTask"]


class UsersTask:
    """A ``ColumnarTask``.

    Args:
        name: by which messages call it.
        users: everybody's examples.
        test: what no device holds.
        make_model: gives a new model.
        objective: its loss and metrics.

    Raises:
        InputError: there are no test examples, or they are not alike the users'.
    """

    def __init__(
        self,
        name: str,
        *,
        users: UserExamples,
        test: Examples,
        make_model: Callable[[], nn.Module],
        objective: Objective,
    ) -> None:
        if len(test) == 0:
            raise InputError(f"task {name!r} has no test examples, by which every new model is measured")
        for side, ours, theirs in (("x", users.x, test.x), ("y", users.y, test.y)):
            if (ours.shape[1:], ours.dtype) != (theirs.shape[1:], theirs.dtype):
                raise InputError(
                    f"the test examples of task {name!r} have {side} of shape {tuple(theirs.shape[1:])} "
                    f"({theirs.dtype}), its users' {tuple(ours.shape[1:])} ({ours.dtype}): they must be alike"
                )
        self.name = name
        self._users, self._test, self._make_model, self._objective = users, test, make_model, objective

    def make_model(self) -> nn.Module:
        """A new model."""
        return self._make_model()

    def loss(self, output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """The objective's loss, ``[batch]``."""
        return self._objective.loss(output, target)

    def metrics(self, output: torch.Tensor, target: torch.Tensor) -> Tensors:
        """The objective's metrics, ``[batch]`` each."""
        return self._objective.metrics(output, target)

    def user_examples(self) -> UserExamples:
        """Everybody's examples, one user a device."""
        return self._users

    def train_examples(self) -> Examples:
        """All users' examples, for partitions that deal them out anew."""
        return self._users.examples

    def test_examples(self) -> Examples:
        """What no device holds."""
        return self._test
