"""Standardised inputs whose mean and spread come from per-device sums, never from pooled examples.

1. Each device sends, for its own training examples, the count, the sum and the sum of squares of every feature.
2. The server adds these up and derives mean and scale.
3. Both travel to the phones as frozen weights of the model's ``FeatureScaling`` layer, so that an app feeds
   raw features to the program.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import nn

__all__ = ["FeatureScaling", "FeatureSums", "frozen_scaling", "has_scaling"]


class FeatureScaling(nn.Module):
    """``(x - mean) / scale`` over the last dimension; before the sums arrive it passes ``x`` through.

    Its ``mean`` and ``scale`` (``[features]``) are constants of training, not learnt and not updated by a step.
    """

    mean: torch.Tensor
    scale: torch.Tensor

    def __init__(self, features: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("scale", torch.ones(features))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``x`` is ``[..., features]``; the same shape comes back."""
        return (x - self.mean) / self.scale


@dataclass(frozen=True, slots=True)
class FeatureSums:
    """What one device tells about its features: a count and two ``float64`` vectors ``[features]``."""

    count: int
    total: torch.Tensor
    squares: torch.Tensor

    @classmethod
    def of(cls, x: torch.Tensor) -> "FeatureSums":
        """Sums over every dimension of ``x`` but the last."""
        rows = x.to(torch.float64).reshape(-1, x.shape[-1])
        return cls(len(rows), rows.sum(0), rows.square().sum(0))

    def __add__(self, other: "FeatureSums") -> "FeatureSums":
        return FeatureSums(self.count + other.count, self.total + other.total, self.squares + other.squares)

    def mean_and_scale(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean and population standard deviation, ``float32 [features]``; a constant feature's scale is 1."""
        mean = self.total / max(self.count, 1)
        variance = self.squares / max(self.count, 1) - mean.square()
        # Below this share of the mean square, a variance (which may be negative) is rounding: the feature is constant.
        floor = 1e-12 * (self.squares / max(self.count, 1)).clamp(min=1e-30)
        scale = torch.where(variance > floor, variance.sqrt(), torch.ones_like(variance))
        return mean.to(torch.float32), scale.to(torch.float32)


def has_scaling(model: nn.Module) -> bool:
    """Whether some layer of ``model`` wants the fleet's mean and scale."""
    return any(isinstance(module, FeatureScaling) for module in model.modules())


def frozen_scaling(model: nn.Module, sums: Iterable[FeatureSums]) -> dict[str, torch.Tensor]:
    """The frozen weights of every ``FeatureScaling`` of ``model``, by full name, from the devices' sums.

    Args:
        model: holds layers over the raw input's features.
        sums: one per device with examples, in order of device index; not empty.
    """
    total: FeatureSums | None = None
    for one in sums:
        total = one if total is None else total + one
    if total is None:
        raise ValueError("sums must hold at least one device")
    mean, scale = total.mean_and_scale()
    return {
        f"{name}.{part}" if name else part: value.clone()
        for name, module in model.named_modules()
        if isinstance(module, FeatureScaling)
        for part, value in (("mean", mean), ("scale", scale))
    }
