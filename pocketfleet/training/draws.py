"""Every random draw of a run: SplitMix64 over (seed, purpose, indices), the same in any language.

Rules:

1. A *key* is a 64-bit number folded from the experiment's seed, a purpose (a word) and any indices
   (round, device, ...). One more device shifts nobody else's dice; order of execution changes nothing.
2. The ``i``-th number of a key is ``mix(key + (i + 1) * GOLDEN)``, all arithmetic modulo 2**64.
3. A permutation of ``n`` is the stable argsort of the first ``n`` numbers of its key.
4. A *walk* over ``n`` is another permutation, of which any stretch can be had without the rest: a Feistel network of
   six rounds over the least power of four that is at least ``n`` (and 256), numbers of ``n`` and above left out.

Source of the generator: Steele, Lea and Flood 2014, "Fast splittable pseudorandom number generators" (OOPSLA); its
constants are those of Vigna's public-domain splitmix64.c (prng.di.unimi.it), mixer 13 of Stafford's. Feistel networks
as permutations: Luby and Rackoff 1988, "How to construct pseudorandom permutations from pseudorandom functions", SIAM
J. Comput. 17(2); they need four rounds against a distinguisher, six are for the small halves here.
"""

import functools

import numpy as np
import numpy.typing as npt

__all__ = ["draw_key", "mix", "normal", "numbers", "permutation", "permutations", "uniform", "walk", "walk_length"]

UInt64s = npt.NDArray[np.uint64]

# 2**64 divided by the golden ratio, made odd: SplitMix64's increment.
GOLDEN = np.uint64(0x9E3779B97F4A7C15)
# Of its mixer.
_SHIFTS = tuple(np.uint64(bits) for bits in (30, 27, 31))
_FACTORS = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))
# FNV-1a, 64 bit (Fowler, Noll, Vo; RFC 9923): turns a purpose into a number.
_FNV_OFFSET = 0xCBF29CE484222325
_FNV_PRIME = 0x100000001B3
_WORD = (1 << 64) - 1
_ONE = np.uint64(1)


def mix(value: npt.ArrayLike) -> UInt64s:
    """Scramble 64-bit numbers, one to one; any shape, the same shape back."""
    given = np.asarray(value, dtype=np.uint64)
    # A scalar's overflow would warn.
    z: UInt64s = given if given.ndim else given.reshape(1)
    z = z ^ (z >> _SHIFTS[0])
    z *= _FACTORS[0]
    z ^= z >> _SHIFTS[1]
    z *= _FACTORS[1]
    z ^= z >> _SHIFTS[2]
    return z if given.ndim else z.reshape(())


@functools.cache
def _purpose_number(purpose: str) -> int:
    number = _FNV_OFFSET
    for byte in purpose.encode():
        number = ((number ^ byte) * _FNV_PRIME) & _WORD
    return number


@functools.cache
def _first_key(seed: int, purpose: str) -> UInt64s:
    key = mix(np.array([(seed + _purpose_number(purpose)) & _WORD], dtype=np.uint64))
    key.flags.writeable = False
    return key


def draw_key(seed: int | npt.NDArray[np.int64], purpose: str, *indices: npt.ArrayLike) -> UInt64s:
    """Fold a seed, a purpose and indices into keys.

    Args:
        seed: the experiment's seed, 0 or more; an array of seeds makes keys of its shape, with which the indices'
            broadcast.
        purpose: what the draw is for, always with as many indices (the ``i``-th number of a key is the key of its
            index ``i``); two purposes never share numbers.
        indices: non-negative integers or integer arrays that broadcast together.

    Returns:
        ``uint64`` keys in the broadcast shape of ``indices`` (``()`` without any).
    """
    # Of one dimension at least: a scalar's overflow would warn.
    if isinstance(seed, np.ndarray):
        key, scalar = mix(np.atleast_1d(seed).astype(np.uint64) + np.uint64(_purpose_number(purpose))), False
    else:
        key, scalar = _first_key(seed, purpose), True
    for index in indices:
        step = np.asarray(index).astype(np.uint64)
        scalar = scalar and step.ndim == 0
        # Adding before mixing keeps (a, b) and (b, a) apart, since mix is applied between the two.
        key = mix(key + (step.reshape(step.shape or 1) + _ONE) * GOLDEN)
    return key.reshape(()) if scalar else key


def numbers(key: npt.ArrayLike, count: int) -> UInt64s:
    """The first ``count`` numbers of each key: shape ``[..., count]``."""
    return mix(np.asarray(key, dtype=np.uint64)[..., np.newaxis] + _steps(count))


@functools.cache
def _steps(count: int) -> UInt64s:
    steps = np.arange(1, count + 1, dtype=np.uint64) * GOLDEN
    steps.flags.writeable = False
    return steps


def uniform(key: npt.ArrayLike, count: int) -> npt.NDArray[np.float64]:
    """Numbers in [0, 1) with 53 random bits: shape ``[..., count]``."""
    between: npt.NDArray[np.float64] = (numbers(key, count) >> np.uint64(11)).astype(np.float64)
    between *= 2.0**-53
    return between


def normal(key: npt.ArrayLike, count: int) -> npt.NDArray[np.float64]:
    """Standard normal numbers by the Box-Muller transform: shape ``[..., count]``."""
    pairs = uniform(key, 2 * count)
    radius = np.sqrt(-2.0 * np.log1p(-pairs[..., :count]))
    result: npt.NDArray[np.float64] = radius * np.cos(2.0 * np.pi * pairs[..., count:])
    return result


def permutation(key: npt.ArrayLike, count: int) -> npt.NDArray[np.int64]:
    """The order of ``range(count)`` that a scalar key draws; shape ``[count]``."""
    return np.argsort(numbers(key, count), kind="stable").astype(np.int64)


def permutations(keys: npt.ArrayLike, counts: npt.NDArray[np.int64], width: int) -> npt.NDArray[np.int64]:
    """``permutation(keys[i], counts[i])`` for each ``i``, ``[..., width]``; what is beyond a count stays in its place.

    Args:
        keys: ``[...]``.
        counts: as broadcast against ``keys``, at most ``width``.
        width: of the table.
    """
    beyond = np.arange(width) >= counts[..., np.newaxis]
    # The sort is stable: the largest number that could be drawn stays in front of what is beyond.
    drawn = np.where(beyond, np.uint64(_WORD), numbers(keys, width))
    return np.argsort(drawn, axis=-1, kind="stable").astype(np.int64)


_WALK_ROUNDS = 6
_LEAST_WALK_BITS = 8


def walk_length(count: int) -> int:
    """How many places a walk over ``range(count)`` has; some of them hold no number."""
    bits = max(_LEAST_WALK_BITS, (count - 1).bit_length())
    return 1 << (bits + bits % 2)


def walk(key: npt.ArrayLike, count: int, start: int, stop: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """A stretch of the walk over ``range(count)`` that a scalar key draws.

    Args:
        key: of the walk.
        count: numbers to walk over.
        start: first place of the stretch.
        stop: the place after the last, ``walk_length(count)`` at most.

    Returns:
        Places and the numbers at them, ``[k]`` each. Over the whole walk each number comes once.
    """
    half = np.uint64((walk_length(count).bit_length() - 1) // 2)
    mask = (np.uint64(1) << half) - np.uint64(1)
    places = np.arange(start, stop, dtype=np.int64)
    left, right = places.astype(np.uint64) >> half, places.astype(np.uint64) & mask
    for round_key in numbers(key, _WALK_ROUNDS):
        left, right = right, left ^ (mix(right + round_key) & mask)
    number = ((left << half) | right).astype(np.int64)
    within = number < count
    return places[within], number[within]
