"""Top-k: the few values of a vector that are largest in size, and where they are.

Rules:

1. ``k`` is ``ratio * d`` in float64, rounded up. Kept are the ``k`` largest absolute values, of equal ones the first.
   Values and places travel in rising order of places.
2. A place is ``w`` bytes, the lowest first; ``w`` is the least that holds ``d - 1``: 2 up to 65,536 values, 3 up to
   16,777,216.
3. It leaves out the same small values again and again: its mean is not the vector. Error feedback sends them once they
   have added up.

Source: Stich et al. 2018, "Sparsified SGD with Memory", arXiv:1809.07599, definition 2.1 (top_k) and algorithm 1.
"""

import numpy as np
import numpy.typing as npt

from pocketfleet.training.update import UpdateError

__all__ = ["largest", "place_bytes", "places_from_bytes", "places_to_bytes"]

Float32s = npt.NDArray[np.float32]
Int64s = npt.NDArray[np.int64]
UInt8s = npt.NDArray[np.uint8]


def largest(vector: Float32s, count: int) -> Int64s:
    """Rule 1: the places of the ``count`` largest of ``[d]`` finite values, rising."""
    if count == 0:
        return np.empty(0, dtype=np.int64)
    size = np.abs(vector)
    least = np.partition(size, len(size) - count)[len(size) - count]
    above = np.flatnonzero(size > least)
    equal = np.flatnonzero(size == least)[: count - len(above)]
    return np.sort(np.concatenate([above, equal])).astype(np.int64)


def place_bytes(length: int) -> int:
    """Rule 2: ``w``, of a vector of ``length`` values."""
    return max(1, -(-max(length - 1, 0).bit_length() // 8))


def places_to_bytes(places: Int64s, *, length: int) -> UInt8s:
    """Places ``[k]`` in a vector of ``length`` values as bytes ``[k * w]``."""
    wide = np.ascontiguousarray(places, dtype="<u8").view(np.uint8).reshape(-1, 8)
    return np.ascontiguousarray(wide[:, : place_bytes(length)]).reshape(-1)


def places_from_bytes(data: UInt8s, *, length: int) -> Int64s:
    """The places ``[k]`` of bytes ``[k * w]``.

    Raises:
        UpdateError: they do not rise, or one is beyond the vector.
    """
    width = place_bytes(length)
    wide = np.zeros((len(data) // width, 8), dtype=np.uint8)
    wide[:, :width] = data.reshape(-1, width)
    places = wide.reshape(-1).view("<u8").astype(np.int64)
    if bool((np.diff(places) <= 0).any()) or (len(places) and int(places[-1]) >= length):
        raise UpdateError(f"places of kept values must rise and be under {length}")
    return places
