"""What is done to a flat vector, one step after another, before its values are written: each can be gone back.

A stage makes a vector of another length out of one, and at most some bytes that travel beside it (``side``).
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from pocketfleet.training.codec.random_k import chosen, kept_count, spread, unbiased_factor
from pocketfleet.training.codec.rotation import padded_length, rotated, rotated_back
from pocketfleet.training.codec.top_k import largest, place_bytes, places_from_bytes, places_to_bytes

__all__ = ["RandomK", "Rotation", "Stage", "TopK"]

Float32s = npt.NDArray[np.float32]
UInt8s = npt.NDArray[np.uint8]


class Stage(Protocol):
    """The seam; ``length`` is always that of the vector before the stage."""

    def made_length(self, length: int) -> int:
        """Of the vector after the stage."""
        ...

    def side_bytes(self, length: int) -> int:
        """Of what travels beside it."""
        ...

    def apply(self, vector: Float32s, seed: int) -> tuple[Float32s, UInt8s]:
        """The vector after the stage, and what travels beside it; ``seed`` is the shared one."""
        ...

    def undo(self, vector: Float32s, side: UInt8s, seed: int, *, length: int) -> Float32s:
        """The vector before the stage, as far as it can be known; ``UpdateError``: ``side`` is none."""
        ...


_NOTHING: UInt8s = np.empty(0, dtype=np.uint8)


@dataclass(frozen=True, slots=True)
class Rotation:
    """See ``rotation``."""

    def made_length(self, length: int) -> int:
        """With what is padded."""
        return padded_length(length)

    def side_bytes(self, length: int) -> int:  # noqa: ARG002 - as the seam has it
        """Nothing."""
        return 0

    def apply(self, vector: Float32s, seed: int) -> tuple[Float32s, UInt8s]:
        """Rotate."""
        return rotated(vector, seed), _NOTHING

    def undo(self, vector: Float32s, side: UInt8s, seed: int, *, length: int) -> Float32s:  # noqa: ARG002 - likewise
        """Rotate back."""
        return rotated_back(vector, seed, length=length)


@dataclass(frozen=True, slots=True, kw_only=True)
class RandomK:
    """See ``random_k``; ``unbiased``: what arrives is scaled up."""

    ratio: float
    unbiased: bool

    def made_length(self, length: int) -> int:
        """The kept."""
        return kept_count(length, self.ratio)

    def side_bytes(self, length: int) -> int:  # noqa: ARG002 - as the seam has it
        """Nothing."""
        return 0

    def apply(self, vector: Float32s, seed: int) -> tuple[Float32s, UInt8s]:
        """Keep a few."""
        return vector[self._places(len(vector), seed)], _NOTHING

    def undo(self, vector: Float32s, side: UInt8s, seed: int, *, length: int) -> Float32s:  # noqa: ARG002 - likewise
        """The kept at their places."""
        values = vector * unbiased_factor(length, len(vector)) if self.unbiased else vector
        return spread(values, self._places(length, seed), length=length)

    def _places(self, length: int, seed: int) -> npt.NDArray[np.int64]:
        return chosen(length, count=self.made_length(length), seed=seed)


@dataclass(frozen=True, slots=True, kw_only=True)
class TopK:
    """See ``top_k``."""

    ratio: float

    def made_length(self, length: int) -> int:
        """The kept."""
        return kept_count(length, self.ratio)

    def side_bytes(self, length: int) -> int:
        """Their places."""
        return self.made_length(length) * place_bytes(length)

    def apply(self, vector: Float32s, seed: int) -> tuple[Float32s, UInt8s]:  # noqa: ARG002 - as the seam has it
        """Keep the largest."""
        places = largest(vector, self.made_length(len(vector)))
        return vector[places], places_to_bytes(places, length=len(vector))

    def undo(self, vector: Float32s, side: UInt8s, seed: int, *, length: int) -> Float32s:  # noqa: ARG002 - likewise
        """The kept at their places."""
        return spread(vector, places_from_bytes(side, length=length), length=length)
