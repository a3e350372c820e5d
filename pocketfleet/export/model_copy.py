"""A copy of a model that holds given weights, so that whatever an exporter does to it stays apart from the caller's."""

import copy

import torch
from torch import nn

from pocketfleet.training.weights import Weights

__all__ = ["model_copy"]


def model_copy(model: nn.Module, weights: Weights) -> nn.Module:
    """A deep copy of ``model`` in evaluation mode with the values of ``weights``; what requires a gradient stays so."""
    twin = copy.deepcopy(model).eval()
    tensors = dict(twin.named_parameters()) | dict(twin.named_buffers())
    with torch.no_grad():
        for name, value in (weights.trainable | weights.buffers | weights.frozen).items():
            tensors[name].copy_(value)
    return twin
