"""Seeded random-k: the values of a few coordinates, the same for all devices of a round, and no indices on the wire.

Rules:

1. Of ``d`` coordinates, those with the ``k`` smallest of the first ``d`` numbers of the seed's key ``random_k`` are
   kept, of equal numbers the first: they are the first ``k`` of ``draws.permutation``. They travel in rising order.
2. ``k`` is ``ratio * d`` in float64, rounded up.
3. Without error feedback what arrives is multiplied by ``d / k``, rounded to float32, so that its mean over the seeds
   is the vector; with it nothing is, and what stays behind is sent later.

Source: Konecny et al. 2016, arXiv:1610.05492, section 3.2 (random subsampling by a shared seed); Stich et al. 2018,
"Sparsified SGD with Memory", arXiv:1809.07599, definition 2.1 (rand_k) and algorithm 1 (the memory).
"""

import functools
import math

import numpy as np
import numpy.typing as npt

from pocketfleet.training.draws import draw_key, numbers

__all__ = ["chosen", "kept_count", "spread", "unbiased_factor"]

Float32s = npt.NDArray[np.float32]
Int64s = npt.NDArray[np.int64]


def kept_count(length: int, ratio: float) -> int:
    """Rule 2: how many of ``length`` coordinates are kept; ``ratio`` is above 0 and at most 1."""
    return min(length, math.ceil(ratio * length))


# A round's devices share the seed.
@functools.lru_cache(maxsize=4)
def chosen(length: int, *, count: int, seed: int) -> Int64s:
    """Rule 1: which ``count`` of ``length`` coordinates are kept, rising; not to be written to."""
    drawn = numbers(draw_key(seed, "random_k"), length)
    if count == 0:
        places = np.empty(0, dtype=np.int64)
    else:
        largest = np.partition(drawn, count - 1)[count - 1]
        below = np.flatnonzero(drawn < largest)
        equal = np.flatnonzero(drawn == largest)[: count - len(below)]
        places = np.sort(np.concatenate([below, equal])).astype(np.int64)
    places.flags.writeable = False
    return places


def spread(values: Float32s, places: Int64s, *, length: int) -> Float32s:
    """A vector ``[length]`` of ``values`` ``[k]`` at ``places`` ``[k]``, 0 elsewhere."""
    vector = np.zeros(length, dtype=np.float32)
    vector[places] = values
    return vector


def unbiased_factor(length: int, count: int) -> np.float32:
    """Rule 3: ``d / k``."""
    return np.float32(length / count) if count else np.float32(1.0)
