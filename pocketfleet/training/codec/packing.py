"""Codes of 8, 4 or 2 bits as bytes: the first code in the lowest bits of a byte, bits left over in the last are 0."""

import numpy as np
import numpy.typing as npt

from pocketfleet.training.update import UpdateError

__all__ = ["packed", "packed_bytes", "unpacked"]

UInt8s = npt.NDArray[np.uint8]


def packed_bytes(count: int, *, bits: int) -> int:
    """How many bytes ``count`` codes take."""
    return -(-count * bits // 8)


def packed(codes: UInt8s, *, bits: int) -> UInt8s:
    """Codes ``[d]``, each under ``2 ** bits``, as bytes ``[packed_bytes(d)]``."""
    each = 8 // bits
    if each == 1:
        return codes
    whole = codes
    if len(codes) % each:
        whole = np.zeros(packed_bytes(len(codes), bits=bits) * each, dtype=np.uint8)
        whole[: len(codes)] = codes
    result: UInt8s = whole[::each].copy()
    for place in range(1, each):
        result |= whole[place::each] << np.uint8(place * bits)
    return result


def unpacked(data: UInt8s, *, bits: int, count: int) -> UInt8s:
    """The ``count`` codes of ``packed`` bytes.

    Raises:
        UpdateError: there are more or fewer bytes, or bits left over are not 0.
    """
    wanted = packed_bytes(count, bits=bits)
    if len(data) != wanted:
        raise UpdateError(f"{count} codes of {bits} bits take {wanted} bytes, got {len(data)}")
    each = 8 // bits
    if each == 1:
        return data
    codes = np.empty((len(data), each), dtype=np.uint8)
    for place in range(each):
        codes[:, place] = (data >> np.uint8(place * bits)) & np.uint8(2**bits - 1)
    flat = codes.reshape(-1)
    if flat[count:].any():
        raise UpdateError(f"the bits after {count} codes of {bits} bits must be 0")
    return flat[:count]
