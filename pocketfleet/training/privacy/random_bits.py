"""Where noise takes its random bits from: a key that can be drawn again, or the operating system.

A simulation is replayed, and its data is its owner's: noise comes from ``draws``. On a service the noise is a secret:
whoever knows it can take it off again, so it comes from the operating system and is kept nowhere.
"""

import itertools
import os
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from pocketfleet.training.draws import draw_key, numbers

__all__ = ["BitSource", "Bits", "keyed_bits", "normals", "secret_bits", "uniforms"]

UInt64s = npt.NDArray[np.uint64]
Float64s = npt.NDArray[np.float64]

# So many fresh 64-bit numbers, another lot at each call.
Bits = Callable[[int], UInt64s]
# The bits for a purpose and a model version.
BitSource = Callable[[str, int], Bits]


def keyed_bits(seed: int) -> BitSource:
    """Bits of an experiment's seed: the same for the same purpose and version, and the same sequence of calls."""

    def of(purpose: str, version: int) -> Bits:
        calls = itertools.count()
        return lambda count: numbers(draw_key(seed, purpose, version, next(calls)), count)

    return of


def secret_bits() -> BitSource:
    """Bits of the operating system's generator (``getrandom``), whatever the purpose: nobody can draw them again."""
    return lambda _purpose, _version: lambda count: np.frombuffer(os.urandom(8 * count), dtype=np.uint64)


def uniforms(bits: Bits, count: int) -> Float64s:
    """``[count]`` numbers in [0, 1) of 53 random bits."""
    between: Float64s = (bits(count) >> np.uint64(11)).astype(np.float64) * 2.0**-53
    return between


def normals(bits: Bits, count: int) -> Float64s:
    """``[count]`` standard normal numbers by the Box-Muller transform, as ``draws.normal``; none is beyond 8.6."""
    radius = np.sqrt(-2.0 * np.log1p(-uniforms(bits, count)))
    result: Float64s = radius * np.cos(2.0 * np.pi * uniforms(bits, count))
    return result
