"""Many updates into one, a chunk of devices at a time.

Rules:

1. An aggregator takes the updates of a chunk of devices at once, each tensor stacked ``[k, ...]``; a device of weight 0
   is left out, whatever its values.
2. Aggregators merge: worker processes make a part each, the parts are merged in an order that does not depend on who
   finished first. The bits of a float64 sum depend on that order and on the chunks, and on nothing else.
3. ``weight`` is a device's share in the mean (McMahan et al. 2017, arXiv:1602.05629, algorithm 1: its examples).
   ``scale`` multiplies its delta, not its share: an update alone in a buffer then moves the model less.
"""

from typing import Protocol, Self

import numpy as np
import numpy.typing as npt
import torch

from pocketfleet.training.update import Update
from pocketfleet.training.weights import Tensors

__all__ = ["Aggregator", "MeanAggregator"]

Floats = npt.NDArray[np.float64]


class Aggregator(Protocol):
    """The seam; an empty one can be pickled, and one that took a chunk too."""

    num_updates: int

    def add_many(self, updates: Update, *, weight: Floats, scale: Floats) -> None:
        """Add a chunk of devices: tensors ``[k, ...]``, ``weight`` and ``scale`` ``[k]``."""
        ...

    def merge(self, other: Self) -> None:
        """Add what another one took."""
        ...

    def result(self) -> Update:
        """The next model's mean update, in float64."""
        ...


class MeanAggregator:
    """Weighted mean of updates in float64; memory is one model whatever the cohort."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensors] = {}  # by group of the update
        self._weight = 0.0
        self.num_updates = 0

    def add_many(self, updates: Update, *, weight: Floats, scale: Floats) -> None:
        """Add a chunk of devices.

        Args:
            updates: tensors ``[k, ...]``; not changed.
            weight: ``[k]``, 0 leaves a device out.
            scale: ``[k]``, factors of the deltas.

        Raises:
            ValueError: a weight is negative or not finite, or names or shapes are not those of the updates before;
                nothing has changed.
        """
        if not bool(np.isfinite(weight).all()) or bool((weight < 0.0).any()):
            raise ValueError(f"weights must be 0 or more and finite, got {weight.min()} to {weight.max()}")
        kept = np.flatnonzero(weight > 0.0)
        if len(kept) == 0:
            return
        shares = torch.from_numpy(weight[kept])
        factors = {"delta": shares * torch.from_numpy(scale[kept])}
        rows = None if len(kept) == len(weight) else torch.from_numpy(kept)
        sums = {
            group: {name: _weighted_sum(value, rows, factors.get(group, shares)) for name, value in tensors.items()}
            for group, tensors in updates.groups().items()
        }
        self._take(sums, weight=float(shares.sum()), count=len(kept))

    def merge(self, other: Self) -> None:
        """Add the sums of another mean.

        Raises:
            ValueError: it is of another model; nothing has changed.
        """
        if other.num_updates:
            self._take(other._sums, weight=other._weight, count=other.num_updates)

    def _take(self, sums: dict[str, Tensors], *, weight: float, count: int) -> None:
        if self.num_updates and _shapes(self._sums) != _shapes(sums):
            raise ValueError("updates have other names or shapes than the updates before them")
        for group, tensors in sums.items():
            before = self._sums.setdefault(group, {})
            for name, value in tensors.items():
                before[name] = before[name] + value if name in before else value
        self._weight += weight
        self.num_updates += count

    def result(self) -> Update:
        """The weighted mean, in float64; deltas, buffers and what else was reported alike.

        Raises:
            ValueError: nothing was added.
        """
        if self.num_updates == 0:
            raise ValueError("no update was added")
        means = {
            group: {name: total / self._weight for name, total in tensors.items()}
            for group, tensors in self._sums.items()
        }
        return Update(**means)


def _weighted_sum(value: torch.Tensor, rows: torch.Tensor | None, factors: torch.Tensor) -> torch.Tensor:
    """``sum(factors[i] * value[i])`` over the chunk, in float64 and of the shape of one device's tensor."""
    chosen = value if rows is None else value[rows]
    flat = chosen.reshape(len(chosen), -1).to(torch.float64)
    return (factors.to(flat.device) @ flat).reshape(value.shape[1:]).cpu()


def _shapes(sums: dict[str, Tensors]) -> dict[str, dict[str, torch.Size]]:
    return {group: {name: value.shape for name, value in tensors.items()} for group, tensors in sums.items()}
