"""A population's cap: which devices were ever admitted, and whether a further one still may be."""

import numpy as np

from pocketfleet.training.round import Bools, Int64s

__all__ = ["Admission"]


class Admission:
    """Devices admitted so far, at most ``cap`` of them; 0: everybody is, and nothing is kept."""

    def __init__(self, *, cap: int, population: int) -> None:
        self.cap = cap
        self._admitted: Bools = np.zeros(population if cap else 0, np.bool_)
        self._free = cap

    def allowed(self, device: Int64s) -> Bools | None:
        """Who of distinct devices ``[n]``, in their order, is admitted or may be; ``None``: all."""
        if self.cap == 0:
            return None
        admitted = self._admitted[device]
        allowed: Bools = admitted | ((~admitted).cumsum() <= self._free)
        return allowed

    def admit(self, device: Int64s) -> None:
        """Admit distinct devices that are allowed."""
        if self.cap:
            self._free -= int((~self._admitted[device]).sum())
            self._admitted[device] = True

    def copy(self) -> "Admission":
        """The same, to go its own way."""
        copied = Admission(cap=self.cap, population=0)
        copied._admitted, copied._free = self._admitted.copy(), self._free
        return copied

    @property
    def devices(self) -> Int64s:
        """Those admitted, rising; for a checkpoint."""
        return np.flatnonzero(self._admitted).astype(np.int64)
