"""Values and a weight as whole numbers that can be summed without being read, and the weighted mean out of the sum.

Rules:

1. A value is cut to ``-value_range .. value_range`` and rounded to a whole number of *steps*; a step is ``value_range /
   (2 ** (bits - 1) - 1)``, so that both ends and zero are whole. Rounding is to nearest; given a key, up or down at
   random so that the mean stays.
2. A device sends ``[weight, clipped, weight * steps ...]``: the weight travels inside the sum, so that the mean is of
   those in the sum, whoever dropped out; ``clipped`` is how many of its values were cut.
3. The mean is ``sum of weight * steps / sum of weights`` in float64, times the step. Of values within the range it is
   within half a step of the exact weighted mean in each coordinate; within one, rounded at random.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pocketfleet.training.draws import uniform
from pocketfleet.training.privacy.secure_aggregation.ring import needed_ring_bytes

__all__ = ["FixedPoint", "FixedPointMean"]

Floats = npt.NDArray[np.floating]
Int64s = npt.NDArray[np.int64]

# The weight, and how many values were cut.
HEAD = 2


@dataclass(frozen=True, slots=True)
class FixedPointMean:
    """What a sum says.

    Attributes:
        values: weighted mean, float64 ``[d]``; zeros where the weights sum to zero.
        weight: sum of the weights.
        clipped: values that were cut, of all devices together.
    """

    values: npt.NDArray[np.float64]
    weight: int
    clipped: int


@dataclass(frozen=True, slots=True, kw_only=True)
class FixedPoint:
    """The grid, and the headroom that a sum needs.

    Attributes:
        value_range: largest absolute value that is not cut, above 0.
        bits: of a value's whole number, sign included, 2 to 32.
        max_weight: of a device, 1 or more.
        cohort: devices in a sum at most, 1 or more.

    Raises:
        ValueError: one of them is out of its range, or a sum could reach 2**63.
    """

    value_range: float
    bits: int
    max_weight: int
    cohort: int

    def __post_init__(self) -> None:
        if not 0.0 < self.value_range < np.inf:
            raise ValueError(f"value_range must be above 0 and finite, got {self.value_range!r}")
        for name, least, most in (("bits", 2, 32), ("max_weight", 1, 2**32), ("cohort", 1, 2**32)):
            value = getattr(self, name)
            if not least <= value <= most:
                raise ValueError(f"{name} must be {least}..{most}, got {value}")
        needed_ring_bytes(self.largest_sum)

    @property
    def largest(self) -> int:
        """Steps of the range."""
        return int(2 ** (self.bits - 1)) - 1

    @property
    def step(self) -> float:
        """Width of the grid, in the values' unit."""
        return self.value_range / self.largest

    @property
    def largest_sum(self) -> int:
        """No number of a sum is beyond this, of either sign."""
        return self.cohort * self.max_weight * self.largest

    @property
    def ring_bytes(self) -> int:
        """Bytes a number: room for the sum over a cohort of the largest weights."""
        return needed_ring_bytes(self.largest_sum)

    def encode(self, values: Floats, *, weight: int, key: npt.ArrayLike | None = None) -> Int64s:
        """Rules 1 and 2.

        Args:
            values: finite, ``[d]``.
            weight: 0 to ``max_weight``.
            key: of ``draws``, for rounding at random.

        Returns:
            ``[2 + d]``. A count of cut values beyond what the ring has room for is told as the most it has.

        Raises:
            ValueError: the weight is out of its range, or a value is not finite.
        """
        if not 0 <= weight <= self.max_weight:
            raise ValueError(f"weight must be 0..{self.max_weight}, got {weight}")
        steps = values.astype(np.float64) / self.step
        if not bool(np.isfinite(steps).all()):
            raise ValueError("values of a fixed-point vector must be finite")
        # A value at the very end may come out a rounding error above it.
        cut = np.abs(values.astype(np.float64)) > self.value_range
        np.clip(steps, -self.largest, self.largest, out=steps)
        if key is None:
            np.rint(steps, out=steps)
        else:
            steps += uniform(key, len(steps))
            np.floor(steps, out=steps)
        numbers = np.empty(HEAD + len(steps), np.int64)
        numbers[0] = weight
        numbers[1] = min(int(cut.sum()), self.max_weight * self.largest)
        numbers[HEAD:] = weight * steps.astype(np.int64)
        return numbers

    def decode(self, total: Int64s) -> FixedPointMean:
        """Rule 3: the mean out of a sum ``[2 + d]`` of at most ``cohort`` encoded vectors."""
        weight, clipped = int(total[0]), int(total[1])
        values = total[HEAD:].astype(np.float64)
        values *= self.step / weight if weight else 0.0
        return FixedPointMean(values, weight, clipped)
