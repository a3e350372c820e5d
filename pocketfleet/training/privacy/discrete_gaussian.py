"""Noise of whole numbers: the discrete Gaussian, whose probabilities go as ``exp(-x ** 2 / (2 * sigma ** 2))``.

1. A discrete Laplace number of scale ``t = floor(sigma) + 1`` is the difference of two geometric ones, each of
   ``P(g) = (1 - exp(-1 / t)) * exp(-g / t)``.
2. It is taken with probability ``exp(-(|y| - sigma ** 2 / t) ** 2 / (2 * sigma ** 2))``, or else drawn again (Canonne,
   Kamath and Steinke 2020, "The discrete Gaussian for differential privacy", arXiv:2004.00010, algorithm 3).

Their sampler compares rational numbers and is exact. Here probabilities are compared in float64 against numbers of 53
random bits, which many are drawn at once with: each is off by 2**-52 at most, far below any delta in use. The numbers
themselves are whole, so that no last bits of floats give anything away.
"""

import numpy as np
import numpy.typing as npt

from pocketfleet.training.privacy.random_bits import Bits, uniforms

__all__ = ["LARGEST_SIGMA", "discrete_gaussian"]

Float64s = npt.NDArray[np.float64]
Int64s = npt.NDArray[np.int64]

# A float64 holds squares of numbers up to here without rounding that matters: sigma of some millions of grid steps.
LARGEST_SIGMA = 2.0**26
# How many more are drawn than are wanted: of 100 some 76 are taken at large sigma, fewer at small ones.
_SPARE = 1.5


def discrete_gaussian(sigma: float, count: int, bits: Bits) -> Int64s:
    """``[count]`` independent numbers; their variance is ``sigma ** 2`` at most, and that but for small ``sigma``.

    Args:
        sigma: above 0, 2**26 at most.
        count: 0 or more.
        bits: asked as often as it takes.

    Raises:
        ValueError: ``sigma`` is out of range.
    """
    if not 0.0 < sigma <= LARGEST_SIGMA:
        raise ValueError(f"sigma must be above 0 and {LARGEST_SIGMA:.0f} at most, got {sigma!r}")
    taken: list[Int64s] = []
    missing = count
    while missing > 0:
        found = _attempt(sigma, int(missing * _SPARE) + 16, bits)[:missing]
        taken.append(found)
        missing -= len(found)
    return np.concatenate([np.empty(0, np.int64), *taken])


def _attempt(sigma: float, count: int, bits: Bits) -> Int64s:
    """Those of ``count`` discrete Laplace numbers that are taken."""
    scale = float(np.floor(sigma) + 1.0)
    laplace = _geometric(scale, count, bits) - _geometric(scale, count, bits)
    exponent = np.square(np.abs(laplace) - sigma**2 / scale) / (2.0 * sigma**2)
    found: Int64s = laplace[uniforms(bits, count) < np.exp(-exponent)].astype(np.int64)
    return found


def _geometric(scale: float, count: int, bits: Bits) -> Float64s:
    """``floor(-scale * log(u))`` for uniform ``u`` in (0, 1]: at least ``g`` with probability ``exp(-g / scale)``."""
    geometric: Float64s = np.floor(-scale * np.log1p(-uniforms(bits, count)))
    return geometric
