"""The noise of a sum, each device adding its share before anybody sees the update: for sums of whole numbers.

The distributed discrete Gaussian (Kairouz, Liu and Steinke 2021, arXiv:2102.06387). What a device does (algorithm 1,
without the rotation and the modulus, which are others' to do before and after):

1. It clips its vector to ``max_norm`` and divides it by the grid step.
2. It rounds each coordinate up or down at random so that the mean stays, and does so again until the whole is no longer
   than ``rounded_norm``: at most ``1 / (1 - beta)`` times in the mean.
3. It adds a discrete Gaussian of ``share_stddev`` to each coordinate.

The sum over ``n`` devices then has about the noise of one Gaussian of ``share_stddev * sqrt(n)``. A sum of discrete
Gaussians is none exactly; how far it is from one is ``tau`` of the paper's theorem 1, which counts against the promise
(``rho``), and is next to nothing once a share is a few grid steps wide.
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pocketfleet.training.privacy.discrete_gaussian import LARGEST_SIGMA, discrete_gaussian
from pocketfleet.training.privacy.random_bits import Bits, uniforms

__all__ = ["DistributedGaussian", "share_stddev"]

Float64s = npt.NDArray[np.float64]
Int64s = npt.NDArray[np.int64]


def share_stddev(noise_multiplier: float, max_norm: float, *, devices: int) -> float:
    """What each of at least ``devices`` adds so that their sum has noise of ``noise_multiplier * max_norm``."""
    return noise_multiplier * max_norm / math.sqrt(devices)


@dataclass(frozen=True, slots=True, kw_only=True)
class DistributedGaussian:
    """A device's part.

    Attributes:
        max_norm: L2 norm that no vector is longer than, in the update's unit.
        step: width of the grid, in the same unit; the paper's gamma.
        share_stddev: of a device's noise, in the same unit.
        size: coordinates of a vector.
        beta: how often in the mean a rounding is drawn again; the paper takes ``exp(-1/2)``.
    """

    max_norm: float
    step: float
    share_stddev: float
    size: int
    beta: float = math.exp(-0.5)

    def __post_init__(self) -> None:
        for name in ("max_norm", "step", "share_stddev"):
            if not 0.0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be above 0 and finite, got {getattr(self, name)!r}")
        if self.share_stddev / self.step > LARGEST_SIGMA:
            raise ValueError(
                f"a share of the noise is {self.share_stddev / self.step:.3g} steps of the grid wide, at most "
                f"{LARGEST_SIGMA:.3g} can be drawn"
            )
        if not 0.0 < self.beta < 1.0:
            raise ValueError(f"beta must be between 0 and 1, got {self.beta!r}")

    @property
    def rounded_norm(self) -> float:
        """How long a rounded vector may be, in grid steps: the paper's equation 1."""
        length, root = self.max_norm / self.step, math.sqrt(self.size)
        likely = length**2 + self.size / 4 + math.sqrt(-2.0 * math.log(self.beta)) * (length + root / 2)
        return min(length + root, math.sqrt(likely))

    def encode(self, vector: Float64s, bits: Bits) -> Int64s:
        """Rules 1 to 3: ``[size]`` in the update's unit to ``[size]`` whole grid steps, noise included."""
        return self.rounded(vector, bits) + discrete_gaussian(self.share_stddev / self.step, self.size, bits)

    def rounded(self, vector: Float64s, bits: Bits) -> Int64s:
        """Rules 1 and 2.

        Raises:
            ValueError: the vector is of another size, or not finite.
        """
        if vector.shape != (self.size,) or not bool(np.isfinite(vector).all()):
            raise ValueError(f"a vector must have {self.size} finite coordinates, got shape {vector.shape}")
        norm = float(np.linalg.norm(vector))
        scaled = vector * (min(1.0, self.max_norm / norm) if norm > 0.0 else 1.0) / self.step
        below = np.floor(scaled)
        bound = self.rounded_norm
        while True:
            rounded = below + (uniforms(bits, self.size) < scaled - below)
            if float(np.linalg.norm(rounded)) <= bound:
                return rounded.astype(np.int64)

    def decode(self, total: npt.NDArray[np.int64]) -> Float64s:
        """A sum of encoded vectors, in the update's unit."""
        return total.astype(np.float64) * self.step

    def largest(self, devices: int) -> int:
        """No coordinate of a sum over ``devices`` is beyond this, but with a chance of less than 1e-12 a coordinate.

        For the ring's headroom: clipped values and eight standard deviations of the noise.
        """
        noise = math.sqrt(devices) * self.share_stddev / self.step
        # Two-sided, 8 sigma of a Gaussian are 1.2e-15; a discrete Gaussian's tail is no heavier (its proposition 25).
        return math.ceil(devices * self.rounded_norm + 8.0 * noise) + 1

    def rho(self, devices: int) -> float:
        """The zero-concentrated promise of one sum over ``devices``, that one vector be replaced by zeros.

        Theorem 1, its second bound: ``epsilon ** 2 / 2`` of ``epsilon = norm / (sqrt(n) * sigma) + tau * sqrt(size)``.
        Devices that share what they added with whoever sees the sum are none: count the others.
        """
        width = self.share_stddev / self.step
        k = np.arange(1, devices, dtype=np.float64)
        tau = 10.0 * float(np.exp(-2.0 * (math.pi * width) ** 2 * k / (k + 1.0)).sum())
        epsilon = self.rounded_norm / (math.sqrt(devices) * width) + tau * math.sqrt(self.size)
        return epsilon**2 / 2.0
