"""What holds in a group on its way to a secure sum, without encryption: message sizes, and whether a sum is left.

The rules are those of ``training.privacy.secure_aggregation.server``, which a test holds this against.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pocketfleet.training.privacy.secure_aggregation.messages import STAGES, stage_bytes
from pocketfleet.training.privacy.secure_aggregation.neighbourhood import Neighbourhood
from pocketfleet.training.privacy.secure_aggregation.settings import SecureSettings

__all__ = ["SecureGroup"]

Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]
Int8s = npt.NDArray[np.int8]


@dataclass(frozen=True, slots=True)
class SecureGroup:
    """The rules of one group."""

    settings: SecureSettings
    neighbourhood: Neighbourhood

    def stage_bytes(self, stage: int) -> tuple[int, int]:
        """What each member receives and sends at a stage."""
        sizes = stage_bytes(STAGES[stage], settings=self.settings, degree=self.neighbourhood.degree)
        return sizes.down, sizes.up

    def no_sum(self, stage: int, answered: Int8s) -> str:
        """Why there can be no sum after a stage; empty: there can.

        Args:
            stage: that is over.
            answered: stages that each member answered, ``[n]``.
        """
        present = answered > stage
        minimum = self.settings.minimum
        if stage < 2 and present.sum() < minimum:
            return f"{present.sum()} of {len(present)} members answered {STAGES[stage]!r}, {minimum} must"
        needed = present if stage == 0 else self._needed(answered)
        short = needed & (self.neighbourhood.holders_among(present) < self.neighbourhood.threshold)
        if short.any():
            return f"of the secrets of {short.sum()} members fewer than {self.neighbourhood.threshold} holders are left"
        if stage == 1 and not self.neighbourhood.connected(present):
            return "those that are left fall into parts without a neighbour in common"
        return ""

    def enough_s(self, answered: Int8s, answer_s: Floats) -> float:
        """When the shares are there that unmask the sum, infinite: never.

        Args:
            answered: stages that each member answered before the last one, ``[n]``.
            answer_s: when each answers that, infinite if it does not, ``[n]``.
        """
        own = np.arange(len(answered))[:, np.newaxis]
        holders_s = np.sort(answer_s[np.concatenate([self.neighbourhood.neighbours, own], axis=1)], axis=1)
        return float(holders_s[self._needed(answered), self.neighbourhood.threshold - 1].max(initial=-np.inf))

    def _needed(self, answered: Int8s) -> Bools:
        """Whose secrets the sum takes: of those in it, and of those that shared masks with one in it."""
        in_sum = answered > 1
        touched = in_sum[self.neighbourhood.neighbours].any(axis=1)
        needed: Bools = in_sum | ((answered == 1) & touched)
        return needed
