"""Uniform quantisation of a flat vector to 8, 4 or 2 bits a value: whole steps up or down, and a step a block.

Rules:

1. The vector is made of pieces (a model's tensors; one piece where it was rotated or thinned); each is cut into blocks
   of 1,024 values, the last as long as it comes out.
2. With ``bits`` there are levels ``-L .. L``, ``L = 2 ** (bits - 1) - 1``. A block's *step* is its largest absolute
   value divided by ``L``; 0 where that value is below ``2 ** -100``, and then the block arrives as zeros.
3. Value ``x`` is ``y = x / step`` steps (``x`` where the step is 0), and its code ``floor(y + (L + u))``, taken into
   ``0 .. 2 * L``; it arrives as ``(code - L) * step``.
4. *Stochastic*: ``u = (dice + 0.5) / 65,536``. The dice of values ``4 * j`` to ``4 * j + 3`` of the vector are the 16
   bits each, lowest first, of number ``j`` of the device's key ``codec_dice``. The mean over the dice is ``x``, but for
   ``2 ** -16`` of a step at most (the dice are multiples of ``2 ** -16``, the sum of ``y`` and ``L + u`` is rounded in
   float32), and the variance at most ``step ** 2 / 4``.
5. *Nearest*: ``u = 0.5``. Of error feedback, which needs what stays behind to be less than what there was
   (Karimireddy et al. 2019, arXiv:1901.09847, section 3); at 2 bits the dice may leave more.
6. All arithmetic is float32, each operation rounded, in the order written.

Source: QSGD, Alistarh et al. 2017, arXiv:1610.02132, section 3.1, with the largest value in place of the Euclidean
norm, as their section 4 scales their buckets (``max-norm``).
"""

import functools
import itertools
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pocketfleet.training.draws import GOLDEN, draw_key, mix

__all__ = ["Blocks", "blocks_of", "dequantised", "levels", "quantised"]

Float32s = npt.NDArray[np.float32]
Int64s = npt.NDArray[np.int64]
UInt8s = npt.NDArray[np.uint8]

# A step costs as much as four codes of 8 bits: 0.4 % of the bytes. Fewer values a block are worth less than that.
_BLOCK = 1_024
# Its square and its inverse are float32 numbers still.
_SMALLEST = np.float32(2.0**-100)
# Values computed at a time, in whole blocks: what they need stays in a core's cache.
_AT_ONCE = 1 << 15


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Blocks:
    """Where the blocks of a vector of ``total`` values begin, and their lengths, ``[b]`` each."""

    start: Int64s
    length: Int64s
    total: int


@functools.lru_cache(maxsize=16)
def blocks_of(pieces: tuple[int, ...]) -> Blocks:
    """Rule 1: the blocks of pieces of so many values, one after another."""
    lengths = [min(_BLOCK, piece - start) for piece in pieces for start in range(0, piece, _BLOCK)]
    length = np.array(lengths, dtype=np.int64)
    return Blocks(start=np.cumsum(length) - length, length=length, total=sum(pieces))


def levels(bits: int) -> int:
    """Rule 2: ``L``."""
    return int(2 ** (bits - 1) - 1)


def quantised(vector: Float32s, blocks: Blocks, *, bits: int, dice_seed: int | None) -> tuple[UInt8s, Float32s]:
    """Codes and steps.

    Args:
        vector: ``[d]``, finite.
        blocks: of so many values.
        bits: 8, 4 or 2.
        dice_seed: of this device and this update; ``None``: to the nearest level.

    Returns:
        Codes ``[d]`` in ``0 .. 2 * L`` and steps ``[b]``.

    Raises:
        ValueError: a value is not finite.
    """
    most = levels(bits)
    codes, steps = np.empty(len(vector), dtype=np.uint8), np.empty(len(blocks.start), dtype=np.float32)
    key = None if dice_seed is None else draw_key(dice_seed, "codec_dice")
    for first, last in _at_once(blocks):
        start, stop = int(blocks.start[first]), int(blocks.start[last - 1] + blocks.length[last - 1])
        part = vector[start:stop]
        largest = np.maximum.reduceat(np.abs(part), blocks.start[first:last] - start)
        if not bool(np.isfinite(largest).all()):
            raise ValueError("a vector to quantise holds values that are no finite numbers")
        step = largest / np.float32(most)
        step[largest < _SMALLEST] = 0.0
        steps[first:last] = step
        level = part / np.repeat(np.where(step > 0.0, step, np.float32(1.0)), blocks.length[first:last])
        level += np.float32(most + 0.5) if key is None else _dice(key, start, stop, most)
        np.clip(level, 0.0, np.float32(2 * most), out=level)
        codes[start:stop] = level.astype(np.uint8)
    return codes, steps


def dequantised(codes: UInt8s, steps: Float32s, blocks: Blocks, *, bits: int) -> Float32s:
    """The vector ``[d]`` that codes ``[d]`` and steps ``[b]`` stand for."""
    vector = np.empty(len(codes), dtype=np.float32)
    for first, last in _at_once(blocks):
        start, stop = int(blocks.start[first]), int(blocks.start[last - 1] + blocks.length[last - 1])
        part = vector[start:stop]
        np.subtract(codes[start:stop], np.float32(levels(bits)), out=part, dtype=np.float32)
        part *= np.repeat(steps[first:last], blocks.length[first:last])
    return vector


def _at_once(blocks: Blocks) -> list[tuple[int, int]]:
    """First block, and the one after the last, of what is computed at a time."""
    edges = np.arange(0, blocks.total + _AT_ONCE, _AT_ONCE)
    places = np.unique(np.searchsorted(blocks.start, edges)).tolist()
    return list(itertools.pairwise(places))


def _dice(key: npt.NDArray[np.uint64], start: int, stop: int, most: int) -> Float32s:
    """Rule 4: ``L + u`` of the values from ``start`` on, exactly."""
    number = np.arange(start // 4 + 1, -(-stop // 4) + 1, dtype=np.uint64)
    dice = mix(key + number * GOLDEN).astype("<u8", copy=False).view("<u2")[start % 4 :][: stop - start]
    # At most 127 * 65,536 + 65,535.5: float32 holds halves up to 2**23.
    drawn: Float32s = dice.astype(np.float32)
    drawn += np.float32(most * 65_536 + 0.5)
    drawn *= np.float32(2.0**-16)
    return drawn
