"""The usual losses and metrics of tasks that bring examples and leave the model to the user.

1. *Classes*: cross-entropy of scores ``[batch, classes]`` against class numbers ``[batch]``; also of scores at every
   position, ``[batch, positions, classes]`` against ``[batch, positions]``, of which an example's mean is taken.
2. *Numbers*: squared error of ``[batch, ...]`` against the same shape, an example's mean.
"""

import itertools
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F

from pocketfleet.training.feature_scaling import FeatureScaling
from pocketfleet.training.model_task import Metrics
from pocketfleet.training.train_step import Loss
from pocketfleet.training.weights import Tensors

__all__ = ["CLASSES", "NUMBERS", "Objective", "perceptron"]


@dataclass(frozen=True, slots=True)
class Objective:
    """``loss(output, target)`` and ``metrics(output, target)`` as a ``Task`` has them."""

    loss: Loss
    metrics: Metrics


def _class_loss(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    if target.dim() == 1:
        return F.cross_entropy(output, target, reduction="none")
    return F.cross_entropy(output.transpose(1, 2), target, reduction="none").mean(dim=1)


def _class_metrics(output: torch.Tensor, target: torch.Tensor) -> Tensors:
    hit = (output.argmax(dim=-1) == target).to(torch.float32)
    return {"accuracy": hit if target.dim() == 1 else hit.mean(dim=1)}


def _number_loss(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    return (output - target).square().flatten(1).mean(dim=1)


def _number_metrics(output: torch.Tensor, target: torch.Tensor) -> Tensors:
    error = (output - target).flatten(1)
    return {"mse": error.square().mean(dim=1), "mae": error.abs().mean(dim=1)}


CLASSES = Objective(_class_loss, _class_metrics)
NUMBERS = Objective(_number_loss, _number_metrics)


def perceptron(widths: list[int], *, scaled: bool = False) -> nn.Sequential:
    """Linear layers with rectifiers between them.

    Args:
        widths: inputs, hidden layers and outputs, such as ``[13, 64, 32, 1]``; two make a linear model.
        scaled: standardise the inputs first by the fleet's mean and spread.
    """
    layers: list[nn.Module] = [FeatureScaling(widths[0])] if scaled else []
    for place, (inputs, outputs) in enumerate(itertools.pairwise(widths)):
        layers += [nn.ReLU()] if place else []
        layers.append(nn.Linear(inputs, outputs))
    return nn.Sequential(*layers)
