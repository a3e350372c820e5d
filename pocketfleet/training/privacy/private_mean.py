"""DP-FedAvg's server: a mean of clipped updates with noise on it (McMahan et al. 2018, arXiv:1710.06963, algorithm 1).

1. Every device counts alike, and its update is clipped by the server as it comes, decoded: what a codec rounds up
   cannot make it longer.
2. Noise of ``noise_multiplier * max_norm`` is added to each coordinate of the sum, which is then divided by the number
   of accepted reports. That number is public; an update that is no finite number adds zeros to the sum and counts.
3. The norm is the server's state, and stays, or follows a quantile; see ``clipping``.
"""

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch

from pocketfleet.training.privacy.clipping import AdaptiveClipping
from pocketfleet.training.privacy.gaussian_noise import noised
from pocketfleet.training.privacy.random_bits import BitSource
from pocketfleet.training.update import Update
from pocketfleet.training.weights import Tensors

__all__ = ["PrivateMean"]

Float64s = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
_MAX_NORM = "max_norm"


@dataclass(frozen=True, slots=True, kw_only=True)
class PrivateMean:
    """What the server does to a round's mean.

    Attributes:
        noise_multiplier: of all that a round gives away, 0 or more.
        max_norm: of the first round.
        adaptive: how the norm moves; ``None``: it stays.
        bits: where noise comes from.
    """

    noise_multiplier: float
    max_norm: float
    adaptive: AdaptiveClipping | None
    bits: BitSource

    def init(self) -> Tensors:
        """The state before the first round."""
        return {_MAX_NORM: torch.tensor(self.max_norm, dtype=torch.float64)}

    def norm_of(self, state: Tensors) -> float:
        """To which the next round's updates are clipped."""
        return float(state[_MAX_NORM])

    def check(self) -> None:
        """Whether the noise can be divided between updates and count.

        Raises:
            InputError: see ``AdaptiveClipping.update_multiplier``.
        """
        _ = self.update_multiplier

    @property
    def update_multiplier(self) -> float:
        """Of the noise on the updates alone."""
        if self.adaptive is None:
            return self.noise_multiplier
        return self.adaptive.update_multiplier(self.noise_multiplier)

    def step(
        self, mean: Update, *, norms: Float64s, finite: Bools, version: int, state: Tensors
    ) -> tuple[Update, Tensors]:
        """Rules 2 and 3.

        Args:
            mean: of the clipped updates that are finite.
            norms: ``[n]`` of all updates before they were clipped, one or more of them finite.
            finite: ``[n]``, whether they are.
            version: of the model that is made, for the bits.
            state: of this round.

        Returns:
            The mean with noise, in float64, and the next state.
        """
        count, counted = len(norms), int(finite.sum())
        max_norm = self.norm_of(state)
        summed = {name: value * counted for name, value in mean.delta.items()}
        stddev = self.update_multiplier * max_norm
        total = noised(summed, stddev=stddev, bits=self.bits("privacy_noise", version))
        private = replace(mean, delta={name: value / count for name, value in total.items()})
        if self.adaptive is None:
            return private, state
        bits = self.bits("privacy_count", version) if self.noise_multiplier else None
        next_norm = self.adaptive.next_norm(max_norm, norms=norms, counted=finite, bits=bits)
        return private, {_MAX_NORM: torch.tensor(next_norm, dtype=torch.float64)}
