"""What the devices and the server of a secure sum agree on before the first message: the vector and its ring."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["RingVector", "SecureSettings"]

RingVector = npt.NDArray[np.unsignedinteger]
"""Numbers of a ring, ``[vector_length]``, of the settings' ``dtype``."""

_WORD_BYTES = (1, 2, 4, 8)


@dataclass(frozen=True, slots=True, kw_only=True)
class SecureSettings:
    """The vector that each member masks.

    Attributes:
        vector_length: numbers of a vector, 1 or more.
        ring_bytes: 1 to 8; the numbers are those of the ring of integers modulo ``2 ** (8 * ring_bytes)``.
        minimum: members without which there is no sum, at any stage, 2 or more. Devices refuse to unmask below it,
            so it is theirs as much as the server's.

    Raises:
        ValueError: one of them is out of its range.
    """

    vector_length: int
    ring_bytes: int
    minimum: int = 2

    def __post_init__(self) -> None:
        for name, least, most in (("vector_length", 1, 2**40), ("ring_bytes", 1, 8), ("minimum", 2, 2**31)):
            value = getattr(self, name)
            if not least <= value <= most:
                raise ValueError(f"{name} of a secure sum must be {least}..{most}, got {value}")

    @property
    def dtype(self) -> np.dtype[np.unsignedinteger]:
        """Of a number while it is computed with: the least unsigned word that holds ``ring_bytes``, little-endian."""
        word_bytes = next(size for size in _WORD_BYTES if size >= self.ring_bytes)
        return np.dtype(f"<u{word_bytes}")

    @property
    def ring(self) -> int:
        """How many numbers the ring has."""
        return 1 << (8 * self.ring_bytes)
