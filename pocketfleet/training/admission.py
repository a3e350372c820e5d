"""Which devices may still take part: a population's cap on how many, a cap on how often each is in a model."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from pocketfleet.training.round import Bools, Int64s

__all__ = ["Admission"]


class Admission:
    """Devices admitted so far, and in how many models each is.

    Args:
        cap: distinct devices at most; 0: everybody is admitted, and nothing is kept of it.
        max_participations: models that a device's reports are in at most; 0: any number, and nothing is kept of it.
        population: how many devices there are.
    """

    def __init__(self, *, cap: int, population: int, max_participations: int = 0) -> None:
        self.cap, self.max_participations = cap, max_participations
        self._admitted: Bools = np.zeros(population if cap else 0, np.bool_)
        self._free = cap
        self._participations: Int64s = np.zeros(population if max_participations else 0, np.int64)

    def allowed(self, device: Int64s) -> Bools | None:
        """Who of distinct devices ``[n]``, in their order, may take part; ``None``: all."""
        if self.cap == 0:
            return ~self.spent(device) if self.max_participations else None
        admitted = self._admitted[device]
        allowed: Bools = admitted | ((~admitted).cumsum() <= self._free)
        return allowed & ~self.spent(device)

    def spent(self, device: Int64s) -> Bools:
        """Who of ``[n]`` devices is in as many models as a device may be; it was admitted, if anybody is."""
        if self.max_participations == 0:
            return np.zeros(len(device), np.bool_)
        spent: Bools = self._participations[device] >= self.max_participations
        return spent

    @property
    def num_spent(self) -> int:
        """How many devices are in as many models as they may be."""
        return int((self._participations >= self.max_participations).sum())

    def exhausted(self, minimum: int) -> bool:
        """Whether fewer than ``minimum`` devices may still be in a model, ever."""
        if not self.max_participations:
            return False
        able = self._participations < self.max_participations
        if not self.cap:
            return int(able.sum()) < minimum
        admissible = min(self._free, int((~self._admitted).sum()))
        return int((able & self._admitted).sum()) + admissible < minimum

    def admit(self, device: Int64s) -> None:
        """Admit distinct devices that are allowed."""
        if self.cap:
            self._free -= int((~self._admitted[device]).sum())
            self._admitted[device] = True

    def count(self, device: Int64s) -> None:
        """Distinct devices are in a model more."""
        if self.max_participations:
            self._participations[device] += 1

    def copy(self) -> "Admission":
        """The same, to go its own way."""
        copied = Admission(cap=self.cap, population=0, max_participations=self.max_participations)
        copied._admitted, copied._free = self._admitted.copy(), self._free
        copied._participations = self._participations.copy()
        return copied

    def state(self) -> dict[str, npt.NDArray[Any]]:
        """Arrays for a checkpoint."""
        return {
            "admitted": np.flatnonzero(self._admitted).astype(np.int64),
            "participations": self._participations.copy(),
        }

    def restore(self, state: Mapping[str, npt.NDArray[Any]]) -> None:
        """Continue from what ``state`` returned, of an admission by the same caps."""
        self.admit(state["admitted"])
        self._participations = state["participations"].copy()
