"""A mean of updates none of which is longer than a bound: an attacker can push no harder than that.

Each update is looked at alone and added to a mean: memory is one model, as for the mean.
"""

from typing import Self

import numpy as np
import numpy.typing as npt

from pocketfleet.training.aggregation import MeanAggregator
from pocketfleet.training.update import Update
from pocketfleet.training.update_norm import update_norms

__all__ = ["NormBoundedAggregator"]

Float64s = npt.NDArray[np.float64]


class NormBoundedAggregator:
    """Mean of updates clipped to a norm ``M``: ``delta / max(1, |delta| / M)`` (Sun et al. 2019, arXiv:1911.07963).

    The norm is of the whole delta, scaled; buffers and what else is reported are no differences of weights and count
    as they are. Updates are weighted by their examples, as in the paper.

    Args:
        max_norm: ``M``, above 0.
    """

    def __init__(self, max_norm: float) -> None:
        self._max_norm = max_norm
        self._mean = MeanAggregator()
        self.num_updates = 0

    def add_many(self, updates: Update, *, weight: Float64s, scale: Float64s) -> None:
        """Add a chunk of devices; see ``MeanAggregator.add_many``."""
        norms = scale * update_norms(updates.delta)
        # A norm that is not finite is of an update of weight 0.
        clipped = np.where(norms > self._max_norm, self._max_norm / np.maximum(norms, self._max_norm), 1.0)
        self._mean.add_many(updates, weight=weight, scale=scale * clipped)
        self.num_updates = self._mean.num_updates

    def merge(self, other: Self) -> None:
        """Add what another one took; see ``MeanAggregator.merge``."""
        self._mean.merge(other._mean)
        self.num_updates = self._mean.num_updates

    def result(self) -> Update:
        """The weighted mean; see ``MeanAggregator.result``."""
        return self._mean.result()
