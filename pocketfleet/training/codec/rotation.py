"""A seeded random rotation of a flat vector: afterwards no value sticks out, and each holds a little of all.

Rules:

1. The vector is cut into blocks of powers of two: of 4,096 values as long as there are so many, the rest by the binary
   digits of its length, the largest first. What is left under 64 values is padded with zeros to 64, so that less
   than 64 values are sent for nothing.
2. The sign of value ``i`` (padding included) is turned where bit ``i % 64`` of number ``i // 64`` of the seed's key
   ``rotation`` is 1.
3. Each block of ``n`` values goes through the Walsh-Hadamard transform: for ``h`` = 1, 2, 4, ... ``n / 2``, every pair
   ``a`` at ``j``, ``b`` at ``j + h`` (``j`` without bit ``h``) becomes ``a + b`` and ``a - b``; then all are
   multiplied by ``1 / sqrt(n)``, rounded to float32. All arithmetic is float32, each operation rounded.
4. The way back is rule 3, then rule 2; it gives the vector but for rounding.

Source: Suresh et al. 2017, "Distributed Mean Estimation with Limited Communication", arXiv:1611.00429, section 3;
Konecny et al. 2016, "Federated Learning: Strategies for Improving Communication Efficiency", arXiv:1610.05492,
section 3.2. They pad a whole vector to one power of two.
"""

import functools
import math

import numpy as np
import numpy.typing as npt

from pocketfleet.training.draws import draw_key, numbers

__all__ = ["block_lengths", "padded_length", "rotated", "rotated_back"]

Float32s = npt.NDArray[np.float32]

# A block's values spread over all of it: a few thousand make the largest of them some four standard deviations, and
# larger blocks hardly less, at more additions a value.
_BLOCK = 4_096
# Blocks turned at a time: what they need stays in a core's cache.
_AT_ONCE = 32
# Under so many values a block is padded: more blocks, each smaller, would spread nothing.
_LEAST = 64


@functools.cache
def block_lengths(length: int) -> tuple[int, ...]:
    """Rule 1: the blocks that a vector of ``length`` values is cut into, in order."""
    whole, rest = divmod(length, _BLOCK)
    blocks = [_BLOCK] * whole
    size = _BLOCK // 2
    while size >= _LEAST:
        if rest >= size:
            blocks.append(size)
            rest -= size
        size //= 2
    return (*blocks, *([_LEAST] if rest else []))


def padded_length(length: int) -> int:
    """How many values a rotated vector of ``length`` values has: less than 64 more."""
    return -(-length // _LEAST) * _LEAST


def rotated(vector: Float32s, seed: int) -> Float32s:
    """Rotate.

    Args:
        vector: ``[d]``.
        seed: that the way back is given too, 0 or more.

    Returns:
        ``[padded_length(d)]``; its norm is the vector's but for rounding.
    """
    padded = np.zeros(padded_length(len(vector)), dtype=np.float32)
    padded[: len(vector)] = vector
    padded *= _signs(seed, len(padded))
    return _transformed(padded)


def rotated_back(vector: Float32s, seed: int, *, length: int) -> Float32s:
    """The vector ``[length]`` that ``rotated`` made ``vector`` ``[padded_length(length)]`` of, but for rounding."""
    back = _transformed(vector)
    back *= _signs(seed, len(vector))
    return back[:length]


# A round's devices share the seed.
@functools.lru_cache(maxsize=4)
def _signs(seed: int, length: int) -> Float32s:
    """Rule 2: 1 or -1, ``[length]``; the length is a multiple of 64."""
    drawn = numbers(draw_key(seed, "rotation"), length // 64).astype("<u8")
    bits = np.unpackbits(drawn.view(np.uint8), bitorder="little")
    signs = (1.0 - 2.0 * bits).astype(np.float32)
    signs.flags.writeable = False
    return signs


def _transformed(vector: Float32s) -> Float32s:
    """Rule 3."""
    result = np.empty_like(vector)
    start = 0
    while start < len(vector):
        size = min(_BLOCK, 1 << ((len(vector) - start).bit_length() - 1))
        # Blocks of one size side by side, as the last axis: every pass then adds long rows.
        count = min((len(vector) - start) // size, _AT_ONCE)
        stop = start + count * size
        result[start:stop] = _walsh_hadamard(vector[start:stop].reshape(count, size).T).T.reshape(-1)
        start = stop
    return result


def _walsh_hadamard(columns: Float32s) -> Float32s:
    """The transform of each column of ``[n, m]``."""
    size, count = columns.shape
    values, other = np.array(columns, order="C"), np.empty((size, count), dtype=np.float32)
    half = 1
    while half < size:
        pairs, sums = (array.reshape(size // (2 * half), 2, half, count) for array in (values, other))
        np.add(pairs[:, 0], pairs[:, 1], out=sums[:, 0])
        np.subtract(pairs[:, 0], pairs[:, 1], out=sums[:, 1])
        values, other = other, values
        half *= 2
    values *= np.float32(1.0 / math.sqrt(size))
    return values
