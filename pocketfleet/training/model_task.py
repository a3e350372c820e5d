"""A task made of what somebody who only exports has at hand: a model, a loss and one example batch."""

import copy
from collections.abc import Callable

import torch
from torch import nn

from pocketfleet.errors import InputError
from pocketfleet.training.examples import Examples
from pocketfleet.training.train_step import Loss
from pocketfleet.training.weights import Tensors

__all__ = ["Metrics", "ModelTask"]

Metrics = Callable[[torch.Tensor, torch.Tensor], Tensors]


class ModelTask:
    """A ``Task`` around a model that is there already; its models are copies with the model's own weights.

    Args:
        model: called as ``model(x)``.
        loss: ``loss(output, target)``, one loss an example, ``[batch]``, or their mean; also a module such as
            ``nn.CrossEntropyLoss()``.
        example_batch: ``(x, y)``, each ``[batch, ...]``; training and test examples in one.
        metrics: ``metrics(output, target)``, one value an example by name; none if left out.
        name: by which messages call it.

    Raises:
        InputError: the batch is no pair of tensors with one row an example.
    """

    def __init__(
        self,
        model: nn.Module,
        loss: Loss,
        example_batch: tuple[torch.Tensor, torch.Tensor],
        *,
        metrics: Metrics | None = None,
        name: str | None = None,
    ) -> None:
        self.name = name or type(model).__name__
        self._model, self._loss, self._metrics = model, loss, metrics
        if not isinstance(example_batch, tuple | list) or len(example_batch) != 2:
            raise InputError(
                f"the example batch must be a pair (x, y) of tensors, got {_described(example_batch)}: a model is "
                "called as model(x), its loss as loss(output, y)"
            )
        self._examples = Examples(*example_batch)

    def make_model(self) -> nn.Module:
        """A copy of the model."""
        return copy.deepcopy(self._model)

    def loss(self, output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """The loss as given."""
        return self._loss(output, target)

    def metrics(self, output: torch.Tensor, target: torch.Tensor) -> Tensors:
        """The metrics as given."""
        return self._metrics(output, target) if self._metrics else {}

    def train_examples(self) -> Examples:
        """The example batch."""
        return self._examples

    def test_examples(self) -> Examples:
        """The example batch."""
        return self._examples


def _described(value: object) -> str:
    return f"{len(value)} values" if isinstance(value, tuple | list) else type(value).__name__
