"""Whole numbers, negative ones too, in the ring of a secure sum: how large it must be, there and back.

A number ``x`` is ``x`` modulo the ring; a sum is right as long as its absolute value is below half of the ring.
"""

import numpy as np
import numpy.typing as npt

from pocketfleet.training.privacy.secure_aggregation.settings import RingVector, SecureSettings

__all__ = ["from_ring", "needed_ring_bytes", "to_ring"]

Int64s = npt.NDArray[np.int64]


def needed_ring_bytes(largest: int) -> int:
    """Bytes a number of the least ring in which a sum of up to ``largest``, of either sign, is right.

    Raises:
        ValueError: it would need more than 8.
    """
    ring_bytes = -(-(largest.bit_length() + 1) // 8)
    if not 1 <= ring_bytes <= 8:
        raise ValueError(f"a sum of a secure round must be below 2**63, it can be {largest}")
    return ring_bytes


def to_ring(numbers: Int64s, settings: SecureSettings) -> RingVector:
    """Whole numbers ``[vector_length]`` as numbers of the ring, of the settings' ``dtype``."""
    low = numbers.astype(np.int64).view(np.uint64) & np.uint64(settings.ring - 1)
    return low.astype(settings.dtype)


def from_ring(vector: RingVector, settings: SecureSettings) -> Int64s:
    """The whole numbers of least absolute value: those that were summed, if they are below half of the ring."""
    # Shifted up so that the ring's highest bit is the sign, and back, which repeats the sign.
    spare = np.uint64(64 - 8 * settings.ring_bytes)
    numbers: Int64s = (vector.astype(np.uint64) << spare).view(np.int64) >> np.int64(spare)
    return numbers
