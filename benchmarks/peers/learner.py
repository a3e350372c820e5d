"""The models and losses of the workloads, in plain PyTorch: every simulator trains these very modules."""

import torch
from torch import nn
from torch.nn import functional as F

__all__ = ["losses", "make_model"]


def make_model(kind: str) -> nn.Sequential:
    """A model by kind, with PyTorch's own initial weights."""
    if kind == "mlp":
        return nn.Sequential(nn.Linear(13, 64), nn.ReLU(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 1))
    if kind == "lenet":
        # LeCun et al. 1998, figure 2, with max-pooling and rectifiers: pocketfleet's task "mnist", layer by layer.
        return nn.Sequential(
            nn.Conv2d(1, 6, 5, padding=2),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(6, 16, 5),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(400, 120),
            nn.ReLU(),
            nn.Linear(120, 84),
            nn.ReLU(),
            nn.Linear(84, 10),
        )
    if kind == "logistic":
        return nn.Sequential(nn.Linear(784, 10))
    raise ValueError(f"a workload's model is mlp, lenet or logistic, got {kind!r}")


def losses(kind: str, output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """One loss an example, ``[batch]``: squared error for ``mlp``, cross-entropy for the others."""
    if kind == "mlp":
        return (output - target).square().mean(dim=1)
    return F.cross_entropy(output, target, reduction="none")
