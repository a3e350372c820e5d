"""Which of a model's weights are trained: those of chosen names, or small matrices beside the frozen ones (LoRA).

Low-rank adaptation (Hu et al. 2021, arXiv:2106.09685, section 4.1): a linear layer computes ``W x + B A x`` with ``A``
``[rank, in]`` drawn and ``B`` ``[out, rank]`` zero, so that training starts from the model as it is. The paper's factor
``alpha / rank`` is 1 here: it only scales the learning rate. Layers keep the names of their weights.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, cast

import torch
from torch import nn
from torch.nn import functional as F

from pocketfleet.errors import InputError
from pocketfleet.training.task import Task

__all__ = ["Adaptation", "LoraLinear", "adapted"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Adaptation:
    """What is trained of a model.

    Attributes:
        trainable: patterns of parameter names such as ``"head.*"``; everything else is frozen. Empty: what the model
            itself says by ``requires_grad``, or with LoRA nothing but its matrices.
        lora_rank: rank of the matrices beside every ``nn.Linear``; 0: none.
    """

    trainable: tuple[str, ...] = ()
    lora_rank: int = 0

    def __post_init__(self) -> None:
        if self.lora_rank < 0:
            raise InputError(f"the rank of LoRA must be 1 or more, or 0 for none; got {self.lora_rank}")

    def apply(self, model: nn.Module) -> None:
        """Change ``model`` in place.

        Raises:
            InputError: a pattern matches no parameter, or there is no linear layer for LoRA.
        """
        if self.trainable or self.lora_rank:
            _freeze_all_but(model, self.trainable)
        if self.lora_rank:
            _add_lora(model, self.lora_rank)


class LoraLinear(nn.Module):
    """A linear layer with a trainable product of two small matrices beside its weight.

    Args:
        linear: whose ``weight`` ``[out, in]`` and ``bias`` are taken over, not copied.
        rank: inner size of the product.
    """

    def __init__(self, linear: nn.Linear, rank: int) -> None:
        super().__init__()
        self.weight, self.bias = linear.weight, linear.bias
        self.lora_a = nn.Parameter(torch.empty(rank, linear.in_features))
        self.lora_b = nn.Parameter(torch.zeros(linear.out_features, rank))
        # As torch's linear layers start.
        nn.init.kaiming_uniform_(self.lora_a, a=math.sqrt(5))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``[..., in]`` to ``[..., out]``."""
        return F.linear(x, self.weight, self.bias) + F.linear(F.linear(x, self.lora_a), self.lora_b)


def adapted(task: Task, adaptation: Adaptation) -> Task:
    """The same task whose models have ``adaptation`` applied."""
    return task if adaptation == Adaptation() else cast("Task", _AdaptedTask(task, adaptation))


class _AdaptedTask:
    """Everything but the model is the task's own, whatever more it has."""

    def __init__(self, task: Task, adaptation: Adaptation) -> None:
        self._task, self._adaptation = task, adaptation

    def make_model(self) -> nn.Module:
        model = self._task.make_model()
        if isinstance(model, nn.Module):
            self._adaptation.apply(model)
        return model

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever the task has
        return getattr(self._task, name)


def _freeze_all_but(model: nn.Module, patterns: Sequence[str]) -> None:
    names = [name for name, _ in model.named_parameters()]
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise InputError(f"no parameter of the model is named {pattern!r}; its parameters are {_some(names)}")
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(any(fnmatchcase(name, pattern) for pattern in patterns))


def _add_lora(model: nn.Module, rank: int) -> None:
    found = [
        (parent, name, child)
        for parent in model.modules()
        # Not named_children, which passes over a layer's second name.
        for name, child in parent._modules.items()
        # Not its subclasses: nn.MultiheadAttention reads the weight of its own past their forward.
        if type(child) is nn.Linear
    ]
    if not found:
        raise InputError(
            "LoRA goes beside nn.Linear layers inside a model, and this one has none: train a part by patterns of "
            "names instead, or wrap the layer in a module"
        )
    # A layer that a model uses in several places has one pair of matrices.
    made: dict[nn.Linear, LoraLinear] = {}
    for parent, name, linear in found:
        if linear not in made:
            made[linear] = LoraLinear(linear, rank)
        setattr(parent, name, made[linear])


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(names[:12])
    return shown if len(names) <= 12 else f"{shown} and {len(names) - 12} more"
