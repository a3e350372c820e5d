"""Many updates into one mean, one at a time, in float64.

The bits of a float64 sum depend on its order, so updates must come in rising order of device index; memory is one
model whatever the cohort.
"""

import math

import torch

from pocketfleet.training.update import Update
from pocketfleet.training.weights import Tensors

__all__ = ["MeanAggregator"]


class MeanAggregator:
    """Weighted mean of updates (McMahan et al. 2017, arXiv:1602.05629, algorithm 1: weights are example counts)."""

    def __init__(self) -> None:
        self._delta: Tensors = {}
        self._buffers: Tensors = {}
        self._weight = 0.0
        self._last_device = -1
        self.num_updates = 0

    def add(self, update: Update, *, device: int, weight: float) -> None:
        """Add one update.

        Raises:
            ValueError: ``weight`` is not positive and finite, ``device`` does not rise, or names or shapes are not
                those of the updates before; nothing has changed.
        """
        if not 0.0 < weight < math.inf:
            raise ValueError(f"weight must be above 0 and finite, got {weight}")
        if device <= self._last_device:
            raise ValueError(f"devices must come in rising order, got {device} after {self._last_device}")
        pairs = ((self._delta, update.delta), (self._buffers, update.buffers))
        if self.num_updates and any(_shapes(total) != _shapes(values) for total, values in pairs):
            raise ValueError(f"the update of device {device} has other names or shapes than the updates before it")
        for total, values in pairs:
            for name, value in values.items():
                # Out of place: a float64 update is not copied by ``to`` and stays the caller's.
                scaled = value.to(torch.float64) * weight
                if name in total:
                    total[name].add_(scaled)
                else:
                    total[name] = scaled
        self._weight += weight
        self._last_device = device
        self.num_updates += 1

    def result(self) -> Update:
        """The weighted mean, in float64; deltas and buffers alike.

        Raises:
            ValueError: nothing was added.
        """
        if self.num_updates == 0:
            raise ValueError("no update was added")
        return Update(
            {name: total / self._weight for name, total in self._delta.items()},
            {name: total / self._weight for name, total in self._buffers.items()},
        )


def _shapes(tensors: Tensors) -> dict[str, torch.Size]:
    return {name: value.shape for name, value in tensors.items()}
