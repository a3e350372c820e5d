"""The mean of updates that brought their noise with them: what a server does under the distributed discrete Gaussian.

Each device clipped its update and added its share (``distributed_gaussian``) before the secure sum hid it: there is
nothing left to do. The server has to be trusted with the sum, and with nothing else.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from pocketfleet.errors import InputError
from pocketfleet.training.privacy.accountant import epsilon_of_rho
from pocketfleet.training.update import Update
from pocketfleet.training.weights import Tensors

__all__ = ["DistributedAccountant", "DistributedMean", "noise_for_sums"]

# With a multiplier beyond this nothing is left of what was learnt.
_MOST_NOISE = 1e6

Float64s = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
_MAX_NORM = "max_norm"


@dataclass(frozen=True, slots=True, kw_only=True)
class DistributedMean:
    """Stands where a ``PrivateMean`` does; ``max_norm`` is what devices clip to."""

    max_norm: float

    def init(self) -> Tensors:
        """The state before the first round, and ever after."""
        return {_MAX_NORM: torch.tensor(self.max_norm, dtype=torch.float64)}

    def norm_of(self, state: Tensors) -> float:
        """To which the next round's updates are clipped."""
        return float(state[_MAX_NORM])

    def check(self) -> None:
        """Nothing has to be divided."""

    def step(
        self, mean: Update, *, norms: Float64s, finite: Bools, version: int, state: Tensors
    ) -> tuple[Update, Tensors]:
        """The mean as it is, and the state as it is."""
        del norms, finite, version
        return mean, state


@dataclass(frozen=True, slots=True, kw_only=True)
class DistributedAccountant:
    """Counts what sums give away, of which each is ``rho``-zero-concentrated.

    Attributes:
        rho: of one sum, the noise of those counted out who may tell the server theirs.
        delta: at which epsilon is stated.
    """

    rho: float
    delta: float

    def epsilon(self, *, rounds: int, participations: int) -> float:
        """Of a device that was in so many sums; those that it was not in cost it nothing."""
        del rounds
        return epsilon_of_rho(participations * self.rho, delta=self.delta) if participations else 0.0


def noise_for_sums(
    target_epsilon: float, *, participations: int, delta: float, rho_of: Callable[[float], float]
) -> float:
    """The least noise multiplier, to a thousandth of it, with which a device in so many sums is promised the target.

    Args:
        target_epsilon: above 0.
        participations: of a device at most.
        delta: at which it is stated.
        rho_of: of one sum, by the noise multiplier; falling.

    Raises:
        InputError: no noise gives it, as the grid is too coarse or the target too small.
    """

    def kept(noise_multiplier: float) -> bool:
        return epsilon_of_rho(participations * rho_of(noise_multiplier), delta=delta) <= target_epsilon

    high = 1.0
    while not kept(high):
        high *= 2.0
        if high > _MOST_NOISE:
            raise InputError(
                f"privacy.target_epsilon {target_epsilon} at privacy.delta {delta} is out of reach: raise it, or "
                "secure_aggregation.bits"
            )
    low = 0.0
    while high - low > 1e-3 * high:
        middle = (low + high) / 2.0
        low, high = (low, middle) if kept(middle) else (middle, high)
    return high
