"""What a family of models is to the tests and to the table of ``docs/models.md``."""

from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import cast

import torch
from torch import nn

from pocketfleet.training.draws import draw_key, normal, uniform
from pocketfleet.training.task import Task, initial_model

__all__ = ["Batch", "Family", "class_loss", "integers", "normals", "seeded", "token_loss"]

# Inputs and targets, one row an example.
Batch = tuple[torch.Tensor, torch.Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """A kind of model with a batch and a loss that suit it.

    Attributes:
        name: its key in ``FAMILIES``.
        what: one line for the docs.
        make_model: a model in torch's default initialisation, another one at every call; ``seeded`` makes it one.
        make_batch: of so many examples, the same at every call.
        loss: one loss an example, ``[batch]``.
        head: a pattern (``fnmatch``) of the parameters that head-only training trains.
        lora: whether it has dense layers worth adapting at low rank.
        batch_size: the largest batch of its programs.
        slow: of real size; exported in the long tests only.
    """

    name: str
    what: str
    make_model: Callable[[], nn.Module]
    make_batch: Callable[[int], Batch]
    loss: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
    head: str = "head.*"
    lora: bool = False
    batch_size: int = 4
    slow: bool = False

    @property
    def modes(self) -> tuple[str, ...]:
        """The ways in which it is trained."""
        return ("full", "head", "lora") if self.lora else ("full", "head")


def seeded(make_model: Callable[[], nn.Module], *, seed: int = 0) -> nn.Module:
    """A model with the initial weights of a seed."""
    return initial_model(cast(Task, SimpleNamespace(name="family", make_model=make_model)), seed=seed)


def normals(*shape: int, purpose: str = "family_x") -> torch.Tensor:
    """Standard normal values, ``float32``."""
    values = normal(draw_key(0, purpose), int(torch.Size(shape).numel()))
    return torch.from_numpy(values).to(torch.float32).reshape(shape)


def integers(*shape: int, below: int, purpose: str = "family_y") -> torch.Tensor:
    """Integers from 0 to ``below - 1``, ``int64``."""
    values = uniform(draw_key(0, purpose), int(torch.Size(shape).numel())) * below
    return torch.from_numpy(values).to(torch.int64).reshape(shape)


def class_loss(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of ``[batch, classes]``."""
    return nn.functional.cross_entropy(output, target, reduction="none")


def token_loss(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Mean cross-entropy over the positions of ``[batch, positions, tokens]``."""
    return nn.functional.cross_entropy(output.transpose(1, 2), target, reduction="none").mean(dim=1)
