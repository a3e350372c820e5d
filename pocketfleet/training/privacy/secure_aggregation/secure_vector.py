"""An update as a vector of a secure sum, and the mean update out of the sum.

The delta as one flat vector (``codec.flat_vector``), rotated where asked (``codec.rotation``), a few coordinates of it
where asked (``codec.random_k``; all members draw the same, from a seed that they share), then ``fixed_point``. The way
back is the same in reverse, on the mean: all of it is linear. A mean of a few coordinates is multiplied by ``d / k``,
so that over the seeds it is the mean of all.

A rotated delta's values are about its norm divided by the root of their number, whatever its shape: a ``value_range``
then fits all coordinates alike.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from pocketfleet.errors import InputError
from pocketfleet.training.codec.flat_vector import flat_vector, piece_lengths
from pocketfleet.training.codec.random_k import chosen, kept_count
from pocketfleet.training.codec.rotation import padded_length, rotated, rotated_back
from pocketfleet.training.draws import draw_key
from pocketfleet.training.privacy.distributed_gaussian import DistributedGaussian
from pocketfleet.training.privacy.random_bits import Bits
from pocketfleet.training.privacy.secure_aggregation.fixed_point import HEAD, FixedPoint
from pocketfleet.training.privacy.secure_aggregation.ring import from_ring, needed_ring_bytes, to_ring
from pocketfleet.training.privacy.secure_aggregation.settings import RingVector, SecureSettings
from pocketfleet.training.update import Update

__all__ = ["SecureMean", "SecureVector", "check_summable"]

Float32s = npt.NDArray[np.float32]
Float64s = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class SecureMean:
    """What a sum says.

    Attributes:
        update: weighted mean of the deltas, float64; zeros where the weights sum to zero.
        weight: sum of the weights.
        clipped: values that were cut to the range, of all members together.
    """

    update: Update
    weight: int
    clipped: int


def check_summable(like: Update) -> None:
    """Whether updates like this one can be summed without being read: of a float32 delta and nothing else.

    Raises:
        InputError: they hold more, or other types.
    """
    if like.buffers:
        raise InputError(
            f"secure aggregation sums deltas alone, and the model reports batch-norm statistics "
            f"({', '.join(sorted(like.buffers))}), whose values have no range of their own: use a norm without them, "
            "such as GroupNorm, or leave secure aggregation out"
        )
    if like.extra:
        raise InputError(
            f"secure aggregation sums deltas alone, and the algorithm reports more ({', '.join(sorted(like.extra))}): "
            'choose one that reports deltas, such as algorithm.name = "fedavg", or leave secure aggregation out'
        )
    for name, value in sorted(like.delta.items()):
        if value.dtype != torch.float32:
            raise InputError(
                f"secure aggregation sums float32 deltas, and weight {name!r} is "
                f"{str(value.dtype).removeprefix('torch.')}: convert the model, or leave secure aggregation out"
            )


class SecureVector:
    """The form that members and server agree on.

    Args:
        fixed_point: grid and headroom, of the coordinates as they are sent.
        like: any update of the model.
        rotation: whether the delta is rotated.
        ratio: of the coordinates that are sent, above 0 up to 1.
        max_norm: to which a member clips its coordinates, as one vector, before it adds noise.
        noise_stddev: of a member's noise, see ``distributed_gaussian``; 0: it neither clips nor adds any.

    Raises:
        InputError: updates like this one cannot be summed.
        ValueError: the ratio is out of its range.
    """

    def __init__(
        self,
        fixed_point: FixedPoint,
        like: Update,
        *,
        rotation: bool = False,
        ratio: float = 1.0,
        max_norm: float = 0.0,
        noise_stddev: float = 0.0,
    ) -> None:
        check_summable(like)
        if not 0.0 < ratio <= 1.0:
            raise ValueError(f"the ratio of coordinates sent must be above 0 and at most 1, got {ratio}")
        self.fixed_point = fixed_point
        self.rotation = rotation
        self._like = like
        self._size = sum(piece_lengths(like.delta))
        self._made = padded_length(self._size) if rotation else self._size
        self._kept = kept_count(self._made, ratio)
        self.noise: DistributedGaussian | None = None
        if noise_stddev:
            self.noise = DistributedGaussian(
                max_norm=max_norm, step=fixed_point.step, share_stddev=noise_stddev, size=self._kept
            )

    @property
    def coordinates(self) -> int:
        """How many values travel, besides the weight and the count of cut ones."""
        return self._kept

    def settings(self, *, minimum: int = 2) -> SecureSettings:
        """Of the secure sum; ``minimum`` as there."""
        ring_bytes = self.fixed_point.ring_bytes
        if self.noise is not None:
            ring_bytes = needed_ring_bytes(self.noise.largest(self.fixed_point.cohort))
        return SecureSettings(vector_length=HEAD + self._kept, ring_bytes=ring_bytes, minimum=minimum)

    def encode(
        self,
        update: Update,
        *,
        weight: int,
        shared_seed: int,
        dice_seed: int | None = None,
        bits: Bits | None = None,
    ) -> RingVector:
        """A member's vector.

        Args:
            update: of the model's shapes. One that is not finite is sent as zeros of weight 0: it counts for nothing.
            weight: 0 or more; above ``max_weight`` it counts as that.
            shared_seed: of the round, the same for all members, 0 or more.
            dice_seed: of the member's own: rounding is then at random, to nearest without.
            bits: for the noise, where there is any: all members then weigh 1, and one whose update is not finite sends
                noise alone.

        Raises:
            InputError: the update holds more than a float32 delta.
        """
        check_summable(update)
        if self.noise is not None:
            assert bits is not None, "noise needs bits"
            values = self.values(update, shared_seed) if update.finite else np.zeros(self._kept, np.float32)
            numbers = np.concatenate([[1, 0], self.noise.encode(values.astype(np.float64), bits)])
            return to_ring(numbers, self.settings())
        if update.finite:
            values = self.values(update, shared_seed)
        else:
            values, weight = np.zeros(self._kept, np.float32), 0
        key = None if dice_seed is None else draw_key(dice_seed, "fixed point")
        numbers = self.fixed_point.encode(values, weight=min(weight, self.fixed_point.max_weight), key=key)
        return to_ring(numbers, self.settings())

    def decode(self, total: RingVector, *, shared_seed: int) -> SecureMean:
        """The mean out of the sum.

        Args:
            total: as ``SecureServer.sum`` gives it.
            shared_seed: of the round.
        """
        mean = self.fixed_point.decode(from_ring(total, self.settings()))
        return SecureMean(self.update(mean.values, shared_seed), mean.weight, mean.clipped)

    def values(self, update: Update, shared_seed: int) -> Float32s:
        """The coordinates that travel, ``[coordinates]``, in the update's unit."""
        vector = flat_vector(update.delta)
        if self.rotation:
            vector = rotated(vector, shared_seed)
        return vector[self._places(shared_seed)]

    def update(self, values: Float64s, shared_seed: int) -> Update:
        """The update of a mean of ``values``; float64, from a rotation with float32's precision."""
        whole = np.zeros(self._made)
        whole[self._places(shared_seed)] = values * (self._made / self._kept if self._kept else 1.0)
        if self.rotation:
            whole = rotated_back(whole.astype(np.float32), shared_seed, length=self._size).astype(np.float64)
        ends = np.cumsum(piece_lengths(self._like.delta))
        delta = {
            name: torch.from_numpy(whole[end - value.numel() : end]).reshape(value.shape)
            for (name, value), end in zip(sorted(self._like.delta.items()), ends.tolist(), strict=True)
        }
        return Update({name: delta[name] for name in self._like.delta}, {})

    def _places(self, shared_seed: int) -> npt.NDArray[np.int64]:
        return chosen(self._made, count=self._kept, seed=shared_seed)
