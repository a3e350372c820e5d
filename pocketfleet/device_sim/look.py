"""What devices find when they look whether they may train."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from pocketfleet.device_sim.eligibility import Reason

__all__ = ["Look"]

Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]
Int8s = npt.NDArray[np.int8]
Int64s = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What devices found about themselves, each at its own time; columns ``[n]``.

    Attributes:
        reason: ``eligibility.Reason``.
        level_joules: in the battery; known only where nothing but battery and skin could stand in the way.
        skin_celsius: likewise; NaN also where nothing warms.
    """

    device: Int64s
    at_s: Floats
    reason: Int8s
    level_joules: Floats
    skin_celsius: Floats

    @property
    def eligible(self) -> Bools:
        """Who may train."""
        eligible: Bools = self.reason == Reason.ELIGIBLE
        return eligible

    def rows(self, chosen: npt.NDArray[Any]) -> "Look":
        """The same of some, by indices or a mask."""
        return Look(
            device=self.device[chosen],
            at_s=self.at_s[chosen],
            reason=self.reason[chosen],
            level_joules=self.level_joules[chosen],
            skin_celsius=self.skin_celsius[chosen],
        )

    @classmethod
    def of_nobody(cls) -> Self:
        """No look at all."""
        none = np.empty(0)
        return cls(
            device=np.empty(0, dtype=np.int64),
            at_s=none,
            reason=np.empty(0, dtype=np.int8),
            level_joules=none,
            skin_celsius=none,
        )

    @classmethod
    def joined(cls, looks: Sequence[Self]) -> Self:
        """Several looks, one or more, as one, in their order."""
        names = ("device", "at_s", "reason", "level_joules", "skin_celsius")
        return cls(**{name: np.concatenate([getattr(look, name) for look in looks]) for name in names})
